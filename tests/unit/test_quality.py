"""What a stream went through: bursts, lateness, clock, pauses and MOS, against plain references."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm.emodel import DEFAULT_DELAY_MS
from tests.builds import COMPILED, PURE, Build
from tests.unit.test_streams import MS, START, Stream

GMIN = 16


def read(stream: Stream) -> dict[str, Any]:
    row = stream.table.read(stream.slot, True)
    assert row is not None
    return dict(row)


def spoken(build: Build, came: list[bool], first: int = 65_000, name: str = "PCMU") -> Stream:
    """A stream of packets every 20 ms of which some never came; the first and the last one did."""
    stream = Stream(build)
    stream.label(name=name)
    waited = 0.0
    for number, here in enumerate(came):
        waited += 20
        if here:
            stream.packet(first + number, 160 * number, waited)
            waited = 0
    return stream


def bursts_of(came: list[bool]) -> tuple[int, int, int, int, list[int]]:
    """Bursts, packets lost in them, their packets, packets lost in gaps, runs of 1 to 9 and more losses."""
    lost = [number for number, here in enumerate(came) if not here]
    groups: list[list[int]] = []
    for number in lost:
        if groups and number - groups[-1][-1] <= GMIN:
            groups[-1].append(number)
        else:
            groups.append([number])
    bursts = [group for group in groups if len(group) > 1]
    runs = [0] * 10
    length = 0
    for here in [*came, True]:
        if not here:
            length += 1
        elif length:
            runs[min(length, 10) - 1] += 1
            length = 0
    return (
        len(bursts),
        sum(map(len, bursts)),
        sum(group[-1] - group[0] + 1 for group in bursts),
        sum(len(group) == 1 for group in groups),
        runs,
    )


def check_bursts(row: dict[str, Any], came: list[bool]) -> None:
    count, lost, packets, gap_lost, runs = bursts_of(came)
    assert (row["burst_count"], row["burst_lost"], row["gap_lost"]) == (count, lost, gap_lost)
    assert row["loss_runs"] == runs
    assert row["burst_density_pct"] == (pytest.approx(100 * lost / packets) if packets else None)
    assert row["gap_density_pct"] == pytest.approx(100 * gap_lost / (len(came) - packets))
    assert row["lost"] == len(came) - sum(came)
    if count and len(came) > 1:
        assert row["burst_ms"] == pytest.approx(20 * packets / count, rel=1e-6)
        assert row["gap_ms"] == pytest.approx(20 * (len(came) - packets) / (count + 1), rel=1e-6)


def test_bursts_and_gaps_of_rfc_3611(build: Build) -> None:
    """A loss with 16 packets on both sides lies in a gap; with 15 between two of them they are a burst."""
    apart = [True] * 20 + [False] + [True] * 16 + [False] + [True] * 20
    check_bursts(read(spoken(build, apart)), apart)
    assert bursts_of(apart)[0] == 0
    near = [True] * 20 + [False] + [True] * 15 + [False] + [True] * 20
    check_bursts(read(spoken(build, near)), near)
    assert bursts_of(near)[:4] == (1, 2, 17, 0)


@given(
    came=st.lists(st.tuples(st.booleans(), st.integers(1, 90)), max_size=12),
    first=st.sampled_from([0, 1, 65_400, 65_535]),
)
@settings(max_examples=60, deadline=None)
def test_bursts_equal_a_plain_count(came: list[tuple[bool, int]], first: int) -> None:
    packets = [True] + [here for here, count in came for _ in range(count)] + [True]
    for build in (COMPILED, PURE):
        check_bursts(read(spoken(build, packets, first)), packets)


def test_what_came_late_was_not_lost(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    order = [number for pair in range(0, 200, 2) for number in (pair + 1, pair)]
    for number in (0, 1, 2, *[number + 3 for number in order], 203):
        stream.packet(number, 160 * number)
    row = read(stream)
    assert (row["lost"], row["burst_lost"], row["gap_lost"], row["out_of_order"]) == (0, 0, 0, 100)
    assert sum(row["loss_runs"]) == 0


def test_a_new_sequence_is_no_loss(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number in (*range(100), *range(30_000, 30_050), *range(30_060, 30_200)):
        stream.packet(number, 160 * number)
    row = read(stream)
    assert (row["resets"], row["burst_lost"] + row["gap_lost"], row["longest_loss"]) == (1, 10, 10)


@pytest.mark.parametrize("ppm", [-200, -30, 0, 50, 400])
def test_skew_of_the_senders_clock(build: Build, ppm: int) -> None:
    """Through a queue that adds up to 30 ms, and 2 s of 300 ms."""
    dice = random.Random(ppm)
    stream = Stream(build)
    stream.label()
    for number in range(30 * 50):
        sent = number * 20 / (1 + ppm / 1e6)
        queue = dice.random() ** 3 * 30 + (300 if 500 <= number < 600 else 0)
        stream.time = START + int((sent + queue) * MS)
        stream.packet(number, 160 * number, 0)
    assert read(stream)["skew_ppm"] == pytest.approx(ppm, abs=15)


def test_skew_needs_some_seconds(build: Build) -> None:
    assert read(spoken(build, [True] * 100))["skew_ppm"] is None


def test_packets_that_come_too_late(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number in range(500):
        late = 70 if number in (100, 200, 300) else 50 if number == 400 else 0
        stream.time = START + int((number * 20 + late) * MS)
        stream.packet(number, 160 * number, 0)
    row = read(stream)
    assert (row["late"], row["lost"], row["clock_jumps"]) == (3, 0, 0)
    assert row["mos"] < 4.4


def test_a_longer_way_is_late_only_at_first(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number in range(1000):
        stream.time = START + int((number * 20 + (100 if number >= 500 else 0)) * MS)
        stream.packet(number, 160 * number, 0)
    assert 0 < read(stream)["late"] <= 100


def test_a_jump_of_the_senders_clock(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number in range(500):
        stream.packet(number, 160 * number + (8000 * 3600 if number >= 250 else 0))
    row = read(stream)
    assert (row["clock_jumps"], row["late"]) == (1, 0)


def test_pauses_and_silence(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    number = 0

    def talk(count: int, gap: float, lost: int = 0, noise: bool = False) -> None:
        nonlocal number
        number += lost
        for index in range(count):
            if noise:
                stream.label(13, 8000, 1, name="CN")
            stream.packet(number, 160 * number, gap if index == 0 else 20)
            if noise:
                stream.label()
            number += 1

    talk(50, 20)
    talk(1, 8200)
    talk(49, 20)
    talk(50, 1000, lost=49)
    talk(1, 20, noise=True)
    talk(50, 300)
    row = read(stream)
    assert (row["pauses"], row["longest_pause_s"], row["paused_s"]) == (2, 8.2, 9.2)
    assert row["longest_pause_ns"] == START + 50 * 20 * MS
    assert row["silence_s"] == pytest.approx(8.5)
    assert (row["talk_spurts"], row["comfort_noise"]) == (3, 1)


def test_intervals_add_up_however_long_the_stream_is(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    expected = lost = 0
    for number in range(36_000):
        expected += 1
        if 20_000 <= number < 20_200 and number % 4:
            lost += 1
            continue
        stream.time = START + number * 100 * MS
        stream.packet(number, 800 * number, 0)
    row = read(stream)
    intervals = row["intervals"]
    assert len(intervals) <= 32
    assert sum(interval["expected"] for interval in intervals) == expected
    assert sum(interval["lost"] for interval in intervals) == lost == 150
    assert {interval["codec"] for interval in intervals} == {"PCMU"}
    times = [interval["start_ns"] for interval in intervals]
    assert times[0] == START
    assert times == sorted(times)
    assert row["mos_min"] < min(interval["mos"] for interval in intervals) < row["mos"] < 4.42
    assert row["mos_now"] == pytest.approx(4.41, abs=0.01)


def test_a_short_stream_has_a_score(build: Build) -> None:
    row = read(spoken(build, [True] * 60))
    assert row["mos"] == row["mos_now"] == row["mos_min"] == pytest.approx(4.41, abs=0.01)
    assert len(row["intervals"]) == 1


@pytest.mark.parametrize("name", ["OPUS", "G722", "H264", ""])
def test_unknown_codec_unknown_score(build: Build, name: str) -> None:
    row = read(spoken(build, [True] * 60, name=name))
    assert (row["mos"], row["mos_now"], row["mos_min"]) == (None, None, None)
    assert [interval["mos"] for interval in row["intervals"]] == [None]


def test_a_codec_without_bpl_is_rated_while_nothing_is_lost(build: Build) -> None:
    assert read(spoken(build, [True] * 60, name="GSM"))["mos"] == pytest.approx(3.74, abs=0.02)
    assert read(spoken(build, [True] * 60 + [False] + [True] * 60, name="GSM"))["mos"] is None


def test_dscp_first_now_and_changes(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number, dscp in enumerate([46] * 5 + [0] * 5 + [46, 34]):
        stream.time += 20 * MS
        stream.table.count(stream.table.place(stream.slot), stream.time, number, 160 * number, 0, 160, dscp)
    row = read(stream)
    assert (row["dscp_first"], row["dscp"], row["dscp_changes"]) == (46, 34, 3)


def test_changes_of_payload_type_and_codec_are_those_of_the_medium(build: Build) -> None:
    stream = Stream(build)
    changes = [
        (0, 0, "PCMU"),
        (101, 2, "TELEPHON"),
        (0, 0, "PCMU"),
        (13, 1, "CN"),
        (8, 0, "PCMA"),
        (96, 0, "A"),
    ]
    for number, (payload_type, kind, name) in enumerate([*changes, (96, 0, "B"), (96, 0, "B")]):
        stream.label(payload_type, 8000, kind, name=name)
        stream.packet(number, 160 * number)
    row = read(stream)
    assert (row["type_changes"], row["codec_changes"], row["codec"]) == (2, 3, "B")


# ---- the E-model ----


@pytest.fixture
def model(build: Build) -> Any:
    return build.module("engine.shm.emodel").EModel()


def test_emodel_of_g_107(model: Any) -> None:
    """The values that G.107 and G.113 print: R of the defaults, its MOS, Idd, and the borders of Annex B."""
    assert model.mos(model.rating(0, 0)) == pytest.approx(4.41, abs=0.005)
    for rating, score in (
        (90, 4.34),
        (80, 4.03),
        (70, 3.60),
        (60, 3.10),
        (50, 2.58),
        (0, 1),
        (-5, 1),
        (120, 4.5),
    ):
        assert model.mos(rating) == pytest.approx(score, abs=0.0065), rating
    assert model.mos(3) == 1
    assert model.delay_impairment(100) == model.delay_impairment(0) == 0
    assert model.delay_impairment(200) == pytest.approx(3, abs=0.3)
    assert model.delay_impairment(400) == pytest.approx(24, abs=0.3)


LISTENERS = {
    "PCMU": {0: 0, 1: 5, 2: 7, 3: 10, 5: 15, 7: 20, 10: 25, 20: 45},
    "G729": {0: 11, 0.5: 13, 1: 15, 1.5: 17, 2: 19, 3: 23, 4: 26, 8: 36, 16: 49},
    "G723": {0: 15, 0.5: 17, 1: 19, 1.5: 22, 2: 24, 3: 27, 4: 32, 8: 41, 16: 55},
    "GSM-EFR": {0: 5, 1: 16, 2: 21, 3: 26, 5: 33},
}
"""Ie by per cent of random loss, as listeners said it: tables I.2 and I.3 of G.113 Appendix I (1999)."""


@pytest.mark.parametrize("name", LISTENERS)
def test_factors_fit_what_listeners_said(model: Any, name: str) -> None:
    octets = name.encode().ljust(16, b"\0")
    number = model.codec(int.from_bytes(octets[:8], "little"), int.from_bytes(octets[8:], "little"))
    for loss, said in LISTENERS[name].items():
        lost = round(10 * loss)
        assert model.impairment(number, 1000, lost, 0, lost) == pytest.approx(said, abs=3.1), loss


@pytest.mark.parametrize("name", ["G722", "OPUS", "AMR", "AMR-WB", "EVS", "ILBC", "SPEEX", "H264"])
def test_codecs_without_published_factors_are_not_rated(model: Any, name: str) -> None:
    assert model.codec(int.from_bytes(name.encode(), "little"), 0) == 0


def test_impairment_of_loss(model: Any) -> None:
    number = model.codec(int.from_bytes(b"G729".ljust(8, b"\0"), "little"), 0)
    assert model.impairment(number, 100, 0, 0, 0) == 11
    # Random loss of 5 %, then the same as one run: BurstR 5 * 0.95.
    assert model.impairment(number, 100, 5, 0, 5) == pytest.approx(11 + 84 * 5 / (5 + 19))
    assert model.impairment(number, 100, 5, 0, 1) == pytest.approx(11 + 84 * 5 / (5 / 4.75 + 19))
    assert model.impairment(number, 100, 3, 2, 3) == model.impairment(number, 100, 5, 0, 5)
    assert model.impairment(number, 100, 500, 500, 1) <= 95
    assert model.impairment(0, 100, 0, 0, 0) < 0
    assert model.impairment(number, 0, 0, 0, 0) < 0
    assert model.impairment(99, 100, 0, 0, 0) < 0


@given(
    codec=st.integers(-2, 40),
    counts=st.tuples(*[st.integers(0, 1 << 40)] * 4),
    delay=st.floats(0, 1e5),
)
@settings(max_examples=100, deadline=None)
def test_a_score_is_never_out_of_range(codec: int, counts: tuple[int, int, int, int], delay: float) -> None:
    results = []
    for build in (COMPILED, PURE):
        model = build.module("engine.shm.emodel").EModel()
        loss = model.impairment(codec, *counts)
        results.append((loss, model.mos(model.rating(loss, delay))))
        assert loss == -1 or 0 <= loss <= 95
        assert 1 <= results[-1][1] <= 4.5
    assert results[0] == pytest.approx(results[1])


def test_the_default_delay_costs_next_to_nothing(build: Build) -> None:
    assert DEFAULT_DELAY_MS == 50
    assert read(spoken(build, [True] * 60))["delay_ms"] is None

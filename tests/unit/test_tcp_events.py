"""Limits, triggers of polled connections, masking, Community ID, and the JSON lines against their schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tcp import detector, events, listen, observer
from engine.tcp.backend import Connection, Cost, Event, Limits, Listener, Triggers
from engine.tcp.community import community_id
from engine.tcp.limits import Stages
from engine.tcp.mask import Mask

SECOND = 1_000_000_000


def event(cookie: int = 1, time_ns: int = SECOND) -> Event:
    return Event(
        time_ns, "rto", 1, None, Connection(cookie, "ESTABLISHED", "10.0.0.1", 40_000, "10.0.0.2", 443)
    )


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, SECOND // 10)), max_size=80),
    st.integers(1, 4), st.integers(0, 3), st.integers(0, 4), st.integers(0, 3), st.integers(1, 20),
)  # fmt: skip
def test_every_event_goes_on_or_is_counted(
    steps: list[tuple[int, int]], sample: int, top: int, first: int, last: int, rate: int
) -> None:
    stages = Stages(Limits(sample, top, first, last, rate), most_flows=4)
    now, passed = SECOND, 0
    for cookie, step in steps:
        now += step
        passed += stages.admit(event(cookie, now))
    passed += len(stages.end_all(now))
    assert passed + sum(stages.suppressed.values()) == len(steps)


def test_the_rate_is_kept() -> None:
    stages = Stages(Limits(per_second=200))
    passed = sum(stages.admit(event(time_ns=SECOND + at * 1_000_000)) for at in range(2000))
    assert 400 <= passed <= 600
    assert stages.suppressed["rate"] == 2000 - passed


def test_first_and_last() -> None:
    stages = Stages(Limits(first=2, last=3))
    given_out = [at for at in range(10) if stages.admit(event(time_ns=SECOND + at))]
    assert given_out == [0, 1]
    assert [one.time_ns - SECOND for one in stages.end(1, 2 * SECOND)] == [7, 8, 9]
    assert stages.suppressed["first"] == 5


def test_top_flows_are_those_with_most_triggers() -> None:
    stages = Stages(Limits(top_flows=1))
    assert stages.admit(event(1))
    assert not stages.admit(event(2))
    assert stages.admit(event(2))
    assert not stages.admit(event(1))


def connection(**changes: int) -> Connection:
    one = Connection(1, "ESTABLISHED", "10.0.0.1", 40_000, "10.0.0.2", 443)
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def triggered(triggers: Triggers, *looks: dict[str, int], p99: int = 0, **extra: list[int]) -> list[str]:
    """Triggers of one look a second."""
    past, found = detector.Past(), []
    for at, changes in enumerate(looks):
        more = {name: values[at] for name, values in extra.items()}
        seen = detector.look(
            triggers, past, connection(**changes), (at + 1) * SECOND, p99, more, fresh=not at
        )
        found += [one.trigger for one in seen]
    return found


@pytest.mark.parametrize(
    ("triggers", "looks", "extra", "found"),
    [
        (Triggers(rtt_above_us=1000), [{"srtt_us": 999}, {"srtt_us": 1001}], {}, ["rtt_above"]),
        (Triggers(rtt_jump=3), [{"srtt_us": 100}, {"srtt_us": 110}, {"srtt_us": 400}], {}, ["rtt_jump"]),
        (Triggers(rtt_jump=3), [{"srtt_us": 100}, {"srtt_us": 250}], {}, []),
        (Triggers(rtt_p99=True), [{"srtt_us": 100}, {"srtt_us": 501}], {"p99": 500}, ["rtt_p99"]),
        (Triggers(retransmit_burst=5), [{"retransmits": 90}, {"retransmits": 95}], {}, ["retransmit_burst"]),
        (Triggers(retransmit_burst=5), [{"retransmits": 90}, {"retransmits": 94}], {}, []),
        (Triggers(), [{}, {}], {"rtos": [4, 5]}, ["rto"]),
        (Triggers(rto=False), [{}, {}], {"rtos": [4, 5]}, []),
        (Triggers(cwnd_halved_s=5), [{"cwnd": 100}, {"cwnd": 51}, {"cwnd": 50}], {}, ["cwnd_drop"]),
        (Triggers(cwnd_halved_s=0.5), [{"cwnd": 100}, {"cwnd": 50}], {}, []),
        (Triggers(), [{}, {}, {}], {"pacing": [0, 0, 5]}, ["pacing_zero"]),
        (Triggers(), [{}, {}, {}, {}], {"zero_window": [1, 1, 0, 1]}, ["zero_window", "zero_window"]),
        (Triggers(zero_window=False), [{}], {"zero_window": [1]}, []),
    ],
)
def test_triggers(
    triggers: Triggers, looks: list[dict[str, int]], extra: dict[str, list[int]], found: list[str]
) -> None:
    assert triggered(triggers, *looks, **extra) == found


@pytest.mark.parametrize(
    ("source", "sport", "destination", "dport", "found"),
    [
        # From the specification's own baseline.
        ("128.232.110.120", 34855, "66.35.250.204", 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("66.35.250.204", 80, "128.232.110.120", 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    ],
)
def test_community_id(source: str, sport: int, destination: str, dport: int, found: str) -> None:
    assert community_id(source, sport, destination, dport) == found


@given(st.ip_addresses(), st.integers(1, 65535))
def test_masks_are_consistent(address: object, port: int) -> None:
    mask, other = Mask("all"), Mask("all")
    assert mask.address(str(address)) == mask.address(str(address)) != str(address)
    assert mask.port(port) == mask.port(port) != port
    assert mask.address(str(address)) != other.address(str(address))
    assert Mask("ports").address(str(address)) == str(address)
    assert Mask("addresses").port(port) == port


def test_a_masked_event_gives_nothing_away() -> None:
    line = json.dumps(events.document(event(), SECOND, Mask("all")))
    assert all(word not in line for word in ("10.0.0.1", "10.0.0.2", "40000", "443", "1:"))


def listener(drops: int, port: int = 80) -> Listener:
    return Listener("0.0.0.0", port, 0, 128, drops, netns=1)


def kernel(drops: int, overflows: int) -> dict[int, dict[str, int]]:
    return {1: {"TcpExtListenDrops": drops, "TcpExtListenOverflows": overflows}}


def test_listen_drops_are_told_apart() -> None:
    drops = listen.ListenDrops()
    drops.look([listener(7), listener(0, 81)], kernel(7, 7))
    assert drops.since_start[1, "0.0.0.0", 80] == (0, 0, 0)
    drops.look([listener(10), listener(0, 81)], kernel(10, 10))
    assert drops.since_start[1, "0.0.0.0", 80] == (3, 0, 3)
    drops.look([listener(12), listener(0, 81)], kernel(12, 10))
    assert drops.since_start[1, "0.0.0.0", 80] == (5, 2, 3)
    drops.look([listener(15), listener(0, 81)], kernel(15, 11))
    assert drops.since_start[1, "0.0.0.0", 80] == (8, 4, 4)
    drops.look([listener(16), listener(1, 81)], kernel(17, 12))
    assert drops.since_start[1, "0.0.0.0", 80] == (9, None, None)


def test_a_listener_that_was_opened_again_counts_from_zero() -> None:
    drops = listen.ListenDrops()
    drops.look([listener(7)], kernel(7, 0))
    drops.look([listener(2)], kernel(9, 0))
    assert drops.since_start[1, "0.0.0.0", 80] == (2, 2, 0)


class Cpu:
    """A backend whose programs took so many seconds; remembers the sampling that it was told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: list[int] = []

    def costs(self) -> list[Cost]:
        return [Cost("segment", 1, round(self.seconds * 1e9))]

    def set_sampling(self, one_of: int) -> None:
        self.told.append(one_of)


def test_the_observer_stays_below_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the share what takes most gives way at once, below a third of it both factors halve."""
    now, process, backend = [0.0], [0.0], Cpu()
    monkeypatch.setattr(observer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(observer.time, "process_time", lambda: process[0])
    governor = observer.Governor(0.02)
    governor.begin(backend)  # type: ignore[arg-type]

    def report(user: float, kernel: float, seconds: float = 1.0) -> tuple[int, int]:
        now[0] += seconds
        process[0] += user
        backend.seconds += kernel
        governor.report(backend, 1.0 * governor.stretch)  # type: ignore[arg-type]
        return governor.stretch, governor.sampling

    assert report(0.005, 0.005) == (1, 1)
    assert governor.share == pytest.approx(0.01)
    assert report(0.08, 0.0) == (8, 1)
    assert report(0.0, 0.0) == (8, 1), "there was no look in this second"
    assert report(0.0, 0.7, 7) == (8, 16)
    assert governor.share == pytest.approx(0.1)
    assert report(0.0, 0.0, 8) == (4, 8)
    for _ in range(3):
        report(0.0, 0.0, 8)
    assert (governor.stretch, governor.sampling) == (1, 1)
    assert backend.told == [16, 8, 4, 2, 1]
    for _ in range(30):
        report(60.0, 60.0, 64)
    assert (governor.stretch, governor.sampling) == (observer.MOST_STRETCH, observer.MOST_SAMPLING)


def test_without_a_bound_nothing_is_thinned() -> None:
    governor, backend = observer.Governor(None), Cpu()
    governor.begin(backend)  # type: ignore[arg-type]
    backend.seconds = 100.0
    governor.report(backend, 0.0)  # type: ignore[arg-type]
    assert (governor.stretch, governor.sampling, backend.told) == (1, 1, [])


def test_lines_have_the_fields_of_the_schema() -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs/schemas/tcp-event.json").read_text())
    line = events.document(event(), SECOND, Mask("none"))
    described = schema["oneOf"][0]["properties"]
    assert set(line) == set(described) == set(schema["oneOf"][0]["required"])
    assert set(line["trigger"]) == set(described["trigger"]["properties"])
    assert set(line["queue"]) == set(described["queue"]["properties"])
    assert described["trigger"]["properties"]["name"]["enum"] == list(events.UNITS)
    last = events.end(SECOND, 1, {"rate": 2}, 3)
    assert set(last) == set(schema["oneOf"][1]["properties"])
    assert line["timestamp"] == "1970-01-01T00:00:01.000000Z"

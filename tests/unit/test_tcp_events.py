"""Limits, triggers of polled connections, masking, Community ID, and the JSON lines against their schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tcp import detector, events, governor, listen, process, windows
from engine.tcp.backend import Connection, Cost, Event, Limits, Listener, Reading, Triggers
from engine.tcp.community import community_id
from engine.tcp.limits import Stages, sampled_out
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


def test_flows_whose_numbers_differ_in_their_upper_half_are_sampled_one_by_one() -> None:
    left = [number for number in range(1000) if not sampled_out(number << 48 | 1 << 63 | 5, 4)]
    assert 150 <= len(left) <= 350


def test_a_silent_flow_leaves_its_place() -> None:
    stages = Stages(Limits(top_flows=1))
    assert stages.admit(event(1))
    assert stages.admit(event(1, 2 * SECOND))
    assert not stages.admit(event(2, 3 * SECOND))
    assert stages.admit(event(2, 13 * SECOND))
    assert stages.suppressed["flow"] == 1


def test_packets_without_a_socket_are_no_flow_but_are_limited() -> None:
    stages = Stages(Limits(sample=2, first=1, top_flows=1, per_second=1000))
    packets = []
    for port in range(1, 201):
        one = Connection(0, "CLOSE", "10.0.0.1", 443, "10.0.0.2", port)
        packets.append(Event(SECOND, "reset", 1, None, one))
    told = sum(stages.admit(one) for one in packets)
    assert told + stages.suppressed["sample"] == 200
    assert 60 <= told <= 140
    # They take no place, and find none where others have them all.
    lucky = next(number for number in range(1, 99) if not sampled_out(number, 2))
    assert stages.admit(event(lucky))
    assert not any(stages.admit(one) for one in packets)
    assert stages.suppressed["flow"] == told


def test_a_number_that_a_program_made_is_no_cookie() -> None:
    one = event(1 << 63 | 77)
    assert events.document(one, SECOND, Mask("none"))["socket_cookie"] is None


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
        (Triggers(rtt_jump=3), [{"srtt_us": 100}, *3 * [{"srtt_us": 1000}]], {}, ["rtt_jump"]),
        (Triggers(rtt_p99=True), [{"srtt_us": 100}, {"srtt_us": 501}], {"p99": 500}, ["rtt_p99"]),
        (Triggers(retransmit_burst=5), [{"retransmits": 90}, {"retransmits": 95}], {}, ["retransmit_burst"]),
        (Triggers(retransmit_burst=5), [{"retransmits": 90}, {"retransmits": 94}], {}, []),
        (Triggers(), [{}, {}], {"rtos": [4, 5]}, ["rto"]),
        (Triggers(rto=False), [{}, {}], {"rtos": [4, 5]}, []),
        (
            Triggers(cwnd_halved_s=5),
            [{"cwnd": 100}, {"cwnd": 51, "retransmits": 1}, {"cwnd": 50, "retransmits": 1}],
            {},
            ["cwnd_drop"],
        ),
        (Triggers(cwnd_halved_s=5), [{"cwnd": 100}, {"cwnd": 50, "ssthresh": 70}], {}, ["cwnd_drop"]),
        (Triggers(cwnd_halved_s=0.5), [{"cwnd": 100}, {"cwnd": 50, "retransmits": 1}], {}, []),
        # After a rest.
        (Triggers(cwnd_halved_s=5), [{"cwnd": 100}, {"cwnd": 10}], {}, []),
        (Triggers(cwnd_halved_s=5), [{"cwnd": 100, "ssthresh": 60}, {"cwnd": 10, "ssthresh": 75}], {}, []),
        (Triggers(), [{}, {}, {}], {"pacing": [0, 0, 5]}, ["pacing_zero"]),
        (Triggers(), [{}, {}, {}, {}], {"zero_window": [1, 1, 0, 1]}, ["zero_window", "zero_window"]),
        (Triggers(zero_window=False), [{}], {"zero_window": [1]}, []),
        (Triggers(), [{}, {}, {}], {"zero_window": [0, 1, 1], "shut": [1, 1, 1]}, ["zero_window"] * 2),
    ],
)
def test_triggers(
    triggers: Triggers, looks: list[dict[str, int]], extra: dict[str, list[int]], found: list[str]
) -> None:
    assert triggered(triggers, *looks, **extra) == found


def test_a_timeout_of_a_syn_is_told_as_one() -> None:
    past, one = detector.Past(), connection()
    found = []
    for at, state in enumerate(("SYN_SENT", "SYN_SENT", "ESTABLISHED")):
        one.state = state
        found += detector.look(Triggers(), past, one, (at + 1) * SECOND, 0, {"rtos": at}, fresh=not at)
    assert [(event.trigger, event.retransmit_class) for event in found] == [("rto", "syn"), ("rto", "rto")]


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
    line = json.dumps(events.document(event(), SECOND, Mask("all", bytes(32))))
    assert all(word not in line for word in ("10.0.0.1", "10.0.0.2", "40000", "443", "1:"))


def listener(drops: int, port: int = 80, cookie: int = 0) -> Listener:
    return Listener("0.0.0.0", port, 0, 128, drops, netns=1, cookie=cookie or port)


def kernel(drops: int, overflows: int) -> dict[int, dict[str, int]]:
    return {1: {"TcpExtListenDrops": drops, "TcpExtListenOverflows": overflows}}


KEY = (1, "0.0.0.0", 80)


def test_listen_drops_are_told_apart() -> None:
    drops = listen.ListenDrops()
    drops.look([listener(7), listener(0, 81)], kernel(7, 7))
    assert drops.since_start[KEY] == (0, 0, 0)
    drops.look([listener(10), listener(0, 81)], kernel(10, 10))
    assert drops.since_start[KEY] == (3, 0, 3)
    drops.look([listener(12), listener(0, 81)], kernel(12, 10))
    assert drops.since_start[KEY] == (5, 2, 3)
    drops.look([listener(15), listener(0, 81)], kernel(15, 11))
    assert drops.since_start[KEY] == (8, 4, 4)
    assert listen.parts(drops.since_start[KEY]) == (8, 4, 4)
    drops.look([listener(16), listener(1, 81)], kernel(17, 12))
    assert listen.parts(drops.since_start[KEY]) == (9, None, None)


def test_a_window_after_one_that_cannot_be_told_apart_can() -> None:
    drops = listen.ListenDrops()
    drops.look([listener(0), listener(0, 81)], kernel(0, 0))
    drops.look([listener(1), listener(1, 81)], kernel(2, 1))
    before = Reading(0, listen_drops=dict(drops.since_start))
    drops.look([listener(4), listener(1, 81)], kernel(5, 4))
    now = Reading(1, listen_drops=dict(drops.since_start))
    window = windows.difference((0, before), (1, now))
    assert listen.parts(window.reading.listen_drops[KEY]) == (3, 0, 3)
    assert listen.parts(now.listen_drops[KEY]) == (4, None, None)
    assert listen.parts(None) == (None, None, None)


def test_a_listener_that_was_opened_again_counts_from_zero() -> None:
    drops = listen.ListenDrops()
    drops.look([listener(7, cookie=1)], kernel(7, 0))
    drops.look([listener(9, cookie=2)], kernel(16, 0))
    assert drops.since_start[KEY] == (9, 9, 0)


def test_one_of_several_sockets_of_a_port_goes() -> None:
    """SO_REUSEPORT: what the others dropped before does not count again."""
    drops = listen.ListenDrops()
    drops.look([listener(100, cookie=1), listener(50, cookie=2)], kernel(150, 0))
    drops.look([listener(51, cookie=2)], kernel(151, 0))
    assert drops.since_start[KEY] == (1, 1, 0)


def test_a_listener_that_was_closed_counts_to_its_last_drop() -> None:
    drops = listen.ListenDrops()
    drops.look([listener(7, cookie=1)], kernel(7, 0), time_ns=10)
    drops.look([], kernel(9, 2), [listener(9, cookie=1)], time_ns=20)
    assert drops.since_start[KEY] == (2, 0, 2)
    assert [(one.port, one.closed) for one in drops.within([], 20)] == [(80, True)]
    assert drops.within([], 21) == []
    drops.look([listener(0, cookie=3)], kernel(9, 2), time_ns=30)
    assert [one.closed for one in drops.within([listener(0, cookie=3)], 0)] == [False]


def test_a_queue_that_was_full_when_it_was_closed() -> None:
    full = listener(0, cookie=1)
    full.backlog, full.limit = 2, 1
    drops = listen.ListenDrops()
    drops.look([full], {7: {}}, time_ns=10)
    [row] = drops.within([], 0)
    assert (row.closed, row.backlog, row.fullest) == (True, 2, 2.0)


def test_sockets_that_share_a_port_are_one_row() -> None:
    """SO_REUSEPORT: what their address dropped is told once, and stays when they are closed."""
    four = [listener(10, cookie=at) for at in range(1, 5)]
    for one in four:
        one.backlog, one.limit = one.cookie, 8
    drops = listen.ListenDrops()
    drops.look([listener(0, cookie=at) for at in range(1, 5)], {7: {}})
    drops.look(four, {7: {}})
    [row] = drops.within(four, 0)
    assert (row.sockets, row.backlog, row.limit, row.fullest) == (4, 10, 32, 0.5)
    assert drops.since_start[row.netns, row.local, row.port][0] == drops.total[0] == 40
    assert four[0].backlog == 1, "the sockets themselves are left as they are"
    drops.look([], {7: {}})
    drops.look([listener(2, port=81, cookie=9)], {7: {}})
    assert drops.total[0] == 42


def test_listeners_that_are_remembered_are_bounded() -> None:
    drops = listen.ListenDrops()
    for number in range(3):
        ones = [listener(1, port, 1 + number * 10_000 + port) for port in range(listen.MOST + 3)]
        for one in ones:
            one.local = f"10.0.0.{number}"
        drops.look(ones, kernel(1, 0), time_ns=number)
    assert drops.left_out == 9
    assert len(drops.since_start) <= len(drops.within([], 0)) == 2 * listen.MOST


@pytest.mark.parametrize(
    ("cookie", "port", "found"),
    [(5, 1, True), (6, 40_000, False), (0, 40_000, True), (0, 1, False)],
)
def test_events_are_those_of_the_socket(cookie: int, port: int, found: bool) -> None:
    """By its cookie; by its addresses only where the kernel could not name it."""
    one = event(cookie)
    one.connection.local_port = port
    made = events.document(one, 0, Mask("none"))
    assert made["socket_cookie"] == (str(cookie) if cookie else None)
    assert process._is_of(made, "5", ("10.0.0.1", 40_000, "10.0.0.2", 443)) is found


@pytest.mark.parametrize("kind", ["ports", "addresses", "all"])
def test_events_of_a_socket_are_found_where_addresses_are_masked(kind: str) -> None:
    made = events.document(event(5), 0, Mask(kind))
    assert process._is_of(made, "5", ("?", 0, "?", 0))


class Cpu:
    """A backend whose programs took so many seconds; remembers the sampling that it was told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: list[int] = []

    def costs(self) -> list[Cost]:
        return [Cost("segment", 1, round(self.seconds * 1e9))]

    def set_sampling(self, one_of: int) -> None:
        self.told.append(one_of)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """[monotonic, CPU time of this process], to be moved by hand."""
    times = [100.0, 0.7]
    monkeypatch.setattr(governor.time, "monotonic", lambda: times[0])
    monkeypatch.setattr(governor.time, "process_time", lambda: times[1])
    return times


class Run:
    """A governor with its clock and its backend."""

    def __init__(self, limit: float | None, clock: list[float]) -> None:
        self.clock, self.backend, self.governor = clock, Cpu(), governor.Governor(limit)
        self.governor.begin(self.backend)  # type: ignore[arg-type]

    def step(
        self, *, look: float = 0.0, rest: float = 0.0, programs: float = 0.0, seconds: float = 0.25
    ) -> None:
        """Time passes, with a look and other work in it; then it is judged."""
        if look:
            with self.governor.looking():
                self.clock[1] += look
        self.clock[1] += rest
        self.backend.seconds += programs
        self.clock[0] += seconds
        self.governor.judge(self.backend, 1.0)  # type: ignore[arg-type]

    @property
    def factors(self) -> tuple[int, int]:
        return self.governor.stretch, self.governor.sampling


def test_what_came_before_it_began_to_watch_is_told_apart(clock: list[float]) -> None:
    run = Run(0.02, clock)
    run.step(look=0.004, programs=0.001)
    assert run.governor.start_cpu_s == 0.7
    run.governor.report(run.backend)  # type: ignore[arg-type]
    assert run.governor.share == pytest.approx(0.02)
    assert run.factors == (1, 1)


def test_one_dear_look_is_enough_to_make_looks_rarer(clock: list[float]) -> None:
    """A look of 80 ms each second is 8 %; half of 2 % allows one in 8 s."""
    run = Run(0.02, clock)
    run.step(look=0.08)
    assert run.factors == (8, 1)
    # It, the next one and the last one take as much as 12 s allow, and 0.25 s are over.
    assert run.governor.pause(1.0) == pytest.approx(11.75)
    for _ in range(47):
        run.step()
    assert run.factors == (8, 1), "no look, no news"
    assert run.governor.pause(1.0) == 0.0
    run.step(look=0.002)
    assert run.factors == (4, 1)


def test_segments_are_thinned_within_a_quarter_of_a_second(clock: list[float]) -> None:
    run = Run(0.02, clock)
    run.step(programs=0.25 * 0.1)
    assert run.factors == (1, 16)
    run.step(programs=0.25 * 0.009)
    assert run.factors == (1, 16)
    for _ in range(5):
        run.step()
    assert run.factors == (1, 1)
    assert run.backend.told == [16, 8, 4, 2, 1]


@pytest.mark.parametrize(("printing", "stretch"), [(0.0, 1), (0.015, 4)])
def test_what_is_printed_leaves_less_for_looks(clock: list[float], printing: float, stretch: int) -> None:
    run = Run(0.02, clock)
    for _ in range(40):
        run.step(look=0.0001, rest=0.25 * printing)
    run.step(look=0.009)
    assert run.factors == (stretch, 1)


def test_there_is_a_most_of_thinning(clock: list[float]) -> None:
    run = Run(0.02, clock)
    for _ in range(30):
        run.step(look=60.0, programs=60.0, seconds=64)
    assert run.factors == (governor.MOST_STRETCH, governor.MOST_SAMPLING)
    assert run.governor.pause(1.0) == governor.MOST_STRETCH


@pytest.mark.parametrize("limit", [0.02, 0.1])
def test_the_run_as_a_whole_stays_below_its_share(clock: list[float], limit: float) -> None:
    """A simulation: dear looks, and programs whose cost falls with the sampling."""
    run = Run(limit, clock)
    due = 100.0
    while clock[0] < 200:
        look = 0.0
        if clock[0] >= due:
            look = 0.05
            due = clock[0] + run.governor.stretch + run.governor.pause(1.0)
        before = run.governor.stretch
        run.step(look=look, rest=0.0005, programs=0.25 * 0.06 / run.governor.sampling)
        due += max(0, run.governor.stretch - before)
        due = max(due, clock[0] + run.governor.pause(1.0))
    run.step(look=0.05)
    run.governor.finish(run.backend)  # type: ignore[arg-type]
    assert run.governor.share <= limit


def test_without_a_bound_nothing_is_thinned(clock: list[float]) -> None:
    run = Run(None, clock)
    run.step(look=100.0, programs=100.0)
    assert (*run.factors, run.backend.told, run.governor.pause(1.0)) == (1, 1, [], 0.0)


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


def test_what_the_kernel_does_not_count_is_no_drop() -> None:
    """Repeated SYNs are in sk_drops alone."""
    drops = listen.ListenDrops()
    assert drops.look([listener(5, cookie=1), listener(5, 81, 2)], kernel(3, 0)) == []
    assert drops.look([listener(9, cookie=1), listener(5, 81, 2)], kernel(3, 0)) == []
    assert listen.parts(drops.since_start[KEY]) == (0, 0, 0)
    [(one, more)] = drops.look([listener(14, cookie=1), listener(5, 81, 2)], kernel(5, 2))
    assert (one.port, more) == (80, 2)
    assert listen.parts(drops.since_start[KEY]) == (2, 0, 2)
    assert drops.look([listener(14, cookie=1), listener(5, 81, 2)], kernel(5, 2)) == []


def test_a_drop_between_the_sockets_and_the_counters_is_not_lost() -> None:
    """The counters are read a moment later: what they are ahead goes to the next look, and to no other."""
    drops = listen.ListenDrops()
    drops.look([listener(0, cookie=1)], kernel(0, 0))
    assert drops.look([listener(0, cookie=1)], kernel(1, 1)) == []
    [(_, more)] = drops.look([listener(1, cookie=1)], kernel(1, 1))
    assert more == 1
    drops.look([listener(1, cookie=1)], kernel(2, 2))
    drops.look([listener(1, cookie=1)], kernel(2, 2))
    assert drops.look([listener(2, cookie=1)], kernel(2, 2)) == []


def test_drops_that_were_told_are_not_told_again() -> None:
    drops = listen.ListenDrops()
    drops.look([listener(0, cookie=1)], kernel(0, 0))
    seen = listener(5, cookie=1)
    seen.told = 3
    assert [more for _, more in drops.look([seen], kernel(5, 5))] == [2]
    assert listen.parts(drops.since_start[KEY]) == (5, 0, 5)
    seen.drops, seen.told = 7, 5
    assert drops.look([seen], kernel(7, 7)) == []


def test_who_had_room_is_not_blamed_for_repeated_syns() -> None:
    """One is full and drops 20; another has room, and its half-open connections repeat their SYNs."""
    drops = listen.ListenDrops()
    full, well = listener(0, cookie=1), listener(0, 81, 2)
    full.backlog, full.limit, well.backlog, well.limit = 2, 1, 0, 64
    drops.look([full, well], kernel(0, 0))
    full.drops, well.drops = 20, 10
    assert [(one.port, more) for one, more in drops.look([full, well], kernel(20, 20))] == [(80, 20)]
    assert listen.parts(drops.since_start[KEY]) == (20, 0, 20)
    # Not all for want of room: who turned SYNs away cannot be known.
    full.drops, well.drops = 30, 20
    assert len(drops.look([full, well], kernel(38, 28))) == 2


@given(st.dictionaries(st.integers(0, 99), st.integers(0, 50), max_size=8), st.integers(0, 200))
def test_shares_are_whole_and_no_more_than_there_is(counts: dict[int, int], most: int) -> None:
    likely = {(7, "", port) for port in counts if port % 3}
    given_out = listen.bounded({(7, "", port): count for port, count in counts.items()}, most, likely)
    assert sum(given_out.values()) == min(most, sum(counts.values()))
    assert all(0 <= value <= counts[port] for (_, _, port), value in given_out.items())


def test_what_lasts_is_told_once_a_second() -> None:
    stages = Stages(Limits())

    def tell(trigger: str, cookie: int, tenth: int) -> bool:
        one = event(cookie, SECOND + tenth * SECOND // 10)
        one.trigger = trigger
        return stages.admit(one)

    assert [tenth for tenth in range(30) if tell("rtt_above", 1, tenth)] == [0, 9, 18, 27]
    assert stages.suppressed["repeat"] == 26
    assert tell("rtt_above", 2, 1)
    assert tell("pacing_zero", 1, 1)
    assert all(tell("rto", 1, tenth) for tenth in range(5))

"""What the observer and the netlink backend make of looks, on backends and sockets that are made up."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest

from engine.tcp import inet_diag, listen, netlink, observer, options, prometheus, text
from engine.tcp.backend import (
    Connection,
    Event,
    Filters,
    Histogram,
    Limits,
    Listener,
    Namespace,
    Reading,
    Sizes,
    Triggers,
)
from engine.tcp.inet_diag import Socket
from engine.tcp.netlink import NetlinkBackend
from engine.tcp.observer import Observer
from engine.tcp.rows import Table

HERE = Namespace(7, "/proc/self/ns/net", "here")


class MadeUp:
    """A backend of which each reading has counted one more."""

    name = "made up"

    def __init__(self) -> None:
        self.off: dict[str, str] = {}
        self.rows: list[Connection] = []
        self.found: list[Event] = []
        self.readings = 0

    def read(self) -> Reading:
        self.readings += 1
        reading = Reading(time.monotonic_ns())
        reading.counters = {"retransmit_segments": self.readings}
        reading.histograms = {"rtt_us": Histogram([0] * 400)}
        return reading

    def connections(self) -> list[Connection]:
        return list(self.rows)

    def listeners(self) -> list[Any]:
        return []

    def closed(self) -> list[Any]:
        return []

    closed_listeners = closed

    def events(self) -> list[Event]:
        given, self.found = self.found, []
        return given

    def costs(self) -> list[Any]:
        return []

    def stop(self) -> None:
        pass

    set_sampling = set_rtt_p99 = offer = lambda *_: None
    count_costs = stop


class Sink:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.pages: list[str] = []
        self.documents: list[dict[str, Any]] = []

    def summary(self, document: dict[str, Any], one: Observer) -> None:
        self.documents.append(document)
        self.pages.append(text.page(document, one))

    def event(self, document: dict[str, Any]) -> None:
        self.events.append(document)


class Clock:
    """CLOCK_MONOTONIC that goes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "monotonic_ns", lambda: round(self.now * 1e9))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def begun(monkeypatch: pytest.MonkeyPatch, backend: MadeUp, **words: Any) -> tuple[Observer, Sink]:
    monkeypatch.setattr(observer.choose, "start", lambda _: (backend, []))
    monkeypatch.setattr(Observer, "_open_kernels", lambda *_: None)
    sink = Sink()
    made = Observer(options.make(**words), sink)
    made.start()
    return made, sink


def test_nothing_is_a_value(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A window or a pacing rate of 0 is what an event is about; the last look does not mend it."""
    backend = MadeUp()
    row = Connection(5, "ESTABLISHED", "10.0.0.1", 1, "10.0.0.2", 2, netns=7)
    row.send_window, row.receive_window, row.unsent_queue, row.pacing_bps, row.cgroup = (
        65536,
        70000,
        9999,
        10,
        3,
    )
    backend.rows = [row]
    made, sink = begun(monkeypatch, backend, mode="both")
    seen = Connection(5, "ESTABLISHED", "10.0.0.1", 1, "10.0.0.2", 2, netns=0)
    seen.send_window = seen.unsent_queue = seen.pacing_bps = 0
    backend.found = [Event(time.monotonic_ns(), "zero_window", 0, None, seen)]
    made.drain()
    (event,) = sink.events
    queue = event["queue"]
    assert (queue["send_window"], queue["unsent_bytes"], event["pacing_bps"]) == (0, 0, 0)
    assert (queue["receive_window"], event["netns"], event["cgroup"]) == (70000, 7, 3)


def test_a_clock_that_is_set_sets_the_times_of_events(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """At once, however long the interval is."""
    backend = MadeUp()
    made, sink = begun(monkeypatch, backend, mode="both", interval="3600")
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    clock.now += 1
    backend.found = [
        Event(round(clock.now * 1e9), "rto", 1, None, Connection(1, "ESTABLISHED", "", 0, "", 0))
    ]
    made.turn()
    assert [event["timestamp"] for event in sink.events] == ["2023-11-14T22:13:20.000000Z"]


def test_rolling_windows_are_as_long_as_they_are_called(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Also where reports are rarer than looks."""
    made, sink = begun(monkeypatch, MadeUp(), interval="10s", window="1,10")
    for _ in range(60):
        clock.now += 0.5
        made.turn()
    assert [round(one["window_s"]) for one in sink.documents] == [1, 10] * 3
    assert "segments      1.00 s 1  10.0 s 10  30.0 s 30  run 30" in sink.pages[-1]


def test_windows_that_cannot_be_short_are_called_what_they_are(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    made, sink = begun(monkeypatch, MadeUp(), interval="1s")
    made.governor.stretch = 8
    made._next_look = clock.now + 8
    made.options.interval = 8.0
    made._next_report = clock.now + 8
    for _ in range(16):
        clock.now += 1
        made.turn()
    assert "segments      8.00 s 1  16.0 s 2  run 2" in sink.pages[-1]
    assert text.rounded(9.2, 10) == 10
    assert text.rounded(8.0, 1) == 8.0


def test_a_socket_that_a_walk_meets_twice_counts_once(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A table that grows while it is walked is begun anew where it was."""
    backend = MadeUp()
    made, _ = begun(monkeypatch, backend)
    row = Connection(5, "ESTABLISHED", "10.0.0.1", 1, "10.0.0.2", 2, netns=7)
    made.throughput.visited(7)
    row.bytes_acked, row.bytes_received = 1000, 0
    backend.rows = [row, row]
    clock.now += 1
    made.look()
    assert made.rows == [row]
    assert made.throughput.send_bytes == 1000
    assert sum(made.throughput.send.buckets) == 1


def test_groups_are_cut_after_they_were_sorted() -> None:
    table = Table()
    rows = [Connection(at, "ESTABLISHED", "a", 1, f"peer {at}", 2) for at in range(1200)]
    rows += [Connection(2000 + at, "ESTABLISHED", "a", 1, "busy", 2) for at in range(500)]
    table.take(rows, {})
    groups = table.groups(rows, "peer")
    assert (groups[0]["key"], groups[0]["connections"]) == ("busy", 500)
    assert len(groups) == 1201


class Asked:
    """Diag, without a kernel."""

    sockets: ClassVar[list[Socket]] = []
    ended: ClassVar[list[Socket]] = []

    def __init__(self, _: Namespace) -> None:
        self.lost = 0

    def dump(self, states: int) -> list[Socket]:
        return [] if states == 1 << inet_diag.LISTEN else list(self.sockets)

    def closed(self) -> list[Socket]:
        given = list(self.ended)
        self.ended.clear()
        return given

    def close(self) -> None:
        pass


def diag_socket(cookie: int, retransmits: int = 0) -> Socket:
    octets = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
    info = dict.fromkeys(("unacked", "sacked", "lost", "retrans", "bytes_acked", "bytes_received"), 0)
    info |= {"total_retrans": retransmits, "segs_in": 1}
    return Socket(2, 1, 0, octets, 1, octets, 2, 0, cookie, 0, 0, 0, 0, info)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> type[Asked]:
    class Counters:
        def __init__(self, _: Namespace) -> None: ...

        def read(self) -> dict[str, int]:
            return {}

        def close(self) -> None: ...

    monkeypatch.setattr(netlink, "Diag", Asked)
    monkeypatch.setattr(netlink, "Counters", Counters)
    monkeypatch.setattr(Asked, "sockets", [])
    monkeypatch.setattr(Asked, "ended", [])
    return Asked


def backend_of(**more: Any) -> NetlinkBackend:
    filters = Filters(netns=HERE.inode, namespaces=(HERE,))
    for name, value in more.items():
        setattr(filters, name, value)
    made = NetlinkBackend(filters, Triggers(), Limits(), Sizes(sockets=16))
    made.start()
    return made


def test_each_socket_without_room_counts_once(asked: type[Asked]) -> None:
    backend = backend_of()
    asked.sockets = [diag_socket(at) for at in range(1, 27)]
    for _ in range(5):
        assert len(backend.connections()) == 26
    assert backend.read().counters["sockets_evicted"] == 10
    asked.sockets.append(diag_socket(99))
    backend.connections()
    assert backend.read().counters["sockets_evicted"] == 11
    backend.stop()


def test_sockets_whose_end_was_not_told_make_room(asked: type[Asked]) -> None:
    """As after ENOBUFS: the message of their end is lost, and no look meets them."""
    backend = backend_of(remote_ports=[(1, 9)])
    asked.sockets = [diag_socket(at, retransmits=1) for at in range(1, 17)]
    backend.connections()
    asked.sockets = [diag_socket(at) for at in range(101, 117)]
    backend.connections()
    backend.connections()
    assert backend.read().counters["sockets_evicted"] == 0
    asked.sockets = [diag_socket(at, retransmits=2) for at in range(101, 117)]
    backend.connections()
    assert backend.read().counters["retransmit_segments"] == 32, "those that came later are followed"
    backend.stop()


def test_a_socket_that_is_held_after_its_end_counts_once(asked: type[Asked]) -> None:
    """Reset by its peer, and closed much later: no look meets it, and then its last figures are told."""
    backend = backend_of(remote_ports=[(1, 9)])
    asked.sockets = []
    backend.connections()
    asked.sockets = [diag_socket(1, retransmits=5)]
    backend.connections()
    asked.sockets = []
    for _ in range(4):
        backend.connections()
    asked.ended.append(diag_socket(1, retransmits=6))
    backend.connections()
    assert backend.read().counters["retransmit_segments"] == 6
    backend.stop()


def test_a_socket_that_was_emptied_before_its_end_keeps_what_it_sent_again(asked: type[Asked]) -> None:
    """As one that nobody accepted, when its listener is closed."""
    backend = backend_of()
    asked.sockets = [diag_socket(1, retransmits=3)]
    backend.connections()
    asked.sockets = []
    asked.ended.append(diag_socket(1, retransmits=0))
    backend.connections()
    assert backend.read().histograms["retransmits_per_connection"].total == 3
    backend.stop()


def test_what_a_filter_by_owner_cannot_see_is_told(asked: type[Asked]) -> None:
    assert "throughput.short" not in backend_of(remote_ports=[(1, 9)]).off
    assert "throughput.short" in backend_of(pids=[1]).off


def test_messages_that_the_kernel_lost_are_told(asked: type[Asked]) -> None:
    backend = backend_of()
    (place,) = backend._places.values()
    place.diag.lost = 3
    assert backend.read().counters["closed_lost"] == 3
    backend.stop()
    assert backend.read().counters["closed_lost"] == 3


def test_who_listens_on_a_port_is_the_server(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Of sockets older than the observer, and of an event whose socket no look has met."""
    backend = MadeUp()
    open_now = [Listener("0.0.0.0", 40_000, 0, 128, 0, netns=7)]
    monkeypatch.setattr(backend, "listeners", lambda: open_now)
    ends = [(7, 40_000), (8, 40_000), (7, 80), (7, 81)]
    backend.rows = [
        Connection(number + 1, "ESTABLISHED", "10.0.0.1", port, "10.0.0.2", 2, netns=netns)
        for number, (netns, port) in enumerate(ends)
    ]
    backend.rows[-1].state = "SYN_SENT"
    made, sink = begun(monkeypatch, backend, mode="both")
    assert [row.role for row in made.rows] == ["server", "client", "unknown", "client"]
    for cookie, state in ((99, "ESTABLISHED"), (98, "CLOSE"), (97, "LISTEN")):
        seen = Connection(cookie, state, "10.0.0.1", 40_000, "10.0.0.2", 3, netns=7)
        backend.found.append(Event(time.monotonic_ns(), "rto", 1, None, seen))
    made.drain()
    assert [event["role"] for event in sink.events] == ["server", "unknown", "unknown"]


def test_who_listens_has_what_nobody_has_accepted_yet(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """The program has seen no listen(): the server is older than the observer."""
    backend = MadeUp()
    ends = [("0.0.0.0", 80, 5), ("10.0.0.1", 80, 6), ("0.0.0.0", 81, 7), ("0.0.0.0", 81, 8), ("::", 82, 9)]
    open_now = [
        Listener(local, port, 0, 128, 0, netns=7, pid=pid, comm=f"server-{pid}") for local, port, pid in ends
    ]
    monkeypatch.setattr(backend, "listeners", lambda: open_now)
    made, sink = begun(monkeypatch, backend, mode="both")
    for cookie, (local, port) in enumerate(
        (("10.0.0.1", 80), ("10.0.0.2", 80), ("10.0.0.1", 81), ("10.0.0.1", 82), ("fd00::1", 80))
    ):
        seen = Connection(cookie + 1, "ESTABLISHED", local, port, "10.0.0.9", 3, netns=7)
        backend.found.append(Event(time.monotonic_ns(), "tlp", 1, None, seen))
    made.drain()
    assert [(event["pid"], event["pid_source"]) for event in sink.events] == [
        (6, "listen"), (5, "listen"), (None, "unknown"), (9, "listen"), (None, "unknown"),
    ]  # fmt: skip


class Eventful(MadeUp):
    """Of which the second reading has much of everything."""

    def read(self) -> Reading:
        reading = super().read()
        some = Histogram([0] * 400)
        if self.readings > 1:
            some.buckets[3] = 2
            reading.transitions = {("ESTABLISHED", f"S{n}"): n + 1 for n in range(11)}
            reading.drops = {(f"REASON{n}", "f"): n + 1 for n in range(9)}
            reading.resets = {f"WHY{n}": n + 1 for n in range(5)}
            some.total, some.largest = 6, 3
        reading.histograms["retransmits_per_connection"] = some
        reading.histograms["tlp_per_connection"] = some
        reading.counters |= {"drops": 45, "resets_sent": 15, "resets_received": 0}
        return reading


def test_more_listening_sockets_than_are_followed_are_told(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    backend = MadeUp()
    many = [Listener("::", 1, 0, 128, 0, cookie=one) for one in range(1, listen.MOST + 1)]
    monkeypatch.setattr(observer.choose, "start", lambda _: (backend, []))
    monkeypatch.setattr(backend, "listeners", lambda: many, raising=False)
    one = Observer(options.make(), Sink())
    one.start()
    assert "listen.more" not in one.document(one.windows.run())["off"]
    many.append(Listener("::", 1, 0, 128, 0, cookie=listen.MOST + 1))
    one.look()
    assert "4,096" in one.document(one.windows.run())["off"]["listen.more"]
    one.close()


def test_a_listening_socket_that_was_closed_has_no_backlog_any_more(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Its drops stand in the summary; how full it was when it was seen last is no figure of now."""
    backend = MadeUp()
    full, fine = (Listener("::", port, 9, limit, 0, cookie=port) for port, limit in ((80, 8), (443, 90)))
    found = [full, fine]
    monkeypatch.setattr(observer.choose, "start", lambda _: (backend, []))
    monkeypatch.setattr(backend, "listeners", lambda: found, raising=False)
    one = Observer(options.make(), Sink())
    one.start()

    def gauges() -> list[float]:
        wanted = ("otus_tcp_listen_backlog", "otus_tcp_listen_backlog_ratio")
        families = prometheus.families(one.document(one.windows.run()))
        return [family.samples[0].value for family in families if family.name in wanted]

    assert gauges() == [18, 1.125]
    found.remove(full)
    one.look()
    assert gauges() == [9, 0.1]
    assert "443 9/90  80 closed" in text.page(one.document(one.windows.run()), one)
    one.close()


def test_what_has_no_place_in_a_line_is_counted(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    made, sink = begun(monkeypatch, Eventful(), interval="1")
    clock.now += 1.05
    made.turn()
    [page] = sink.pages
    lines = {line[:16].strip(): line for line in page.splitlines()}
    assert "S0 1" not in page
    joined = " ".join(page.split())
    assert "S3 4 3 more" in joined
    assert "REASON3 4 3 more" in joined
    assert "WHY2 3 2 more" in joined
    assert all(len(line) <= 80 for line in page.splitlines())
    for name in ("sent again each", "TLPs each"):
        assert lines[name].split()[-6:-1] == ["2", "3", "3", "3", "3"], lines[name]


def test_the_whole_run_says_what_was_sent_again_of_each(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Also that there was nothing; a window in which nothing ended says nothing."""
    made, sink = begun(monkeypatch, MadeUp(), interval="1")
    clock.now += 1.05
    made.turn()
    made.stop()
    window, run = sink.pages
    assert "sent again each" not in window
    assert "sent again each" in run


def test_what_all_namespaces_leaves_out_is_told() -> None:
    assert observer._left_out(0, 0, False) == []
    shut, hidden, more = observer._left_out(2, 1, True)
    assert "2 namespaces may not be entered" in shut
    assert "of one process may not be seen" in hidden
    assert "4,096 namespaces are watched" in more

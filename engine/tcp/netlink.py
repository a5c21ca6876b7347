"""The backend that needs no eBPF: inet_diag polled, sockets' last figures as they are destroyed, SNMP
counters.

Runs on every kernel that `ss` runs on, without root in one's own namespace. What happens between two looks is
known by its sum alone, so `off` names much. Totals of a connection are exact: the kernel reports each TCP
socket that it destroys with its last tcp_info (sock_diag destroy groups, 4.3 and later).
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from typing import TYPE_CHECKING

from engine.errors import OtusError
from engine.tcp import histogram, lacks, owners, snmp
from engine.tcp.addresses import Addresses
from engine.tcp.backend import (
    Closed,
    Connection,
    Event,
    Histogram,
    Listener,
    Namespace,
    Plan,
    Program,
    Reading,
)
from engine.tcp.detector import Past, look
from engine.tcp.filters import Matcher, descendants, narrows
from engine.tcp.inet_diag import (
    CONNECTED,
    LISTEN,
    TIMER_PROBE,
    Diag,
    Socket,
    address,
    connection_of,
    octets,
)
from engine.tcp.limits import Stages
from engine.tcp.namespaces import call_inside, own
from engine.tcp.snmp import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.tcp.backend import Cost, Filters, Limits, Sizes, Triggers

SAMPLED = ("rtt_us", "rttvar_us", "cwnd", "ssthresh", "pacing_bps", "send_queue_bytes", "unsent_queue_bytes",
           "receive_queue_bytes", "retransmits_per_connection")  # fmt: skip
MOST_PENDING = 4096


class _Place:
    """One namespace that is watched."""

    def __init__(self, namespace: Namespace, filters: Filters) -> None:
        self.namespace = namespace
        self.diag = Diag(namespace)
        try:
            self.counters = Counters(namespace)
        except OSError as error:
            self.diag.close()
            raise OtusError(f"/proc/net/netstat: {error.strerror}") from error
        self.base = self.last = self.counters.read()
        self.addresses: Addresses | None = None
        if filters.interface:
            try:
                self.addresses = call_inside(namespace, lambda: Addresses(filters.interface))
            except OtusError:
                self.close()
                raise
        self.matcher = Matcher(filters, self.addresses.read() if self.addresses else None)
        self.flows: set[int] = set()
        """Cookies that the last look has met and that are followed."""
        self.left_out: set[int] = set()
        """Cookies that the last look has met and for which there was no room."""
        self.listening: set[tuple[str, int]] = set()
        self.looked = False

    def deltas(self) -> dict[str, int]:
        """What the kernel counted since the start."""
        self.last = self.counters.read()
        return {name: max(0, value - self.base.get(name, 0)) for name, value in self.last.items()}

    def refresh(self) -> None:
        """Addresses come and go."""
        if self.addresses is not None:
            self.matcher.addresses = self.addresses.read()

    def close(self) -> None:
        self.diag.close()
        self.counters.close()
        if self.addresses is not None:
            self.addresses.close()


@dataclasses.dataclass(slots=True)
class _Flow:
    """A connection that was looked at before."""

    past: Past
    born: bool
    """It began after the observer did, so that its totals count from 0."""
    segments_in: int = 0
    retransmits: int = 0
    rtos: int = 0
    data_segments: int = 0
    received: int = 0
    """Octets of these."""
    closed_since: int = 0
    """Since when its peer's window is closed, ns; 0: open."""
    shut_since: int = 0
    """Since when its own window is closed, ns."""
    looks: int = 0


class NetlinkBackend:
    """See engine.tcp.backend.Backend."""

    name = "netlink"

    def __init__(self, filters: Filters, triggers: Triggers, limits: Limits, sizes: Sizes) -> None:
        self.filters, self.triggers, self.sizes = filters, triggers, sizes
        self.stages = Stages(limits, sizes.sockets)
        self.narrowed = narrows(filters)
        self.off = lacks.of_looks(filters, triggers)
        self._places: dict[int, _Place] = {}
        self._ended: dict[str, int] = {}
        """Counters of namespaces that went away."""
        self._flows: dict[int, _Flow] = {}
        self._vanished: dict[int, None] = {}
        """Those of them that no look meets any more and whose end was not told, the oldest first."""
        self._events: deque[Event] = deque()
        self._closed: list[Closed] = []
        self._counters = dict.fromkeys(
            ("rtt_samples", "zero_window_received", "zero_window_received_ns", "zero_window_sent_ns",
             "events_emitted", "events_lost", "sockets_evicted", "closed_lost"), 0,
        )  # fmt: skip
        self._segments = self._rtos = self._shut = 0
        count = histogram.bucket_count(sizes.sub_bits)
        self._histograms = {name: Histogram([0] * count) for name in SAMPLED}
        self._p99 = 0
        self.on_ends: Callable[[Sequence[tuple[int, Socket]]], None] | None = None
        """Set where programs make events, too, those of peers' windows among them: is told of sockets that
        were destroyed, each with its namespace, before they are booked."""
        self._cgroups = descendants(filters.cgroup) if filters.cgroup else set()

    def plan(self) -> Plan:
        """Nothing is loaded: the questions that are asked."""
        asked = [
            Program(
                "inet_diag", "NETLINK_SOCK_DIAG dump (CONFIG_INET_DIAG)", ("rtt", "cwnd", "throughput"), True
            ),
            Program("destroyed", "NETLINK_SOCK_DIAG groups 1 and 3 (Linux 4.3)", ("throughput",), True),
            Program("counters", "/proc/net/snmp, /proc/net/netstat", ("retransmits", "listen"), True),
        ]
        return Plan(asked, [], "")

    def start(self) -> None:
        """Open the sockets; totals of connections count from the first call of connections()."""
        self.set_namespaces(self.filters.namespaces or (own(),))
        if not self._places:
            raise OtusError("no network namespace could be entered")

    def set_namespaces(self, namespaces: Sequence[Namespace]) -> None:
        """Open what is new, close what is gone."""
        wanted = {namespace.inode: namespace for namespace in namespaces}
        for inode in set(self._places) - set(wanted):
            self._leave(inode)
        for inode, namespace in wanted.items():
            if inode not in self._places:
                try:
                    self._places[inode] = _Place(namespace, self.filters)
                except OtusError:
                    # One of several that goes away in this moment is no failure of the others.
                    if len(wanted) == 1:
                        raise
                    continue

    def read(self) -> Reading:
        """The counters of now."""
        kernel = dict(self._ended)
        for place in self._places.values():
            for name, value in place.deltas().items():
                kernel[name] = kernel.get(name, 0) + value
        counters = dict(self._counters)
        counters["closed_lost"] += sum(place.diag.lost for place in self._places.values())
        counters["retransmit_segments"] = self._segments if self.narrowed else kernel.get("TcpRetransSegs", 0)
        if self.narrowed:
            counters["retransmit_rto_events"] = self._rtos
            counters["zero_window_sent"] = self._shut
        else:
            counters.update(snmp.counters(kernel))
        if "retransmits.rto" in self.off:
            del counters["retransmit_rto_events"]
        if self.off["zero_window_sent.seconds"] == lacks.NO_WINDOW:
            del counters["zero_window_sent_ns"]
        if "zero_window_sent" in self.off:
            del counters["zero_window_sent"]
        return Reading(
            time.monotonic_ns(),
            counters,
            {
                name: Histogram(one.buckets[:], one.total, one.largest)
                for name, one in self._histograms.items()
            },
            suppressed=dict(self.stages.suppressed),
        )

    def connections(self) -> list[Connection]:
        """One look at every namespace."""
        found: list[Connection] = []
        for place in list(self._places.values()):
            self._look(place, found)
        return found

    def listeners(self) -> list[Listener]:
        """Listening sockets."""
        found: list[Listener] = []
        inodes = owners.inodes_of(self.filters.pids) if self.filters.pids else None
        for place in self._places.values():
            place.listening.clear()
            for one in place.diag.dump(1 << LISTEN):
                local = address(one.local)
                place.listening.add((local, one.local_port))
                if not (place.matcher.listens(local, one.local_port) and self._owned(one, inodes)):
                    continue
                drops = (one.memory or {}).get("drops")
                listener = Listener(local, one.local_port, one.receive_queue, one.send_queue, drops)
                listener.netns, listener.cookie = place.namespace.inode, one.cookie
                listener.inode = one.inode
                found.append(listener)
        return found

    def closed_listeners(self) -> list[Listener]:
        """The kernel tells nobody: a look that finds one gone is all there is."""
        return []

    def closed(self) -> list[Closed]:
        """Sockets that were destroyed."""
        self._drain()
        given, self._closed = self._closed, []
        return given

    def events(self) -> list[Event]:
        """What the looks since the last call have found."""
        given = list(self._events)
        self._events.clear()
        return given

    def offer(self, event: Event) -> None:
        """An event that was found elsewhere: it takes the same stages."""
        if self.stages.admit(event):
            self._emit(event)

    def end_flow(self, cookie: int, now: int) -> None:
        """No more events of a flow: the last ones that were kept go out."""
        for event in self.stages.end(cookie, now):
            self._emit(event)

    def event_fd(self) -> int:
        """None: events are found by looking."""
        return -1

    def set_rtt_p99(self, value_us: int) -> None:
        """For the trigger rtt_p99."""
        self._p99 = value_us

    def set_sampling(self, one_of: int) -> None:
        """Nothing runs for each segment."""

    def count_costs(self) -> None:
        """Nothing runs in the kernel."""

    def costs(self) -> list[Cost]:
        """None."""
        return []

    def stop(self) -> None:
        """Close the sockets; the last figures stay."""
        if not self._places:
            return
        self._drain()
        now = time.monotonic_ns()
        for event in self.stages.end_all(now):
            self._emit(event)
        for inode in list(self._places):
            self._leave(inode)

    def _leave(self, inode: int) -> None:
        place = self._places.pop(inode)
        for name, value in place.deltas().items():
            self._ended[name] = self._ended.get(name, 0) + value
        self._counters["closed_lost"] += place.diag.lost
        for cookie in place.flows:
            self._forget(cookie)
        place.close()

    def _owned(self, one: Socket, inodes: set[int] | None) -> bool:
        """Whether a socket is of the processes and the cgroup that were asked for."""
        if inodes is not None and one.inode not in inodes:
            return False
        return not self._cgroups or one.cgroup in self._cgroups

    def _look(self, place: _Place, found: list[Connection]) -> None:
        self._drain()
        first = not place.looked
        place.looked = True
        now = time.monotonic_ns()
        inodes = owners.inodes_of(self.filters.pids) if self.filters.pids else None
        place.refresh()
        met: set[int] = set()
        left_out: set[int] = set()
        # A table that changes while it is told of may have one of them twice.
        sockets = list({one.cookie: one for one in place.diag.dump(CONNECTED)}.values())
        # First those that are no more: they make room.
        gone = place.flows - {one.cookie for one in sockets}
        self._vanished.update(dict.fromkeys(gone & self._flows.keys()))
        for one in sockets:
            local, remote = address(one.local), address(one.remote)
            if not place.matcher.passes(local, one.local_port, remote, one.remote_port):
                continue
            if not self._owned(one, inodes):
                continue
            connection = connection_of(one, local, remote, place.namespace.inode)
            found.append(connection)
            if one.info:
                followed = self._sample(one, connection, now, first)
                (met if followed else left_out).add(one.cookie)
        for cookie in met & self._vanished.keys():
            del self._vanished[cookie]
        self._vanished.update(dict.fromkeys((place.flows - met) & self._flows.keys()))
        self._counters["sockets_evicted"] += len(left_out - place.left_out)
        place.flows, place.left_out = met, left_out

    def _forget(self, cookie: int) -> _Flow | None:
        self._vanished.pop(cookie, None)
        return self._flows.pop(cookie, None)

    def _room(self) -> bool:
        """Whether one more can be followed. One that vanished may still tell its last figures: it stays as
        long as there is room."""
        if len(self._flows) >= self.sizes.sockets and self._vanished:
            self._forget(next(iter(self._vanished)))
        return len(self._flows) < self.sizes.sockets

    def _sample(self, one: Socket, connection: Connection, now: int, first: bool) -> bool:
        """False: there is no room to follow it."""
        flow = self._flows.get(one.cookie)
        fresh = flow is None and first
        if flow is None:
            if not self._room():
                return False
            flow = self._flows[one.cookie] = _Flow(Past(), not first)
            flow.past.time_ns = now
        figures = one.info
        segments = figures.get("segs_in", 0)
        idle = flow.looks > 0 and segments == flow.segments_in
        if not idle:
            self._count_rtt(connection)
        for name, value in _queues(connection).items():
            if value is not None:
                self._count(name, value)
        self._totals(flow, figures, fresh)
        zero = _window_closed(one)
        shut = figures.get("rcv_wnd") == 0 and one.state == 1
        self._windows(flow, zero, shut, now)
        flow.segments_in = segments
        flow.data_segments, flow.received = figures.get("data_segs_in", 0), connection.bytes_received or 0
        flow.looks += 1
        extra = {"rtos": figures.get("total_rto", 0), "idle": int(idle), "shut": int(shut)}
        extra["zero_window"] = int(zero and self.on_ends is None)
        if "pacing_rate" in figures and one.state == 1:
            extra["pacing"] = figures["pacing_rate"]
        for event in look(self.triggers, flow.past, connection, now, self._p99, extra, fresh=fresh):
            self.offer(event)
        return True

    def _count_rtt(self, connection: Connection) -> None:
        if connection.srtt_us:
            self._counters["rtt_samples"] += 1
            self._count("rtt_us", connection.srtt_us)
            self._count("rttvar_us", connection.rttvar_us or 0)

    def _totals(self, flow: _Flow, figures: dict[str, int], fresh: bool) -> None:
        retransmits, rtos = figures.get("total_retrans", 0), figures.get("total_rto", 0)
        if not fresh:
            self._segments += max(0, retransmits - flow.retransmits)
            self._rtos += max(0, rtos - flow.rtos)
        flow.retransmits, flow.rtos = retransmits, rtos

    def _windows(self, flow: _Flow, closed: bool, shut: bool, now: int) -> None:
        """Zero windows of the peer (closed) and of this side (shut): episodes and their time."""
        counters = self._counters
        if flow.closed_since:
            counters["zero_window_received_ns"] += now - flow.closed_since
        elif closed:
            counters["zero_window_received"] += 1
        flow.closed_since = now if closed else 0
        if flow.shut_since:
            counters["zero_window_sent_ns"] += now - flow.shut_since
        elif shut:
            self._shut += 1
        flow.shut_since = now if shut else 0

    def _drain(self) -> None:
        """Take the sockets that were destroyed since the last look."""
        now = time.monotonic_ns()
        ended = [(place, one) for place in self._places.values() for one in place.diag.closed()]
        if self.on_ends is not None and ended:
            self.on_ends([(place.namespace.inode, one) for place, one in ended])
        for place, one in ended:
            self._end(place, one, now)

    def _end(self, place: _Place, one: Socket, now: int) -> None:
        flow = self._forget(one.cookie)
        figures = one.info
        if not figures:
            return
        if flow is None:
            local, remote = address(one.local), address(one.remote)
            # Neither inode nor cgroup are told of a socket that is no more.
            if self.filters.pids or self._cgroups or not place.looked or not one.remote_port:
                return
            if not place.matcher.passes(local, one.local_port, remote, one.remote_port):
                return
            connection = connection_of(one, local, remote, place.namespace.inode)
            flow = _Flow(Past(), True)
            flow.past.time_ns = now
            self._count_rtt(connection)
        else:
            connection = connection_of(one, address(one.local), address(one.remote), place.namespace.inode)
        # One that nobody accepted is emptied before it is destroyed.
        retransmits = max(flow.retransmits, figures.get("total_retrans", 0))
        self._totals(flow, figures, False)
        self._count("retransmits_per_connection", retransmits)
        if self.triggers.retransmit_burst is not None or self.triggers.rto:
            extra = {"rtos": figures.get("total_rto", 0), "idle": int(flow.looks > 0)}
            for event in look(self.triggers, flow.past, connection, now, self._p99, extra, fresh=False):
                self.offer(event)
        self.end_flow(one.cookie, now)
        acked, received = octets(one)
        if flow.looks and figures.get("data_segs_in") == flow.data_segments:
            # What came since then is a FIN at most.
            received = flow.received
        if len(self._closed) < self.sizes.sockets * 4:
            self._closed.append(Closed(one.cookie, acked or 0, received or 0, figures.get("total_retrans")))
        else:
            self._counters["closed_lost"] += 1

    def _emit(self, event: Event) -> None:
        if len(self._events) >= MOST_PENDING:
            self._counters["events_lost"] += 1
            return
        self._counters["events_emitted"] += 1
        self._events.append(event)

    def _count(self, name: str, value: int) -> None:
        one = self._histograms[name]
        histogram.add(one.buckets, value, self.sizes.sub_bits)
        one.total += value
        one.largest = max(one.largest, value)


def _window_closed(one: Socket) -> bool:
    """Whether the peer's window is shut: it says so, or the persist timer runs with nothing in flight."""
    window = one.info.get("snd_wnd")
    if window is not None and one.state == 1 and one.info.get("segs_in", 0) > 1:
        return window == 0
    return one.timer == TIMER_PROBE


def _queues(connection: Connection) -> dict[str, int | None]:
    return {
        "cwnd": connection.cwnd,
        "ssthresh": connection.ssthresh,
        "pacing_bps": connection.pacing_bps,
        "send_queue_bytes": connection.send_queue,
        "unsent_queue_bytes": connection.unsent_queue,
        "receive_queue_bytes": connection.receive_queue,
    }

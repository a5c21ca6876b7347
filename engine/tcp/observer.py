"""The observer: looks at a backend again and again, keeps the windows, and bounds what it costs itself.

    observer = Observer(options); observer.start()
    while ...: observer.turn(); sleep until observer.due()
    observer.stop()

Whoever runs it gives it a `Sink`. Looks (connections, listening sockets) and reports (a reading, a summary)
have a clock each: looks at most once a second, and less often where `--max-cpu` asks for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import NotPermittedError, OtusError
from engine.tcp import choose, events, lacks, listen, summary
from engine.tcp.backend import Connection, Event, Histogram
from engine.tcp.governor import JUDGE_S, MOST_STRETCH, Governor
from engine.tcp.listen import ListenDrops
from engine.tcp.mask import Mask
from engine.tcp.namespaces import MOST, every, unseen
from engine.tcp.owners import Owners
from engine.tcp.snmp import Counters
from engine.tcp.throughput import Throughput
from engine.tcp.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.tcp.backend import Backend, Listener, Namespace, Reading
    from engine.tcp.options import Options
    from engine.tcp.windows import Window

LOOK_S = 1.0
NAMESPACES_S = 5.0
"""How often it is looked for namespaces that came or went, with `--netns all`."""
SLACK_S = 0.001
ENDS_S = 0.25
"""How often connections that ended are taken from the backend, which has room for so many only."""
SECOND_S = 0.9
"""A little less: looks that come once a second come early at times."""
SAME_S = 0.02
"""A look that is younger than this is the last one."""
LISTEN_COUNTERS = ("listen_drops", "listen_syn_drops", "listen_accept_drops")
LISTEN_MORE = f"of more than {listen.MOST:,} listening sockets the drops of the rest are not followed"
EPHEMERAL = 32_768
"""Local ports from here on are those of clients, unless somebody listens there."""


class Sink(Protocol):
    """What takes the observer's findings."""

    def summary(self, document: dict[str, Any], observer: Observer) -> None:
        """One window, and at the end the whole run (`final`)."""

    def event(self, document: dict[str, Any]) -> None:
        """One detail event; at the end the one that counts them."""


class Observer:
    """One run."""

    def __init__(self, options: Options, sink: Sink) -> None:
        self.options = options
        self.sink = sink
        self.mask = Mask(options.mask)
        self.owners = Owners()
        self.governor = Governor(options.max_cpu)
        self.notes: list[str] = []
        """Why better backends do not run, and what of that which was asked for does not come."""
        self.rows: list[Connection] = []
        """The connections of the last look."""
        self.listeners: list[Listener] = []
        self.throughput = Throughput(options.sizes.sub_bits)
        self.listen_drops = ListenDrops()
        self.windows: Windows
        self.backend: Backend
        self.begun = 0.0
        self._by_cookie: dict[int, Connection] = {}
        self._listening: dict[tuple[int, int], list[Listener]] = {}
        """(netns, port) -> those of the last look."""
        self._kernels: dict[int, Counters] = {}
        self._kernel_base: dict[int, dict[str, int]] = {}
        self._kernel_ended: dict[str, int] = {}
        self._next_look = self._next_report = self._next_namespaces = self._next_ends = 0.0
        self._next_judge = float("inf")
        self._looked = float("-inf")
        self._reported: tuple[int, Reading]
        self._rated: tuple[int, Reading]
        """Up to where resets were judged."""

    @property
    def wants_events(self) -> bool:
        """Whether detail events are given out."""
        return self.options.mode != "summary"

    def start(self) -> None:
        """Load, attach, and take the reading from which everything counts."""
        options = self.options
        self.backend, self.notes = choose.start(options)
        if options.stats or options.max_cpu is not None:
            self.backend.count_costs()
        if self.wants_events:
            self.notes += lacks.events(options.triggers, self.backend.off)
        shut = self._open_kernels(options.filters.namespaces)
        if options.every_namespace:
            self.notes += _left_out(shut, unseen(), len(options.filters.namespaces) >= MOST)
        self.begun = time.monotonic()
        self.governor.begin(self.backend)
        self.windows = Windows(_without_events(self.read()), time.time_ns())
        self.look()
        self._reported = self._rated = self.windows.newest
        self._next_look = self.begun + self.look_period
        self._next_ends = self.begun + ENDS_S
        self._next_report = self.begun + options.interval
        self._next_namespaces = self.begun + NAMESPACES_S
        if options.max_cpu is not None:
            self._next_judge = self.begun + JUDGE_S

    @property
    def look_period(self) -> float:
        """Seconds between two looks."""
        return self._shortest * self.governor.stretch

    @property
    def _shortest(self) -> float:
        return min(LOOK_S, self.options.interval)

    @property
    def ends(self) -> float:
        """When the run is over, CLOCK_MONOTONIC in s; infinite without a duration."""
        duration = self.options.duration
        return float("inf") if duration is None else self.begun + duration

    def due(self) -> float:
        """When turn() has something to do next, CLOCK_MONOTONIC in s."""
        return min(self._next_look, self._next_report, self._next_judge, self._next_ends, self.ends)

    def turn(self) -> None:
        """Do what is due: a look, a report; and pass on the events that have come."""
        now = time.monotonic()
        reports = now >= self._next_report
        early = self.look_period / 2 if self.governor.pause(self._shortest) == 0 else 0.0
        looks = now >= self._next_look or (reports and self._next_look - now < early)
        if looks:
            self.look()
            self._next_look = max(self._next_look, now - self.look_period) + self.look_period
        elif now >= self._next_ends:
            with self.governor.looking(more=True):
                self.throughput.end(self.backend.closed(), time.monotonic_ns())
        if now >= self._next_ends:
            self._next_ends = now + ENDS_S
        self.drain()
        if looks and not reports and (self.options.mode != "detail" or self.options.triggers.reset_rate):
            # Rolling windows may be shorter than the interval.
            with self.governor.looking(more=True):
                self.windows.add(self.read(), time.time_ns())
            self._rate_of_resets()
        if reports:
            self._report()
            self._next_report = max(self._next_report + self.options.interval, now)
        if now >= self._next_judge:
            self._judge(now)
        if self.options.every_namespace and now >= self._next_namespaces:
            self._follow_namespaces()
            self._next_namespaces = now + NAMESPACES_S

    def finish_window(self) -> None:
        """The run has come to its end by itself: the window that ends with it is one more."""
        if self._next_report <= self.ends + SLACK_S:
            self.look()
            self.drain()
            self._report()

    def look(self) -> None:
        """Ask for connections and listening sockets."""
        with self.governor.looking():
            self._look()
        self._looked = time.monotonic()

    def _look(self) -> None:
        backend = self.backend
        # In this order: a backend may find both in one walk.
        # A table that changes while it is walked may have one of them twice.
        self.rows = list({row.cookie: row for row in backend.connections()}.values())
        self.listeners = backend.listeners()
        self._roles()
        self.throughput.look(self.rows, backend.closed(), time.monotonic_ns(), self.look_period / 2)
        for namespace in self.options.filters.namespaces:
            self.throughput.visited(namespace.inode)
        ended = backend.closed_listeners()
        dropped = self.listen_drops.look(self.listeners, self._read_kernels(), ended, time.time_ns())
        if self.options.triggers.backlog_overflow:
            for listener, drops in dropped:
                backend.offer(overflow(listener, drops, time.monotonic_ns()))
        if self.wants_events:
            self._by_cookie = {row.cookie: row for row in self.rows}

    def drain(self) -> None:
        """Pass on the events that the backend has."""
        found = self.backend.events()
        if not self.wants_events:
            return
        for event in found:
            self._complete(event.connection)
        heard = [self._heard(event.connection) for event in found]
        self.owners.fill([event.connection for event in found] + [one for some in heard for one in some])
        for event, some in zip(found, heard, strict=True):
            _inherit(event.connection, some)
        # The clock of the day may be set while it runs.
        offset = time.time_ns() - time.monotonic_ns()
        for event in found:
            self.sink.event(events.document(event, event.time_ns + offset, self.mask))

    def read(self) -> Reading:
        """The backend's reading with what the observer adds."""
        reading = self.backend.read()
        throughput = self.throughput
        if "throughput" not in self.backend.off:
            reading.counters["send_bytes"] = throughput.send_bytes
            reading.counters["receive_bytes"] = throughput.receive_bytes
            reading.counters["throughput_ns"] = throughput.covered_ns
            reading.histograms["send_bps"] = _copy(throughput.send)
            reading.histograms["receive_bps"] = _copy(throughput.receive)
        reading.kernel = self._kernel_totals()
        reading.listen_drops = dict(self.listen_drops.since_start)
        for name, value in zip(LISTEN_COUNTERS, self.listen_drops.total, strict=True):
            reading.counters[name] = value
        return reading

    def stop(self) -> None:
        """The last look, detach, the final summary and the end of the events."""
        try:
            if time.monotonic() - self._looked > SAME_S:
                self.look()
            self.drain()
        except OtusError:
            self.rows = []
        self.backend.stop()
        self.throughput.look(self.rows, self.backend.closed(), time.monotonic_ns(), self.look_period / 2)
        self.drain()
        self.windows.add(self.read(), time.time_ns())
        self.governor.finish(self.backend)
        final = self.document(self.windows.run(), final=True)
        if self.options.mode != "detail":
            self.sink.summary(final, self)
        if self.wants_events:
            told = final["events"]
            self.sink.event(
                events.end(time.time_ns(), told["emitted"] or 0, told["suppressed"] or {}, told["lost"] or 0)
            )
        self.close()

    def close(self) -> None:
        """Let everything go, whatever happened; a second call does nothing."""
        if hasattr(self, "backend"):
            self.backend.stop()
        for counters in self._kernels.values():
            counters.close()

    @property
    def off(self) -> dict[str, str]:
        """Metrics, or parts of them, that are not measured -> why."""
        more = {"listen.more": LISTEN_MORE} if self.listen_drops.left_out else {}
        return {**self.backend.off, **more}

    def document(self, window: Window, *, final: bool = False) -> dict[str, Any]:
        """The summary of a window."""
        options = self.options
        return summary.document(
            window,
            backend=self.backend.name,
            netns="all" if options.every_namespace else options.filters.netns,
            off=self.off,
            listeners=self.listen_drops.within(self.listeners, window.since_ns),
            sub_bits=options.sizes.sub_bits,
            mask=self.mask,
            final=final,
            sampling=self.sampling(),
        )

    def sampling(self) -> dict[str, Any]:
        """How thin the looks are, and what the observer costs."""
        governor = self.governor
        return {
            "look_s": round(self.look_period, 3),
            "look_factor": governor.stretch,
            "segments_one_of": governor.sampling,
            "cpu_percent": round(governor.share * 100, 2),
            "start_cpu_s": round(governor.start_cpu_s, 3),
            "send_bytes": self.throughput.send_bytes,
            "receive_bytes": self.throughput.receive_bytes,
        }

    def _judge(self, now: float) -> None:
        before = self.look_period
        self.governor.judge(self.backend, self._shortest)
        # A look that turned out to be dear is not followed by the next one as if it had not been.
        self._next_look += max(0.0, self.look_period - before)
        soonest = min(now + self.governor.pause(self._shortest), self._looked + MOST_STRETCH * self._shortest)
        self._next_look = max(self._next_look, soonest)
        self._next_judge = now + JUDGE_S

    def _report(self) -> None:
        before = self._reported
        self.windows.add(self.read(), time.time_ns())
        self._reported = self.windows.newest
        window = self.windows.since(before)
        self.governor.report(self.backend)
        self._after(window)
        if self.options.mode == "detail":
            return
        for seconds in self.options.windows or (0.0,):
            self.sink.summary(self.document(self.windows.last(seconds) if seconds else window), self)

    def _after(self, window: Window) -> None:
        """What the triggers need to know of the last window."""
        triggers = self.options.triggers
        if triggers.rtt_p99:
            one = window.reading.histograms.get("rtt_us")
            if one is not None:
                p99 = summary.histogram_object(one, self.options.sizes.sub_bits)["p99"]
                if p99:
                    self.backend.set_rtt_p99(round(p99))
        self._rate_of_resets()

    def _rate_of_resets(self) -> None:
        """Of each second, however far apart the reports are."""
        threshold = self.options.triggers.reset_rate
        if threshold is None:
            return
        window = self.windows.since(self._rated)
        if window.seconds < SECOND_S:
            return
        self._rated = self.windows.newest
        counters = window.reading.counters
        resets = counters.get("resets_sent", 0) + counters.get("resets_received", 0)
        rate = round(resets / window.seconds)
        if rate >= threshold:
            nobody = Connection(0, "", "", 0, "", 0, netns=self.options.filters.netns)
            self.backend.offer(Event(time.monotonic_ns(), "reset_rate", rate, threshold, nobody))

    def _complete(self, one: Connection) -> None:
        """What the last look knows of the socket and the event does not."""
        row = self._by_cookie.get(one.cookie)
        if row is None:
            if one.role == "unknown" and one.state not in ("", "LISTEN", "CLOSE"):
                one.role = self._role(one)
            return
        one.inode = one.inode or row.inode
        if one.pid is None and row.pid is not None:
            one.pid, one.comm, one.pid_source = row.pid, row.comm, row.pid_source
        if one.role == "unknown":
            one.role = row.role
        for name in ("cgroup", "netns"):
            if not getattr(one, name):
                setattr(one, name, getattr(row, name))
        for name in ("pacing_bps", "send_window", "receive_window", "unsent_queue"):
            # 0 is what a window or a queue may be, and what an event may be about.
            if getattr(one, name) is None:
                setattr(one, name, getattr(row, name))

    def _heard(self, one: Connection) -> list[Listener]:
        """Those that listen for a connection of which no process is known."""
        if one.pid is not None or one.role != "server" or one.state == "LISTEN":
            return []
        there = self._listening.get((one.netns, one.local_port), [])
        wanted = (one.local, "::") if ":" in one.local else (one.local, "0.0.0.0", "::")  # noqa: S104
        return next(filter(None, ([a for a in there if a.local == local] for local in wanted)), [])

    def _roles(self) -> None:
        self._listening = {}
        for one in self.listeners:
            self._listening.setdefault((one.netns, one.port), []).append(one)
        for row in self.rows:
            if row.role == "unknown":
                row.role = self._role(row)

    def _role(self, one: Connection) -> str:
        """Of a socket older than the observer: who listens on its port is its server."""
        if (one.netns, one.local_port) in self._listening:
            return "server"
        return "client" if one.local_port >= EPHEMERAL or one.state == "SYN_SENT" else "unknown"

    def _follow_namespaces(self) -> None:
        found = every()
        filters = self.options.filters
        if {one.inode for one in found} != {one.inode for one in filters.namespaces}:
            filters.namespaces = found
            self.backend.set_namespaces(found)
            self._open_kernels(found)

    def _open_kernels(self, namespaces: Sequence[Namespace]) -> int:
        """How many may not be entered; those that are gone by now are no loss."""
        shut = 0
        wanted = {namespace.inode: namespace for namespace in namespaces}
        for inode in set(self._kernels) - set(wanted):
            counters = self._kernels.pop(inode)
            for name, value in _minus(counters.read(), self._kernel_base.pop(inode)).items():
                self._kernel_ended[name] = self._kernel_ended.get(name, 0) + value
            counters.close()
        for inode, namespace in wanted.items():
            if inode not in self._kernels:
                try:
                    self._kernels[inode] = Counters(namespace)
                except (OSError, OtusError) as error:
                    shut += isinstance(error, PermissionError | NotPermittedError)
                    continue
                self._kernel_base[inode] = self._kernels[inode].read()
        return shut

    def _read_kernels(self) -> dict[int, dict[str, int]]:
        return {inode: counters.read() for inode, counters in self._kernels.items()}

    def _kernel_totals(self) -> dict[str, int]:
        totals = dict(self._kernel_ended)
        for inode, now in self._read_kernels().items():
            for name, value in _minus(now, self._kernel_base[inode]).items():
                totals[name] = totals.get(name, 0) + value
        return totals


def overflow(listener: Listener, drops: int, time_ns: int) -> Event:
    """What a look has found of a listening socket: SYNs that are turned away raise no tracepoint."""
    place = Connection(listener.cookie, "LISTEN", listener.local, listener.port, "", 0)
    place.netns, place.inode, place.pid, place.comm = (
        listener.netns, listener.inode, listener.pid, listener.comm,
    )  # fmt: skip
    place.pid_source, place.role = listener.pid_source, "server"
    place.receive_queue, place.send_queue = listener.backlog, listener.limit
    return Event(time_ns, "backlog_overflow", drops, listener.limit, place)


def _inherit(one: Connection, heard: Sequence[Listener]) -> None:
    """Of one that was not accepted yet, or is gone, the process that listens is known, at least."""
    # Sockets of several processes may share a port.
    if one.pid is None and len({listener.pid for listener in heard}) == 1 and heard[0].pid is not None:
        one.pid, one.comm, one.pid_source = heard[0].pid, heard[0].comm, "listen"


def _minus(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: max(0, value - before.get(name, 0)) for name, value in now.items()}


def _left_out(shut: int, hidden: int, more: bool) -> list[str]:
    """What `--netns all` does not watch, in words."""
    notes = []
    if shut > 0:
        many = "one namespace" if shut == 1 else f"{shut} namespaces"
        notes.append(f"--netns all: {many} may not be entered, and left out (CAP_SYS_ADMIN)")
    if hidden:
        many = "one process" if hidden == 1 else f"{hidden} processes"
        notes.append(f"--netns all: the namespace of {many} may not be seen (CAP_SYS_PTRACE)")
    if more:
        notes.append(f"--netns all: {MOST:,} namespaces are watched, those beyond are left out")
    return notes


def _without_events(first: Reading) -> Reading:
    """The reading from which all counts. Events before it, but after the start, are given out, too."""
    for name in ("events_emitted", "events_lost"):
        first.counters.pop(name, None)
    first.suppressed.clear()
    return first


def _copy(one: Histogram) -> Histogram:
    return Histogram(one.buckets[:], one.total, one.largest)

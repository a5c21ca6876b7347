"""The observer as a process of the engine: looks, keeps windows, rows and events, answers on its control
socket.

    python -m engine.tcp.process FD

The first line on the control socket is the configuration: options (words as of `engine.tcp.options.make`),
events_file (or empty), events_size and events_backups, heartbeat_fd. Requests are {"id", "method", "params"};
methods: figures (the snapshot's section `tcp`), and those of engine.control.methods that begin with tcp_. It
ends when it is told to and when the control socket ends; then nothing of it is left in the kernel.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from engine.calls.query import Windows as Orders
from engine.calls.query import parse_query, time_limit
from engine.child import Channel, Stop, begin
from engine.control.answers import answer_to
from engine.errors import OtusError, UsageError
from engine.tcp import options, rows
from engine.tcp.events_file import EventsFile
from engine.tcp.history import POINTS, Connections, Host
from engine.tcp.listen import merged
from engine.tcp.observer import Observer
from engine.tcp.windows import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.tcp.backend import Connection

MOST_EVENTS = 2000
"""Events that are held for the screens."""
WINDOWS = (("1", 1.0), ("10", 10.0), ("60", LONGEST_S))
LONGEST_WAIT = 0.25
FILTER_S = 0.8
MOST_ROWS = 1000
MOST_PLACES = 200


class Process:
    """The loop, and the sink of its observer."""

    def __init__(self, channel: Channel, configuration: dict[str, Any], stop: Stop) -> None:
        self.channel = channel
        self.stop = stop
        words = {**configuration["options"], "mode": "both", "format": "json"}
        self.observer = Observer(options.make(**words), self)
        self.file = EventsFile(
            configuration.get("events_file") or "",
            int(configuration.get("events_size") or 0),
            int(configuration.get("events_backups") or 0),
        )
        self.beat = _heartbeat(configuration.get("heartbeat_fd"))
        self.table = rows.Table(self.observer.mask)
        self.orders = Orders(self.table.columns, self.table.search, "srtt_us", guard=self._guard)
        self.connections = Connections()
        self.host = Host()
        self.recent: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self.sequence = 0
        self._section: dict[str, Any] = {}
        self._looked: list[Connection] = []

    def run(self) -> None:
        """Until the end of the control socket, or told to end. OtusError where it cannot begin."""
        self.file.open()
        observer = self.observer
        try:
            observer.start()
            self._follow()
            self.channel.send({"state": "running"})
            while not self.stop and not self.channel.ended:
                observer.turn()
                self._follow()
                self.beat()
                for request in self.channel.receive():
                    self.serve(request)
                wait = min(LONGEST_WAIT, observer.due() - time.monotonic())
                if wait > 0:
                    self.channel.wait(wait)
            observer.stop()
        finally:
            observer.close()
            self.file.close()

    # ---- what the observer gives

    def summary(self, document: dict[str, Any], _: Observer) -> None:
        """The last window, for the charts."""
        if not document["final"]:
            self.host.take(document, time.time_ns())
            self._section = {}

    def event(self, document: dict[str, Any]) -> None:
        """One more event."""
        if document["event_type"] == "tcp":
            self.sequence += 1
            self.recent.append({"sequence": self.sequence, **document})
        self.file.write(document)

    def _follow(self) -> None:
        """After a look: the rows of the connections."""
        observer = self.observer
        if observer.rows is self._looked:
            return
        self._looked = observer.rows
        with observer.governor.looking(more=True):
            self._take_rows()

    def _take_rows(self) -> None:
        observer = self.observer
        observer.owners.fill(observer.rows)
        observer.owners.fill(observer.listeners)
        rates = observer.throughput.rates
        self.table.take(observer.rows, rates)
        self.orders.forget()
        self.connections.take(observer.rows, rates, time.time_ns())

    # ---- what is asked

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one request; whatever goes wrong is an answer too."""
        if "method" not in request:
            return
        self.channel.send(answer_to(request, self.answer, "tcp"))

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a method; UsageError where there is no such one."""
        serve = getattr(self, f"do_{method}", None)
        if serve is None:
            raise UsageError(f"no method {method!r}")
        found: dict[str, Any] = serve(**params)
        return found

    def do_figures(self) -> dict[str, Any]:
        """The section `tcp` of the snapshot."""
        observer = self.observer
        if not self._section:
            windows = {name: observer.document(observer.windows.last(length)) for name, length in WINDOWS}
            windows["run"] = observer.document(observer.windows.run())
            states: dict[str, int] = {}
            for row in observer.rows:
                states[row.state] = states.get(row.state, 0) + 1
            self._section = {
                "backend": observer.backend.name,
                "netns": windows["run"]["netns"],
                "notes": observer.notes,
                "off": observer.off,
                "windows": windows,
                "drop_places": {name: self._places(name) for name in ("60", "run")},
                "connections": len(observer.rows),
                "states": states,
                "owners_hidden": observer.owners.hidden,
                "sampling": observer.sampling(),
                "events": {"newest": self.sequence, "held": len(self.recent), "file_lost": self.file.lost},
                "version": self.table.version,
            }
        return self._section

    def _places(self, name: str) -> list[list[Any]]:
        """[reason, kernel function, packets] of the drops in a window, the most frequent first."""
        windows = self.observer.windows
        window = windows.run() if name == "run" else windows.last(dict(WINDOWS)[name])
        found = sorted(window.reading.drops.items(), key=lambda one: -one[1])[:MOST_PLACES]
        return [[*place, count] for place, count in found if count]

    def do_tcp_connections(self, **params: Any) -> dict[str, Any]:
        """A window of the table."""
        query = parse_query(params, self.table.columns, "srtt_us")
        ids = params.get("ids")
        mask = self.observer.mask
        if ids is not None:
            wanted = {str(one) for one in ids}
            picked = {str(row.cookie): row for row in self.table.rows if str(row.cookie) in wanted}
            window, total, start = (
                [picked[str(one)] for one in ids if str(one) in picked],
                len(self.table.rows),
                0,
            )
            matched = len(window)
        else:
            found, start, window = self.orders.window(
                query, self.table.version, lambda: self.table.rows, lambda row: str(row.cookie)
            )
            total, matched = found.total, len(found.rows)
        return {
            "total": total,
            "matched": matched,
            "offset": start,
            "version": self.table.version,
            "rows": [self.table.row(one, mask) for one in window],
        }

    def do_tcp_groups(self, by: str = "process", **params: Any) -> dict[str, Any]:
        """Sums by process, peer, port."""
        if by not in rows.GROUP_KEYS:
            raise UsageError(f"by: no group {by!r}", f"one of {', '.join(rows.GROUP_KEYS)}")
        if by in ("peer", "local_port", "remote_port") and self.observer.mask.kind != "none":
            raise UsageError(f"by: {by} may be masked", "group by process or state")
        query = parse_query({"filter": params.get("filter")}, self.table.columns, "srtt_us")
        found = self.orders.find(query, self.table.version, lambda: self.table.rows)
        groups = self.table.groups(found.rows, by)
        return {"total": len(groups), "version": self.table.version, "rows": groups[:MOST_ROWS]}

    def do_tcp_connection(self, id: str = "") -> dict[str, Any]:
        """One connection: its row, its last looks, its events."""
        one = next((row for row in self.table.rows if str(row.cookie) == str(id)), None)
        if one is None:
            raise OtusError(f"connection {id} is gone", "it was closed; its events are kept")
        row = self.table.row(one, self.observer.mask)
        ends = tuple(row[name] for name in ("local", "local_port", "remote", "remote_port"))
        events = [event for event in self.recent if _is_of(event, row["id"], ends)]
        return {"row": row, "history": self.connections.of(one.cookie), "events": events[-100:]}

    def do_tcp_listeners(self) -> dict[str, Any]:
        """All listening sockets, those that dropped most first."""
        observer = self.observer
        drops = observer.listen_drops.since_start
        made = [rows.listener(one, drops, observer.mask) for one in merged(observer.listeners)]
        made.sort(key=lambda row: (-(row["drops"] or 0), -row["backlog"]))
        return {"total": len(made), "rows": made[:MOST_ROWS]}

    def do_tcp_events(self, after: int = 0, count: int = 100) -> dict[str, Any]:
        """Events since a sequence number, oldest first; those that made room are counted as lost."""
        for name, value in (("after", after), ("count", count)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise UsageError(f"{name}: {value!r} is no whole number")
        held = [event for event in self.recent if event["sequence"] > after]
        first = held[0]["sequence"] if held else self.sequence + 1
        lost = max(0, first - after - 1)
        return {"newest": self.sequence, "lost": lost, "events": held[: min(count, MOST_ROWS)]}

    def do_tcp_history(self, count: int = 60) -> dict[str, Any]:
        """Points of the last reports."""
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise UsageError(f"count: {count!r} is no whole number")
        return {"interval": self.observer.options.interval, "points": self.host.last(min(count, POINTS))}

    def _guard(self) -> AbstractContextManager[Any]:
        return time_limit(FILTER_S, self.beat)


def _is_of(event: dict[str, Any], cookie: str, ends: tuple[Any, ...]) -> bool:
    """Whether an event is of a socket. Where the kernel could not name the socket (a SYN-ACK's, a dropped
    packet's), its addresses and ports have to do."""
    if event["socket_cookie"] is not None:
        return bool(event["socket_cookie"] == cookie)
    return tuple(event[name] for name in ("src_ip", "src_port", "dest_ip", "dest_port")) == ends


def _heartbeat(fd: int | None) -> Callable[[], None]:
    if fd is None:
        return lambda: None
    memory = mmap.mmap(fd, os.fstat(fd).st_size)
    return lambda: struct.pack_into("=Q", memory, 0, time.monotonic_ns())


def main() -> None:
    """Entry point of the process."""
    channel, configuration, stop = begin(int(sys.argv[1]))
    try:
        Process(channel, configuration, stop).run()
    except OtusError as error:
        print(f"otus: {error.message}\n{error.hint}", file=sys.stderr)
        raise SystemExit(int(error.code)) from error


if __name__ == "__main__":
    main()

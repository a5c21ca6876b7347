"""The calls process: drains the evidence rings, keeps the stores, answers requests on its control socket.

    python -m engine.calls.process FD

The first line on the control socket is the configuration: task, evidence_fds, streams_fd (or null),
limits (engine.config.Stores), user (whom to become, or null), clock (live or packet) and, where it shall
give a sign of life, heartbeat_fd: shared memory of two 64-bit words, CLOCK_MONOTONIC ns and the number of
calls held.
Requests are {"id", "method", "params"}, answers {"id", "result"} or {"id", "error": {code, message, data}}.
It ends when it is told to and when the control socket ends.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import engine.packet  # noqa: F401  imported late elsewhere, when the files of another user are out of reach
from engine.calls.query import time_limit
from engine.calls.store import Calls
from engine.child import Channel, Stop, begin
from engine.control.answers import answer_to
from engine.log import log
from engine.privileges import drop
from engine.shm import ring
from engine.shm.streams import StreamTable

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 4096
"""Records between two looks at the control socket."""
SHORTEST_S, LONGEST_S = 0.002, 0.05
"""Sleep between two looks at the rings: short while there is traffic, long while there is none."""
HOLD_BACK = 0.05
"""Seconds that a record waits for older ones of other workers."""
STEP_NS = 250_000_000
"""The wall clock was stepped when it moved so much more or less than the monotonic one between two looks."""
FILTER_S = 0.8
"""CPU time of one filter."""
MOST_HELD = 16_384


class Merge:
    """Records of several rings in time order.

    A record is passed on when each ring has shown a younger one, or after HOLD_BACK.
    """

    def __init__(self, readers: list[ring.RingReader], calls: Calls, live: bool) -> None:
        self.readers = readers
        self.calls = calls
        self.live = live
        self.held: list[deque[tuple[int, int, bytes]]] = [deque() for _ in readers]
        self.marks: deque[tuple[float, int]] = deque()
        """When something was read (CLOCK_MONOTONIC), and the latest time of what was read."""

    def step(self, most: int) -> int:
        """Read up to `most` records of each ring and pass on what is due; returns how many were read."""
        if len(self.readers) == 1:
            return self.calls.drain(self.readers[0], most)
        count = latest = 0
        for place, reader in enumerate(self.readers):
            if len(self.held[place]) < MOST_HELD:
                batch = reader.read(most)
                count += len(batch)
                latest = max(latest, max((record[2] for record in batch), default=0))
                self.held[place].extend((timestamp, kind, body) for kind, _, timestamp, body in batch)
        self.pass_on(self.due(count, latest))
        return count

    def due(self, count: int, latest: int) -> int:
        """Up to which time records may be passed on, when `count` were read just now up to `latest`."""
        if any(len(held) >= MOST_HELD for held in self.held):
            return 1 << 63
        if not self.live:
            # Packet time does not pass by itself: when nothing more comes, nothing more will.
            return min((held[-1][0] for held in self.held if held), default=0) if count else 1 << 63
        # By when they were read and not by the wall clock, which may be stepped: back, too, so that the
        # times of what was read first may be the latest.
        now, until = time.monotonic(), 0
        if count:
            self.marks.append((now, latest))
        while self.marks and self.marks[0][0] <= now - HOLD_BACK:
            until = max(until, self.marks.popleft()[1])
        return until

    def pass_on(self, until: int) -> None:
        """Everything up to a time, oldest first."""
        due = []
        for held in self.held:
            while held and held[0][0] <= until:
                due.append(held.popleft())
        due.sort(key=lambda record: record[0])
        for timestamp, kind, body in due:
            self.calls.add(kind, timestamp, body)


class Process:
    """The loop."""

    def __init__(self, channel: Channel, configuration: dict[str, Any], stop: Stop) -> None:
        self.channel = channel
        self.stop = stop
        self.beat = _heartbeat(configuration.get("heartbeat_fd"), lambda: len(self.calls.table.dialogs))
        self.live = live = configuration.get("clock", "live") == "live"
        self.offset_ns = time.time_ns() - time.monotonic_ns()
        streams = configuration.get("streams_fd")
        self.calls = Calls(
            configuration.get("limits") or {},
            "live" if live else "packet",
            None if streams is None or streams < 0 else StreamTable.open(streams),
            guard=lambda: time_limit(FILTER_S, self.beat),
        )
        readers = [ring.RingReader(ring.open_ring(fd)) for fd in configuration["evidence_fds"]]
        self.calls.readers = readers
        self.merge = Merge(readers, self.calls, live)
        self.requests: deque[dict[str, Any]] = deque()
        self.answers: deque[dict[str, Any]] = deque()

    def run(self) -> None:
        """Until the end of the control socket, or told to end."""
        sleep = SHORTEST_S
        self.channel.send({"state": "running"})
        while not self.stop and not self.channel.ended:
            count = self.merge.step(BATCH)
            self.beat()
            self.watch_clock()
            self.requests += self.channel.receive()
            if self.requests:
                # One at a time: an answer that takes long delays neither the rings nor the answers before it.
                self.serve(self.requests.popleft())
            self.flush()
            sleep = SHORTEST_S if count else min(LONGEST_S, sleep * 2)
            if count < BATCH and not self.requests:
                self.channel.wait(sleep)

    def watch_clock(self) -> None:
        """Live: timers do not follow a step of the wall clock."""
        ahead = time.time_ns() - time.monotonic_ns() - self.offset_ns
        self.offset_ns += ahead
        if self.live and abs(ahead) > STEP_NS:
            log.warning("calls", "the wall clock was stepped", by_s=round(ahead / 1e9, 3))
            self.calls.stepped(ahead)

    def serve(self, request: dict[str, Any]) -> None:
        """Answer one request; whatever goes wrong is an answer too."""
        if "method" not in request:
            return
        self.answers.append(answer_to(request, self.calls.answer, "calls"))

    def flush(self) -> bool:
        """Send what the control socket takes; whether that was all."""
        while self.answers and self.channel.send(self.answers[0]):
            self.answers.popleft()
        return self.channel.flush() and not self.answers


def _heartbeat(fd: int | None, calls: Callable[[], int]) -> Callable[[], None]:
    if fd is None:
        return lambda: None
    memory = mmap.mmap(fd, os.fstat(fd).st_size)
    return lambda: struct.pack_into("=2Q", memory, 0, time.monotonic_ns(), calls())


def main() -> None:
    """Entry point of the process."""
    channel, configuration, stop = begin(int(sys.argv[1]))
    process = Process(channel, configuration, stop)
    drop(configuration.get("user"))
    process.run()


if __name__ == "__main__":
    main()

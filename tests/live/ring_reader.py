"""A worker that only counts: `ring_reader.py FD BLOCK_SIZE BLOCK_COUNT COUNTERS_FD`, until it is killed."""

from __future__ import annotations

import sys

from engine.capture.ring_walk import RingPoll, RingWalk, map_ring
from engine.capture.sink import PacketSink
from engine.shm.counters import Counters


class CountingSink(PacketSink):
    """Counts packets, and their octets in two steps, so that a kill has something to cut apart."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters

    def attach(self, buf: memoryview) -> None:
        self.buf = buf

    def packet(self, start: int, end: int, *facts: int) -> int:
        self.counters.add("received")
        self.counters.add("bytes", sum(self.buf[start:end]) & 1)
        self.counters.add("handled")
        return 0


def main() -> None:
    """Walk for ever."""
    fd, size, count, counters_fd = map(int, sys.argv[1:])
    counters = Counters.open(counters_fd)
    counters.recover()
    walk = RingWalk(map_ring(fd, size, count), size, count, counters, CountingSink(counters))
    poll = RingPoll(fd)
    while True:
        if not walk.run(4):
            poll.wait(100)


if __name__ == "__main__":
    main()

"""Throughput: what each connection moved between two looks, as rates over connections and as sums.

A connection that was there at the first look of its namespace counts from then on, a younger one from its
begin; one that ended counts up to its last octet. Directions are those of the host: send is what the peer
acknowledged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.tcp import histogram
from engine.tcp.backend import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.tcp.backend import Closed, Connection

SHORTEST_S = 0.05
"""A connection that ended right after a look is not given a rate over less time than this."""


class Throughput:
    """Give it every look; its histograms and sums only grow."""

    def __init__(self, sub_bits: int) -> None:
        count = histogram.bucket_count(sub_bits)
        self.sub_bits = sub_bits
        self.send, self.receive = Histogram([0] * count), Histogram([0] * count)
        """Bits a second: one value for each look and connection that moved something in that direction."""
        self.send_bytes = self.receive_bytes = 0
        self.covered_ns = 0
        """Time between the first look and the last one: what the sums are over."""
        self.rates: dict[int, tuple[float, float]] = {}
        """Cookie -> bits a second sent and received between the last two looks."""
        self._known: dict[int, tuple[int, int]] = {}
        self._seen: set[int] = set()
        self._time_ns = 0
        self._late = [0, 0]
        """Octets of those that ended since the last look: they count with the time that the next covers."""

    def end(self, closed: Iterable[Closed], time_ns: int) -> None:
        """Between two looks: what has ended. Those before the first look are not counted."""
        if not self._time_ns:
            return
        seconds = max((time_ns - self._time_ns) / 1e9, SHORTEST_S)
        sent, received = self.send_bytes, self.receive_bytes
        for one in closed:
            before = self._known.pop(one.cookie, (0, 0))
            self._move(one.bytes_acked, one.bytes_received, before, seconds)
        self._late[0] += self.send_bytes - sent
        self._late[1] += self.receive_bytes - received
        self.send_bytes, self.receive_bytes = sent, received

    def look(
        self,
        connections: Iterable[Connection],
        closed: Iterable[Closed],
        time_ns: int,
        least_s: float = SHORTEST_S,
    ) -> None:
        """One look: what is open, and what ended since the last one.

        A look that comes sooner than least_s after the last one counts in the sums, but gives no rates of
        what is open: of so short a time a single burst is all that is seen. Unless it is all that there is.
        """
        seconds = (time_ns - self._time_ns) / 1e9
        first = not self._time_ns
        short = self.covered_ns > 0 and seconds < least_s
        seconds = max(seconds, least_s if short else SHORTEST_S)
        self.covered_ns += 0 if first else time_ns - self._time_ns
        self._time_ns = time_ns
        self.send_bytes += self._late[0]
        self.receive_bytes += self._late[1]
        self._late = [0, 0]
        ended = set()
        for end in closed:
            ended.add(end.cookie)
            before = self._known.pop(end.cookie, None)
            if first:
                continue
            self._move(end.bytes_acked, end.bytes_received, before or (0, 0), seconds)
        known: dict[int, tuple[int, int]] = {}
        rates = {}
        namespaces = set()
        for one in connections:
            namespaces.add(one.netns)
            # One that ended after it was looked at is booked with its last octet already.
            if one.bytes_acked is None or one.bytes_received is None or one.cookie in ended:
                continue
            now = (one.bytes_acked, one.bytes_received)
            before = self._known.get(one.cookie)
            if before is None and not first and one.netns in self._seen:
                before = (0, 0)
            if before is not None:
                rates[one.cookie] = self._move(*now, before, seconds, counts=not short)
            known[one.cookie] = now
        self._known = known
        if not short:
            self.rates = rates
        self._seen |= namespaces

    def visited(self, netns: int) -> None:
        """A namespace was looked at, though it may have had no connection."""
        self._seen.add(netns)

    def _move(
        self, acked: int, received: int, before: tuple[int, int], seconds: float, *, counts: bool = True
    ) -> tuple[float, float]:
        sent, got = max(0, acked - before[0]), max(0, received - before[1])
        self.send_bytes += sent
        self.receive_bytes += got
        rates = (sent * 8 / seconds, got * 8 / seconds)
        for one, rate in ((self.send, rates[0]), (self.receive, rates[1])):
            if rate and counts:
                value = round(rate)
                histogram.add(one.buckets, value, self.sub_bits)
                one.total += value
                one.largest = max(one.largest, value)
        return rates

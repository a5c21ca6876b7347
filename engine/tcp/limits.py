"""Which detail events go on, for backends that find them in user space: the stages that the kernel side has
too.

What lasts is told once a second of a flow; 1/N by flow, the K flows with most triggers, the first N of a
flow, then so many a second over all. What a stage keeps back is counted; of what the fourth keeps back, the
last N of each flow are given out when the flow ends.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.tcp.backend import Event, Limits

STAGES = ("repeat", "sample", "flow", "first", "rate")
LASTING = frozenset(("rtt_above", "rtt_jump", "rtt_p99", "pacing_zero"))
"""Triggers that every look meets as long as they last: one a second of a flow."""
OF_PACKETS = frozenset(("reset", "drop"))
"""Triggers of which some are of packets for which there is no socket: they have no cookie."""
REPEAT_NS = 900_000_000
"""A little less: looks that come once a second come early at times."""
SILENT_NS = 10_000_000_000
"""A flow without a trigger for so long leaves its place to others: the end of some is not told."""
MOST_FLOWS = 16_384
_MIX = 0x9E37_79B9_7F4A_7C15


class Flow:
    """What is known of one flow's triggers."""

    __slots__ = ("last", "passed", "seen_ns", "told_ns", "triggers")

    def __init__(self, last: int) -> None:
        self.triggers = 0
        self.passed = 0
        self.seen_ns = 0
        self.told_ns: dict[str, int] = {}
        self.last: deque[Event] = deque(maxlen=last)


class Stages:
    """Give it every event; it gives those that go on."""

    def __init__(
        self,
        limits: Limits,
        most_flows: int = MOST_FLOWS,
        in_top: Callable[[int, int], bool] | None = None,
    ) -> None:
        """in_top(cookie, triggers): whether a flow is of those with most triggers, where others know that."""
        self.limits = limits
        self._in_top = in_top
        self.suppressed = dict.fromkeys(STAGES, 0)
        self.evicted = 0
        self._flows: OrderedDict[int, Flow] = OrderedDict()
        self._most = most_flows
        self._top: set[int] = set()
        self._tokens = float(limits.per_second)
        self._refilled = 0

    def admit(self, event: Event) -> bool:
        """Whether an event goes on; each call is one trigger."""
        cookie = event.connection.cookie
        limits = self.limits
        if not cookie and event.trigger in OF_PACKETS:
            return self._admit_packet(event)
        flow = self._flow(cookie)
        if event.trigger in LASTING:
            told = flow.told_ns.get(event.trigger)
            if told is not None and event.time_ns - told < REPEAT_NS:
                self.suppressed["repeat"] += 1
                return False
            flow.told_ns[event.trigger] = event.time_ns
        flow.triggers += 1
        flow.seen_ns = event.time_ns
        if limits.sample > 1 and sampled_out(cookie, limits.sample):
            self.suppressed["sample"] += 1
            return False
        if limits.top_flows and not self._is_top(cookie, flow):
            self.suppressed["flow"] += 1
            return False
        # With only --last, nothing passes before the end of the flow.
        if (limits.first or limits.last) and flow.passed >= limits.first:
            if limits.last:
                if len(flow.last) == limits.last:
                    self.suppressed["first"] += 1
                flow.last.append(event)
            else:
                self.suppressed["first"] += 1
            return False
        if not self._token(event.time_ns):
            return False
        flow.passed += 1
        return True

    def _admit_packet(self, event: Event) -> bool:
        """Of a packet without a socket: it takes no place of a flow, nobody would tell when that ends."""
        one, limits = event.connection, self.limits
        flow = zlib.crc32(f"{one.remote} {one.remote_port} {one.local_port}".encode())
        if limits.sample > 1 and sampled_out(flow, limits.sample):
            self.suppressed["sample"] += 1
            return False
        if limits.top_flows and len(self._top) >= limits.top_flows:
            self.suppressed["flow"] += 1
            return False
        return self._token(event.time_ns)

    def end(self, cookie: int, now_ns: int) -> list[Event]:
        """The flow is closed: the last events of it that were kept."""
        flow = self._flows.pop(cookie, None)
        self._top.discard(cookie)
        return [event for event in flow.last if self._token(now_ns)] if flow is not None else []

    def end_all(self, now_ns: int) -> list[Event]:
        """The observer ends: the last events of every flow, in time order."""
        kept = [event for cookie in list(self._flows) for event in self.end(cookie, now_ns)]
        return sorted(kept, key=lambda event: event.time_ns)

    def _flow(self, cookie: int) -> Flow:
        flow = self._flows.get(cookie)
        if flow is None:
            if len(self._flows) >= self._most:
                gone, old = self._flows.popitem(last=False)
                self.suppressed["first"] += len(old.last)
                self._top.discard(gone)
                self.evicted += 1
            flow = self._flows[cookie] = Flow(self.limits.last)
        else:
            self._flows.move_to_end(cookie)
        return flow

    def _is_top(self, cookie: int, flow: Flow) -> bool:
        if self._in_top is not None:
            return self._in_top(cookie, flow.triggers)
        if cookie in self._top:
            return True
        if len(self._top) < self.limits.top_flows:
            self._top.add(cookie)
            return True
        silent = flow.seen_ns - SILENT_NS
        least = min(
            self._top,
            key=lambda other: (self._flows[other].seen_ns > silent, self._flows[other].triggers),
        )
        weakest = self._flows[least]
        if weakest.seen_ns > silent and weakest.triggers >= flow.triggers:
            return False
        self._top.discard(least)
        self._top.add(cookie)
        return True

    def _token(self, now_ns: int) -> bool:
        rate = self.limits.per_second
        if now_ns > self._refilled:
            self._tokens = min(float(rate), self._tokens + (now_ns - self._refilled) * rate / 1e9)
            self._refilled = now_ns
        if self._tokens < 1:
            self.suppressed["rate"] += 1
            return False
        self._tokens -= 1
        return True


def sampled_out(cookie: int, one_of: int) -> bool:
    """Whether a flow is not among the one of so many that are looked at; the same answer for all its life."""
    # Numbers that programs make have what differs in their upper half.
    mixed = (cookie ^ cookie >> 32) * _MIX & 0xFFFF_FFFF_FFFF_FFFF
    return (mixed >> 32) % one_of != 0

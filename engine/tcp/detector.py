"""Detail events out of two looks at a connection, for backends that see connections only when they ask.

What happened between the looks is known by its sum alone; an RTT that went up and down again in between is
not seen. The backend says so in `off`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from engine.tcp.backend import Event

if TYPE_CHECKING:
    from engine.tcp.backend import Connection, Triggers

MOST_SAMPLES = 64
"""Values of cwnd that are kept for one connection, whatever the time."""
SMOOTHING = 8
"""An RTT jumps against the mean of about so many looks."""


class Past:
    """What is remembered of one connection between two looks."""

    __slots__ = (
        "closed_window",
        "cwnds",
        "mean_rtt",
        "pacing_zero",
        "reduced_ns",
        "retransmits",
        "rtos",
        "shut",
        "srtt",
        "ssthresh",
        "time_ns",
    )

    def __init__(self) -> None:
        self.time_ns = 0
        self.mean_rtt = 0.0
        self.srtt = 0
        self.retransmits = 0
        self.rtos = 0
        self.cwnds: deque[tuple[int, int]] = deque(maxlen=MOST_SAMPLES)
        self.ssthresh: int | None = None
        self.reduced_ns = 0
        """When loss or a mark of congestion was met last."""
        self.closed_window = False
        self.pacing_zero = False
        self.shut = False


def look(
    triggers: Triggers,
    past: Past,
    now: Connection,
    time_ns: int,
    p99_us: int,
    extra: dict[str, int],
    *,
    fresh: bool,
) -> list[Event]:
    """The events of one connection since the last look; `past` becomes this one.

    extra: rtos (RTO timers since the connection began), pacing (octets a second), zero_window (1: the peer's
    is closed), shut (1: our own is), idle (1: nothing was received since the last look). fresh: nothing is
    known from before, so totals are no events.
    """
    found: list[Event] = []

    def add(trigger: str, value: int, threshold: int | None, kind: str = "") -> None:
        found.append(Event(time_ns, trigger, value, threshold, now, now.srtt_us, kind))

    if now.srtt_us and not extra.get("idle"):
        _rtt(triggers, past, now.srtt_us, p99_us, add)
    retransmits = now.retransmits or 0
    rtos = extra.get("rtos", 0)
    if not fresh:
        seconds = max((time_ns - past.time_ns) / 1e9, 0.001)
        segments = retransmits - past.retransmits
        limit = triggers.retransmit_burst
        if limit is not None and segments >= limit * max(seconds, 1.0):
            add("retransmit_burst", segments, limit)
        if triggers.rto and rtos > past.rtos:
            add("rto", rtos - past.rtos, None, "syn" if now.state == "SYN_SENT" else "rto")
    if not fresh and (retransmits > past.retransmits or _lower(now.ssthresh, past.ssthresh)):
        past.reduced_ns = time_ns
    past.retransmits, past.rtos, past.ssthresh = retransmits, rtos, now.ssthresh
    if triggers.cwnd_halved_s is not None and now.cwnd:
        _cwnd(triggers.cwnd_halved_s, past, now.cwnd, time_ns, add)
    zero = extra.get("pacing") == 0
    if triggers.pacing_zero and zero and not past.pacing_zero:
        add("pacing_zero", 0, 0)
    past.pacing_zero = zero
    for side in _closing(past, bool(extra.get("zero_window")), bool(extra.get("shut"))):
        if triggers.zero_window:
            add("zero_window", 0, None)
            found[-1].direction = side
    past.time_ns = time_ns
    return found


def _closing(past: Past, closed: bool, shut: bool) -> list[str]:
    """The windows that have closed since the last look: received is the peer's, sent is ours."""
    sides = (("received", closed, past.closed_window), ("sent", shut, past.shut))
    past.closed_window, past.shut = closed, shut
    return [side for side, now, before in sides if now and not before]


def _rtt(triggers: Triggers, past: Past, srtt: int, p99_us: int, add: Add) -> None:
    if triggers.rtt_above_us is not None and srtt > triggers.rtt_above_us:
        add("rtt_above", srtt, triggers.rtt_above_us)
    # Without a new sample it stands still: it has jumped once.
    moved, past.srtt = srtt != past.srtt, srtt
    if triggers.rtt_jump is not None and moved and past.mean_rtt and srtt > past.mean_rtt * triggers.rtt_jump:
        add("rtt_jump", srtt, round(past.mean_rtt * triggers.rtt_jump))
    if triggers.rtt_p99 and p99_us and srtt > p99_us:
        add("rtt_p99", srtt, p99_us)
    past.mean_rtt += (srtt - past.mean_rtt) / SMOOTHING if past.mean_rtt else srtt


def _lower(ssthresh: int | None, before: int | None) -> bool:
    """None: there was no loss yet."""
    return ssthresh is not None and (before is None or ssthresh < before)


def _cwnd(seconds: float, past: Past, cwnd: int, time_ns: int, add: Add) -> None:
    """One that has rested begins with a small window again (RFC 2861), too: that is no congestion."""
    cwnds, since = past.cwnds, time_ns - seconds * 1e9
    while cwnds and cwnds[0][0] < since:
        cwnds.popleft()
    largest = max((value for _, value in cwnds), default=0)
    if cwnd * 2 <= largest and past.reduced_ns >= max(since, 1):
        add("cwnd_drop", cwnd, largest // 2)
        cwnds.clear()
    cwnds.append((time_ns, cwnd))


if TYPE_CHECKING:
    from collections.abc import Callable

    Add = Callable[[str, int, int | None], None]

"""The last minutes: of the whole host a point a report, of each connection a few figures a look; both
bounded."""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

from engine.tcp.backend import RETRANSMIT_CLASSES
from engine.tcp.histogram import powers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.tcp.backend import Connection

POINTS = 600
"""Reports that are kept of the host."""
LOOKS = 120
"""Looks that are kept of a connection."""
MOST_CONNECTIONS = 2000
FIELDS = ("time_ns", "srtt_us", "rttvar_us", "cwnd", "send_bps", "receive_bps", "send_queue", "retransmits")
"""Of a connection; -1 in memory is unknown. time_ns: since 1970."""
_WIDTH = len(FIELDS)
_UNKNOWN = -1


class Connections:
    """What connections did at the last LOOKS looks."""

    def __init__(self) -> None:
        self._kept: dict[int, array[int]] = {}

    def take(
        self, rows: Sequence[Connection], rates: Mapping[int, tuple[float, float]], wall_ns: int
    ) -> None:
        """One look."""
        kept: dict[int, array[int]] = {}
        # Who is followed already goes first: histories do not change hands.
        for one in sorted(rows, key=lambda row: row.cookie not in self._kept):
            if len(kept) >= MOST_CONNECTIONS:
                break
            values = self._kept.get(one.cookie) or array("q")
            sent, received = rates.get(one.cookie, (None, None))
            point = (
                wall_ns,
                one.srtt_us,
                one.rttvar_us,
                one.cwnd,
                sent,
                received,
                one.send_queue,
                one.retransmits,
            )
            values.extend(_UNKNOWN if value is None else int(value) for value in point)
            if len(values) >= 2 * LOOKS * _WIDTH:
                values = values[-LOOKS * _WIDTH :]
            kept[one.cookie] = values
        self._kept = kept

    def of(self, cookie: int) -> dict[str, list[int | None]]:
        """FIELDS of a connection, each as a list in the order of time."""
        values = self._kept.get(cookie, array("q"))[-LOOKS * _WIDTH :]
        return {
            name: [None if value == _UNKNOWN else value for value in values[place::_WIDTH]]
            for place, name in enumerate(FIELDS)
        }


class Host:
    """A point a report."""

    def __init__(self) -> None:
        self.points: deque[dict[str, Any]] = deque(maxlen=POINTS)

    def take(self, document: Mapping[str, Any], wall_ns: int) -> None:
        """The summary of the last window."""
        rtt, retransmits = document["rtt_us"], document["retransmits"]
        throughput = document["throughput_bps"]
        self.points.append(
            {
                "time_ns": wall_ns,
                "seconds": document["window_s"],
                # The rows of a heat map: [power, count].
                "rtt_buckets": [] if rtt is None else sorted(map(list, powers(rtt["buckets"]).items())),
                "rtt_p50_us": None if rtt is None else rtt["p50"],
                "rtt_p99_us": None if rtt is None else rtt["p99"],
                "retransmits": {
                    name: retransmits["by_class"][name]["segments"]
                    if retransmits["by_class"][name]["segments"] is not None
                    else retransmits["by_class"][name]["events"]
                    for name in RETRANSMIT_CLASSES
                },
                "segments": retransmits["segments"],
                "send_bps": throughput["send_total"],
                "receive_bps": throughput["receive_total"],
                "drops": document["drops"]["total"],
                "by_reason": document["drops"]["by_reason"],
                "resets": _sum(document["resets"]["sent"], document["resets"]["received"]),
            }
        )

    def last(self, count: int) -> list[dict[str, Any]]:
        """The newest points, in the order of time."""
        return list(self.points)[-count:] if count else []


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None

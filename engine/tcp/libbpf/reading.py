"""One reading: the maps of counters, histograms and drops, put into the names of engine.tcp.backend."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Protocol

from engine.tcp.backend import HISTOGRAMS, STATES, Reading
from engine.tcp.libbpf import layout, maps
from engine.tcp.libbpf.reasons import BENIGN_PLACES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.tcp.libbpf.reasons import Reasons
    from engine.tcp.libbpf.symbols import Symbols

_KEY = struct.pack("=I", 0)
_CLOSE, _RESET = STATES.index("CLOSE"), STATES.index("RESET")
_COUNT_PAUSE = 50
"""Walking a large map takes time: so many times as long it is not walked again."""
ABSENT = {
    "rtt": ("rtt_us", "rtt_samples"), "rttvar": ("rttvar_us",), "tlp_new_data": ("tlp_new_data",),
    "zero_window_received": ("zero_window_received", "zero_window_received_ns"),
    "zero_window_sent": ("zero_window_sent", "zero_window_sent_ns"),
    "handshake_client": ("handshake_client_us", "handshake_client_failed"),
    "handshake_server": ("handshake_server_us", "handshake_server_unsampled"),
    "retransmits.per_connection": ("retransmits_per_connection", "tlp_per_connection"),
    "retransmits.synack": ("retransmit_synack_events", "retransmit_synack_segments"),
    "resets.sent": ("resets_sent",), "resets.received": ("resets_received",),
    "drops": ("drops", "drops_benign"), "cwnd": ("cwnd",), "ssthresh": ("ssthresh",),
    "pacing": ("pacing_bps",), "send_queue": ("send_queue_bytes",),
    "unsent_queue": ("unsent_queue_bytes",), "receive_queue": ("receive_queue_bytes",),
}  # fmt: skip
"""Metric -> counters and histograms that are absent without it."""


class Maps(Protocol):
    """A loaded object."""

    def descriptor(self, name: str) -> int:
        """A map's file descriptor."""


class Reader:
    """Reads the maps of a loaded object."""

    def __init__(
        self,
        opened: Maps,
        reasons: Reasons,
        symbols: Symbols,
        off: Mapping[str, str],
        sockets: int,
        sub_bits: int,
    ) -> None:
        self._reasons, self._symbols, self._off = reasons, symbols, off
        self._entries = sockets
        self._totals = maps.PerCpu(opened.descriptor("totals"), 8 * layout.TOTALS_WORDS)
        self._histograms = maps.Histograms(opened.descriptor("histograms"), sub_bits)
        self._drops = maps.PerCpu(opened.descriptor("drops"), 8)
        self._sockets = opened.descriptor("sockets")
        self._plain: dict[int, int] = {}
        self._evicted = 0
        self._count_next = 0.0

    def read(self) -> Reading:
        """The counters and histograms of now."""
        words = iter(self._totals.total(_KEY))
        parts = {name: [next(words) for _ in range(count)] for name, count in layout.TOTALS}
        counters = dict(zip(layout.COUNTERS, parts["counters"], strict=True))
        reading = Reading(time.monotonic_ns())
        for number, name in enumerate(HISTOGRAMS):
            reading.histograms[name] = self._histograms.read(number)
        for number, state in enumerate(STATES):
            one = self._histograms.read(len(HISTOGRAMS) + number)
            if state and any(one.buckets):
                reading.dwell[state] = one
        counters["rtt_samples"] = sum(reading.histograms["rtt_us"].buckets)
        self._read_states(reading, parts)
        reading.resets = {
            self._reasons.reset(number): count for number, count in enumerate(parts["reset_reasons"]) if count
        }
        reading.suppressed = dict(zip(layout.SUPPRESSED, parts["suppressed"], strict=True))
        self._read_drops(reading, counters)
        counters["sockets_evicted"] = self._count_evicted(
            counters.pop("sockets_inserted"), counters.pop("sockets_deleted")
        )
        reading.counters = counters
        self._leave_out(reading)
        return reading

    def _read_states(self, reading: Reading, parts: Mapping[str, list[int]]) -> None:
        transitions = parts["transitions"]
        for old in range(layout.STATES):
            for new in range(layout.STATES):
                if count := transitions[old * layout.STATES + new]:
                    if new == _CLOSE:
                        count = self._book_reset(reading, old, count, parts["resets_after"][old])
                    if count:
                        reading.transitions[STATES[old], STATES[new]] = count

    def _book_reset(self, reading: Reading, old: int, closed: int, resets: int) -> int:
        """Some transitions to CLOSE were resets, a few of which are known only after them."""
        resets = min(resets, closed)
        if resets:
            reading.transitions[STATES[old], STATES[_RESET]] = resets
        self._plain[old] = max(self._plain.get(old, 0), closed - resets)
        return self._plain[old]

    def _read_drops(self, reading: Reading, counters: dict[str, int]) -> None:
        unlisted, benign = counters.pop("drops_unlisted"), counters.pop("drops_benign_unlisted", 0)
        for key in maps.keys(self._drops.descriptor, layout.DROP_KEY.size):
            location, reason, _ = layout.DROP_KEY.unpack(key)
            packets = self._drops.total(key)[0]
            name = self._reasons.drop(reason)
            function = self._symbols.name(location) if location else ""
            if location == 0 or (reason == layout.REASON_UNKNOWN and function in BENIGN_PLACES):
                reading.benign[name] = reading.benign.get(name, 0) + packets
                if location:
                    counters["drops"] -= packets
                    counters["drops_benign"] += packets
            else:
                reading.drops[name, function] = reading.drops.get((name, function), 0) + packets
        if unlisted:
            reading.drops["OTHER", "?"] = unlisted
        if benign:
            reading.benign["OTHER"] = benign

    def _count_evicted(self, inserted: int, deleted: int) -> int:
        """Sockets that the map gave up for others: inserted, not deleted, not there."""
        there = inserted - deleted
        entries = self._entries
        begun = time.monotonic()
        # Below the half of it no map gives up anything.
        if there - self._evicted > entries // 2 and begun >= self._count_next:
            held = maps.occupancy(self._sockets, 8, layout.SOCKET_STATE_OCTETS)
            self._evicted = max(self._evicted, there - (entries if held is None else held))
            took = time.monotonic() - begun
            self._count_next = begun + took * _COUNT_PAUSE
        return self._evicted

    def count_now(self) -> None:
        """The next reading counts the evictions, however young the last count is."""
        self._count_next = 0.0

    def _leave_out(self, reading: Reading) -> None:
        """What is off is absent, not zero."""
        off = self._off
        for metric, names in ABSENT.items():
            if metric in off:
                for name in names:
                    reading.counters.pop(name, None)
                    reading.histograms.pop(name, None)
        if "retransmits" in off:
            for name in [name for name in reading.counters if name.startswith("retransmit_")]:
                del reading.counters[name]

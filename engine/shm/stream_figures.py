"""A stream's units of engine.shm.quality and engine.shm.signals by name, for the cold side; unknown is None.

docs/fields.md says what each figure means.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from engine.shm.emodel import CODEC_NAMES, DEFAULT_DELAY_MS
from engine.shm.quality import LATE_MS, NO_TRANSIT
from engine.shm.rows import stream_row
from engine.shm.signals import EVENTS_STORED as EVENTS_KEPT

if TYPE_CHECKING:
    from engine.shm.quality import Quality

ENTRY, UNIT = 64, 128
"""Words of an entry, and of a unit."""
SIGNALS = ENTRY + UNIT
LARGEST_SKEW_PPM = 10_000
"""What is further off is no clock, but a sender that does not keep time."""
PACKET_MS = 20.0
"""Taken for the time of speech in a packet, in the delay of the E-model."""
_QUALITY = struct.Struct("<8x 7Q I I II II Q Q Q Q II II II 10I")
_SIGNALS = struct.Struct("<II II Q Q II I4x Q Q 8x II Q BBBBI II Q 8x II II Q II II Q 16x Q II Q Q")
_METRICS = struct.Struct(">BBBBHHHHbbBBBBBBBxHHH")
_EVENT_NAMES = "0123456789*#ABCD"


def figures(
    slot: int, octets: bytes, view: Quality, octets_of_units: memoryview, detail: bool
) -> dict[str, Any]:
    """The row of a stream: of its entry, `octets`, and of its units, which stand behind word ENTRY of `view`.

    `octets_of_units` are those of `view`. Lists stand in it with `detail` only.
    """
    row = stream_row(slot, octets)
    clock = int.from_bytes(octets[8 * 28 + 4 : 8 * 28 + 8], "little")
    highest, window = struct.unpack_from("<2Q", octets, 8 * 14)
    view.settle(ENTRY, highest, window)
    lengths = _quality(row, octets, octets_of_units, clock, highest)
    row["skew_ppm"] = _skew(view.skew(ENTRY), clock)
    signals = bool(octets_of_units[8 * ENTRY])
    row.update(_signals(octets_of_units, clock, detail) if signals else _no_signals(detail))
    delay = one_way_ms(row["far"], row["sender"])
    row["delay_ms"] = delay
    row["mos"], row["mos_now"], row["mos_min"] = _scores(view, delay)
    if detail:
        row["loss_runs"] = lengths
        row["intervals"] = _intervals(view, octets_of_units, row["start_ns"], _total_delay(delay))
    return row


def _quality(
    row: dict[str, Any], octets: bytes, octets_of_units: memoryview, clock: int, highest: int
) -> list[int]:
    """The figures of engine.shm.quality that stand as they are shown, into `row`; the runs of loss."""
    label = int.from_bytes(octets[8 * 42 : 8 * 43], "little")
    (
        _, _, _, _, bursts_and_gaps, burst, runs, skipped_low, skipped_high, late, jumps, pauses, spurts,
        paused, longest, longest_at, silence, dscp, dscp_changes, sources, before, codecs, _, *lengths,
    ) = _QUALITY.unpack_from(octets_of_units, 8 * ENTRY)  # fmt: skip
    bursts, gap_lost = bursts_and_gaps & 0xFFFFFFFF, bursts_and_gaps >> 32
    burst_lost, burst_packets = burst & 0xFFFFFFFF, burst >> 32
    counted = highest - (0x10000 | _start(octets)) + 1 - (skipped_low | skipped_high << 32)
    packet_ms = row["duration_s"] * 1000 / (counted - 1) if counted > 1 else None
    gap_packets = counted - burst_packets
    row.update(
        late=late,
        burst_count=bursts,
        burst_lost=burst_lost,
        burst_density_pct=100 * burst_lost / burst_packets if burst_packets else None,
        burst_ms=burst_packets * packet_ms / bursts if bursts and packet_ms is not None else None,
        gap_lost=gap_lost,
        gap_density_pct=100 * gap_lost / gap_packets if gap_packets > 0 else None,
        gap_ms=gap_packets * packet_ms / (bursts + 1) if packet_ms is not None else None,
        longest_loss=runs & 0xFFFFFFFF,
        clock_jumps=jumps,
        pauses=pauses,
        paused_s=paused / 1e9,
        longest_pause_s=longest / 1e9 if pauses else None,
        longest_pause_ns=longest_at if pauses else None,
        silence_s=silence / 1e9,
        talk_spurts=spurts if clock and clock != 90_000 else None,
        dscp=label & 0xFF,
        dscp_first=dscp,
        dscp_changes=dscp_changes,
        ssrc_changes=sources,
        previous_ssrc=before if sources else None,
        codec_changes=codecs,
    )
    return lengths


def _start(octets: bytes) -> int:
    return int.from_bytes(octets[8 * 12 : 8 * 12 + 4], "little")


def one_way_ms(far: dict[str, Any] | None, sender: dict[str, Any] | None) -> float | None:
    """Half of the round trip between both ends; None where RTCP told only one part of it, or none.

    One part alone counts where it is more than what is taken for the whole.
    """
    trips = [end["rtt_mean_ms"] for end in (far, sender) if end and end["rtt_mean_ms"] is not None]
    delay = sum(trips) / 2
    return delay if len(trips) == 2 or delay > DEFAULT_DELAY_MS else None


def _total_delay(delay: float | None) -> float:
    return (DEFAULT_DELAY_MS if delay is None else delay) + LATE_MS + PACKET_MS


def _scores(view: Quality, delay: float | None) -> list[float | None]:
    return [None if score < 0 else score for score in view.scores(ENTRY, _total_delay(delay))]


def _skew(slope: float, clock: int) -> float | None:
    """How much faster than ours the sender's clock runs, in ppm."""
    if slope >= NO_TRANSIT or clock < 1000:
        return None
    # Nominal times are made with whole kHz (engine.shm.streams).
    ppm = ((1 - slope) * (clock // 1000 * 1000) / clock - 1) * 1e6
    return ppm if abs(ppm) < LARGEST_SKEW_PPM else None


def _intervals(view: Quality, octets: memoryview, start: int, delay: float) -> list[dict[str, Any]]:
    kept = octets[8 * (ENTRY + 28)]
    found = []
    for index in range(kept):
        began, expected, second = struct.unpack_from("<IIQ", octets, 8 * (ENTRY + 64 + 2 * index))
        score = view.interval_score(ENTRY, index, delay)
        found.append(
            {
                "start_ns": start + began * 100_000_000,
                "expected": expected,
                "lost": second & 0xFFFFF,
                "late": second >> 20 & 0xFFFFF,
                "codec": CODEC_NAMES[second >> 56] or None if second >> 56 < len(CODEC_NAMES) else None,
                "mos": None if score < 0 else score,
            }
        )
    return found


def _no_signals(detail: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"dtmf_count": 0, "digits": "", "rtcp": 0, "far": None, "sender": None, "xr": None}
    if detail:
        row["dtmf"] = []
    return row


def _signals(octets: memoryview, clock: int, detail: bool) -> dict[str, Any]:
    base = 8 * SIGNALS
    (count,) = struct.unpack_from("<Q", octets, base)
    events = []
    for number in range(max(0, count - EVENTS_KEPT), count):
        begun, packed = struct.unpack_from("<QQ", octets, base + 16 + 16 * (number % EVENTS_KEPT))
        events.append(_event(begun, packed))
    row = {
        "dtmf_count": count,
        "digits": "".join(event["digit"] or "" for event in events),
        **_reports(octets, base, clock),
    }
    if detail:
        row["dtmf"] = events
    return row


def _reports(octets: memoryview, base: int, clock: int) -> dict[str, Any]:
    """What RTCP said of the stream: `rtcp`, `far`, `sender`, `xr`."""
    (
        reports, receiver_reports, extended, others, sent, _, _, packets, sent_octets, _, _, blocks,
        *far, near_trips, near_trip, near_least, near_most, near_total, bye, apps, app, metrics, metrics_at,
    ) = _SIGNALS.unpack_from(octets, base + 8 * 66)  # fmt: skip
    name = bytes(octets[base + 8 * 97 : base + 8 * 97 + 63]).rstrip(b"\0").decode("utf-8", "replace")
    row: dict[str, Any] = {
        "rtcp": reports + receiver_reports + extended + others + blocks + metrics + apps + bool(bye),
        "far": _far(blocks, clock, far),
        "sender": None,
        "xr": None,
    }
    if reports or receiver_reports or extended or others or apps or bye or name or near_trips:
        row["sender"] = {
            "reports": reports,
            "receiver_reports": receiver_reports,
            "packets": packets if reports else None,
            "bytes": sent_octets if reports else None,
            "last_ns": sent or None,
            "cname": name or None,
            "bye_ns": bye or None,
            "apps": apps,
            "app": app.to_bytes(4, "big").decode("latin-1") if apps else None,
            **_trips(near_trips, near_trip, near_least, near_most, near_total),
        }
    if metrics:
        start = base + 8 * 93
        row["xr"] = voip_metrics(bytes(octets[start : start + 28]), metrics, metrics_at)
    return row


def _far(blocks: int, clock: int, words: list[int]) -> dict[str, Any] | None:
    """What its receiver said of the stream in `blocks` reports; None if nothing is known of it."""
    (
        reporter, block_at, fraction, lost0, lost1, lost2, highest, jitter, max_jitter, worst,
        trips, trip, least, most, total,
    ) = words  # fmt: skip
    if not blocks and not trips:
        return None
    lost = lost0 | lost1 << 8 | lost2 << 16
    return {
        "reports": blocks,
        "ssrc": reporter,
        "last_ns": block_at or None,
        "lost": lost - (1 << 24) if lost >> 23 else lost,
        "lost_pct": 100 * fraction / 256,
        "max_lost_pct": 100 * worst / 256,
        "highest_sequence": highest,
        "jitter_ms": jitter * 1000 / clock if clock else None,
        "max_jitter_ms": max_jitter * 1000 / clock if clock else None,
        **_trips(trips, trip, least, most, total),
    }


def _event(begun: int, packed: int) -> dict[str, Any]:
    code = packed >> 8 & 0xFF
    return {
        "digit": _EVENT_NAMES[code] if code < len(_EVENT_NAMES) else None,
        "event": code,
        "time_ns": begun,
        "duration_ms": packed >> 16 & 0xFFFF,
        "ended": bool(packed & 1),
    }


def _trips(count: int, newest: int, least: int, most: int, total: int) -> dict[str, Any]:
    known = count > 0
    return {
        "rtt_ms": newest / 1000 if known else None,
        "rtt_min_ms": least / 1000 if known else None,
        "rtt_mean_ms": total / count / 1000 if known else None,
        "rtt_max_ms": most / 1000 if known else None,
    }


def voip_metrics(octets: bytes, count: int, time_ns: int) -> dict[str, Any]:
    """A VoIP metrics block behind its SSRC (RFC 3611 section 4.7), 28 octets; 127 stands for unknown."""
    (
        loss, discard, burst_density, gap_density, burst_ms, gap_ms, round_trip, end_delay, signal, noise,
        echo, gmin, r, external_r, lq, cq, buffer, nominal, largest, absolute,
    ) = _METRICS.unpack(octets)  # fmt: skip
    return {
        "reports": count,
        "last_ns": time_ns,
        "lost_pct": 100 * loss / 256,
        "discarded_pct": 100 * discard / 256,
        "burst_density_pct": 100 * burst_density / 256,
        "gap_density_pct": 100 * gap_density / 256,
        "burst_ms": burst_ms,
        "gap_ms": gap_ms,
        "rtt_ms": round_trip or None,
        "end_delay_ms": end_delay or None,
        "signal_dbm": None if signal == 127 else signal,
        "noise_dbm": None if noise == 127 else noise,
        "echo_db": None if echo == 127 else echo,
        "gmin": gmin,
        "r": None if r == 127 else r,
        "external_r": None if external_r == 127 else external_r,
        "mos_lq": None if lq == 127 else lq / 10,
        "mos_cq": None if cq == 127 else cq / 10,
        "buffer_ms": nominal,
        "buffer_max_ms": largest,
        "buffer_limit_ms": absolute,
        "buffer_adaptive": {2: False, 3: True}.get(buffer >> 4 & 3),
        "concealment": ("", "disabled", "enhanced", "standard")[buffer >> 6] or None,
    }

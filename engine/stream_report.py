"""What `report --json` says of a media stream beside the figures of tshark (docs/fields.md)."""

from __future__ import annotations

from typing import Any

from engine.text import format_timestamp

QUALITY_FIELDS = (
    "bytes", "jitter_ms", "mean_delta_ms", "mos", "mos_now", "mos_min", "delay_ms", "late", "burst_count",
    "burst_lost", "burst_density_pct", "burst_ms", "gap_lost", "gap_density_pct", "gap_ms",
    "longest_loss", "loss_runs", "skew_ppm", "clock_jumps", "pauses", "paused_s", "longest_pause_s",
    "silence_s", "talk_spurts", "comfort_noise", "markers", "resets", "type_changes", "codec_changes",
    "ssrc_changes", "dscp", "dscp_first", "dscp_changes", "dtmf_count", "digits", "rtcp",
)  # fmt: skip
TIMES = {"time_ns": "time", "start_ns": "start", "last_ns": "last", "bye_ns": "bye"}


def quality_fields(row: dict[str, Any]) -> dict[str, Any]:
    """The fields of a row of engine.shm.streams that was read with its lists; unknown is None."""
    fields = {
        name: rounded(row[name]) if isinstance(row[name], float) else row[name] for name in QUALITY_FIELDS
    }
    at = row["longest_pause_ns"]
    fields["longest_pause"] = None if at is None else format_timestamp(at)
    fields["previous_ssrc"] = None if row["previous_ssrc"] is None else f"0x{row['previous_ssrc']:08x}"
    for name in ("far", "sender", "xr"):
        fields[name] = None if row[name] is None else _end(row[name])
    fields["dtmf"] = [_end(event) for event in row["dtmf"]]
    fields["intervals"] = [_end(interval) for interval in row["intervals"]]
    return fields


def _end(values: dict[str, Any]) -> dict[str, Any]:
    """Times as text, floats rounded."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name.endswith("_ns"):
            found[TIMES[name]] = None if value is None else format_timestamp(value)
        elif name == "ssrc":
            found[name] = f"0x{value:08x}"
        else:
            found[name] = rounded(value) if isinstance(value, float) else value
    return found


def rounded(value: float | None) -> float | None:
    """Three decimals; unknown stays unknown."""
    return None if value is None else round(value, 3)

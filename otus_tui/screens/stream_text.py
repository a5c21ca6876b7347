"""All figures of a media stream as a text: ours, then what its sender and its receiver say by RTCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otus_tui import format as fmt
from otus_tui.widgets.ink import Line
from otus_tui.widgets.ladder import join_endpoint
from otus_tui.widgets.text_view import table_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from otus_tui.glyphs import Glyphs

Pairs = list[tuple[str, str]]
MOS_WARNING = 3.6
"""Below this some listeners are dissatisfied (ITU-T G.107 Annex B)."""
MOST_LISTED = 32
_DSCP = {0: "CS0, best effort", 46: "EF", 34: "AF41", 26: "AF31", 24: "CS3", 40: "CS5", 48: "CS6", 8: "CS1"}


def mos(value: float | None) -> str:
    """`4.31`; unknown is no number."""
    return fmt.UNKNOWN if value is None else f"{value:.2f}"


def mos_role(value: float | None) -> str:
    """The role of a score."""
    return "warning" if value is not None and value < MOS_WARNING else ""


def stream_lines(stream: dict[str, Any], glyphs: Glyphs) -> list[Line]:
    """All figures of a media stream."""
    lines: list[Line] = []
    for title, pairs in (
        ("RTP stream", _identity(stream)),
        ("Loss", _loss(stream)),
        ("Time", _time(stream)),
        ("Quality, E-model", _quality(stream)),
        ("Telephone events", _events(stream)),
        ("Far end: its receiver, by RTCP", _far(stream.get("far"))),
        ("Its sender, by RTCP", _sender(stream.get("sender"))),
        ("Far end: VoIP metrics (RTCP XR)", _extended(stream.get("xr"))),
    ):
        if not pairs:
            continue
        if lines:
            lines.append([("", "")])
        safe = [
            (name, glyphs.ink(fmt.clean(value, glyphs.ascii_only)) if value else "") for name, value in pairs
        ]
        lines += table_lines(safe, title)
    return lines


def _identity(stream: dict[str, Any]) -> Pairs:
    ssrc, types = stream.get("ssrc"), stream.get("payload_types")
    found = "SDP" if stream.get("found_by") == "sdp" else "guess (no SDP was seen for it)"
    before = stream.get("previous_ssrc")
    return [
        ("source", join_endpoint(str(stream["src"]), stream["sport"])),
        ("destination", join_endpoint(str(stream["dst"]), stream["dport"])),
        ("codec", str(stream["codec"] or fmt.UNKNOWN) + _changes(stream.get("codec_changes"))),
        (
            "payload types",
            (", ".join(str(t) for t in types) if types else fmt.UNKNOWN)
            + _changes(stream.get("type_changes")),
        ),
        (
            "SSRC",
            (f"0x{ssrc:08x}" if isinstance(ssrc, int) else str(ssrc or fmt.UNKNOWN))
            + (f", after 0x{before:08x}" if isinstance(before, int) else "")
            + _changes(stream.get("ssrc_changes")),
        ),
        ("DSCP", _dscp(stream)),
        ("found by", found),
    ]


def _changes(count: int | None) -> str:
    return f"  ({count:,} change{'' if count == 1 else 's'})" if count else ""


def _dscp(stream: dict[str, Any]) -> str:
    now, first = stream.get("dscp"), stream.get("dscp_first")
    if now is None:
        return fmt.UNKNOWN
    text = f"{now} {_DSCP.get(now, '')}".rstrip()
    if stream.get("dscp_changes"):
        text += f", first {first}{_changes(stream['dscp_changes'])}"
    return text


def _loss(stream: dict[str, Any]) -> Pairs:
    pairs = [
        ("packets", fmt.count(stream["packets"])),
        ("expected", fmt.count(stream["expected"])),
        ("lost", f"{fmt.count(stream['lost'])}  {fmt.percent(stream['lost_pct'])} %"),
        ("too late", f"{fmt.count(stream.get('late'))}  (60 ms behind the fastest)"),
    ]
    if stream.get("burst_count"):
        pairs += [
            (
                "bursts",
                f"{fmt.count(stream['burst_count'])} of {fmt.milliseconds(stream['burst_ms'])} ms, "
                f"{fmt.percent(stream['burst_density_pct'])} % lost in them",
            ),
            (
                "between them",
                f"{fmt.milliseconds(stream['gap_ms'])} ms, {fmt.percent(stream['gap_density_pct'])} % lost",
            ),
        ]
    if stream.get("longest_loss"):
        pairs.append(("longest", f"{fmt.count(stream['longest_loss'])} in a row"))
    runs = stream.get("loss_runs")
    if runs and any(runs):
        words = [
            f"{count:,} x {'10+' if length == 10 else length}"
            for length, count in enumerate(runs, 1)
            if count
        ]
        pairs.append(("in a row", ", ".join(words)))
    return [
        *pairs,
        ("out of order", fmt.count(stream["out_of_order"])),
        ("duplicates", fmt.count(stream["duplicates"])),
        ("new sequences", fmt.count(stream.get("resets"))),
        ("octets", fmt.octets(stream["bytes"])),
    ]


def _time(stream: dict[str, Any]) -> Pairs:
    skew = stream.get("skew_ppm")
    silent = stream.get("silent_for_s")
    goes_on = "yes" if stream.get("active") else "no"
    if silent is not None and not stream.get("active"):
        goes_on += f", nothing for {fmt.seconds(silent)}"
    pauses = fmt.count(stream.get("pauses"))
    if stream.get("pauses"):
        pauses += (
            f", {fmt.seconds(stream['paused_s'])} in all, "
            f"the longest {fmt.seconds(stream['longest_pause_s'])} "
            f"from {fmt.clock(stream['longest_pause_ns'], 3)}"
        )
    return [
        ("mean jitter", f"{fmt.milliseconds(stream['mean_jitter_ms'])} ms"),
        ("largest jitter", f"{fmt.milliseconds(stream['max_jitter_ms'])} ms"),
        ("jitter now", f"{fmt.milliseconds(stream['jitter_ms'])} ms"),
        ("largest delta", f"{fmt.milliseconds(stream['max_delta_ms'])} ms"),
        ("clock skew", fmt.UNKNOWN if skew is None else f"{skew:+,.0f} ppm"),
        ("clock jumps", fmt.count(stream.get("clock_jumps"))),
        ("pauses", pauses),
        ("silence", _seconds(stream.get("silence_s"))),
        ("talk spurts", fmt.count(stream.get("talk_spurts"))),
        ("first packet", fmt.clock(stream["start_ns"], 6)),
        ("last packet", fmt.clock(stream["last_ns"], 6)),
        ("duration", fmt.seconds(stream["duration_s"])),
        ("goes on", goes_on),
    ]


def _seconds(value: float | None) -> str:
    return fmt.UNKNOWN if value is None else fmt.seconds(value)


def _quality(stream: dict[str, Any]) -> Pairs:
    delay = stream.get("delay_ms")
    pairs = [
        (
            "MOS",
            f"{mos(stream.get('mos'))}  now {mos(stream.get('mos_now'))}  worst {mos(stream.get('mos_min'))}",
        ),
        ("one-way delay", "not measured" if delay is None else f"{fmt.milliseconds(delay)} ms, by RTCP"),
    ]
    for interval in (stream.get("intervals") or [])[-MOST_LISTED:]:
        share = 100 * interval["lost"] / interval["expected"] if interval["expected"] else None
        late = f", {interval['late']:,} late" if interval["late"] else ""
        lost = f"{fmt.percent(share)} % of {fmt.count(interval['expected'])} lost{late}"
        pairs.append(
            (
                f"  {fmt.clock(interval['start_ns'])}",
                f"{mos(interval['mos'])}  {lost}",
            )
        )
    return pairs


def _events(stream: dict[str, Any]) -> Pairs:
    count = stream.get("dtmf_count")
    if not count:
        return []
    pairs = [("digits", str(stream.get("digits") or fmt.UNKNOWN)), ("events", fmt.count(count))]
    for event in (stream.get("dtmf") or [])[-MOST_LISTED:]:
        name = event["digit"] or f"event {event['event']}"
        end = "" if event["ended"] else ", its end is missing"
        pairs.append((f"  {fmt.clock(event['time_ns'], 3)}", f"{name}  {event['duration_ms']:,} ms{end}"))
    return pairs


def _trip(end: dict[str, Any], whom: str) -> Pairs:
    if end.get("rtt_ms") is None:
        return []
    return [
        (
            f"to {whom}, back",
            f"{fmt.milliseconds(end['rtt_ms'])} ms, {fmt.milliseconds(end['rtt_min_ms'])} to "
            f"{fmt.milliseconds(end['rtt_max_ms'])} ms",
        )
    ]


def _far(far: dict[str, Any] | None) -> Pairs:
    if not far:
        return []
    return [
        ("reports", fmt.count(far["reports"])),
        ("lost", fmt.count(far["lost"])),
        ("lost lately", f"{fmt.percent(far['lost_pct'])} %, at most {fmt.percent(far['max_lost_pct'])} %"),
        (
            "jitter",
            f"{fmt.milliseconds(far['jitter_ms'])} ms, at most {fmt.milliseconds(far['max_jitter_ms'])} ms",
        ),
        *_trip(far, "it"),
    ]


def _sender(sender: dict[str, Any] | None) -> Pairs:
    if not sender:
        return []
    pairs = [
        ("sender reports", fmt.count(sender["reports"])),
        ("packets sent", fmt.count(sender["packets"])),
        ("octets sent", fmt.octets(sender["bytes"])),
        ("name", str(sender["cname"] or fmt.UNKNOWN)),
    ]
    if sender["bye_ns"]:
        pairs.append(("BYE", fmt.clock(sender["bye_ns"], 3)))
    if sender["apps"]:
        pairs.append(("APP", f"{sender['app']}, {fmt.count(sender['apps'])}"))
    return [*pairs, *_trip(sender, "it")]


def _extended(found: dict[str, Any] | None) -> Pairs:
    if not found:
        return []

    def shown(key: str, unit: str = "", make: Callable[[Any], str] = str) -> str:
        value = found[key]
        return fmt.UNKNOWN if value is None else f"{make(value)}{unit}"

    return [
        ("MOS", f"listening {shown('mos_lq')}, conversation {shown('mos_cq')}, R {shown('r')}"),
        ("lost", f"{fmt.percent(found['lost_pct'])} %, discarded {fmt.percent(found['discarded_pct'])} %"),
        ("bursts", f"{fmt.percent(found['burst_density_pct'])} % of {shown('burst_ms', ' ms')}"),
        ("between them", f"{fmt.percent(found['gap_density_pct'])} % of {shown('gap_ms', ' ms')}"),
        ("delay", f"round trip {shown('rtt_ms', ' ms')}, in the end system {shown('end_delay_ms', ' ms')}"),
        (
            "levels",
            f"signal {shown('signal_dbm', ' dBm')}, noise {shown('noise_dbm', ' dBm')}, "
            f"echo return loss {shown('echo_db', ' dB')}",
        ),
        (
            "jitter buffer",
            f"{shown('buffer_ms', ' ms')}, at most {shown('buffer_max_ms', ' ms')} "
            f"of {shown('buffer_limit_ms', ' ms')}",
        ),
    ]

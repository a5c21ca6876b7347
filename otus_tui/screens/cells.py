"""The columns of calls and of media streams: what stands in a cell, and in which role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otus_tui import format as fmt
from otus_tui.screens.stream_text import MOS_WARNING
from otus_tui.widgets.columns import Cell, Column, Row
from otus_tui.widgets.ladder import LOSS_WARNING_PCT, join_endpoint, status_role

if TYPE_CHECKING:
    from collections.abc import Callable

    from otus_tui.glyphs import Glyphs

JITTER_WARNING_MS = 30.0

_ACTIVE = {"in_call", "active", "registered"}
_PENDING = {"call_setup", "ringing", "registering", "pending"}
_FAILED = {"busy", "rejected", "timeout", "failed", "cancelled"}


def state_cell(row: Row, glyphs: Glyphs) -> Cell:
    """`● IN CALL`, a cross before `REJECTED 503`: a sign and a word beside every colour."""
    state = str(row.get("state") or "")
    word = fmt.clean(state.replace("_", " ").upper(), glyphs.ascii_only)
    code = row.get("code")
    if state in _ACTIVE:
        return f"{glyphs.active} {word}", "good"
    if state in _PENDING:
        return f"{glyphs.pending} {word}", "warning" if state == "ringing" else ""
    if state in _FAILED:
        role = "dim" if state == "cancelled" else "failure"
        return f"{glyphs.cross} {word}" + (f" {code}" if code and state != "cancelled" else ""), role
    if state == "diverted":
        return f"{glyphs.right} {word}" + (f" {code}" if code else ""), "redirect"
    return f"  {word}", "dim"


def _text(key: str, glyphs: Glyphs, role: str = "") -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        if value is None or value == "":
            return fmt.UNKNOWN, "dim"
        return fmt.clean(str(value), glyphs.ascii_only), role

    return cell


def _made(key: str, make: Callable[[Any], str], role: str = "") -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        return make(value), role if value is not None else "dim"

    return cell


def _loss(glyphs: Glyphs, key: str = "lost_pct") -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        if value is None:
            return fmt.UNKNOWN, "dim"
        if value >= LOSS_WARNING_PCT:
            return f"{glyphs.warning} {fmt.percent(value)}", "warning"
        return fmt.percent(value), ""

    return cell


def _jitter(glyphs: Glyphs, key: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        if value is not None and value >= JITTER_WARNING_MS:
            return f"{glyphs.warning} {fmt.milliseconds(value)}", "warning"
        return fmt.milliseconds(value), "" if value is not None else "dim"

    return cell


def _score(glyphs: Glyphs, key: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        if value is None:
            return fmt.UNKNOWN, "dim"
        if value < MOS_WARNING:
            return f"{glyphs.warning}{value:.2f}", "warning"
        return f"{value:.2f}", ""

    return cell


def _of(end: str, cell: Callable[[Row], Cell]) -> Callable[[Row], Cell]:
    """A cell of what one of the ends reported by RTCP."""
    return lambda row: cell(row.get(end) or {})


def _method(glyphs: Glyphs) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        method = str(row.get("method") or "")
        if not method:
            return fmt.UNKNOWN, "dim"
        return fmt.clean(method, glyphs.ascii_only), status_role(None, method).replace("title", "")

    return cell


def _flags(glyphs: Glyphs) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        text, role = state_cell(row, glyphs)
        if row.get("malformed") or row.get("evidence"):
            text += f" {glyphs.warning}"
        return text, role

    return cell


def _itself(endpoint: str) -> str:
    return endpoint


def call_columns(glyphs: Glyphs, named: Callable[[str], str] = _itself) -> list[Column]:
    """sngrep's columns and ours; `density` says from which width on each is shown."""
    g = glyphs

    def moment(row: Row) -> Cell:
        return fmt.clock(row.get("start_ns")), "dim"

    def end(key: str) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            value = row.get(key)
            return (fmt.clean(named(str(value)), g.ascii_only), "") if value else (fmt.UNKNOWN, "dim")

        return cell

    never = 10_000
    return [
        Column("number", "#", 5, _made("number", str, "dim"), ">", descending=True, about="order of arrival"),
        Column("method", "method", 9, _method(g), about="method of the first request"),
        Column("from", "from", 13, _text("from", g), flex=3, about="From of the first request"),
        Column("to", "to", 13, _text("to", g), flex=3, about="To of the first request"),
        Column(
            "messages", "msgs", 5, _made("messages", fmt.count), ">", density=100, descending=True,
            about="messages seen",
        ),
        Column("src", "src", 17, end("src"), flex=1, density=120, about="source of the first message"),
        Column("dst", "dst", 17, end("dst"), flex=1, density=120,
               about="destination of the first message"),
        Column("state", "state", 15, _flags(g), about="state of the dialog"),
        Column("start_ns", "start", 8, moment, density=130, descending=True,
               about="time of the first message"),
        Column(
            "duration_s", "dur", 7, _made("duration_s", fmt.duration), ">", descending=True,
            about="from the answer to the end, or until now",
        ),
        Column("pdd_s", "PDD s", 7, _made("pdd_s", _secs), ">", density=140, descending=True,
               about="from INVITE to the first ringing"),
        Column("lost_pct", "loss %", 7, _loss(g), ">", density=140, descending=True,
               about="worst media stream"),
        Column("mos", "MOS", 5, _score(g, "mos"), ">", density=150,
               about="worst media stream, E-model (ITU-T G.107)"),
        Column("setup_s", "setup s", 7, _made("setup_s", _secs), ">", density=160, descending=True,
               about="from INVITE to 200"),
        Column("transport", "transp", 6, _text("transport", g, "dim"), density=160, about="transport"),
        Column("reason", "reason", 18, _text("reason", g), flex=1, density=180,
               about="Reason, or the phrase of the end"),
        Column("total_s", "total", 7, _made("total_s", fmt.duration), ">", density=never, descending=True,
               about="from the first to the last message"),
        Column("from_user", "from user", 16, _text("from_user", g), flex=1, density=never,
               about="user of From"),
        Column("to_user", "to user", 16, _text("to_user", g), flex=1, density=never, about="user of To"),
        Column("call_id", "Call-ID", 30, _text("call_id", g), flex=2, density=never, about="Call-ID"),
        Column("x_call_id", "X-Call-ID", 30, _text("x_call_id", g), flex=1, density=never,
               about="X-Call-ID or X-CID"),
        Column("streams", "media", 5, _made("streams", fmt.count), ">", density=never, descending=True,
               about="number of media streams"),
        Column("malformed", "malf", 5, _made("malformed", fmt.count), ">", density=never, descending=True,
               about="messages with an error"),
        Column("evidence", "icmp", 5, _made("evidence", fmt.count), ">", density=never, descending=True,
               about="SIP that came back quoted in ICMP errors"),
    ]  # fmt: skip


def _secs(value: float | None) -> str:
    if value is None:
        return fmt.UNKNOWN
    if 0 < value < 0.01:
        # Digits of seconds would say nothing: with its own unit.
        return f"{value * 1e6:.0f} µs" if value < 0.0009995 else f"{value * 1e3:.2f} ms"
    if value < 0.1:
        return f"{value:.3f}" if value else "0"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _ppm(value: float | None) -> str:
    return fmt.UNKNOWN if value is None else f"{value:+,.0f}"


def _plain(value: int | None) -> str:
    return fmt.UNKNOWN if value is None else str(value)


def stream_columns(glyphs: Glyphs, named: Callable[[str], str] = _itself) -> list[Column]:
    """The columns of the media screen."""
    g = glyphs

    def side(address: str, port: str) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            return fmt.clean(named(join_endpoint(str(row[address]), row[port])), g.ascii_only), ""

        return cell

    def found(row: Row) -> Cell:
        by = row.get("found_by")
        return ("sdp", "dim") if by == "sdp" else (f"{g.warning} guess", "warning")

    def codec(row: Row) -> Cell:
        name = fmt.clean(fmt.codec(row), g.ascii_only)
        return (name, "" if row.get("codec") else "dim") if name else (fmt.UNKNOWN, "dim")

    def live(row: Row) -> Cell:
        return (g.active, "good") if row.get("active") else (" ", "")

    def moment(row: Row) -> Cell:
        return fmt.clock(row.get("start_ns")), "dim"

    def ssrc(row: Row) -> Cell:
        value = row.get("ssrc")
        if value is None:
            return fmt.UNKNOWN, "dim"
        return (f"{value:08x}" if isinstance(value, int) else fmt.clean(str(value)).removeprefix("0x")), "dim"

    never = 10_000
    return [
        Column("active", " ", 1, live, descending=True, about="packets still come"),
        Column("src", "source", 19, side("src", "sport"), flex=1, about="source address and port"),
        Column("dst", "destination", 19, side("dst", "dport"), flex=1, about="destination address and port"),
        Column("codec", "codec", 6, codec, about="codec; DTMF where only telephone events were seen"),
        Column("packets", "packets", 8, _made("packets", fmt.count), ">", descending=True,
               about="packets seen"),
        Column("lost", "lost", 7, _made("lost", fmt.count), ">", density=100, descending=True,
               about="packets that never came (RFC 3550)"),
        Column("lost_pct", "loss %", 7, _loss(g), ">", descending=True,
               about="share of packets that never came"),
        Column("mean_jitter_ms", "jitter ms", 9, _jitter(g, "mean_jitter_ms"), ">", descending=True,
               about="mean jitter (RFC 3550)"),
        Column("max_jitter_ms", "max ms", 8, _jitter(g, "max_jitter_ms"), ">", density=130, descending=True,
               about="largest jitter (RFC 3550)"),
        Column("max_delta_ms", "Δ max ms", 9, _made("max_delta_ms", fmt.milliseconds), ">", density=110,
               descending=True, about="longest time between two packets"),
        Column("mos", "MOS", 5, _score(g, "mos"), ">", density=90, about="E-model (ITU-T G.107)"),
        Column("duration_s", "dur", 7, _made("duration_s", fmt.duration), ">", density=100, descending=True,
               about="from the first to the last packet"),
        Column("found_by", "found by", 8, found, density=120, about="SDP, or a cautious guess without SDP"),
        Column("call_id", "call", 16, _text("call_id", g), flex=1, density=144, about="Call-ID"),
        Column("out_of_order", "order", 6, _made("out_of_order", fmt.count), ">", density=160,
               descending=True, about="packets out of order"),
        Column("duplicates", "dup", 5, _made("duplicates", fmt.count), ">", density=160, descending=True,
               about="duplicates"),
        Column("ssrc", "SSRC", 8, ssrc, density=180, about="synchronisation source"),
        Column("start_ns", "start", 8, moment, density=180, descending=True,
               about="time of the first packet"),
        Column("expected", "expected", 8, _made("expected", fmt.count), ">", density=never, descending=True,
               about="packets by sequence number"),
        Column("bytes", "octets", 9, _made("bytes", fmt.octets), ">", density=never, descending=True,
               about="octets"),
        Column("mos_min", "MOS min", 7, _score(g, "mos_min"), ">", density=214, about="worst 10 s, E-model"),
        Column("digits", "DTMF", 8, _text("digits", g), density=226, about="digits (RFC 4733)"),
        Column("far.lost_pct", "far loss %", 10, _of("far", _loss(g)), ">", density=240, descending=True,
               about="loss that the receiver reported last (RTCP)"),
        Column("far.rtt_ms", "RTT ms", 7, _of("far", _made("rtt_ms", fmt.milliseconds)), ">", density=250,
               descending=True, about="from here to the receiver and back (RTCP)"),
        Column("mos_now", "MOS now", 7, _score(g, "mos_now"), ">", density=never, about="last 10 s, E-model"),
        Column("late", "late", 6, _made("late", fmt.count), ">", density=never, descending=True,
               about="packets 60 ms behind the fastest ones"),
        Column("burst_count", "bursts", 6, _made("burst_count", fmt.count), ">", density=never,
               descending=True, about="bursts of loss (RFC 3611, Gmin 16)"),
        Column("longest_loss", "in a row", 8, _made("longest_loss", fmt.count), ">", density=never,
               descending=True, about="most packets lost in a row"),
        Column("pauses", "pauses", 6, _made("pauses", fmt.count), ">", density=never, descending=True,
               about="half a second and more without a packet"),
        Column("longest_pause_s", "pause s", 7, _made("longest_pause_s", _secs), ">", density=never,
               descending=True, about="longest time without a packet"),
        Column("skew_ppm", "skew ppm", 8, _made("skew_ppm", _ppm), ">", density=never, descending=True,
               about="the sender's clock against ours"),
        Column("dscp", "DSCP", 4, _made("dscp", _plain), ">", density=never,
               about="marking of the newest packet"),
        Column("dscp_changes", "DSCP chg", 8, _made("dscp_changes", fmt.count), ">", density=never,
               descending=True, about="changes of the marking"),
        Column("far.jitter_ms", "far jitter", 10, _of("far", _jitter(g, "jitter_ms")), ">", density=never,
               descending=True, about="jitter that the receiver reported last (RTCP), ms"),
        Column("jitter_ms", "now ms", 8, _jitter(g, "jitter_ms"), ">", density=never, descending=True,
               about="jitter now (RFC 3550)"),
    ]  # fmt: skip

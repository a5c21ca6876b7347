"""The columns of TCP connections, of sums over them, and of listening sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otus_tui import format as fmt
from otus_tui.widgets.columns import Cell, Column, Row
from otus_tui.widgets.tcp_figures import micro

if TYPE_CHECKING:
    from collections.abc import Callable

    from otus_tui.glyphs import Glyphs

CHOSEN = 10_000
"""Density of a column that is shown only when it is chosen."""
_SHORT_STATES = {"ESTABLISHED": "ESTAB", "NEW_SYN_RECV": "NEW_SYN"}
UNFINISHED = {"SYN_SENT", "SYN_RECV", "NEW_SYN_RECV"}


def endpoint(address: Any, port: Any) -> str:
    """address:port; IPv6 in brackets; what is masked as the engine gave it."""
    host = str(address) if address not in (None, "") else fmt.UNKNOWN
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port if port not in (None, '') else fmt.UNKNOWN}"


def owner(row: Row) -> str:
    """command/pid of the process, as far as it is known."""
    comm, pid = row.get("comm"), row.get("pid")
    if not pid:
        return str(comm) if comm else fmt.UNKNOWN
    return f"{comm or fmt.UNKNOWN}/{pid}"


def bits(value: float | None) -> str:
    """A rate in bits a second without its unit."""
    return fmt.UNKNOWN if value is None else fmt.short(round(value))


def _number(key: str, show: Callable[[Any], str]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        return show(value), "" if value else "dim"

    return cell


def _ends(side: str, glyphs: Glyphs, named: Callable[[str], str]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        text = named(endpoint(row.get(side), row.get(f"{side}_port")))
        return fmt.clean(text, glyphs.ascii_only), ""

    return cell


def _text(make: Callable[[Row], Any], glyphs: Glyphs) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        text = make(row)
        if text in (None, "", "unknown", fmt.UNKNOWN):
            return fmt.UNKNOWN, "dim"
        return fmt.clean(str(text), glyphs.ascii_only), ""

    return cell


def _state(glyphs: Glyphs) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        state = str(row.get("state") or "")
        text = fmt.clean(_SHORT_STATES.get(state, state), glyphs.ascii_only) or fmt.UNKNOWN
        return text, "" if state == "ESTABLISHED" else "accent" if state in UNFINISHED else "dim"

    return cell


def _retransmits(
    glyphs: Glyphs, key: str = "retransmits", new: str = "retransmits_new"
) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        if row.get(new):
            return f"{glyphs.warning} {fmt.short(value)}", "warning"
        return fmt.short(value), "" if value else "dim"

    return cell


def _window(glyphs: Glyphs, key: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = row.get(key)
        if value == 0 and row.get("state") == "ESTABLISHED":
            return f"{glyphs.warning} 0", "warning"
        return fmt.octets(value), "" if value else "dim"

    return cell


def connection_columns(glyphs: Glyphs, named: Callable[[str], str]) -> list[Column]:
    """Columns of `tcp_connections`; keys as of engine.tcp.rows.CONNECTION_ROW."""

    def octets(key: str, title: str, about: str, density: int) -> Column:
        return Column(
            key, title, 9, _number(key, fmt.octets), ">", about=about, density=density, descending=True
        )

    def count(key: str, title: str, width: int, about: str, density: int) -> Column:
        return Column(
            key, title, width, _number(key, fmt.short), ">", about=about, density=density, descending=True
        )

    def time(key: str, title: str, about: str, density: int) -> Column:
        return Column(key, title, 7, _number(key, micro), ">", about=about, density=density, descending=True)

    def rate(key: str, title: str, about: str, density: int) -> Column:
        return Column(key, title, 9, _number(key, bits), ">", about=about, density=density, descending=True)

    def text(key: str, title: str, width: int, about: str, density: int, flex: int = 0) -> Column:
        return Column(
            key,
            title,
            width,
            _text(lambda row: row.get(key), glyphs),
            flex=flex,
            about=about,
            density=density,
        )

    return [
        Column("local", "local", 18, _ends("local", glyphs, named), flex=2, about="address and port here"),
        Column("remote", "remote", 19, _ends("remote", glyphs, named), flex=3, about="where it leads"),
        Column("state", "state", 10, _state(glyphs), about="TCP state"),
        time("srtt_us", "RTT", "smoothed round trip time", 0),
        time("rttvar_us", "var", "its mean deviation", 124),
        count("cwnd", "cwnd", 6, "congestion window, segments", 116),
        Column(
            "retransmits", "retrans", 8, _retransmits(glyphs), ">", about="segments sent again; ▲ within the "
            "last look", descending=True,
        ),
        rate("send_bps", "send b/s", "bits a second that the peer acknowledged", 0),
        rate("receive_bps", "recv b/s", "bits a second received", 108),
        octets("send_queue", "send q", "octets not acknowledged yet", 134),
        octets("receive_queue", "recv q", "octets that the process has not read", 144),
        Column(
            "comm", "process", 14, _text(owner, glyphs), flex=2, about="command and pid", density=98
        ),
        text("role", "role", 6, "client or server", 152),
        count("ssthresh", "ssthr", 6, "slow start threshold, segments", 168),
        rate("pacing_bps", "pacing", "pacing rate, bits a second", 160),
        count("in_flight", "flight", 6, "segments in flight", 176),
        octets("unsent_queue", "unsent", "octets not sent yet", 186),
        Column("send_window", "snd wnd", 9, _window(glyphs, "send_window"), ">",
               about="octets that the peer takes", density=198, descending=True),
        Column("receive_window", "rcv wnd", 9, _window(glyphs, "receive_window"), ">",
               about="octets that this host takes", density=208, descending=True),
        time("rto_us", "RTO", "retransmission timeout", 218),
        count("retransmits_new", "new", 5, "segments sent again between the last two looks", CHOSEN),
        octets("bytes_acked", "acked", "octets that the peer acknowledged", CHOSEN),
        octets("bytes_received", "received", "octets received", CHOSEN),
        text("pid_source", "owner by", 8, "where the owner is known from", CHOSEN),
        text("uid", "uid", 6, "user of the socket", CHOSEN),
        text("interface", "if", 4, "index of the interface that it is bound to", CHOSEN),
        text("netns", "netns", 11, "inode of the network namespace", CHOSEN),
        text("cgroup", "cgroup", 11, "id of the cgroup", CHOSEN),
    ]  # fmt: skip


GROUPS = ("process", "peer", "local_port", "remote_port")
"""What `g` goes through."""
GROUP_TITLES = {
    "process": "process", "peer": "peer", "local_port": "local port", "remote_port": "remote port",
}  # fmt: skip


def group_columns(by: str, glyphs: Glyphs, named: Callable[[str], str]) -> list[Column]:
    """Columns of `tcp_groups`."""

    def key(row: Row) -> str:
        return named(str(row["key"])) if by == "peer" else str(row["key"])

    def number(name: str, title: str, width: int, show: Callable[[Any], str], about: str) -> Column:
        return Column(name, title, width, _number(name, show), ">", about=about, descending=True)

    return [
        Column("key", GROUP_TITLES[by], 20, _text(key, glyphs), flex=1, about=f"the {GROUP_TITLES[by]}"),
        number("connections", "conns", 7, fmt.short, "connections"),
        number("send_bps", "send b/s", 9, bits, "bits a second that peers acknowledged"),
        number("receive_bps", "recv b/s", 9, bits, "bits a second received"),
        Column(
            "retransmits",
            "retrans",
            8,
            _retransmits(glyphs),
            ">",
            about="segments sent again",
            descending=True,
        ),
        number("srtt_us", "RTT mean", 8, micro, "mean of the connections' smoothed RTT"),
        number("srtt_us_max", "RTT max", 8, micro, "the largest of them"),
    ]


def group_filter(by: str, key: str) -> str:
    """The filter that keeps the connections of one group."""
    if by == "process":
        pid = key.rsplit("/", 1)[-1]
        return f"pid == {pid}" if pid.isdigit() else "not (pid > 0)"
    if by == "peer":
        quoted = key.replace("\\", "\\\\").replace('"', '\\"')
        return f'remote == "{quoted}"'
    return f"{by} == {key}"


def listener_columns(glyphs: Glyphs, named: Callable[[str], str]) -> list[Column]:
    """Columns of `tcp_listeners`."""

    def drops(name: str, title: str, about: str, density: int = 0) -> Column:
        def cell(row: Row) -> Cell:
            value = row.get(name)
            if value:
                return f"{glyphs.warning} {fmt.short(value)}", "warning"
            return fmt.count(value), "dim"

        return Column(name, title, 8, cell, ">", about=about, density=density, descending=True)

    def backlog(row: Row) -> Cell:
        full = bool(row["limit"]) and row["backlog"] >= row["limit"]
        sign = f"{glyphs.warning} " if full else ""
        return f"{sign}{row['backlog']:,}", "warning" if full else "" if row["backlog"] else "dim"

    def here(row: Row) -> str:
        return named(endpoint(row.get("local"), row.get("port")))

    return [
        Column("local", "listens on", 22, _text(here, glyphs), flex=2, about="address and port"),
        Column(
            "backlog",
            "waiting",
            8,
            backlog,
            ">",
            about="connections that nobody has accepted yet",
            descending=True,
        ),
        Column(
            "limit",
            "limit",
            7,
            _number("limit", fmt.count),
            ">",
            about="of the accept queue",
            descending=True,
        ),
        drops("drops", "dropped", "SYNs and final ACKs turned away since the observer began"),
        drops("syn_drops", "SYN", "SYNs that were dropped"),
        drops("accept_drops", "accept", "dropped because the accept queue was full"),
        Column("comm", "process", 14, _text(owner, glyphs), flex=1, about="command and pid of the owner"),
        Column("netns", "netns", 11, _text(lambda row: row.get("netns"), glyphs), density=120),
    ]

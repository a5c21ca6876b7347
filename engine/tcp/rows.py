"""Connections, listening sockets and events as rows that a screen asks for: columns, sorting, filter,
groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.calls.filter import Column
from engine.tcp.backend import Connection
from engine.tcp.listen import parts
from engine.tcp.mask import Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from engine.tcp.backend import Listener
    from engine.tcp.listen import Counts

TEXTS = ("state", "local", "remote", "role", "comm", "pid_source")
NUMBERS = (
    "local_port", "remote_port", "interface", "netns", "srtt_us", "rttvar_us", "cwnd", "ssthresh",
    "pacing_bps", "in_flight", "bytes_in_flight", "send_queue", "unsent_queue", "receive_queue",
    "bytes_acked", "bytes_received", "retransmits", "rto_us", "send_window", "receive_window", "uid", "inode",
    "pid", "cgroup",
)  # fmt: skip
CONNECTION_ROW = ("id", *TEXTS, *NUMBERS, "send_bps", "receive_bps", "retransmits_new")
"""Keys of a row. id: the socket's cookie as text (a number of 64 bits). send_bps, receive_bps,
retransmits_new: between the last two looks. Rates are bits a second, other units as in
engine.tcp.backend.Connection."""
GROUP_KEYS = ("process", "peer", "local_port", "remote_port", "netns", "cgroup", "state", "role")
GROUP_ROW = (
    "key", "connections", "send_bps", "receive_bps", "retransmits", "retransmits_new", "srtt_us",
    "srtt_us_max",
)  # fmt: skip


class Table:
    """The connections of the last look with what is known of each from the look before."""

    def __init__(self, mask: Mask | None = None) -> None:
        """mask: what it hides is filtered, sorted and searched by its pseudonym, or answers would tell it."""
        self._mask = mask or Mask("none")
        self.rows: list[Connection] = []
        self.rates: Mapping[int, tuple[float, float]] = {}
        self.added: dict[int, int] = {}
        """Cookie -> segments sent again between the last two looks."""
        self.version = 0
        self._retransmits: dict[int, int] = {}
        self.columns = self._columns()

    def take(self, rows: list[Connection], rates: Mapping[int, tuple[float, float]]) -> None:
        """A new look."""
        before = self._retransmits
        now = {row.cookie: row.retransmits for row in rows if row.retransmits is not None}
        self.added = {cookie: count - before.get(cookie, count) for cookie, count in now.items()}
        self._retransmits = now
        self.rows, self.rates = rows, rates
        self.version += 1

    def row(self, one: Connection, mask: Mask) -> dict[str, Any]:
        """One row, with the keys of CONNECTION_ROW."""
        found: dict[str, Any] = {"id": str(one.cookie)}
        for name in (*TEXTS, *NUMBERS):
            found[name] = getattr(one, name)
        found["local"], found["remote"] = mask.address(one.local), mask.address(one.remote)
        found["local_port"], found["remote_port"] = mask.port(one.local_port), mask.port(one.remote_port)
        if one.pacing_bps is not None:
            found["pacing_bps"] = one.pacing_bps * 8
        sent, received = self.rates.get(one.cookie, (None, None))
        found["send_bps"], found["receive_bps"] = sent, received
        found["retransmits_new"] = self.added.get(one.cookie)
        found["comm"] = one.comm or None
        return found

    def search(self, one: Connection) -> str:
        """What a bare word of a filter is looked for in."""
        address, port = self._mask.address, self._mask.port
        ends = f"{address(one.local)}:{port(one.local_port)} {address(one.remote)}:{port(one.remote_port)}"
        return f"{one.state} {ends} {one.comm} {one.pid or ''} {one.role}".lower()

    def groups(self, rows: Iterable[Connection], by: str) -> list[dict[str, Any]]:
        """Sums over the connections of a process, peer, port ..., those with most connections first; srtt_us
        is their mean."""
        made: dict[str, dict[str, Any]] = {}
        for one in rows:
            key = _group(one, by)
            group = made.get(key)
            if group is None:
                group = made[key] = {**dict.fromkeys(GROUP_ROW, 0), "key": key, "_sampled": 0}
            sent, received = self.rates.get(one.cookie, (0.0, 0.0))
            group["connections"] += 1
            group["send_bps"] += sent
            group["receive_bps"] += received
            group["retransmits"] += one.retransmits or 0
            group["retransmits_new"] += self.added.get(one.cookie, 0)
            if one.srtt_us is not None:
                group["srtt_us"] += one.srtt_us
                group["_sampled"] += 1
                group["srtt_us_max"] = max(group["srtt_us_max"], one.srtt_us)
        for group in made.values():
            sampled = group.pop("_sampled")
            group["srtt_us"] = group["srtt_us"] / sampled if sampled else None
            group["srtt_us_max"] = group["srtt_us_max"] if sampled else None
        return sorted(made.values(), key=lambda group: -group["connections"])

    def _columns(self) -> dict[str, Column]:
        found = {name: Column("text", _getter(name)) for name in TEXTS}
        found |= {name: Column("number", _getter(name)) for name in NUMBERS}
        mask = self._mask
        if mask.hides_addresses:
            found["local"] = Column("text", lambda one: mask.address(one.local))
            found["remote"] = Column("text", lambda one: mask.address(one.remote))
        if mask.hides_ports:
            found["local_port"] = Column("text", lambda one: mask.port(one.local_port))
            found["remote_port"] = Column("text", lambda one: mask.port(one.remote_port))
        found["id"] = Column("text", lambda one: str(one.cookie))
        found["send_bps"] = Column("number", lambda one: self.rates.get(one.cookie, (None, None))[0])
        found["receive_bps"] = Column("number", lambda one: self.rates.get(one.cookie, (None, None))[1])
        found["retransmits_new"] = Column("number", lambda one: self.added.get(one.cookie))
        return found


def _getter(name: str) -> Callable[[Any], Any]:
    if name == "comm":
        return lambda one: one.comm or None
    return lambda one: getattr(one, name)


def _group(one: Connection, by: str) -> str:
    if by == "process":
        return f"{one.comm}/{one.pid}" if one.pid else "unknown"
    if by == "peer":
        return one.remote
    return str(getattr(one, by))


LISTENER_ROW = (
    "local", "port", "netns", "backlog", "limit", "drops", "syn_drops", "accept_drops", "pid", "comm",
    "sockets",
)  # fmt: skip
"""Keys of a row; the drops are those since the observer began, `backlog` and `limit` connections. sockets: so
many of this address (SO_REUSEPORT), of which these are the sums."""


def listener(one: Listener, drops: Mapping[tuple[int, str, int], Counts], mask: Mask) -> dict[str, Any]:
    """The row of a listening socket."""
    total, syn, accept = parts(drops.get((one.netns, one.local, one.port)))
    values: Sequence[Any] = (
        mask.address(one.local), mask.port(one.port), one.netns, one.backlog, one.limit, total, syn, accept,
        one.pid, one.comm or None, one.sockets,
    )  # fmt: skip
    return dict(zip(LISTENER_ROW, values, strict=True))

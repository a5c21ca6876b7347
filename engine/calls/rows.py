"""What a reader sees of the stores: the columns of engine.control.methods, as values and as whole rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.calls.filter import Column
from engine.calls.states import CLASSES, STATES, Dialog
from engine.control.methods import CALL_ROW, STREAM_FAR, STREAM_ROW, STREAM_SENDER, STREAM_XR
from engine.text import PROTOCOL_NAMES, address_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.calls.dialogs import DialogTable

ACTIVE_NS = 5_000_000_000
"""A stream is active while its newest packet is not older than this."""
CALL_ID_OCTETS = 127
"""How much of a Call-ID the flow registry keeps."""
_SCHEME = re.compile(r"(?:sips?|tel|im|pres|mailto|h323):", re.IGNORECASE)
_URI_END = re.compile(r"[;?>\s]")
_CALL = CLASSES.index("call")
_IN_CALL = STATES.index("in_call")

CALL_ALIASES = {
    "callid": "call_id", "caller": "from", "callee": "to", "duration": "duration_s", "dur": "duration_s",
    "index": "number", "loss": "lost_pct", "msgcnt": "messages", "msgs": "messages", "pdd": "pdd_s",
    "setup": "setup_s", "sipfrom": "from", "sipfromuser": "from_user", "sipto": "to", "siptouser": "to_user",
    "status": "code", "total": "total_s", "convdur": "duration_s", "totaldur": "total_s",
    "xcallid": "x_call_id",
}  # fmt: skip
STREAM_ALIASES = {
    "callid": "call_id", "delta": "max_delta_ms", "duration": "duration_s", "dur": "duration_s",
    "jitter": "mean_jitter_ms", "loss": "lost_pct", "far.loss": "far.lost_pct", "far.jitter": "far.jitter_ms",
    "rtt": "far.rtt_ms", "dtmf": "digits",
}  # fmt: skip
"""Other names of columns, sngrep's among them; for filters only."""
STREAM_ENDS = {"far": STREAM_FAR, "sender": STREAM_SENDER, "xr": STREAM_XR}
"""Columns that hold figures of their own."""


class Media(NamedTuple):
    """What the streams of one call come to."""

    streams: int
    lost_pct: float | None
    rows: Sequence[Mapping[str, Any]]

    def mos(self) -> float | None:
        """Of the worst stream, as far as that is known."""
        return min((score for row in self.rows if (score := row["mos"]) is not None), default=None)


NO_MEDIA = Media(0, None, ())


def endpoint(address: bytes, port: int) -> str:
    """`address:port`, IPv6 in brackets."""
    host = address_text(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_octets(low: int, high: int) -> bytes:
    """The 16 octets of an address from its two little-endian words."""
    return low.to_bytes(8, "little") + high.to_bytes(8, "little")


def uri_text(value: bytes | None) -> str | None:
    """`user@host:port` of a URI or a From or To value, without password and parameters; None if empty."""
    if not value:
        return None
    text = " ".join(value.decode("utf-8", "replace").split())
    start = text.find("<")
    if start >= 0:
        end = text.find(">", start)
        text = text[start + 1 : end if end >= 0 else None]
    scheme = _SCHEME.match(text)
    if scheme:
        text = text[scheme.end() :]
    user, at, host = text.rpartition("@")
    host = _URI_END.split(host, maxsplit=1)[0]
    return f"{user.split(':')[0]}{at}{host}" or None


def media_key(call_id: bytes) -> str:
    """A Call-ID as the stream table gives it."""
    return call_id[:CALL_ID_OCTETS].rstrip(b"\0").decode("utf-8", "replace")


class CallRows:
    """Columns of the calls store over Dialogs; `now` and `media` are set before a look."""

    def __init__(self, table: DialogTable, base: int) -> None:
        self.table = table
        self.base = base
        self.now = 0
        self.media: dict[str, Media] = {}
        kinds = dict.fromkeys(CALL_ROW, "text")
        for name in CALL_ROW:
            if name.endswith(("_s", "_ns", "_pct")) or name in (
                "id", "number", "messages", "code", "streams", "mos", "evidence", "malformed",
            ):  # fmt: skip
                kinds[name] = "number"
        kinds["state"] = "state"
        getters: dict[str, Callable[[Dialog], Any]] = {
            "from": self.sender,
            "to": self.receiver,
            "messages": lambda d: d.messages,
            "number": lambda d: d.number,
            "code": lambda d: d.code or None,
            "evidence": lambda d: d.evidence,
            "malformed": lambda d: d.malformed,
            "start_ns": lambda d: d.first_ns,
            "last_ns": lambda d: d.last_ns,
        }
        self.columns = {
            name: Column(kinds[name], getters[name] if name in getters else getattr(self, name))
            for name in CALL_ROW
        }
        self.names = {**self.columns, **{alias: self.columns[name] for alias, name in CALL_ALIASES.items()}}

    def row(self, d: Dialog) -> dict[str, Any]:
        """One row of CALL_ROW."""
        return {name: column.get(d) for name, column in self.columns.items()}

    def search(self, d: Dialog) -> str:
        """The joined columns that a bare word of a filter is looked for in, in lower case."""
        text = d.search_text
        if text is None:
            parts = (self.method, self.sender, self.receiver, self.src, self.dst, self.call_id)
            text = d.search_text = " ".join(str(part(d) or "") for part in parts).lower()
        if d.reason is None:
            return f"{text} {STATES[d.state]}"
        return f"{text} {STATES[d.state]} {self.reason(d)}".lower()

    def id(self, d: Dialog) -> int:
        """Unique, also over a restart of the calls process."""
        return self.base + d.number

    def method(self, d: Dialog) -> str:
        """Of the first message; of a response the one in its CSeq."""
        return self.table.method_name(d.method)

    def state(self, d: Dialog) -> str:
        """Its word in engine.calls.states."""
        return STATES[d.state]

    def sender(self, d: Dialog) -> str | None:
        """From of the first message."""
        text = d.sender_text
        if text is None:
            text = d.sender_text = uri_text(d.sender) or ""
        return text or None

    def receiver(self, d: Dialog) -> str | None:
        """To of the first message."""
        text = d.receiver_text
        if text is None:
            text = d.receiver_text = uri_text(d.receiver) or ""
        return text or None

    def from_user(self, d: Dialog) -> str | None:
        """User part of From."""
        return (self.sender(d) or "").rpartition("@")[0] or None

    def to_user(self, d: Dialog) -> str | None:
        """User part of To."""
        return (self.receiver(d) or "").rpartition("@")[0] or None

    def call_id(self, d: Dialog) -> str:
        """The Call-ID; a very long one is cut."""
        text = d.call_text
        if text is None:
            text = d.call_text = d.call_id.decode("utf-8", "replace")
        return text

    def x_call_id(self, d: Dialog) -> str | None:
        """X-Call-ID or X-CID: the other leg."""
        return None if d.x_call_id is None else d.x_call_id.decode("utf-8", "replace")

    def src(self, d: Dialog) -> str:
        """Where the first request came from."""
        text = d.src_text
        if text is None:
            text = d.src_text = endpoint(address_octets(d.src0, d.src1), d.ports & 0xFFFF)
        return text

    def dst(self, d: Dialog) -> str:
        """Where the first request went."""
        text = d.dst_text
        if text is None:
            text = d.dst_text = endpoint(address_octets(d.dst0, d.dst1), d.ports >> 16)
        return text

    def duration_s(self, d: Dialog) -> float | None:
        """Answered until ended, or now."""
        if d.kind != _CALL or not d.answer_ns:
            return None
        end = d.end_ns or (max(self.now, d.last_ns) if d.state == _IN_CALL else d.last_ns)
        return max(0, end - d.answer_ns) / 1e9

    def total_s(self, d: Dialog) -> float:
        """First until last message."""
        return (d.last_ns - d.first_ns) / 1e9

    def setup_s(self, d: Dialog) -> float | None:
        """INVITE until 200."""
        if d.kind != _CALL or not d.answer_ns or not d.invite_ns:
            return None
        return max(0, d.answer_ns - d.invite_ns) / 1e9

    def pdd_s(self, d: Dialog) -> float | None:
        """INVITE until the first 18x."""
        return max(0, d.ringing_ns - d.invite_ns) / 1e9 if d.ringing_ns and d.invite_ns else None

    def reason(self, d: Dialog) -> str | None:
        """Why it is in its state."""
        return None if d.reason is None else " ".join(d.reason.decode("utf-8", "replace").split())

    def transport(self, d: Dialog) -> str:
        """Of the first message."""
        return PROTOCOL_NAMES.get(d.protocol, str(d.protocol))

    def media_of(self, d: Dialog) -> Media:
        """Its streams."""
        return self.media.get(media_key(d.call_id), NO_MEDIA) if self.media else NO_MEDIA

    def streams(self, d: Dialog) -> int:
        """How many streams it has."""
        return self.media_of(d).streams

    def lost_pct(self, d: Dialog) -> float | None:
        """Of its worst stream."""
        return self.media_of(d).lost_pct

    def mos(self, d: Dialog) -> float | None:
        """Of its worst stream, as far as that is known."""
        return self.media_of(d).mos()


def stream_columns() -> dict[str, Column]:
    """Columns of the streams store over the rows that the stream table gives."""
    texts = {
        "id", "call_id", "src", "dst", "codec", "payload_types", "found_by", "active", "digits", "tunnel",
    }  # fmt: skip

    def getter(name: str) -> Callable[[dict[str, Any]], Any]:
        if name == "payload_types":
            return lambda row: " ".join(map(str, row["payload_types"]))
        if name == "active":
            return lambda row: "yes" if row["active"] else "no"
        return lambda row: row[name]

    columns = {
        name: Column("text" if name in texts else "number", getter(name))
        for name in STREAM_ROW
        if name not in STREAM_ENDS
    }
    for end, names in STREAM_ENDS.items():
        for name in names:
            kind = "text" if name in ("cname", "app", "concealment", "buffer_adaptive") else "number"
            columns[f"{end}.{name}"] = Column(kind, _of_end(end, name))
    return {**columns, **{alias: columns[name] for alias, name in STREAM_ALIASES.items()}}


def _of_end(end: str, name: str) -> Callable[[dict[str, Any]], Any]:
    def get(row: dict[str, Any]) -> Any:
        found = row[end]
        return found.get(name) if found else None

    return get


def stream_search(row: dict[str, Any]) -> str:
    """The joined columns of a stream, in lower case."""
    text = (
        f"{row['src']}:{row['sport']} {row['dst']}:{row['dport']} 0x{row['ssrc']:08x} {row['codec'] or ''} "
        f"{row['call_id'] or ''} {row['found_by']} {row.get('tunnel') or ''}"
    )
    return text.lower()

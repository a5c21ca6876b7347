"""The messages of one call: rows of its ladder, and one as it was on the wire."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from engine.calls.arena import FLAG_RETRANSMISSION
from engine.calls.rows import address_octets, endpoint
from engine.errors import OtusError
from engine.parsers.sdp import summarise
from engine.parsers.sip import ERRORS, SipParser
from engine.shm.records import TUNNELS

if TYPE_CHECKING:
    from engine.calls.dialogs import DialogTable
    from engine.calls.states import Dialog

FRAME = 0xFFFFFFFFFFFF
MOST_TEXT = 32_768
"""Characters of `raw`: with the longest message in base64 beside it, an answer fits into a line."""


def message_rows(
    table: DialogTable, dialog: Dialog, start: int, count: int
) -> tuple[list[dict[str, Any]], list[str], list[dict[str, Any]]]:
    """(rows of MESSAGE_ROW, hosts in order of appearance, what SDP was said) of messages from `start` on.

    Hosts are those of the whole call, so that the columns of a ladder stand still.
    """
    parser = SipParser()
    hosts: dict[str, None] = {}
    rows = []
    media = []
    for index, words in enumerate(table.arena.cells_of(dialog, 0, dialog.kept)):
        source = endpoint(address_octets(words[3], words[4]), words[7] & 0xFFFF)
        target = endpoint(address_octets(words[5], words[6]), words[7] >> 16 & 0xFFFF)
        hosts.setdefault(source)
        hosts.setdefault(target)
        if not start <= index < start + count:
            continue
        row = _row(table, parser, index, words)
        row["src"], row["dst"] = source, target
        rows.append(row)
        if row["sdp"]:
            media.append({"index": index, "src": source, "sdp": row["sdp"]})
    return rows, [*hosts], media


def _row(table: DialogTable, parser: SipParser, index: int, words: tuple[int, ...]) -> dict[str, Any]:
    status, error, method = words[8] & 0xFFFF, words[8] >> 16 & 0xFFFF, words[9] & 0xFF
    octets = table.arena.octets_of(words)
    reason, sdp = None, None
    if octets is not None:
        parser.attach(octets)
        if parser.parse(0, len(octets)):
            if status:
                reason = (parser.slot("reason_phrase") or b"").decode("utf-8", "replace")
            if 0 <= parser.sdp_start < parser.sdp_end:
                sdp = summarise(octets[parser.sdp_start : parser.sdp_end])
    return {
        "index": index,
        "time_ns": words[0],
        "src": "",
        "dst": "",
        "method": table.method_name(method),
        "status": status or None,
        "reason": reason,
        "cseq": words[8] >> 32,
        "sdp": sdp,
        "retransmission": bool(words[9] >> 8 & FLAG_RETRANSMISSION),
        "copies": words[9] >> 24 & 0xFF,
        "error": error_text(error),
        "frame": words[10] & FRAME or None,
        "length": words[7] >> 32,
        "gone": octets is None,
        "tunnel": tunnel_of(table.arena.tunnels, words[10] >> 48),
    }


def tunnel_of(tunnels: list[bytes], number: int) -> dict[str, Any] | None:
    """The tunnel with this number (engine.calls.arena); None for 0."""
    if not 0 < number <= len(tunnels):
        return None
    octets = tunnels[number - 1]
    from engine.packet import TunnelInfo, address_from_bytes

    return TunnelInfo(
        TUNNELS[octets[0]] if octets[0] < len(TUNNELS) else str(octets[0]),
        address_from_bytes(octets[5:21]),
        address_from_bytes(octets[21:]),
        int.from_bytes(octets[1:5], "little"),
    ).as_dict()


def error_text(number: int) -> str | None:
    """What is malformed, from its number in a record; None for 0."""
    if not number:
        return None
    return ERRORS[number] if number < len(ERRORS) else f"defect {number}"


def message_answer(table: DialogTable, dialog: Dialog, index: int) -> dict[str, Any]:
    """The answer to `message` (engine.control.methods); OtusError if the call has none with this index."""
    found = table.arena.cells_of(dialog, index, 1)
    if not found:
        raise OtusError(f"the call has no message {index}", f"{dialog.kept} messages are kept, from 0")
    octets = table.arena.octets_of(found[0])
    text = None if octets is None else octets.decode("utf-8", "backslashreplace")
    shown = None if text is None else text[:MOST_TEXT]
    whole = octets is None or shown is None or shown.encode() == octets
    return {
        "index": index,
        "raw": shown,
        "raw_base64": None if whole or octets is None else b64encode(octets).decode(),
        "error": error_text(found[0][8] >> 16 & 0xFFFF),
        "gone": octets is None,
    }

"""Calls that are up, and whose media goes one way only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from engine.calls.rows import ACTIVE_NS
from engine.calls.states import STATES
from engine.parsers.sdp import SdpParser
from engine.parsers.sdp_text import media_dicts
from engine.parsers.sip import SipParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.calls.dialogs import DialogTable
    from engine.calls.states import Dialog

LOOK_S = 1.0
"""Seconds between two looks at all streams."""
MESSAGES = 16
"""The newest messages of a call, in which its offer and answer are looked for."""
MOST_READ = 256
"""Calls whose SDP is read in one look; the others have their turn in the next ones."""
MOST_KNOWN = 4096
_IN_CALL = STATES.index("in_call")


class OneWay:
    """Counts calls with media in one direction and none in the other for ACTIVE_NS.

    Judged are calls that were answered so long ago, have media now and whose SDP is kept: who puts the other
    one on hold wants one way. Directions are told by the two hosts, on one host by the ports.
    """

    def __init__(self, table: DialogTable) -> None:
        self.table = table
        self._until = 0.0
        self._found: int | None = None
        self._agreed: dict[int, tuple[int, bool | None]] = {}
        """By number of the call: its messages when its SDP was read, and what that said."""

    def count(self, streams: Iterable[Mapping[str, Any]], now: int) -> int | None:
        """How many; None where no call can be judged. `streams`: rows of STREAM_ROW with their entries."""
        clock = time.monotonic()
        if clock >= self._until:
            self._found = self._look(streams, now)
            self._until = clock + LOOK_S
        return self._found

    def _look(self, streams: Iterable[Mapping[str, Any]], now: int) -> int | None:
        calls: dict[str, set[tuple[Any, Any]]] = {}
        for row in streams:
            if row["call_id"] and now - row["last_ns"] <= ACTIVE_NS:
                calls.setdefault(row["call_id"], set()).add(_ends(row))
        judged = found = 0
        left = MOST_READ
        for call_id, ends in calls.items():
            dialog = self.table.dialogs.get(call_id.encode())
            if dialog is None or dialog.state != _IN_CALL or now - dialog.answer_ns < ACTIVE_NS:
                continue
            if any((there, here) in ends for here, there in ends):
                judged += 1
                continue
            known = self._agreed.get(dialog.number)
            if known is None or known[0] != dialog.messages:
                if not left:
                    continue
                left -= 1
                if len(self._agreed) >= MOST_KNOWN:
                    self._agreed.clear()
                known = self._agreed[dialog.number] = (dialog.messages, self._both_ways(dialog))
            judged += known[1] is not None
            found += known[1] is True
        return found if judged else None

    def _both_ways(self, dialog: Dialog) -> bool | None:
        """Whether the newest offer and answer want media in both directions; None if they are not kept."""
        arena, parser, sdp = self.table.arena, SipParser(), SdpParser()
        seen = 0
        for words in reversed(arena.cells_of(dialog, max(0, dialog.kept - MESSAGES), MESSAGES)):
            octets = arena.octets_of(words)
            if octets is None:
                continue
            parser.attach(octets)
            if not parser.parse(0, len(octets)) or not 0 <= parser.sdp_start < parser.sdp_end:
                continue
            sdp.attach(octets)
            sdp.parse(parser.sdp_start, parser.sdp_end)
            described = media_dicts(sdp)
            audio = [one for one in described if one["type"] == "audio" and not one["rejected"]]
            if any(one["direction"] != "sendrecv" or one["held"] for one in audio or described):
                return False
            seen += 1
            if seen == 2:
                break
        return True if seen else None


def _ends(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """From where to where a stream goes."""
    if row["src"] != row["dst"]:
        return row["src"], row["dst"]
    return (row["src"], row["sport"]), (row["dst"], row["dport"])

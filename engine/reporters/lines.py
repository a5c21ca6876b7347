"""OutputPackets as JSON Lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.packet import OutputPacket


def json_lines(batch: Sequence[OutputPacket]) -> list[bytes]:
    """One line each, with its newline."""
    return [orjson.dumps(packet.as_dict(), option=orjson.OPT_APPEND_NEWLINE) for packet in batch]

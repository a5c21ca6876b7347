"""What the engine makes of capture files, as digests: compiled, and again with OTUS_PURE=1, to be compared.

python records_of.py FILE...     a line of JSON for each file, in their order
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

from engine.capture.pcap_file import PcapFile
from engine.decode.classifier import ALL_TUNNELS, Decoder
from engine.decode.fragments import Reassembly
from engine.pipeline.loop import Pipeline
from engine.report import Analysis
from engine.report_messages import MessageLines
from engine.shm import ring
from engine.shm.counters import Counters
from engine.shm.flows import FlowTable
from engine.shm.records import KINDS
from engine.shm.streams import StreamTable

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 64
"""Packets between two looks at the rings: with the longest records they hold as many."""
RING = 32 << 20


class Digest:
    """Of the records of one ring, in their order."""

    def __init__(self) -> None:
        self.region = ring.create("t", 0, RING)
        self.writer = ring.RingWriter(self.region)
        self.reader = ring.RingReader(self.region)
        self.hash = hashlib.sha256()
        self.kinds: dict[str, int] = {}

    def drain(self) -> None:
        for kind, flags, timestamp, body in self.reader.read(1 << 20):
            self.hash.update(b"%d %d %d %d " % (kind, flags, timestamp, len(body)) + body)
            name = KINDS[kind]
            self.kinds[name] = self.kinds.get(name, 0) + 1


def read(file: PcapFile, behind: Callable[[], None] = bool) -> None:
    """Read all packets; `behind` each BATCH of them."""
    while file.run(BATCH):
        behind()


def records(path: str) -> dict[str, Any]:
    """Every record of a worker that reports all there is, to the sender and to the calls process."""
    counters = Counters.create("t", 0)
    send, evidence = Digest(), Digest()
    options = {"frame_numbers": True, "unmatched_forward": True, "rtp_raw": True}
    reassembly = Reassembly(counters.words)
    pipeline = Pipeline(
        counters,
        FlowTable.create("t", 0, 16_384),
        StreamTable.create("t", 0, 8192),
        send.writer,
        evidence.writer,
        reassembly,
        Decoder(counters.words, ALL_TUNNELS),
        options,
    )
    file = PcapFile(path, pipeline)

    def drain() -> None:
        send.drain()
        evidence.drain()

    read(file, drain)
    pipeline.idle(file.last_ns)
    reassembly.finish()
    assert counters.balance() == 0
    return {
        "counters": {name: value for name, value in counters.as_dict().items() if value},
        "sent": send.kinds,
        "send": send.hash.hexdigest(),
        "witnessed": evidence.kinds,
        "evidence": evidence.hash.hexdigest(),
        "lost": [ring.figures(one.region)["lost"] for one in (send, evidence)],
    }


def report(path: str) -> str:
    """The text of `report --json`."""
    analysis = Analysis(path)
    read(analysis.file)
    analysis.pipeline.idle(analysis.file.last_ns)
    analysis.reassembly.finish()
    parts: list[bytes] = []
    analysis.write_json(lambda part: parts.append(bytes(part)))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def messages(path: str) -> str:
    """The lines of `report --messages`."""
    lines = hashlib.sha256()
    whole = MessageLines(path)
    whole.write = lines.update
    read(whole.file)
    whole.tap.flush()
    return lines.hexdigest()


def main() -> None:
    """One line for each file."""
    # What is drawn by chance decides where an entry stands, and its place is in the records.
    with patch("os.urandom", lambda count: bytes(range(count))), patch("time.time", lambda: 1.7e9):
        for path in sys.argv[1:]:
            made = {**records(path), "report": report(path), "messages": messages(path)}
            print(json.dumps({"path": os.path.abspath(path), **made}), flush=True)


if __name__ == "__main__":
    main()

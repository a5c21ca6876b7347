"""Random changes on the compiled build: no coverage to see there, so inputs that show something new are kept.

    python -m tests.fuzz.blind TARGET SECONDS WORK

WORK: a folder for the inputs that were kept, and for the input in work, which a killed process leaves behind.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.finding import Findings
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import Pair, seeds

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOM = 1 << 17
_HEAD = struct.Struct("QQ")
PLAIN_SHARE = float(os.environ.get("OTUS_FUZZ_PLAIN_SHARE") or 0.5)
"""Of the time goes to the uncompiled build, with inputs that show nothing new."""
MOST_KEPT = 4000


class Watched:
    """The input in work in a mapped file: count of runs, its length, its octets."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(ROOM))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), ROOM)
        self.count = 0

    def begin(self, octets: bytes) -> None:
        """The next one."""
        self.count += 1
        _HEAD.pack_into(self.memory, 0, self.count, len(octets))
        self.memory[16 : 16 + len(octets)] = octets


def in_work(path: Path) -> tuple[int, bytes]:
    """How many inputs a process has begun, and the last of them."""
    octets = path.read_bytes()
    count, length = _HEAD.unpack_from(octets)
    return count, octets[16 : 16 + length]


def keep(folder: Path, octets: bytes) -> None:
    """For the next run, and for the guided one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(octets).hexdigest()[:16]).write_bytes(octets)


def kept(folder: Path) -> Iterable[bytes]:
    """What earlier runs kept."""
    return (path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file())


def main(name: str, seconds: float, work: Path) -> None:
    """Run until the time is over; a line for each finding and one at the end."""
    random = Random()
    pair = Pair(name)
    watched = Watched(work / "input")
    found = Findings(pair, watched.begin)
    kind, folder = pair.kind, work / "corpus"
    begin = [*kind.corpus(), *(path.read_bytes() for path in seeds(name)), *kept(folder)]
    queue, corpus, features, number = [one[: kind.longest] for one in begin], [], set(), 0
    plain = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fresh = not queue
        if fresh:
            octets = mutate(random.choice(corpus or [b""]), random, corpus, kind.pieces, kind.longest)
            if random.randrange(2):
                octets = pair.fast.repair(octets)[: kind.longest]
        else:
            octets = queue.pop()
        watched.begin(octets)
        number += 1
        now = time.monotonic()
        try:
            view = pair.check(octets, both=False, timed=True)
            if plain < PLAIN_SHARE * (now - end + seconds):
                pair.check_plain(octets, view)
                plain += time.monotonic() - now
            feature = pair.fast.features(view)
            if feature not in features:
                features.add(feature)
                pair.check_plain(octets, view)
                if len(corpus) < MOST_KEPT:
                    corpus.append(octets)
                    if fresh:
                        keep(folder, octets)
        except Exception as error:
            if line := found.take(octets, error):
                print(f"FOUND {line}", flush=True)
    print(f"DONE runs {number} kept {len(corpus)} features {len(features)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))

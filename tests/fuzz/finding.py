"""Findings: told apart by where they were raised, made small, kept in a file each."""

from __future__ import annotations

import hashlib
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.mutate import shorter

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.targets import Pair

FOLDER = Path(os.environ.get("OTUS_FUZZ_FINDINGS") or Path(__file__).resolve().parent / "findings")
"""Not in the repository: what stays goes to seeds/."""


def signature(error: BaseException) -> str:
    """The same for the same fault: type, last line of the engine or the target, the text without numbers."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if "/engine/" in frame.filename or "_targets.py" in frame.filename:
            place = f"{Path(frame.filename).name}:{frame.name}:{frame.line}"
    text = "".join(c for c in str(error).split(":")[0] if not c.isdigit())[:60]
    return f"{type(error).__name__} {place} {text}"


class Findings:
    """Of one target; each fault once. `begin` is told each input before it is run."""

    def __init__(self, pair: Pair, begin: Callable[[bytes], None], folder: Path = FOLDER) -> None:
        self.pair = pair
        self.begin = begin
        self.folder = folder / pair.kind.name
        self.known: set[str] = set()

    def take(self, octets: bytes, error: BaseException) -> str:
        """Keep an input that failed; what to print, empty where the fault is known."""
        mark = signature(error)
        if mark in self.known or len(self.known) > 40:
            return ""
        self.known.add(mark)

        def still(less: bytes) -> bool:
            self.begin(less)
            try:
                self.pair.check(less, timed=" ms for " in str(error))
            except Exception as again:
                return signature(again) == mark
            return False

        if still(octets):
            octets = shorter(octets, still)
        name = hashlib.sha256(mark.encode()).hexdigest()[:10]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_bytes(octets)
        detail = "".join(traceback.format_exception(error))
        path.with_suffix(".txt").write_text(f"{mark}\n\n{octets!r}\n\n{detail}", encoding="utf-8")
        return f"{path}: {mark}"

"""All targets by name, and one run of an input on both builds."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.builds import COMPILED, PURE
from tests.fuzz import http_targets, packet_targets, sip_targets, store_targets, text_targets
from tests.fuzz.target import BrokenError, Target

if TYPE_CHECKING:
    from tests.builds import Build

PATIENCE = float(os.environ.get("OTUS_FUZZ_PATIENCE") or 1)
"""Times as long as a target says an input may take."""
HERE = Path(__file__).resolve().parent
SEEDS = HERE / "seeds"
"""Small inputs that found faults, a folder for each target."""
TARGETS = {
    one.name: one
    for module in (packet_targets, sip_targets, text_targets, http_targets, store_targets)
    for one in module.TARGETS
}


@cache
def on(name: str, build: Build) -> Target:
    """The target on a build."""
    return TARGETS[name](build)


def seeds(name: str) -> list[Path]:
    """Inputs that found something once."""
    return sorted(path for path in (SEEDS / name).glob("*") if path.is_file())


class Pair:
    """A target on both builds; whatever `check()` raises is a finding."""

    def __init__(self, name: str) -> None:
        self.kind = TARGETS[name]
        self.fast = on(name, COMPILED)
        self.plain = on(name, PURE)

    def check(self, octets: bytes, both: bool = True, timed: bool = False) -> Any:
        """Run it on the compiled build; then on the other, which must say the same. What it says."""
        begun = time.thread_time()
        view = self.fast.run(octets)
        if timed and time.thread_time() - begun > PATIENCE * self.kind.patience_ms / 1000:
            self.slow(octets)
        if both:
            self.check_plain(octets, view)
        return view

    def check_plain(self, octets: bytes, view: Any) -> None:
        """Run it on the uncompiled build, which must say `view`."""
        if not self.kind.cold:
            other = self.plain.run(octets)
            if view != other:
                raise BrokenError(f"the builds differ {difference(view, other)}")

    def slow(self, octets: bytes) -> None:
        """BrokenError where an input takes too long however often it is run."""
        least, most = 1e9, PATIENCE * self.kind.patience_ms
        for _ in range(5):
            begun = time.thread_time()
            self.fast.run(octets)
            least = min(least, time.thread_time() - begun)
        if least > most / 1000:
            raise BrokenError(f"{least * 1000:.1f} ms for {len(octets)} octets, more than {most:g} ms")


def difference(one: Any, other: Any, place: str = "") -> str:
    """Where two views differ, a letter a level, and how, shortened."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return difference(left, right, place + chr(97 + min(number, 25)))
    return f"at {place or 'all'}: {str(one)[:300]} and {str(other)[:300]}"

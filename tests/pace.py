"""CPU time of a piece of work in units of another one that is measured beside it: the same on any machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 20_000


def unit() -> float:
    """Seconds of CPU that a loop of 20,000 additions takes just now: about a millisecond."""
    begun = time.process_time()
    total = 0
    for number in range(ROUNDS):
        total += number
    return time.process_time() - begun


def within(units: float, work: Callable[[], object], tries: int = 5) -> bool:
    """Whether some work takes no more than so many units; where it was disturbed, it is done again."""
    for _ in range(tries):
        before = unit()
        begun = time.process_time()
        work()
        took = time.process_time() - begun
        if took <= units * max(before, unit()):
            return True
    return False

"""What processes take, as /proc tells it."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def memory(pid: int) -> int:
    """Resident octets of a process, shared memory included; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of running children, which getrusage() does not know yet."""
    total = 0.0
    tick = os.sysconf("SC_CLK_TCK")
    for pid in pids:
        with (
            contextlib.suppress(OSError, IndexError, ValueError),
            open(f"/proc/{pid}/stat", encoding="ascii") as file,
        ):
            fields = file.read().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / tick
    return total

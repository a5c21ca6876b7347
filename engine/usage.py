"""What processes take, as /proc tells it."""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MEMORY_AGE = 5.0


def open_memory(pid: int) -> int:
    """A descriptor for memory(), -1 if it cannot be had.

    Opened before a process becomes another user it stays readable; afterwards that takes CAP_SYS_PTRACE.
    """
    try:
        return os.open(f"/proc/{pid}/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def memory(descriptor: int) -> int | None:
    """Octets of a process, of shared ones its part (PSS, proc_pid_smaps(5)): they add up over processes.

    0 when it is gone, None where the kernel does not say. Takes 1 ms or so for each 64 MB.
    """
    try:
        text = os.pread(descriptor, 4096, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        return None
    found = re.search(rb"^Pss: +(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else None if text else 0


class Meter:
    """Memory of this process and others, looked at once in MEMORY_AGE seconds: every page is walked."""

    def __init__(self) -> None:
        self._own = -1
        self._seen: tuple[float, int | None] = (-MEMORY_AGE, None)

    def octets(self, others: Iterable[Callable[[], int | None]]) -> int | None:
        """The sum; None if a part of it is unknown."""
        now = time.monotonic()
        if now - self._seen[0] >= MEMORY_AGE:
            if self._own < 0:
                self._own = open_memory(os.getpid())
            parts = [memory(self._own), *(other() for other in others)]
            known = [part for part in parts if part is not None]
            self._seen = (now, sum(known) if len(known) == len(parts) else None)
        return self._seen[1]


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

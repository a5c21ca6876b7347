"""Which CPU each worker runs on: those of the interface's NUMA node first, one core after the other.

Only CPUs that this process may use (affinity mask, cpuset of its cgroup) are given out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.capture import interfaces

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSFS = Path("/sys")


def cpu_list(text: str) -> list[int]:
    """The numbers in `0-3,8`; ValueError for anything else."""
    found: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found


def numa_node(interface: str, sysfs: Path = SYSFS) -> int | None:
    """The NUMA node of the first of the named interfaces that has one; None for virtual ones and `any`."""
    for name in interfaces.split(interface):
        try:
            node = int((sysfs / "class/net" / name / "device/numa_node").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if node >= 0:
            return node
    return None


def place_workers(
    interface: str, workers: int, allowed: Iterable[int] | None = None, sysfs: Path = SYSFS
) -> list[int]:
    """A CPU for each worker; with more workers than CPUs they share. `allowed`: this process's own."""
    usable = sorted(os.sched_getaffinity(0) if allowed is None else set(allowed))
    node = numa_node(interface, sysfs)
    near = set(_numbers(sysfs / f"devices/system/node/node{node}/cpulist")) if node is not None else set()
    # One thread of each core before the second one of any: two on a core share what it can do.
    order = sorted(usable, key=lambda cpu: (cpu not in near, _thread(cpu, usable, sysfs), cpu))
    return [order[number % len(order)] for number in range(workers)]


def _thread(cpu: int, usable: list[int], sysfs: Path) -> int:
    """The how-manieth usable thread of its core a CPU is, from 0."""
    siblings = _numbers(sysfs / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return sum(other < cpu and other in usable for other in siblings)


def _numbers(path: Path) -> list[int]:
    try:
        return cpu_list(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []

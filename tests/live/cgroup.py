"""A cgroup v2 of one's own that this process can go into."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def enter(group: Path) -> None:
    """This process is in the group from now on."""
    (group / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def own_cgroup(*below: str) -> Iterator[tuple[Path, Path]]:
    """The group, with groups of these names below each other in it, and the one that this process is in."""
    mounts = Path("/proc/mounts").read_text("ascii").splitlines()
    mount = next((line.split()[1] for line in mounts if " cgroup2 " in line), "")
    if not mount:
        pytest.skip("no cgroup v2")
    home = Path(mount, Path("/proc/self/cgroup").read_text("ascii").split("0::", 1)[1].split()[0].lstrip("/"))
    outer = Path(mount, f"otus-test-{os.getpid()}")
    inner = outer.joinpath(*below)
    try:
        inner.mkdir(parents=True)
    except OSError:
        pytest.skip("cgroups cannot be made here")
    try:
        yield outer, home
    finally:
        enter(home)
        for group in (inner, *inner.parents)[: len(below) + 1]:
            group.rmdir()

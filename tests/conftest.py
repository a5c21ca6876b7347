"""What all tests share: both builds of hot modules, and the reasons to leave a tier out."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import BUILDS, Build

TESTS = Path(__file__).resolve().parent

# What tests share says what it found when it fails, as the tests themselves do.
pytest.register_assert_rewrite("tests.live", "tests.unit", "tests.packet_road")


@pytest.fixture(params=BUILDS, ids=str)
def build(request: pytest.FixtureRequest) -> Build:
    """Each of the two builds of the hot modules: `build.module("engine.shm.ring")`."""
    found: Build = request.param
    return found


@pytest.fixture(autouse=True)
def shared_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes the memfds that a test made: thousands of tests would run out of descriptors."""
    made: dict[int, str] = {}
    create = os.memfd_create

    def memfd_create(name: str, flags: int = os.MFD_CLOEXEC) -> int:
        fd = create(name, flags)
        made[fd] = os.readlink(f"/proc/self/fd/{fd}")
        return fd

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    yield
    for fd, target in made.items():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}") == target:
                os.close(fd)


def _live_lacks() -> str:
    """Why the live tests cannot run here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root: it makes network namespaces and captures on them"
    if shutil.which("ip") is None:
        return "needs the command ip (Debian package iproute2)"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders are tiers: everything below tests/live and tests/wire carries the tier's marker."""
    lacks = _live_lacks()
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if tier in ("live", "wire"):
            item.add_marker(getattr(pytest.mark, tier))
        if lacks and item.get_closest_marker("live"):
            item.add_marker(pytest.mark.skip(reason=lacks))

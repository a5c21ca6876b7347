"""What all tests share: both builds of hot modules, and the reasons to leave a tier out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.builds import BUILDS, Build

TESTS = Path(__file__).resolve().parent


@pytest.fixture(params=BUILDS, ids=str)
def build(request: pytest.FixtureRequest) -> Build:
    """Each of the two builds of the hot modules: `build.module("engine.shm.ring")`."""
    found: Build = request.param
    return found


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

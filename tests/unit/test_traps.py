"""docs/traps.md names tests: every one of them exists, and every trap has some."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
PAGE = (TESTS.parent / "docs" / "traps.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([a-z]+/[a-z_]+\.py(?:::\w+)+)`", PAGE)))


@cache
def names_in(path: Path) -> set[str]:
    """Tests of a module, those of classes as Class::test."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{one.name}" for one in node.body if hasattr(one, "name")}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("name", NAMED)
def test_it_exists(name: str) -> None:
    path, _, test = name.partition("::")
    assert test.rpartition("::")[2].startswith("test_")
    assert test in names_in(TESTS / path)


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    held = [row for row in rows if not row.startswith(("|---", "| attack |"))]
    assert len(held) > 20
    for row in held:
        named = re.findall(r"`[^`]+`", row.split("|")[-2])
        assert named, row
        assert all("::test_" in one or "::Test" in one for one in named), row
    numbers = [int(row.split("|")[1]) for row in held if row.split("|")[1].strip().isdigit()]
    assert numbers == list(range(1, 17))

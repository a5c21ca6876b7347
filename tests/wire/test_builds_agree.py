"""Both builds make the same of every packet of every capture: records, figures, report, lines.

30 s of CPU time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import purity
from engine.pipeline import loop

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("OTUS_CAPTURES") or ROOT.parent / "shared" / "captures")
TRUTH = json.loads((FOLDER / "truth.json").read_text()) if (FOLDER / "truth.json").is_file() else {}
CAPTURES = {".pcap", ".pcapng", ".cap"}
SHARES = 4
"""Tests that the captures are dealt out to, each with as many packets."""

pytestmark = [
    pytest.mark.skipif(not TRUTH, reason=f"no captures: {FOLDER}/truth.json is not there (OTUS_CAPTURES)"),
    pytest.mark.skipif(not purity.is_compiled(loop), reason="nothing is compiled here"),
]


def shares() -> list[list[str]]:
    """The captures, dealt out from the longest to the shortest."""
    dealt: list[tuple[int, list[str]]] = [(0, []) for _ in range(SHARES)]
    for name in sorted(TRUTH, key=lambda name: -TRUTH[name]["packets"]):
        place = min(range(SHARES), key=lambda number: dealt[number][0])
        packets, names = dealt[place]
        dealt[place] = (packets + TRUTH[name]["packets"] + 100, [*names, name])
    return [names for _, names in dealt]


def start(names: list[str], pure: bool) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if key != "OTUS_PURE"}
    if pure:
        environment["OTUS_PURE"] = "1"
    script = str(ROOT / "tests/wire/records_of.py")
    command = [sys.executable, script, *(str(FOLDER / name) for name in names)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> list[dict]:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("share", range(SHARES))
def test_both_builds_make_the_same_of_every_capture(share: int) -> None:
    names = shares()[share]
    runs = [start(names, pure=True), start(names, pure=False)]
    plain, compiled = map(finish, runs)
    assert len(plain) == len(compiled) == len(names)
    for one, other, name in zip(plain, compiled, names, strict=True):
        assert one == other, name
        assert one["lost"] == [0, 0], name
        assert one["counters"]["received"] == TRUTH[name]["packets"], name


def test_every_capture_is_in_one_share() -> None:
    assert sorted(name for share in shares() for name in share) == sorted(TRUTH)
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert {name for name in files if Path(name).suffix in CAPTURES} == TRUTH.keys()

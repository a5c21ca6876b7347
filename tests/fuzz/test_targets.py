"""Every target of the fuzzer on both builds: where it begins, what found something once, and some changes.

Longer runs: ./dev fuzz.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.mutate import mutate, shorter
from tests.fuzz.target import BrokenError
from tests.fuzz.targets import TARGETS, Pair, seeds

ROOT = Path(__file__).resolve().parents[2]
MOST = 262_144
"""Octets of all seeds together."""
SOME = 24
"""Inputs of a corpus that are tried each time, spread over it."""
short = settings(
    max_examples=int(os.environ.get("OTUS_FUZZ_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
every = pytest.mark.parametrize("name", TARGETS)


@cache
def pair(name: str) -> Pair:
    return Pair(name)


@cache
def corpus(name: str) -> list[bytes]:
    """What a target begins with."""
    kind = TARGETS[name]
    return [octets[: kind.longest] for octets in kind.corpus()]


@pytest.mark.parametrize(
    "path", [path for name in TARGETS for path in seeds(name)], ids=lambda path: path.stem
)
def test_what_found_something_once(path: Path) -> None:
    pair(path.parent.name).check(path.read_bytes())


@every
def test_what_a_target_begins_with(name: str) -> None:
    begin = corpus(name)
    assert begin
    for octets in [*begin[:: max(1, len(begin) // SOME)], b"", b"\0", b"\xff" * 40]:
        pair(name).check(octets)


@every
@short
@given(random=st.randoms(use_true_random=False), changes=st.integers(0, 3))
def test_changes(name: str, random: Random, changes: int) -> None:
    kind, begin = TARGETS[name], corpus(name)
    octets = random.choice(begin)
    for _ in range(changes):
        octets = mutate(octets, random, begin, kind.pieces, kind.longest)
    if random.randrange(2):
        octets = pair(name).fast.repair(octets)[: kind.longest]
    pair(name).check(octets)


@pytest.mark.parametrize("name", ["decode", "fragments", "sip", "sdp", "pcap"])
@short
@given(octets=st.binary(max_size=400))
def test_any_octets(name: str, octets: bytes) -> None:
    pair(name).check(octets)


def test_seeds_are_small() -> None:
    found = [path for path in targets.SEEDS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) < MOST
    assert {path.parent.name for path in found} <= TARGETS.keys()


def test_builds_that_differ_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Pair("sip")
    monkeypatch.setattr(both, "plain", both.fast.__class__(both.plain.build))
    monkeypatch.setattr(both.plain, "run", lambda octets: (False, 1))
    with pytest.raises(BrokenError, match="the builds differ"):
        both.check(b"BYE sip:a SIP/2.0\r\n\r\n")


def test_findings_are_made_small() -> None:
    assert shorter(b"a" * 100 + b"X" + b"b" * 100, lambda octets: b"X" in octets) == b"X"


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz"]
    listed = subprocess.run([*command, "--list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(TARGETS)
    wrong = subprocess.run([*command, "nothing"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "no target nothing" in wrong.stderr
    folder = tmp_path / "rpc"
    folder.mkdir()
    (folder / "one").write_bytes(b"{}\n")
    again = [*command, "--replay", str(folder / "one")]
    assert (
        "nothing wrong" in subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )

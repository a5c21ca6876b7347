"""Rights that a process gives up: for good, and only as far as it can still do its work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine import privileges
from engine.reporters.console import ConsoleReporter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
NOBODY = (65534, 65534)
PROLOGUE = "import ctypes, json, os, signal, sys\nfrom engine import privileges\nlibc = ctypes.CDLL(None)\n"
EPILOGUE = """
facts = {}
for line in open("/proc/self/status"):
    key, _, value = line.partition(":")
    facts[key] = value.split()
death = ctypes.c_int(0)
libc.prctl(2, ctypes.byref(death), 0, 0, 0)
facts["death"] = death.value
json.dump(facts, sys.stdout)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody reaches, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def after(code: str) -> dict[str, Any]:
    """What /proc says of a process that ran `code`."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + code + EPILOGUE], capture_output=True, check=True, timeout=20
    )
    facts: dict[str, Any] = json.loads(done.stdout)
    facts["stderr"] = done.stderr.decode()
    return facts


def rights(facts: dict[str, Any]) -> list[int]:
    return [int(facts[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]


def test_nothing_of_root_is_left() -> None:
    facts = after("libc.prctl(1, 9, 0, 0, 0)\nprivileges.drop((65534, 65534))")
    assert rights(facts) == [0, 0, 0, 0]
    assert facts["Uid"] == ["65534"] * 4
    assert facts["Gid"] == ["65534"] * 4
    assert facts["Groups"] == []
    assert facts["NoNewPrivs"] == ["1"]
    assert facts["death"] == 9, "it still ends with its parent"
    assert facts["Threads"] == ["1"]


def test_there_is_no_way_back() -> None:
    after(
        "privileges.drop((65534, 65534))\n"
        "for change in (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.open('/etc/shadow', 0),\n"
        "               lambda: os.open('/etc/passwd', os.O_WRONLY)):\n"
        "    try:\n"
        "        change()\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    sys.exit(1)\n"
    )


def test_without_a_user_only_capabilities_go() -> None:
    facts = after("privileges.drop(None, privileges.CAP_DAC_OVERRIDE)")
    assert rights(facts) == [2, 2, 0, 0]
    assert facts["Uid"] == ["0"] * 4
    assert rights(after("privileges.drop(None)")) == [0, 0, 0, 0]


def test_user_stays_where_it_could_not_work(tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    needed.write_text("")
    tmp_path.chmod(0o700)
    facts = after(f"os.setgroups([4])\nprivileges.drop((65534, 65534), 0, [{str(needed)!r}])")
    assert facts["Uid"] == ["0"] * 4
    assert facts["Groups"] == ["4"]
    assert rights(facts) == [0, 0, 0, 0]
    assert f"it could not read {needed}" in facts["stderr"]


def test_plugins_of_others_may_import_later() -> None:
    class Foreign:
        pass

    assert privileges.files_of([ConsoleReporter()]) == ()
    assert privileges.files_of([ConsoleReporter(), Foreign()]) == (os.__file__, __file__)


def test_child_that_may_not_be_ended_keeps_its_user() -> None:
    assert privileges.unprivileged() == NOBODY
    code = (
        "from engine.privileges import *\n"
        "assert effective() >> 5 & 1\n"
        "privileges.drop(None, effective() & ~(1 << 5))\n"
        "assert unprivileged() is None\n"
    )
    after(code)


@pytest.mark.parametrize(
    ("owners", "mode", "expected"),
    [
        ([], 0o755, (NOBODY, 0)),
        ([0], 0o755, (None, 0)),
        ([0], 0o555, (None, privileges.CAP_DAC_OVERRIDE)),
        ([1234], 0o755, ((1234, 1234), 0)),
        ([1234], 0o555, (None, privileges.CAP_DAC_OVERRIDE)),
        ([1234, 1234], 0o700, ((1234, 1234), 0)),
        ([1234, 1235], 0o755, (None, privileges.CAP_DAC_OVERRIDE)),
        ([0, 1234], 0o755, (None, privileges.CAP_DAC_OVERRIDE)),
    ],
)
def test_files_decide_about_the_user(
    owners: list[int], mode: int, expected: tuple[object, int], open_folder: Path
) -> None:
    folders = []
    for number, owner in enumerate(owners):
        folder = open_folder / str(number)
        folder.mkdir()
        os.chown(folder, owner, owner)
        folder.chmod(mode)
        folders.append(str(folder))
    found = privileges.for_folders(NOBODY, folders)
    assert (found[0] if found[0] is None else tuple(found[0]), found[1]) == expected
    assert os.geteuid() == 0
    # Who cannot change the user needs the right itself, unless the folders are root's.
    own = not owners or (set(owners) == {0} and mode == 0o755)
    assert privileges.for_folders(None, folders) == (None, 0 if own else privileges.CAP_DAC_OVERRIDE)


def test_folder_that_its_owner_does_not_reach(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "in"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    assert privileges.for_folders(NOBODY, [str(folder)]) == (None, privileges.CAP_DAC_OVERRIDE)

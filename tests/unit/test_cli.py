"""The command line: help, errors in one line, exit codes, and a start that is quick."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otus_tui import cli

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str, tmp_path: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the program away from any terminal, without an engine."""
    environment = {**os.environ, "OTUS_SOCKET": str(tmp_path / "no.sock"), "COLUMNS": "80"}
    command = [sys.executable, "-m", "otus_tui", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in cli.VERBS)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "otus-tui -I call.pcapng" in text


@pytest.mark.parametrize(
    "words",
    [[verb] for verb in cli.VERBS if verb != "task"]
    + [["task", v] for v in ("create", "stop", "list", "status")],
)
def test_help_of_a_verb_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*words, "--help"]) == 0
    assert "Example:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("otus-tui 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["status"], 1, "no engine runs at"),
        (["stats", "--json"], 1, "no engine runs at"),
        (["status", "--wrong"], 2, "No such option"),
        (["task"], 2, ""),
        (["task", "create"], 2, "Missing option '--file'"),
        (["task", "create", "--file", "/no.yml"], 2, "cannot read /no.yml"),
        (["task", "stop", "--id", "x"], 1, "no engine runs at"),
        (["--headless", "--config", "/no.yml"], 2, "cannot read /no.yml"),
        (["--headless", "--task", "/no.yml"], 2, "cannot read /no.yml"),
        (["-d", "lo", "-I", "x"], 2, "exclude each other"),
        (["-l", "0"], 2, "--limit"),
        ([], 2, "need a terminal"),
        (["udp", "port", "5060"], 2, "need a terminal"),
    ],
)
def test_errors(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    result = run(*arguments, tmp_path=tmp_path)
    text = result.stderr.decode()
    assert result.returncode == code, text
    assert message in text
    assert "Traceback" not in text
    if message:
        assert "otus-tui: " in text
    assert result.stdout == b"" or arguments == ["task"]


def test_no_terminal_shows_the_help(tmp_path: Path) -> None:
    assert b"Verbs:" in run(tmp_path=tmp_path).stderr


def test_closed_output_is_quiet(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "otus_tui", "--help"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert result.returncode == 1
    assert b"No space left" in result.stderr
    assert b"Traceback" not in result.stderr
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "otus_tui", "--help"], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert result.stderr == b""


def test_verbs_import_neither_textual_nor_asyncio() -> None:
    script = (
        "import sys; from otus_tui import cli; cli.run(['status']); cli.run(['task', 'list']);"
        "print([m for m in ('textual', 'rich', 'asyncio', 'pydantic', 'yaml') if m in sys.modules])"
    )
    environment = {**os.environ, "OTUS_SOCKET": "/no/such.sock"}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=environment, text=True, check=False
    )
    assert result.stdout.strip() == "[]"

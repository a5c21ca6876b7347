"""The command line: help, errors in one line, exit codes, and a start that is quick."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from engine.errors import ExitCode, OtusError
from otus_tui import cli, demo
from otus_tui.cli.group import VERBS
from otus_tui.control_client import start_engine

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
    assert all(f"  {verb} " in text for verb in VERBS)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "otus-tui -I call.pcapng" in text


@pytest.mark.parametrize(
    "words",
    [[verb] for verb in VERBS if verb != "task"]
    + [["task", v] for v in ("create", "stop", "list", "status", "filter")],
)
def test_help_of_a_verb_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*words, "--help"]) == 0
    assert "Example:" in capsys.readouterr().out


def test_help_cuts_no_sentence_and_no_example(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["task"]):
        with pytest.raises(SystemExit):
            cli.main([*words, "--help"])
        printed = capsys.readouterr().out
        assert "..." not in printed.split("Commands:")[-1].replace("FILTER...", "")
        assert not re.search(r"otus-$", printed, re.MULTILINE)


def test_a_group_without_a_verb_names_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in ((["task"], "Missing command"), (["task", "lst"], "No such command 'lst'")):
        assert cli.run(words) == ExitCode.USAGE
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert said in lines[0]
        assert "create, filter, list, status, stop" in lines[1]


def test_help_names_both_of_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["-h"], ["task", "--help"]):
        cli.run(words)
        assert "-h, --help" in capsys.readouterr().out


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
        (["--socket", "x", "stats", "--json"], 2, "No such option"),
        (["--socket", "x", "stats"], 2, "stats is a verb: it comes before the options"),
        (["-l", "0"], 2, "--limit"),
        (["-d", ""], 2, "-d: no interface is named"),
        (["-I", ""], 2, "-I: no file is named"),
        (["report", ""], 2, "no file is named"),
        (["--headless", "-c"], 2, "-c is for the screens"),
        (["daemon", "-d", ""], 2, "-d: no interface is named"),
        (["doctr"], 2, "did you mean doctor?"),
        (["tcp", "port", "5060", "--duration", "1"], 2, "`tcp port` begins a capture filter"),
        (["port", "5060"], 2, "need a terminal"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nope.pcap"], "/nope.pcap: "),
        (["-d", "otus9"], "no interface 'otus9' on this host"),
        (["-d", "lo", "udp", "and", "prot", "5"], "'prot' is a name or no keyword"),
    ],
)
def test_without_a_terminal_what_is_wrong_comes_first(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    result = run(*arguments, tmp_path=tmp_path)
    text = result.stderr.decode()
    assert result.returncode == 2
    assert text.startswith("otus-tui: ")
    assert message in text.splitlines()[0]
    assert "terminal" not in text
    assert "Verbs:" not in text


def test_without_a_terminal_the_way_out_is_one_line(tmp_path: Path) -> None:
    result = run("-d", "lo", tmp_path=tmp_path)
    assert result.returncode == 2
    assert result.stderr.decode().splitlines() == [
        "otus-tui: the screens need a terminal",
        "          without one: otus-tui --headless, then status and stats",
    ]


@pytest.mark.parametrize("verb", [["daemon"], ["--headless"], []], ids=["daemon", "headless", "screens"])
def test_a_filter_that_does_not_compile_has_a_caret_below_the_place(verb: list[str], tmp_path: Path) -> None:
    words = ["-d", "lo", "--socket", str(tmp_path / "s"), "port", "5060", "and", "hots", "10.0.0.1"]
    result = run(*verb, *words, tmp_path=tmp_path)
    assert result.returncode == 2
    _, expression, caret, hint = result.stderr.decode().splitlines()
    assert expression.strip() == "port 5060 and hots 10.0.0.1"
    assert caret.index("^") == expression.index("hots")
    assert hint.strip() == "did you mean 'host'?"


def test_why_an_engine_did_not_start_keeps_the_caret_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(OtusError) as caught:
        start_engine(["--interface=lo", "--filter=udp and prot 5"], str(tmp_path / "s"))
    expression, caret, _ = caught.value.hint.splitlines()
    assert caret.index("^") == expression.index("prot")


def test_standard_streams_that_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "call.pcap"
    path.write_bytes(demo.capture())
    for closed in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        for verb in (f"report {path}", f"report {path} --json", "--version", "status"):
            command = f"{sys.executable} -m otus_tui {verb} {closed}"
            environment = {**os.environ, "OTUS_SOCKET": str(tmp_path / "no.sock")}
            result = subprocess.run(["sh", "-c", command], capture_output=True, env=environment, check=False)
            assert result.returncode == (1 if verb == "status" else 0), (verb, closed, result.stderr)
            assert b"Traceback" not in result.stderr


def test_no_terminal_shows_the_help(tmp_path: Path) -> None:
    assert b"Verbs:" in run(tmp_path=tmp_path).stderr


def test_an_interrupt_while_modules_load_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: list[str]) -> None:
        class Interrupts:
            def __set_name__(self, owner: type, name: str) -> None:
                raise KeyboardInterrupt

        type("Owner", (), {"name": Interrupts()})

    monkeypatch.setattr("otus_tui.cli.group.call", load)
    assert cli.run(["status"]) == ExitCode.INTERRUPTED


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

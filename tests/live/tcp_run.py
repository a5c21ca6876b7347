"""`otus-tui tcp` inside of a namespace, over what a test does there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from tests.builds import ROOT
from tests.live.engines import wait_for
from tests.live.tcp_lines import WINDOW, check_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Namespace


class Run:
    """`otus-tui tcp` inside of a namespace, from when it watches to its end."""

    def __init__(self, where: Namespace, folder: File, *words: str, form: str = "jsonl") -> None:
        self.lines: list[dict[str, Any]] = []
        self.text = self.errors = ""
        self._out, self._err = folder / "out", folder / "err"
        command = [sys.executable, "-m", "otus_tui", "tcp", "--backend", "libbpf", "--verbose"]
        command += ["--format", form, *words]
        # Not `ip netns exec`, which mounts a /sys of its own: without cgroups.
        inside = ["nsenter", f"--net=/run/netns/{where.name}"]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen([*inside, *command], stdout=out, stderr=err, cwd=ROOT)
        # --verbose tells what runs as soon as it does.
        wait_for(lambda: "on " in self._err.read_text() or self._ended(), 60.0, "it watches")

    def _ended(self) -> bool:
        assert self._process.poll() is None, self._err.read_text()
        return False

    def until(self, *words: str) -> None:
        """Until all these stand in what it has written."""
        wait_for(
            lambda: all(word in self._out.read_text() for word in words) or self._ended(), 60.0, str(words)
        )

    def windows(self, count: int = 2) -> None:
        """Until it has written so many more windows: what was before them is counted and told."""
        before = self._out.read_text().count(WINDOW)
        wait_for(
            lambda: self._out.read_text().count(WINDOW) >= before + count or self._ended(),
            60.0, f"{count} more windows",
        )  # fmt: skip

    def end(self) -> None:
        """SIGINT, and take what it wrote."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(20) == 130, self._err.read_text()
        self.text, self.errors = self._out.read_text(), self._err.read_text()
        if self.text.startswith("{"):
            self.lines = [json.loads(line) for line in self.text.splitlines()]
            check_lines(self.lines)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def final(self) -> dict[str, Any]:
        return next(line for line in reversed(self.lines) if line.get("final"))

    def events(self, trigger: str) -> list[dict[str, Any]]:
        found = [line for line in self.lines if line.get("event_type") == "tcp"]
        return [line for line in found if line["trigger"]["name"] == trigger]


@contextmanager
def watching(where: Namespace, folder: File, *words: str, form: str = "jsonl") -> Iterator[Run]:
    """A run over what is done inside."""
    made = Run(where, folder, *words, form=form)
    try:
        yield made
        made.end()
    finally:
        made.kill()

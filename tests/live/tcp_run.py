"""`otus-tui tcp` inside of a namespace, over what a test does there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from tests.builds import ROOT
from tests.live.tcp_lines import check_lines

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
        ends = time.monotonic() + 20
        # --verbose tells what runs as soon as it does.
        while "on " not in self._err.read_text():
            assert self._process.poll() is None, self._err.read_text()
            assert time.monotonic() < ends
            time.sleep(0.02)

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

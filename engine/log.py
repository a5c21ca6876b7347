"""The engine's own log: one JSON object (or one line of text) on standard error."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_OCTETS = 10 * 1024**2
"""A log file that the engine keeps itself is renamed when it is this long."""
BACKUPS = 3
LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}


class Log:
    """Levels, component, message and free fields; a full or closed standard error never stops anybody."""

    def __init__(self) -> None:
        self.level = LEVELS["info"]
        self.text = False
        self.fields: dict[str, Any] = {}
        """Added to every line: node, task."""
        self._path = ""
        self._room = MAX_OCTETS

    def configure(self, level: str, style: str) -> None:
        """Take `log.level` and `log.format` of the node file."""
        self.level = LEVELS[level]
        self.text = style == "text"

    def keep(self, path: str) -> None:
        """Standard error is appended to the file `path`: from now on rename it when it is MAX_OCTETS long."""
        self._path = path
        with contextlib.suppress(OSError):
            self._room = MAX_OCTETS - os.stat(path).st_size

    def _out(self, line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), line + b"\n")
            self._room -= len(line) + 1
            if self._path and self._room < 0:
                self._rotate()

    def _rotate(self) -> None:
        """PATH -> PATH.1 -> PATH.2 ...; both standard streams go on in a new file."""
        self._room = MAX_OCTETS
        names = [self._path, *(f"{self._path}.{number}" for number in range(1, BACKUPS + 1))]
        for old, new in reversed(list(itertools.pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                os.rename(old, new)
        fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        for stream in (1, 2):
            os.dup2(fresh, stream)
        os.close(fresh)

    def write(self, level: str, component: str, message: str, **fields: Any) -> None:
        """One line."""
        if LEVELS[level] < self.level:
            return
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
        stamp = f"{stamp}.{now // 1_000_000 % 1000:03d}Z"
        if self.text:
            rest = "".join(f" {key}={value}" for key, value in {**self.fields, **fields}.items())
            line = f"{stamp} {level:5} {component}: {message}{rest}"
        else:
            record = {"ts": stamp, "level": level, "component": component, "msg": message}
            line = json.dumps({**record, **self.fields, **fields}, default=str)
        self._out(line.encode("utf-8", "replace"))

    def pass_on(self, lines: Sequence[str], component: str) -> None:
        """Lines that a child wrote: of its log as they are, others as one error: the last line of a
        traceback, or why it ends, where it knows that (`otus: ...`, and then what would mend it)."""
        others = [line for line in lines if not line.startswith("{")]
        for line in lines:
            if line.startswith("{"):
                self._out(line.encode("utf-8", "replace"))
        if len(others) == 2 and others[0].startswith("otus: "):
            self.error(component, others[0].removeprefix("otus: "), hint=others[1])
        elif others:
            text = others[-1].removeprefix("otus: ")
            self.error(component, text, **({"output": others} if len(others) > 1 else {}))

    def debug(self, component: str, message: str, **fields: Any) -> None:
        """For those who look for a fault in the engine."""
        self.write("debug", component, message, **fields)

    def info(self, component: str, message: str, **fields: Any) -> None:
        """What happened."""
        self.write("info", component, message, **fields)

    def warning(self, component: str, message: str, **fields: Any) -> None:
        """What somebody should know."""
        self.write("warn", component, message, **fields)

    def error(self, component: str, message: str, **fields: Any) -> None:
        """What did not work."""
        self.write("error", component, message, **fields)

    def exception(self, component: str, message: str, **fields: Any) -> None:
        """An error of ours, with where it came from."""
        self.write("error", component, message, traceback=traceback.format_exc(limit=12), **fields)


log = Log()
"""The one log of a process."""

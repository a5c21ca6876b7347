"""The engine's own log: one JSON object (or one line of text) on standard error (requirement 8.2)."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40}


class Log:
    """Levels, component, message and free fields; a full or closed standard error never stops anybody."""

    def __init__(self) -> None:
        self.level = LEVELS["info"]
        self.text = False
        self.fields: dict[str, Any] = {}
        """Added to every line: node, task."""

    def configure(self, level: str, style: str) -> None:
        """Take `log.level` and `log.format` of the node file."""
        self.level = LEVELS[level]
        self.text = style == "text"

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
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), line.encode("utf-8", "replace") + b"\n")

    def pass_on(self, lines: Sequence[str], component: str) -> None:
        """Lines that a child wrote: of its log as they are, others (a traceback) as one error."""
        others = [line for line in lines if not line.startswith("{")]
        for line in lines:
            if line.startswith("{"):
                with contextlib.suppress(OSError, ValueError):
                    os.write(sys.stderr.fileno(), line.encode("utf-8", "replace") + b"\n")
        if others:
            self.error(component, others[-1], **({"output": others} if len(others) > 1 else {}))

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

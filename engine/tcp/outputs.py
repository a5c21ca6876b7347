"""Where summaries and events go: standard output or files, as text, JSON, JSON Lines or Prometheus text."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from engine.errors import OtusError, UsageError
from engine.tcp import text

if TYPE_CHECKING:
    from engine.tcp.observer import Observer
    from engine.tcp.options import Options

STDOUT = "-"
SHORT_EVENTS = 8
"""Events that a text summary shows, the newest."""


class Output:
    """A file or standard output; what is written is out when write() returns."""

    def __init__(self, path: str, option: str) -> None:
        """UsageError where the path cannot be written."""
        self.path = path
        self._file: BinaryIO
        if path == STDOUT:
            self._file = sys.stdout.buffer
            return
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                raise UsageError(f"{option} {path}: is a directory", "the path of a file")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _unwritable(option, path, error) from error
        try:
            self._file = open(path, "wb", buffering=1 << 16)  # noqa: SIM115
        except OSError as error:
            raise _unwritable(option, path, error) from error

    def write(self, octets: bytes) -> None:
        """Append and flush; OtusError where the file takes no more."""
        try:
            self._file.write(octets)
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            where = "standard output" if self.path == STDOUT else self.path
            raise OtusError(f"{where}: {error.strerror}") from error

    def replace(self, octets: bytes) -> None:
        """Have the file hold this and nothing else; a reader sees the old or the new, never a part."""
        if self.path == STDOUT or not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self.write(octets)
            return
        part = f"{self.path}.part"
        try:
            with open(part, "wb") as file:
                file.write(octets)
            os.replace(part, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise OtusError(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close a file of ours."""
        if self.path != STDOUT:
            with contextlib.suppress(OSError):
                self._file.close()


def _unwritable(option: str, path: str, error: OSError) -> UsageError:
    return UsageError(
        f"{option} {path}: {error.strerror}", "a path in a directory that is there and writable"
    )


class Outputs:
    """The sink of the command line."""

    def __init__(self, options: Options) -> None:
        self.options = options
        events = options.events or (options.output if options.mode == "detail" else STDOUT)
        if options.mode == "both" and events != STDOUT and _same(events, options.output):
            raise UsageError(
                "--output and --events name the same file", "summaries and events go to a file each"
            )
        self.summaries = Output(options.output, "--output") if options.mode != "detail" else None
        self.short = options.mode == "both" and not options.events and options.format == "text"
        """Events as a few lines below each table, for a person."""
        wanted = options.mode != "summary" and not self.short
        self.events = Output(events, "--events") if wanted else None
        self._recent: list[dict[str, Any]] = []
        self._count = 0
        self._plain = not _speaks_utf8() if options.output == STDOUT else False

    def summary(self, document: dict[str, Any], observer: Observer) -> None:
        """One window in the format that was asked for."""
        if self.summaries is None:
            return
        form = self.options.format
        if form == "prometheus":
            self._prometheus(document, observer)
        elif form == "jsonl":
            self.summaries.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
        elif form == "json":
            option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2
            self.summaries.write(orjson.dumps(document, option=option))
        else:
            page = text.page(document, observer, plain=self._plain)
            if self.short:
                page += text.recent(self._recent, self._count)
                self._recent, self._count = [], 0
            self.summaries.write(page.encode("utf-8", "replace"))

    def event(self, document: dict[str, Any]) -> None:
        """One JSON line, or kept for the next page."""
        if self.events is not None:
            self.events.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
        elif self.short:
            if document["event_type"] == "tcp_end":
                if self.summaries is not None:
                    self.summaries.write(text.ending(document).encode())
                return
            self._count += 1
            self._recent = [*self._recent[-SHORT_EVENTS + 1 :], document]

    def close(self) -> None:
        """Close the files."""
        for one in (self.summaries, self.events):
            if one is not None:
                one.close()

    def _prometheus(self, document: dict[str, Any], observer: Observer) -> None:
        """Always since the start, which is what Prometheus wants; on standard output once, at the end."""
        from engine.tcp import prometheus

        if self.summaries is None or (self.summaries.path == STDOUT and not document["final"]):
            return
        run = document if document["final"] else observer.document(observer.windows.run())
        self.summaries.replace(prometheus.text(run).encode())


def _same(one: str, other: str) -> bool:
    try:
        return os.path.realpath(one) == os.path.realpath(other)
    except OSError:
        return one == other


def _speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"

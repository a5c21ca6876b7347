"""Where summaries and events go: standard output or files, as text, JSON, JSON Lines or Prometheus text."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from engine.errors import OtusError, UsageError
from engine.tcp import text
from engine.tcp.events import line as line_of

if TYPE_CHECKING:
    from engine.tcp.observer import Observer
    from engine.tcp.options import Options

STDOUT = "-"
SHORT_EVENTS = 8
"""Events that a text summary shows, the newest."""


class Output:
    """A file or standard output; what is written is out when write() returns."""

    def __init__(self, path: str, option: str, *, whole: bool = False) -> None:
        """UsageError where the path cannot be written. whole: only replace() is used on it, and what is
        there is not touched before."""
        self.path = path
        self._file: BinaryIO | None = None
        self._replaced = False
        if path == STDOUT:
            self._file = sys.stdout.buffer
            return
        try:
            kind = _kind(path)
            if kind == stat.S_IFDIR:
                raise UsageError(f"{option} {path}: is a directory", "the path of a file")
            self._replaced = whole and kind in (0, stat.S_IFREG)
            if self._replaced:
                # A link is followed: its target is what is replaced.
                self._target = os.path.realpath(path)
                os.unlink(_beside(self._target, b""))
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._file = os.fdopen(os.open(path, flags, _MODE), "wb", buffering=1 << 16)
        except OSError as error:
            raise _unwritable(option, path, error) from error

    def write(self, octets: bytes) -> None:
        """Append and flush; OtusError where the file takes no more."""
        assert self._file is not None
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
        if not self._replaced:
            self.write(octets)
            return
        part = ""
        try:
            part = _beside(self._target, octets)
            os.replace(part, self._target)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise OtusError(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close a file of ours."""
        if self.path != STDOUT and self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


_MODE = 0o640
"""Of files with addresses in them; metrics have none, and who collects them is another user."""
_METRICS_MODE = 0o644


def _kind(path: str) -> int:
    """S_IFREG, S_IFDIR ...; 0 where there is nothing."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return 0


def _beside(path: str, octets: bytes) -> str:
    """A new file in the same folder, whose name nobody can foresee, with the rights of the one at `path`."""
    descriptor, part = tempfile.mkstemp(".part", f".{os.path.basename(path)[:200]}.", os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            try:
                there = os.stat(path)
            except FileNotFoundError:
                os.fchmod(file.fileno(), _METRICS_MODE)
            else:
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), there.st_uid, there.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(there.st_mode))
    except BaseException:
        os.unlink(part)
        raise
    return part


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
        whole = options.format == "prometheus"
        self.summaries = Output(options.output, "--output", whole=whole) if options.mode != "detail" else None
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
                page += text.recent(self._recent, self._count, plain=self._plain)
                self._recent, self._count = [], 0
            self.summaries.write(page.encode("utf-8", "replace"))

    def event(self, document: dict[str, Any]) -> None:
        """One JSON line, or kept for the next page."""
        if self.events is not None:
            self.events.write(line_of(document))
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

"""The events of the engine's observer in a file of JSON Lines that is renamed when it is full."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from engine.errors import UsageError, folder_hint
from engine.tcp.events import line as line_of


class EventsFile:
    """Appends; a full disk loses lines and counts them, and never a part of one."""

    def __init__(self, path: str, most_octets: int = 0, backups: int = 0) -> None:
        """An empty path: nothing is written. most_octets 0: the file grows without bound."""
        self.path, self.most, self.backups = path, most_octets, backups
        self.lost = 0
        self._fd = -1
        self._size = 0

    def open(self) -> None:
        """UsageError where it cannot be written."""
        if not self.path:
            return
        try:
            self._open()
        except OSError as error:
            raise UsageError(
                f"otus.tcp.events_file: cannot write {self.path}: {error.strerror}",
                folder_hint(self.path),
            ) from error

    def write(self, document: dict[str, Any]) -> None:
        """One line."""
        if not self.path:
            return
        line = line_of(document)
        try:
            if self._fd < 0:
                self._open()
            if self.most and self._size and self._size + len(line) > self.most:
                self._rotate()
            written = os.write(self._fd, line)
            if written < len(line):
                os.ftruncate(self._fd, self._size)
                self.lost += 1
            else:
                self._size += written
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        for number in range(self.backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        if self.backups:
            os.replace(self.path, f"{self.path}.1")
        else:
            os.unlink(self.path)
        self._open()

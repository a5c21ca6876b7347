"""The file reporter: JSON Lines in a file that is renamed when it is full."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError, folder_hint
from engine.plugin import Reporter
from engine.reporters.lines import json_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.packet import OutputPacket

_TAIL = 1_048_576
LINK_HINT = "root follows no link in a folder of another user: name the file that is meant"


class FileReporter(Reporter):
    """Whole lines only: what a full disk or a killed predecessor cut is taken back."""

    name = "file"

    def __init__(self) -> None:
        self.path = ""
        self.max_size = 0
        self.max_backups = 0
        self._fd = -1
        self._size = 0
        self._regular = True
        """False for a pipe or a device, which is neither cut nor renamed."""

    def init(self, config: Mapping[str, Any]) -> None:
        """Take `path`, `max_size` octets (0: no limit) and `max_backups`."""
        self.path = str(config["path"])
        self.max_size = int(config.get("max_size", 0))
        self.max_backups = int(config.get("max_backups", 0))

    def start(self) -> None:
        """Open the file; UsageError if that cannot work."""
        try:
            self._open()
        except OSError as error:
            linked = error.errno == errno.ELOOP and os.path.islink(self.path)
            raise UsageError(
                f"reporter file: cannot write {self.path}: {error.strerror}",
                LINK_HINT if linked else folder_hint(self.path),
            ) from error

    def report(self, batch: Sequence[OutputPacket]) -> int:
        """Append the batch; how many lines the disk took. OSError if none."""
        if self._fd < 0:
            self._open()
        if self._regular and self.max_size and self._size >= self.max_size:
            self._rotate()
        lines = json_lines(batch)
        data = b"".join(lines)
        written, trouble = _write_all(self._fd, data)
        if trouble is None:
            self._size += written
            return len(lines)
        accepted = position = 0
        while accepted < len(lines) and position + len(lines[accepted]) <= written:
            position += len(lines[accepted])
            accepted += 1
        self._take_back(self._size + position)
        self._size += position
        if not accepted:
            raise trouble
        return accepted

    def stop(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def folders(self) -> Sequence[str]:
        """Where the file is: there it is renamed when it is full."""
        return (os.path.dirname(self.path),) if self._regular else ()

    def _open(self) -> None:
        self._fd = descriptor = _open_to_append(self.path)
        state = os.fstat(descriptor)
        self._size, self._regular = state.st_size, stat.S_ISREG(state.st_mode)
        if self._regular and self._size:
            tail = os.pread(descriptor, _TAIL, max(0, self._size - _TAIL))
            whole = self._size - len(tail) + tail.rfind(b"\n") + 1
            if whole != self._size and b"\n" in tail:
                self._take_back(whole)
                self._size = whole

    def _take_back(self, size: int) -> None:
        if self._regular:
            os.ftruncate(self._fd, size)

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1
        if self.max_backups:
            for number in range(self.max_backups - 1, 0, -1):
                older = f"{self.path}.{number}"
                if os.path.exists(older):
                    os.replace(older, f"{self.path}.{number + 1}")
            os.replace(self.path, f"{self.path}.1")
        else:
            os.unlink(self.path)
        self._open()


def _open_to_append(path: str) -> int:
    """Open or make the file. What root makes goes to the owner of the folder, whom the sender becomes.

    In a folder of another user root follows no link and gives no file away that was there before: that user
    may have put there what leads to a file of root's.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    folder, name = os.path.split(path)
    name = name or "."
    directory = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owner = os.fstat(directory)
        if os.geteuid() or not owner.st_uid:
            return os.open(name, flags | os.O_CREAT, 0o640, dir_fd=directory)
        try:
            descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=directory)
        except FileExistsError:
            return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
        # A sender that stays root without this right opens a file of root's again.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor
    finally:
        os.close(directory)


def _write_all(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Octets written, and what kept the rest from it."""
    view, written = memoryview(data), 0
    while written < len(view):
        try:
            written += os.write(descriptor, view[written:])
        except OSError as error:
            return written, error
    return written, None

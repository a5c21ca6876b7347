"""Which process owns a socket: /proc/*/fd looked through for the socket's inode, with bounds and a cache."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.tcp.backend import Connection, Listener

MOST_PROCESSES = 32_768
MOST_INODES = 262_144
SECONDS = 0.25
"""How long one look through /proc may take; the next goes on where it ended."""
PAUSE_S = 2.0
"""Least time between two looks: unknown inodes come with every short connection."""
STALE_S = 10.0
"""After so long it is looked again although all are known: processes end, and get other names."""
_SOCKET = "socket:["


def inodes_of(pids: Sequence[int]) -> set[int]:
    """Inodes of the sockets that these processes hold."""
    found: set[int] = set()
    for pid in pids:
        _descriptors(str(pid), found)
    return found


def _descriptors(pid: str, found: set[int]) -> bool:
    """Add the socket inodes of a process; False where they may not be seen."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except PermissionError:
        return False
    except OSError:
        return True
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith(_SOCKET):
            found.add(int(target[len(_SOCKET) : -1]))
        if len(found) >= MOST_INODES:
            break
    return True


def command(pid: int) -> str:
    """The name of a process (not of one of its threads); empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def _inherited(row: Connection | Listener) -> bool:
    """Whether the process of a connection is only known to be that of the listening socket."""
    return row.pid_source == "listen" and getattr(row, "state", "LISTEN") != "LISTEN"


def started(pid: int) -> int:
    """Clock ticks from boot to the start of a process (`/proc/PID/stat`, field 22); -1 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return -1


class Owners:
    """Inode -> process, as far as /proc lets it be seen."""

    def __init__(self) -> None:
        self.hidden = 0
        """Processes of the last whole look whose descriptors may not be seen (CAP_SYS_PTRACE)."""
        self._owners: dict[int, tuple[int, str]] = {}
        self._fresh: dict[int, tuple[int, str]] = {}
        """Of the look that is under way; at its end it takes the place of the last one's."""
        self._looked = 0.0
        self._left: list[str] = []
        self._started: dict[int, int] = {}
        """Of the processes of this look that share a socket."""
        self._hidden = 0

    def fill(self, rows: Iterable[Connection | Listener]) -> None:
        """Give rows without a pid the process that holds their socket, if it is known; looks again when one
        is not, and now and then. A connection whose pid is its listener's, too: who listens is not always who
        accepts."""
        wanted = [row for row in rows if row.inode and (row.pid is None or _inherited(row))]
        stale = self._left or time.monotonic() - self._looked >= STALE_S
        known_here = (self._owners, self._fresh)
        if wanted and (stale or any(all(row.inode not in one for one in known_here) for row in wanted)):
            self._look()
        for row in wanted:
            known = self._fresh.get(row.inode or 0) or self._owners.get(row.inode or 0)
            if known is not None:
                row.pid, row.comm = known
                row.pid_source = "proc"

    def _look(self) -> None:
        now = time.monotonic()
        if not self._left:
            if now - self._looked < PAUSE_S:
                return
            self._left = [name for name in os.listdir("/proc") if name.isdecimal()][:MOST_PROCESSES]
            # From the highest number down: a process that was just started holds what just appeared.
            self._left.sort(key=int)
            self._hidden = 0
            self._fresh, self._started = {}, {}
        while self._left and time.monotonic() - now < SECONDS:
            pid = self._left.pop()
            found: set[int] = set()
            if not _descriptors(pid, found):
                self._hidden += 1
            if found and len(self._fresh) < MOST_INODES:
                owner = (int(pid), command(int(pid)))
                for inode in found:
                    other = self._fresh.setdefault(inode, owner)
                    # A socket that was inherited stands under several; the youngest uses it.
                    if other[0] != owner[0] and self._youth(owner[0]) > self._youth(other[0]):
                        self._fresh[inode] = owner
        if not self._left:
            # What no process holds any more is forgotten: processes end, and their numbers come again.
            self._owners, self._fresh = self._fresh, {}
            self.hidden = self._hidden
            self._looked = time.monotonic()

    def _youth(self, pid: int) -> tuple[int, int]:
        """Greater for the younger of two: numbers begin again at the end of their range, so they decide only
        within one tick."""
        if pid not in self._started:
            self._started[pid] = started(pid)
        return self._started[pid], pid

"""The rights of a process that has opened everything it needs.

Workers, calls process and sender handle what strangers send. Each gives up every capability and becomes
another user for good, because root without capabilities still writes root's files. Descriptors, mappings
and what is imported stay usable; what has to be opened later decides as whom a process can run:

    worker, calls process   nobody: they open nothing any more. A worker that reads a file through a filter
                            still starts the filter's compiler, and has to reach it
    sender                  nobody; with reporters that make files, the owner of their folder, because only
                            the rights of a folder let its files be renamed when they are full. Where that
                            is root, it stays root, without capabilities: a folder of another user is safer

Plugins of other packages import when they like: with them, the user changes only where it can read the
interpreter's library and theirs.

A controller that is not root, or that may not signal other users' processes (CAP_KILL), keeps its user
in its children, too: what it cannot end it must not start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.log import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VERSION_3 = 0x20080522
_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_SET_NO_NEW_PRIVS = 38
CAP_DAC_OVERRIDE = 1 << 1
_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 1 << 5, 1 << 6, 1 << 7
_OWNER_MAY_WRITE = 0o300

User = tuple[int, int]
"""User and group."""


def unprivileged() -> User | None:
    """Whom children of this process shall become; None where they have to stay who they are."""
    wanted = _CAP_KILL | _CAP_SETGID | _CAP_SETUID
    if os.geteuid() != 0 or effective() & wanted != wanted:
        return None
    import pwd

    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return nobody.pw_uid, nobody.pw_gid


def effective() -> int:
    """The effective capabilities of this process, a bit each; 0 if they cannot be read."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((int(line[7:], 16) for line in file if line.startswith("CapEff:")), 0)
    except OSError:
        return 0


def files_of(plugins: Sequence[object]) -> tuple[str, ...]:
    """For drop(): what `plugins` may import while they run; nothing for those of this package."""
    modules = [sys.modules.get(type(plugin).__module__) for plugin in plugins]
    foreign = [module for module in modules if module and not module.__name__.startswith("engine.")]
    files = [found for module in foreign if (found := getattr(module, "__file__", None))]
    return (os.__file__, *files) if files else ()


def for_folders(
    user: Sequence[int] | None, folders: Sequence[str], needs: Sequence[str] = ()
) -> tuple[Sequence[int] | None, int]:
    """As whom, and with which capabilities, a process can make and rename files in all of `folders`.

    `user` is whom it would become otherwise (None: it stays who it is); `needs` as in drop(). OSError if a
    folder is not there.
    """
    states = [os.stat(folder or ".") for folder in folders]
    if not states:
        return user, 0
    owners = {(state.st_uid, state.st_gid) for state in states}
    if {uid for uid, _ in owners} == {os.geteuid()}:
        own = all(state.st_mode & _OWNER_MAY_WRITE == _OWNER_MAY_WRITE for state in states)
        return None, 0 if own else CAP_DAC_OVERRIDE
    if len(owners) == 1 and user is not None:
        owner = owners.pop()
        if not out_of_reach(owner, folders, os.W_OK | os.X_OK) and not out_of_reach(owner, needs, os.R_OK):
            return owner, 0
    return None, CAP_DAC_OVERRIDE


def drop(user: Sequence[int] | None, keep: int = 0, needs: Sequence[str] = ()) -> None:
    """Become `user` (None: stay) and give up every capability but `keep` for good (setresuid(2), capset(2)).

    `needs`: files that have to be readable afterwards; where one would not be, the user stays, and the log
    says so. Called while the process has one thread. What a sandbox forbids is left as it is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    keep &= effective()
    low, high = keep & 0xFFFFFFFF, keep >> 32
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    sets = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    with _parent_death():
        if user is not None:
            _become(user, needs)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset(header, sets)


def out_of_reach(user: Sequence[int], paths: Sequence[str], mode: int) -> str:
    """The first of `paths` that `user` could not use (`mode` of access(2)), empty if none; only for root."""
    before = os.getgroups(), os.getegid()
    with _parent_death():
        os.setgroups([])
        os.setegid(user[1])
        os.seteuid(user[0])
        try:
            return next((path for path in paths if not os.access(path or ".", mode, effective_ids=True)), "")
        finally:
            os.seteuid(0)
            os.setegid(before[1])
            os.setgroups(before[0])


def _become(user: Sequence[int], needs: Sequence[str]) -> None:
    uid, gid = user
    try:
        lost = out_of_reach(user, needs, os.R_OK) if needs else ""
        if not lost:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            return
        problem = f"it could not read {lost}"
    except OSError as error:
        problem = error.strerror or str(error)
    log.warning("rights", f"stays root instead of becoming user {uid}: {problem}")


@contextmanager
def _parent_death() -> Iterator[None]:
    """Keep the signal at the end of the parent, which the kernel forgets when the user changes (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent, number = os.getppid(), ctypes.c_int(0)
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_PDEATHSIG, number.value, 0, 0, 0)
        if number.value and os.getppid() != parent:
            signal.raise_signal(signal.Signals(number.value))

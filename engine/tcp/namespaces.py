"""Network namespaces: which there are, which one a word means, and doing something inside one.

A netlink socket, a file of /proc/net and an eBPF iterator belong to the namespace of the thread that opened
them for as long as they live. So only opening has to happen inside: in a thread of its own, which ends with
it, and the process itself never leaves its namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import NotPermittedError, OtusError, UsageError
from engine.tcp.backend import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    Result = TypeVar("Result")

CLONE_NEWNET = 0x4000_0000
NS_GET_NSTYPE = 0xB703
"""ioctl of a namespace's file (include/uapi/linux/nsfs.h)."""
NAMED = ("/run/netns", "/var/run/netns")
"""Where `ip netns add` puts them."""
MOST = 4096
"""Namespaces that `all` visits."""


def own() -> Namespace:
    """The namespace of the calling thread."""
    path = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    return Namespace(os.stat(path).st_ino, path)


def resolve(word: str) -> list[Namespace]:
    """The namespaces that `--netns` means: a name of `ip netns`, a pid, a path, or all.

    A single one is held open: it stays when its name is deleted or its process ends.
    UsageError where it names none, NotPermittedError where it may not be looked at.
    """
    if word == "all":
        return every()
    if word.isdecimal():
        path, what = f"/proc/{word}/ns/net", f"no process {word}"
        hint = "ps -e lists them"
    elif "/" in word:
        path, what, hint = word, f"no network namespace at {word}", "ip netns list; or /proc/PID/ns/net"
    else:
        path = next((f"{folder}/{word}" for folder in NAMED if os.path.exists(f"{folder}/{word}")), "")
        what, hint = f"no network namespace {word!r}", "a name of ip netns list, a pid, a path, or all"
        if not path or word in (".", ".."):
            raise UsageError(what, hint)
    try:
        held = _Held(path)
    except PermissionError as error:
        raise NotPermittedError(f"{path} may not be read", "run it as root: sudo otus-tui tcp ...") from error
    except OSError as error:
        raise UsageError(what, hint) from error
    if not held.inode:
        raise UsageError(f"{path} is no network namespace", hint)
    return [Namespace(held.inode, held.path, word, held)]


class _Held:
    """An open namespace, until nobody needs it; `path` opens it once more. `inode` is 0 where it is something
    else."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.inode = _inode_of(self._descriptor)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def __del__(self) -> None:
        # Not there where it could not be opened.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def every() -> list[Namespace]:
    """All namespaces that have a name or a process, the own one first; what may not be read is left out."""
    here = own()
    found = {here.inode: here}
    for folder in NAMED:
        for name in _entries(folder):
            _add(found, f"{folder}/{name}", name)
    for pid in _entries("/proc"):
        if pid.isdecimal():
            try:
                # The link's text names the inode, which spares opening it.
                inode = int(os.readlink(f"/proc/{pid}/ns/net")[5:-1])
            except (OSError, ValueError):
                continue
            if inode not in found:
                _add(found, f"/proc/{pid}/ns/net", "")
        if len(found) >= MOST:
            break
    return list(found.values())


def unseen() -> int:
    """Processes whose namespace may not be seen, kernel threads aside: every() lacks those that only they
    have."""
    count = 0
    for pid in _entries("/proc"):
        if not pid.isdecimal():
            continue
        try:
            os.readlink(f"/proc/{pid}/ns/net")
        except PermissionError:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                count += bool(file.read(1))
        except OSError:
            continue
    return count


def call_inside(namespace: Namespace, function: Callable[[], Result]) -> Result:
    """`function()` inside a namespace; entering another one than the own needs CAP_SYS_ADMIN.

    OtusError where it is gone, NotPermittedError where it may not be entered, and what the function raises.
    """
    if namespace.inode == own().inode:
        return function()
    outcome: list[Any] = []

    def run() -> None:
        try:
            _enter(namespace)
            outcome.extend((True, function()))
        except BaseException as error:
            outcome.extend((False, error))

    thread = threading.Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if not outcome[0]:
        raise outcome[1]
    result: Result = outcome[1]
    return result


def _enter(namespace: Namespace) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    name = namespace.name or namespace.path
    try:
        descriptor = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise _refused(name) from error
    except OSError as error:
        raise OtusError(f"network namespace {name}: {error.strerror}") from error
    try:
        if os.fstat(descriptor).st_ino != namespace.inode:
            raise OtusError(f"network namespace {name} is gone")
        if libc.setns(descriptor, CLONE_NEWNET):
            number = ctypes.get_errno()
            if number == 1:
                raise _refused(name)
            raise OtusError(f"network namespace {name}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


def _refused(name: str) -> NotPermittedError:
    return NotPermittedError(
        f"entering network namespace {name} needs CAP_SYS_ADMIN", "run it as root: sudo otus-tui tcp ..."
    )


def _inode(path: str) -> int:
    """The inode of a network namespace; 0 where the file is something else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _inode_of(descriptor)
    finally:
        os.close(descriptor)


def _inode_of(descriptor: int) -> int:
    try:
        kind = fcntl.ioctl(descriptor, NS_GET_NSTYPE)
        return os.fstat(descriptor).st_ino if kind == CLONE_NEWNET else 0
    except OSError:
        return 0


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _add(found: dict[int, Namespace], path: str, name: str) -> None:
    try:
        inode = _inode(path)
    except OSError:
        return
    if inode and inode not in found:
        found[inode] = Namespace(inode, path, name)

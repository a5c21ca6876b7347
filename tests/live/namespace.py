"""One network namespace of one's own, and this process inside it for a while."""

from __future__ import annotations

import ctypes
import os
import subprocess
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*words: str) -> str:
    """Run `ip` here; its output."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _enter(path: str) -> None:
    with Path(path).open("rb") as namespace:
        if _libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def own_namespace() -> Iterator[str]:
    """A new namespace with `lo` up; this thread's sockets and children live in it until the end."""
    name = f"otus-cap-{os.getpid()}{uuid.uuid4().hex[:4]}"
    ip("netns", "add", name)
    home = f"/proc/{os.getpid()}/ns/net"
    with Path(home).open("rb") as before:
        try:
            _enter(f"/run/netns/{name}")
            ip("link", "set", "lo", "up")
            yield name
        finally:
            _libc.setns(before.fileno(), CLONE_NEWNET)
            ip("netns", "del", name)

"""Takes the socket file away when its engine was killed and could not do so itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell, because it is small. Its input ends when the engine does, however that came about; device and
# inode tell the engine's own socket from that of a successor.
_SCRIPT = 'read -r _; [ "$(stat -c %d:%i -- "$1" 2>/dev/null)" = "$2" ] && rm -f -- "$1"; exit 0'


@contextlib.contextmanager
def socket_guard(path: str) -> Iterator[None]:
    """While this runs, the death of this process removes the socket at `path`, which must be there."""
    state = os.stat(path)
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _SCRIPT, "otus-socket-guard", path, f"{state.st_dev}:{state.st_ino}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()

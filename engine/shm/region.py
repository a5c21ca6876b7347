"""A memfd region with the header that every shared layout starts with.

The creator makes it and passes the descriptor to its children; nothing is named, so nothing can
be left behind. Layout of the header, 128 octets, little-endian words of 8:

    0  magic "OTUSSHM1"      8  kind (KINDS)           16  layout version of that kind
    24 octets in the region  32 writer index           40  generation: +1 for each new process of the writer
    48 owner pid             56 created, ns            64  task id, UTF-8, 64 octets, zero padded
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = int.from_bytes(b"OTUSSHM1", "little")
HEADER = 128
KINDS = {"counters": 1, "ring": 2, "flows": 3, "streams": 4, "sender": 5}
_WORDS = struct.Struct("<8Q64s")
GENERATION_WORD = 5
HUGE_PAGE = 2 * 1024**2
_alone = _huge = False


@contextlib.contextmanager
def alone(huge: bool) -> Iterator[None]:
    """Regions made within are this process's own: anonymous memory, no descriptor, nothing to share.

    `huge`: in pages of 2 MiB where the kernel has them (for much work at once: less faults, more memory).
    """
    global _alone, _huge
    before, _alone, _huge = (_alone, _huge), True, huge
    try:
        yield
    finally:
        _alone, _huge = before


def pool(octets: int) -> memoryview:
    """Zeroed private memory that is taken page by page when it is written; bytearray() takes all at once."""
    return memoryview(_anonymous(max(mmap.PAGESIZE, octets)))


def memory_file(name: str, octets: int) -> int:
    """A descriptor of zeroed memory to hand to children, which can write it, and neither cut nor stretch it.

    Else one of them that a packet got hold of could end the controller: to touch what is not there any more
    is SIGBUS.
    """
    fd = os.memfd_create(f"otus-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, octets)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def _anonymous(size: int) -> mmap.mmap:
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _huge and size >= HUGE_PAGE:
        # A kernel without huge pages refuses, and small ones do.
        with contextlib.suppress(OSError):
            made.madvise(mmap.MADV_HUGEPAGE)
    return made


class Region:
    """A mapped region: `memory` for octets, `words` for 64-bit words, `fd` to hand to a child."""

    def __init__(self, fd: int, kind: str, version: int, own: mmap.mmap | None = None) -> None:
        """Map the region behind `fd` (or take `own`); ValueError if it is not of this kind and version."""
        self.fd = fd
        size = os.fstat(fd).st_size if own is None else len(own)
        if size < HEADER:
            raise ValueError(f"shared memory of {size} octets is no {kind} region")
        self.map = mmap.mmap(fd, size) if own is None else own
        self.memory = memoryview(self.map)
        self.words = self.memory.cast("Q")
        found = tuple(self.words[:4])
        if found != (MAGIC, KINDS[kind], version, size):
            self.close()
            raise ValueError(f"shared memory is no {kind} region of version {version}: {found}")

    @classmethod
    def create(cls, kind: str, version: int, size: int, task: str, writer: int) -> Region:
        """Make a region of at least `size` octets including the header, rounded up to a page."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        now = time.time_ns()
        words = (MAGIC, KINDS[kind], version, size, writer, 0, os.getpid(), now, task.encode()[:64])
        if _alone:
            own = _anonymous(size)
            _WORDS.pack_into(own, 0, *words)
            return cls(-1, kind, version, own)
        fd = memory_file(kind, size)
        os.pwrite(fd, _WORDS.pack(*words), 0)
        return cls(fd, kind, version)

    @property
    def task(self) -> str:
        """The task's id, in every region of it."""
        return bytes(self.memory[64:128]).rstrip(b"\0").decode("utf-8", "ignore")

    @property
    def writer(self) -> int:
        """Index of the worker that writes here."""
        return int(self.words[4])

    @property
    def generation(self) -> int:
        """How many processes have written here."""
        return int(self.words[GENERATION_WORD])

    def next_generation(self) -> int:
        """Called by a writer when it takes the region over."""
        self.words[GENERATION_WORD] += 1
        return self.generation

    def close(self) -> None:
        """Unmap, when no writer or reader of it is left; the descriptor stays open for its owner."""
        self.words.release()
        self.memory.release()
        self.map.close()

"""The rights of a process that has opened everything it needs."""

from __future__ import annotations

import ctypes
import os
import struct

_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38


def drop_capabilities() -> None:
    """Give up every capability for good (capset(2), prctl(2)); what is open or mapped stays usable.

    For a process that decodes what strangers send. The user stays: what files allow their owner, root's too
    where that is the user, it may still do. OSError where the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    nothing = ctypes.create_string_buffer(24)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.capset(header, nothing):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

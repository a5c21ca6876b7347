"""Load the probe object and let it go again: `python -m engine.bpf_probe OBJECT`, run by `engine.doctor`.

A process of its own, because libbpf and the verifier are foreign code: the caller sets a time limit
and survives whatever happens here. Prints one JSON object: `loaded`, `step` (library, open, load,
done), `errno`, `log` (the last lines that libbpf wrote). Nothing is attached and nothing is pinned, so
nothing is left behind.
"""

from __future__ import annotations

import ctypes
import errno
import json
import sys
from typing import Any

LIBRARY = "libbpf.so.1"
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_LOG_LINES = 20
_DEBUG = 2
"""LIBBPF_DEBUG: what libbpf says of every step."""


def library() -> ctypes.CDLL | None:
    """libbpf 1.x, None if it is not installed."""
    try:
        return ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError:
        return None


def library_version(libbpf: ctypes.CDLL) -> str:
    """The version that the library names, such as v1.1."""
    libbpf.libbpf_version_string.restype = ctypes.c_char_p
    version: bytes = libbpf.libbpf_version_string()
    return version.decode()


def _catch_log(libbpf: ctypes.CDLL, lines: list[str]) -> tuple[Any, int | None]:
    """Collect what libbpf would print: what the caller keeps alive, and what to give back after."""
    libc = ctypes.CDLL(None)

    def write(level: int, text: bytes, arguments: int) -> int:
        if level >= _DEBUG:
            return 0
        buffer = ctypes.create_string_buffer(4096)
        libc.vsnprintf(buffer, ctypes.c_size_t(len(buffer)), text, ctypes.c_void_p(arguments))
        lines.extend(buffer.value.decode("utf-8", "replace").splitlines())
        return 0

    callback = _PRINT(write)
    libbpf.libbpf_set_print.argtypes = [ctypes.c_void_p]
    libbpf.libbpf_set_print.restype = ctypes.c_void_p
    before: int | None = libbpf.libbpf_set_print(ctypes.cast(callback, ctypes.c_void_p))
    return callback, before


def attempt(octets: bytes) -> dict[str, Any]:
    """Open and load the object in `octets`."""
    result: dict[str, Any] = {"loaded": False, "step": "library", "errno": "", "log": []}
    libbpf = library()
    if libbpf is None:
        return result
    lines: list[str] = []
    callback, before = _catch_log(libbpf, lines)
    libbpf.bpf_object__open_mem.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    libbpf.bpf_object__open_mem.restype = ctypes.c_void_p
    libbpf.bpf_object__load.argtypes = [ctypes.c_void_p]
    libbpf.bpf_object__close.argtypes = [ctypes.c_void_p]
    libbpf.bpf_object__close.restype = None
    result["step"] = "open"
    handle = libbpf.bpf_object__open_mem(octets, len(octets), None)
    if handle:
        result["step"] = "load"
        code = libbpf.bpf_object__load(handle)
        if code == 0:
            result |= {"loaded": True, "step": "done"}
        else:
            result["errno"] = errno.errorcode.get(-code, str(-code))
        libbpf.bpf_object__close(handle)
    else:
        result["errno"] = errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))
    result["log"] = [line for line in lines if line.strip()][-_LOG_LINES:]
    # libbpf keeps one function for the whole process, and ours is gone with this call.
    libbpf.libbpf_set_print(before)
    del callback
    return result


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        print(json.dumps(attempt(file.read())))

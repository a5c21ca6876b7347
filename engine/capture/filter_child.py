"""Compiles filters through libpcap in a process of its own, under a limit of CPU time and memory.

Run by its path, with nothing of the engine: one JSON request on standard input, `{"jobs": [[text,
DLT], ...], "ends": [...], "cpu_s": 2}`, answered by one line of JSON, `{"version", "results":
[{"program": [[code, jt, jf, k], ...]} or {"error": text}]}`, and, where the first job failed, a
second line `{"column": n}`: the index in `ends` (where each token of the text ends) of the token
that no continuation can mend. libpcap's optimiser takes quadratic time; that is what the limit is for.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
from typing import Any

NAMES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
MEMORY = 512 * 1024**2
SNAPLEN = 262144
UNKNOWN_NETMASK = 0xFFFFFFFF
CONTINUATIONS = (
    "",
    " 1",
    " 1.1.1.1",
    " ::1",
    " 0:0:0:0:0:1",
    " ip",
    " host 1.1.1.1",
    " port 1",
    " proto 1",
    "-65535",
    "/32",
    "/128",
    " mask 255.255.255.255",
    "] = 1",
    "1] = 1",
    ":1] = 1",
    " = 1",
    "= 1",
    " 1 = 1",
)
"""What may follow a text that is right as far as it goes."""


class Instruction(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(Instruction)))


def load() -> ctypes.CDLL | None:
    """libpcap with its prototypes; None if there is none."""
    for name in NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_compile.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        ]
        library.pcap_geterr.argtypes = [ctypes.c_void_p]
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_freecode.argtypes = [ctypes.POINTER(Program)]
        library.pcap_close.argtypes = [ctypes.c_void_p]
        library.pcap_lib_version.restype = ctypes.c_char_p
        return library
    return None


def compile_one(library: ctypes.CDLL, text: str, dlt: int, optimise: int = 1) -> dict[str, Any]:
    """`{"program": ...}` or `{"error": ...}`."""
    handle = library.pcap_open_dead(dlt, SNAPLEN)
    if not handle:
        return {"error": f"libpcap has no link type {dlt}"}
    program = Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), text.encode(), optimise, UNKNOWN_NETMASK):
            return {"error": library.pcap_geterr(handle).decode("utf-8", "replace")}
        listed = [(i.code, i.jt, i.jf, i.k) for i in (program.instructions[n] for n in range(program.length))]
        library.pcap_freecode(ctypes.byref(program))
        return {"program": listed}
    finally:
        library.pcap_close(handle)


def can_go_on(library: ctypes.CDLL, text: str, dlt: int) -> bool:
    """Whether some continuation makes a filter of this beginning."""
    closing = ")" * max(0, text.count("(") - text.count(")"))
    for continuation in CONTINUATIONS:
        for end in (closing, closing + " = 1") if closing else ("",):
            if "program" in compile_one(library, text + continuation + end, dlt, 0):
                return True
    return False


def offending(library: ctypes.CDLL, text: str, ends: list[int], dlt: int) -> int:
    """Index of the first token with which no continuation compiles; len(ends) if the text stops too early."""
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        if can_go_on(library, text[: ends[middle]], dlt):
            low = middle + 1
        else:
            high = middle
    return low


def main() -> int:
    """Answer one request."""
    request = json.load(sys.stdin)
    seconds = int(request["cpu_s"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = load()
    if library is None:
        print(json.dumps({"version": "", "results": []}))
        return 0
    jobs = request["jobs"]
    results = [compile_one(library, text, dlt) for text, dlt in jobs]
    print(json.dumps({"version": library.pcap_lib_version().decode(), "results": results}), flush=True)
    if results and "error" in results[0]:
        print(json.dumps({"column": offending(library, jobs[0][0], request["ends"], jobs[0][1])}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Run a command as on a host that lacks something, as root, in namespaces of its own.

    python -m tests.live.refused [--without PATH] [--file PATH=TEXT] [--errno NUMBER] COMMAND ...

--without: an empty file is mounted over PATH; --file: one with this text (a folder that is missing is made on
a tmpfs over the next one that is there); --errno: the bpf system call answers this (seccomp).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import struct
import sys
import tempfile
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x0005_0000, 0x7FFF_0000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
BPF = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def mount(source: str, target: str, kind: str, flags: int) -> None:
    check(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount {target}")


def place(path: Path, text: str) -> None:
    """A file with this text at this place, whatever is there."""
    there = path.parent
    if not path.exists():
        mount("none", str(there), "tmpfs", 0)
        path.write_text(text)
        return
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(text)
    mount(file.name, str(path), "none", MS_BIND)
    os.unlink(file.name)


def refuse(number: int) -> None:
    """The bpf system call fails from now on, for this process and those that it starts."""
    rules = (
        (LOAD, 0, 0, 0), (EQUAL, 0, 1, BPF[platform.machine()]), (RETURN, 0, 0, SECCOMP_RET_ERRNO | number),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    )  # fmt: skip
    content = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    program = struct.pack("@HP", len(rules), ctypes.addressof(content))
    check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "seccomp")


def main() -> None:
    """Prepare, then become the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--errno", type=int, default=0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    wanted = parser.parse_args()
    check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    for path in wanted.without:
        place(Path(path), "")
    for one in wanted.file:
        path, _, text = one.partition("=")
        place(Path(path), text)
    if wanted.errno:
        refuse(wanted.errno)
    os.execvp(wanted.command[0], wanted.command)


if __name__ == "__main__":
    sys.exit(main())

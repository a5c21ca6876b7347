"""What the headers of the running kernel say: arguments of tracepoints, numbers of reasons, a bit field.

The questions that BTF answers for the libbpf backend: the text of the headers decides, never a version.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Self

from engine.errors import OtusError

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_PROBE = (
    r"\b(?:TRACE_EVENT\w*|DEFINE_EVENT\w*|DECLARE_TRACE\w*)\s*\("
    r"\s*(?:\w+\s*,\s*)?{}\s*,\s*TP_PROTO\s*\(([^()]*)\)"
)
_TRACE = ("tcp", "skb", "sock")
_MEMBER = re.compile(r"^\s*(\w+)\s*(?:=\s*(\w+)\s*)?$")
_CA_STATE = re.compile(
    r"icsk_ca_state\s*:\s*(\d)\s*,(?:\s*\w+\s*:\s*\d\s*,?)*\s*;\s*(?:__)?u8\s+icsk_retransmits\s*;"
)
_MOST_OCTETS = 1 << 20


class Headers:
    """The header files in `folder` (its include/ has linux/ and net/)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_kernel(cls) -> Self:
        """Those of the running kernel. OtusError: they are not there, or those of another one."""
        modules = Path("/lib/modules", platform.release())
        given = os.environ.get("BCC_KERNEL_SOURCE")
        places = [Path(given)] if given else [modules / "source", modules / "build"]
        for place in places:
            _check_release(place)
        for place in places:
            if (place / "include" / "net" / "tcp.h").is_file():
                return cls(place)
        raise OtusError(
            f"BCC can compile with the kernel's headers, but {places[-1]} has none",
            "sudo apt-get install linux-headers-$(uname -r)",
        )

    def arguments(self, tracepoint: str) -> int | None:
        """How many arguments the tracepoint has; None: there is no such tracepoint."""
        pattern = re.compile(_PROBE.format(re.escape(tracepoint)))
        for name in _TRACE:
            found = pattern.search(self._text(f"trace/events/{name}.h"))
            if found:
                return found[1].count(",") + 1
        return None

    def has_function(self, name: str) -> bool:
        """Headers do not tell; no program of this backend asks."""
        return False

    def enum(self, name: str) -> dict[int, str]:
        """Number -> name of an enum of include/net; empty where this kernel has none."""
        files = {"skb_drop_reason": ("dropreason-core", "dropreason"), "sk_rst_reason": ("rstreason",)}
        for file in files.get(name, ()):
            found = re.search(rf"\benum\s+{name}\s*\{{([^}}]*)\}}", self._text(f"net/{file}.h"))
            if found:
                return _numbered(found[1])
        return {}

    def ca_state_bits(self) -> int | None:
        """Width of icsk_ca_state; None where it is not the low bits of the octet before icsk_retransmits."""
        if sys.byteorder != "little":
            return None
        found = _CA_STATE.search(self._text("net/inet_connection_sock.h"))
        return int(found[1]) if found else None

    def _text(self, path: str) -> str:
        return _read(str(self.folder / "include" / path))


def _check_release(place: Path) -> None:
    """Programs that read at the places of another kernel's members would count nonsense."""
    found = re.search(r'UTS_RELEASE "([^"]*)"', _read(str(place / "include/generated/utsrelease.h")))
    if found and found[1] != platform.release():
        raise OtusError(
            f"the headers in {place} are those of kernel {found[1]}, and {platform.release()} runs",
            "sudo apt-get install linux-headers-$(uname -r), or boot the other kernel",
        )


@lru_cache(maxsize=16)
def _read(path: str) -> str:
    """A header without its comments; empty where it is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return _COMMENT.sub(" ", file.read(_MOST_OCTETS))
    except OSError:
        return ""


def _numbered(body: str) -> dict[int, str]:
    found: dict[int, str] = {}
    number = -1
    for part in body.split(","):
        member = _MEMBER.match(part)
        if not member:
            continue
        try:
            number = int(member[2], 0) if member[2] else number + 1
        except ValueError:
            continue
        found[number] = member[1]
    return found

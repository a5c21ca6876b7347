"""The running kernel's own types for BCC's compiler, made from BTF: no kernel headers are read.

Each structure gets the members that the programs read, at the places where BTF has them. What BCC itself
includes (integer types, mostly) is stood in for by a folder that looks like kernel sources.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from engine.errors import OtusError
from engine.tcp.bcc.headers import Headers
from engine.tcp.libbpf.btf import Btf

SOURCES = "BCC_KERNEL_SOURCE"
"""BCC's own variable: a folder of kernel sources. Where it is set, BTF is not looked at."""
_READS = (
    re.compile(r"\bREAD\(struct (\w+),[^,]*,\s*([\w.]+)\)"),
    re.compile(r"\b__builtin_offsetof\(struct (\w+),\s*([\w.]+)\)"),
)
_INT, _PTR, _STRUCT, _UNION, _ENUM = 1, 2, 4, 5, 6
_PEELED = (8, 9, 10, 11, 18)
"""typedef, volatile, const, restrict, type tag."""
_HEAD = 12
_DEEPEST = 32
_SIGNED = 1
_VERSION = (
    "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
    "#define LINUX_VERSION_CODE KERNEL_VERSION(5, 4, 0)\n"
)
"""The first kernel with /sys/kernel/btf; BCC asks for 4.8."""
_LIKE_SOURCES = {
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "include/linux/types.h": "#include <kernel_integers.h>\n",
    "include/linux/bpf_common.h": "",
    "include/linux/version.h": _VERSION,
    "include/linux/log2.h": "",
    "include/uapi/linux/bpf.h": "",
    "include/uapi/linux/if_packet.h": "",
    "include/asm/page.h": "",
}
_INTEGERS = "\n".join(
    (
        "#pragma once",
        *(
            f"typedef {sign}{name} __{letter}{bits}; typedef __{letter}{bits} {letter}{bits};"
            for bits, name in ((8, "char"), (16, "short"), (32, "int"), (64, "long long"))
            for letter, sign in (("u", "unsigned "), ("s", "signed "))
        ),
        *(f"typedef __u{bits} __{order}{bits};" for bits in (16, 32, 64) for order in ("be", "le")),
        "typedef __u16 __sum16; typedef __u32 __wsum; typedef _Bool bool;",
        "typedef __SIZE_TYPE__ size_t; typedef __UINTPTR_TYPE__ uintptr_t;",
        "#define __aligned_u64 __u64 __attribute__((aligned(8)))",
        "",
    )
)


class BitField(NamedTuple):
    """Bits of one octet in struct inet_connection_sock."""

    octet: str
    """Its place, in C."""
    shift: int
    bits: int


class KernelTypes(Protocol):
    """What the backend asks, of BTF or of headers."""

    def arguments(self, tracepoint: str) -> int | None:
        """How many arguments the tracepoint has; None: there is no such tracepoint."""

    def has_function(self, name: str) -> bool:
        """Whether the kernel has a function of this name, as far as is known."""

    def enum(self, name: str) -> dict[int, str]:
        """Number -> name; empty where there is no such enum."""

    def ca_state(self) -> BitField | None:
        """Where icsk_ca_state is; None: not known."""

    def declarations(self, program: str) -> str:
        """C that stands before the program."""

    def compiling(self) -> contextlib.AbstractContextManager[object]:
        """What BCC must find around it while it compiles."""

    def close(self) -> None:
        """Nothing is asked any more."""


class OfHeaders(Headers):
    """The text of header files, which the compiler reads too."""

    def ca_state(self) -> BitField | None:
        """The low bits of the octet before icsk_retransmits."""
        bits = self.ca_state_bits()
        place = "(__builtin_offsetof(struct inet_connection_sock, icsk_retransmits) - 1)"
        return BitField(place, 0, bits) if bits else None

    def declarations(self, program: str) -> str:
        """None: the program includes them."""
        return ""

    def compiling(self) -> contextlib.AbstractContextManager[object]:
        """BCC finds them by itself."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Nothing is open."""


class OfBtf(Btf):
    """BTF of the running kernel."""

    def ca_state(self) -> BitField | None:
        """By its bits, wherever they are."""
        found = self._member(self._find("inet_connection_sock", _STRUCT), "icsk_ca_state")
        if found is None or sys.byteorder != "little":
            return None
        place, bits, _ = found
        shift = place % 8
        return BitField(str(place // 8), shift, bits or 8) if shift + bits <= 8 else None

    def declarations(self, program: str) -> str:
        """The structures that the program reads, and what it takes from headers otherwise."""
        wanted: dict[str, set[str]] = {}
        for pattern in _READS:
            for name, path in pattern.findall(program):
                wanted.setdefault(name, set()).add(path)
        rows = ["#define KERNEL_TYPES 1"]
        rows += [self._structure(name, sorted(paths)) for name, paths in sorted(wanted.items())]
        if self._member(self._find("sock_common", _STRUCT), "skc_v6_daddr"):
            rows.append("#define HAVE_IPV6 1")
        return "\n".join(rows)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """A folder like kernel sources, named in BCC_KERNEL_SOURCE meanwhile."""
        with tempfile.TemporaryDirectory(prefix="otus-bcc-") as folder:
            for name, text in (*_LIKE_SOURCES.items(), ("include/kernel_integers.h", _INTEGERS)):
                place = Path(folder, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text)
            os.environ[SOURCES] = folder
            try:
                yield
            finally:
                del os.environ[SOURCES]

    def _structure(self, name: str, paths: list[str]) -> str:
        number = self._find(name, _STRUCT)
        return f"struct {name} {{\n{self._members(number, paths)}}};" if number >= 0 else f"struct {name};"

    def _members(self, number: int, paths: list[str]) -> str:
        """The members at their places: each behind its own filling, all in one union."""
        inner: dict[str, list[str]] = {}
        for path in paths:
            first, _, rest = path.partition(".")
            inner.setdefault(first, []).append(rest)
        rows = ["union {"]
        for name, rests in inner.items():
            found = self._member(number, name)
            if found is None:
                continue  # the compiler names it
            place, bits, kind = found
            if place % 8 or bits % 8:
                continue
            text = (
                f"struct {{\n{self._members(kind, rests)}}} {name};" if any(rests)
                else self._declaration(kind, name, bits // 8)
            )  # fmt: skip
            rows.append(f"struct {{ char filling_{name}[{place // 8}]; {text} }} __attribute__((packed));")
        return "\n".join((*rows, "};", ""))

    def _declaration(self, number: int, name: str, octets: int) -> str:
        """A scalar by its size; what is more than that by its place alone. octets: of a bit field, else 0."""
        number = self._peel(number)
        _, info, size = self._words(number)
        kind = info >> 24 & 0x1F
        if kind == _PTR:
            return f"void *{name};"
        if kind == _INT:
            address = self._library.btf__type_by_id(self._handle, number) + _HEAD
            sign = "s" if _words_at(address, 1)[0] >> 24 & _SIGNED else "u"
            return f"{sign}{8 * (octets or size)} {name};"
        if kind == _ENUM:
            return f"u{8 * size} {name};"
        return f"char {name}[1];"

    def _peel(self, number: int) -> int:
        for _ in range(_DEEPEST):
            _, info, target = self._words(number)
            if info >> 24 & 0x1F not in _PEELED:
                break
            number = target
        return number

    def _member(self, number: int, wanted: str, depth: int = 0) -> tuple[int, int, int] | None:
        """(place in bits, bits of a bit field or 0, type) of a member, of the nameless ones within, too."""
        if number < 0 or depth > _DEEPEST:
            return None
        number = self._peel(number)
        _, info, _ = self._words(number)
        if info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return None
        count, split = info & 0xFFFF, info >> 31
        words = _words_at(self._library.btf__type_by_id(self._handle, number) + _HEAD, 3 * count)
        for i in range(count):
            offset, kind = words[3 * i + 2], words[3 * i + 1]
            place, bits = (offset & 0xFFFFFF, offset >> 24) if split else (offset, 0)
            name = self._name(words[3 * i]) if words[3 * i] else ""
            if name == wanted:
                before, narrow = self._old_place(kind)
                return place + before, bits or narrow, kind
            inner = None if name else self._member(kind, wanted, depth + 1)
            if inner:
                return place + inner[0], inner[1], inner[2]
        return None

    def _old_place(self, number: int) -> tuple[int, int]:
        """(bits before it, its bits or 0) of a bit field whose type says so, as BTF had it at first."""
        number = self._peel(number)
        _, info, size = self._words(number)
        if info >> 24 & 0x1F != _INT:
            return 0, 0
        word = _words_at(self._library.btf__type_by_id(self._handle, number) + _HEAD, 1)[0]
        bits = word & 0xFF
        return word >> 16 & 0xFF, 0 if bits == 8 * size else bits


def _words_at(address: int, count: int) -> list[int]:
    return list((ctypes.c_uint32 * count).from_address(address))


def of_kernel() -> KernelTypes:
    """BTF; without it, or where BCC_KERNEL_SOURCE names sources, headers. OtusError: there is neither."""
    if os.environ.get(SOURCES):
        return OfHeaders.of_kernel()
    try:
        return OfBtf.of_kernel()
    except OtusError as error:
        try:
            return OfHeaders.of_kernel()
        except OtusError as other:
            raise OtusError(f"{error.message}; {other.message}", other.hint) from other

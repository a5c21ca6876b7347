"""Questions to BTF, the kernel's or an object's: prototypes of tracepoints, enums, members of structures."""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple, Self

from engine.errors import OtusError
from engine.tcp.libbpf.library import library

VMLINUX = "/sys/kernel/btf/vmlinux"
_PTR, _STRUCT, _ENUM, _TYPEDEF, _FUNC, _ENUM64 = 2, 4, 6, 8, 12, 19
_HEAD = 12
"""Octets of struct btf_type."""


class Member(NamedTuple):
    """One member of a structure."""

    name: str
    offset: int
    """In octets."""


class Btf:
    """BTF of the kernel, until close()."""

    def __init__(self, handle: int, owned: bool) -> None:
        self._library = library()
        self._handle = handle
        self._owned = owned

    @classmethod
    def of_kernel(cls) -> Self:
        """OtusError where this kernel describes no types."""
        try:
            empty = not os.stat(VMLINUX).st_size
        except OSError:
            empty = True
        if empty:
            raise OtusError(
                f"this kernel has no BTF ({VMLINUX}): it was built without CONFIG_DEBUG_INFO_BTF, or /sys is "
                "not mounted",
                "mount -t sysfs sysfs /sys; the netlink backend does without",
            )
        handle = library().btf__load_vmlinux_btf()
        if not handle:
            why = os.strerror(ctypes.get_errno())
            raise OtusError(f"{VMLINUX} cannot be read: {why}", "the netlink backend does without")
        return cls(handle, owned=True)

    def close(self) -> None:
        """Free it; a second call does nothing."""
        if self._owned and self._handle:
            self._library.btf__free(self._handle)
        self._handle = 0

    def arguments(self, tracepoint: str) -> int | None:
        """How many arguments a tracepoint gives to a program; None where there is no such tracepoint."""
        number = self._find(f"btf_trace_{tracepoint}", _TYPEDEF)
        if number < 0:
            return None
        pointer = self._words(self._words(number)[2])
        # The first parameter is the tracepoint's own.
        return (self._words(pointer[2])[1] & 0xFFFF) - 1

    def has_function(self, name: str) -> bool:
        """Whether BTF has a function of this name."""
        return self._find(name, _FUNC) >= 0

    def enum(self, name: str) -> dict[int, str]:
        """Value -> name; empty where there is no such enum."""
        number = self._find(name, _ENUM)
        if number < 0:
            return {}
        count = self._words(number)[1] & 0xFFFF
        base = self._library.btf__type_by_id(self._handle, number) + _HEAD
        found: dict[int, str] = {}
        for value in (ctypes.c_uint32 * (2 * count)).from_address(base)[1::2]:
            found.setdefault(value, "")
        names = (ctypes.c_uint32 * (2 * count)).from_address(base)
        for i in range(count):
            found[names[2 * i + 1]] = found[names[2 * i + 1]] or self._name(names[2 * i])
        return found

    def structure(self, name: str) -> tuple[int, list[Member]] | None:
        """(octets, members) of a structure; None where there is none."""
        number = self._find(name, _STRUCT)
        if number < 0:
            return None
        _, info, size = self._words(number)
        count = info & 0xFFFF
        base = self._library.btf__type_by_id(self._handle, number) + _HEAD
        words = (ctypes.c_uint32 * (3 * count)).from_address(base)
        members = [Member(self._name(words[3 * i]), (words[3 * i + 2] & 0xFFFFFF) // 8) for i in range(count)]
        return size, members

    def _find(self, name: str, kind: int) -> int:
        found: int = self._library.btf__find_by_name_kind(self._handle, name.encode(), kind)
        return found

    def _words(self, number: int) -> tuple[int, int, int]:
        """Name, info and size or type of a btf_type."""
        address = self._library.btf__type_by_id(self._handle, number)
        words = (ctypes.c_uint32 * 3).from_address(address)
        return words[0], words[1], words[2]

    def _name(self, offset: int) -> str:
        name: bytes = self._library.btf__name_by_offset(self._handle, offset)
        return name.decode("ascii", "replace")

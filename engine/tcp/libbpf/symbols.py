"""Addresses in the kernel's text -> names of functions, from /proc/kallsyms."""

from __future__ import annotations

import bisect
from array import array

KALLSYMS = "/proc/kallsyms"
_UNKNOWN = "?"
_END = b"\n"


class Symbols:
    """Read when the first name is asked for. A kernel has 100,000 symbols and more: 12 octets are kept of
    each, and all names as one text."""

    def __init__(self, path: str = KALLSYMS) -> None:
        self._path = path
        self._addresses: array[int] | None = None
        self._begins = array("I")
        """Where in the text each name begins, in the order of the addresses."""
        self._text = b""
        self._known: dict[int, str] = {}

    def name(self, address: int) -> str:
        """The function that holds an address; ? where the kernel hides it (kernel.kptr_restrict)."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = self._find(address)
        return found

    def _find(self, address: int) -> str:
        addresses = self._read() if self._addresses is None else self._addresses
        place = bisect.bisect_right(addresses, address) - 1
        if place < 0:
            return _UNKNOWN
        begin = self._begins[place]
        return self._text[begin : self._text.index(_END, begin)].decode("ascii", "replace")

    def _read(self) -> array[int]:
        addresses, begins, text = array("Q"), array("I"), bytearray()
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    words = line.split(None, 3)
                    if words[1] in b"tTwW" and (address := int(words[0], 16)):
                        addresses.append(address)
                        begins.append(len(text))
                        text += words[2] + _END
        except (OSError, ValueError, IndexError, OverflowError):
            addresses, begins, text = array("Q"), array("I"), bytearray()
        # Modules stand behind the kernel, each in an order of its own.
        order = sorted(range(len(addresses)), key=addresses.__getitem__)
        self._addresses = array("Q", (addresses[place] for place in order))
        self._begins = array("I", (begins[place] for place in order))
        self._text = bytes(text)
        return self._addresses

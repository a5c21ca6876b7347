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
        self._text = bytearray()
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
        # Modules stand behind the kernel, each in an order of its own.
        others: list[tuple[int, int]] = []
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    words = line.split(None, 3)
                    if words[1] in b"tTwW" and (address := int(words[0], 16)):
                        if others or (addresses and address < addresses[-1]):
                            others.append((address, len(text)))
                        else:
                            addresses.append(address)
                            begins.append(len(text))
                        text += words[2] + _END
            least = min(others, default=(0, 0))[0]
            while others and addresses and addresses[-1] > least:
                others.append((addresses.pop(), begins.pop()))
            for address, begin in sorted(others):
                addresses.append(address)
                begins.append(begin)
        except (OSError, ValueError, IndexError, OverflowError):
            addresses, begins, text = array("Q"), array("I"), bytearray()
        self._addresses, self._begins, self._text = addresses, begins, text
        return addresses

"""Addresses in the kernel's text -> names of functions, from /proc/kallsyms."""

from __future__ import annotations

import bisect
from array import array

KALLSYMS = "/proc/kallsyms"
_UNKNOWN = "?"


class Symbols:
    """Read when the first name is asked for."""

    def __init__(self, path: str = KALLSYMS) -> None:
        self._path = path
        self._addresses: array[int] = array("Q")
        self._names: list[str] = []
        self._known: dict[int, str] = {}

    def name(self, address: int) -> str:
        """The function that holds an address; ? where the kernel hides it (kernel.kptr_restrict)."""
        found = self._known.get(address)
        if found is None:
            if not self._names:
                self._read()
            place = bisect.bisect_right(self._addresses, address) - 1
            found = self._names[place] if place >= 0 else _UNKNOWN
            self._known[address] = found
        return found

    def _read(self) -> None:
        rows: list[tuple[int, str]] = []
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                for line in file:
                    words = line.split(None, 3)
                    if words[1] in "tTwW" and (address := int(words[0], 16)):
                        rows.append((address, words[2].strip()))
        except (OSError, ValueError, IndexError):
            rows = []
        rows.sort()
        self._addresses = array("Q", (address for address, _ in rows))
        self._names = [name for _, name in rows] or [_UNKNOWN]
        if not rows:
            self._addresses = array("Q", (0,))

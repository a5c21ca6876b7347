"""Hiding addresses and ports: the same one gets the same pseudonym within a run, and nobody can go back.

The key is random and lives in this process alone. Names of processes and cgroups are not touched.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal

Kind = Literal["none", "ports", "addresses", "all"]
KINDS: tuple[Kind, ...] = ("none", "ports", "addresses", "all")
MOST = 65_536
"""Pseudonyms that are remembered; more are computed again."""


class Mask:
    """One run's pseudonyms."""

    def __init__(self, kind: Kind, key: bytes | None = None) -> None:
        self.kind = kind
        self.hides_ports = kind in ("ports", "all")
        self.hides_addresses = kind in ("addresses", "all")
        self._key = key or secrets.token_bytes(32)
        self._known: dict[str, str] = {}

    def address(self, address: str) -> str:
        """`addr-` and ten hexadecimal digits, or the address itself."""
        return self._name("addr", address) if self.hides_addresses and address else address

    def port(self, port: int) -> int | str:
        """`port-` and ten hexadecimal digits, or the port itself."""
        return self._name("port", str(port)) if self.hides_ports else port

    def _name(self, kind: str, text: str) -> str:
        found = self._known.get(kind + text)
        if found is None:
            digest = hashlib.blake2b(text.encode(), key=self._key, digest_size=5, person=kind.encode())
            found = f"{kind}-{digest.hexdigest()}"
            if len(self._known) < MOST:
                self._known[kind + text] = found
        return found

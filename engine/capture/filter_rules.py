"""The structured filter: addresses, ports and protocol as classic BPF of our own, without libpcap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

from engine.capture.cbpf import (
    ADD_X,
    AND,
    JEQ,
    JGE,
    JGT,
    JSET,
    LD_B_X,
    LD_H_X,
    LD_W_X,
    LDX_IMM,
    LSH,
    TAX,
    Assembler,
    Filter,
)
from engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Network = IPv4Network | IPv6Network
PROTOCOLS = {"udp": (17,), "tcp": (6,)}
WITH_PORTS = (6, 17, 132)
IPV6_FRAGMENT = 44
_RANGE = re.compile(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*")


@dataclass(frozen=True)
class Rules:
    """The structured keys, checked. Empty tuples and "any" let everything pass."""

    sources: tuple[Network, ...]
    destinations: tuple[Network, ...]
    ports: tuple[tuple[int, int], ...]
    """Ranges, both ends included."""
    protocol: str

    @classmethod
    def read(cls, rules: dict[str, Any]) -> Rules:
        """From the plain form of engine.config.Filter; UsageError names the key and the value."""
        ports = [(int(port), int(port)) for port in rules.get("ports") or ()]
        if text := rules.get("port_range") or "":
            match = _RANGE.fullmatch(text)
            low, high = (int(match[1]), int(match[2])) if match else (1, 0)
            if low > high or high > 65535:
                raise UsageError(f"filter.port_range: {text!r} is no range", "for example 10000-20000")
            ports.append((low, high))
        protocol = rules.get("protocol") or "any"
        if protocol not in (*PROTOCOLS, "any"):
            raise UsageError(f"filter.protocol: {protocol!r} is not known", "udp, tcp or any")
        for low, _ in ports:
            if not 0 <= low <= 65535:
                raise UsageError(f"filter.ports: {low} is no port", "0 to 65535")
        return cls(
            _networks(rules.get("src_ip") or (), "filter.src_ip"),
            _networks(rules.get("dst_ip") or (), "filter.dst_ip"),
            tuple(ports),
            protocol,
        )

    def everything(self) -> bool:
        """Whether nothing is restricted."""
        return not (self.sources or self.destinations or self.ports) and self.protocol == "any"

    def expression(self) -> str:
        """The same in tcpdump syntax; empty if everything passes."""
        prefix = "" if self.protocol == "any" else f"{self.protocol} "
        parts = []
        if self.sources and self.destinations:
            there = f"({_hosts('src', self.sources)}) and ({_hosts('dst', self.destinations)})"
            back = f"({_hosts('src', self.destinations)}) and ({_hosts('dst', self.sources)})"
            parts.append(f"({there}) or ({back})")
        elif self.sources or self.destinations:
            parts.append(_hosts("", self.sources or self.destinations))
        if self.ports:
            parts.append(
                " or ".join(
                    f"{prefix}port {low}" if low == high else f"{prefix}portrange {low}-{high}"
                    for low, high in self.ports
                )
            )
        elif prefix:
            parts.append(self.protocol)
        return parts[0] if len(parts) == 1 else " and ".join(f"({part})" for part in parts)


def _networks(values: Iterable[str], key: str) -> tuple[Network, ...]:
    found: list[Network] = []
    for value in values:
        try:
            found.append(ip_network(str(value).strip(), strict=False))
        except ValueError:
            raise UsageError(
                f"{key}: {value!r} is no address or prefix",
                "for example 10.0.1.0/24, 192.0.2.7 or 2001:db8::/32",
            ) from None
    return tuple(found)


def _hosts(side: str, networks: tuple[Network, ...]) -> str:
    words = []
    for network in networks:
        family = "ip" if network.version == 4 else "ip6"
        words.append(" ".join(word for word in (family, side, "net", str(network)) if word))
    return " or ".join(words)


class RulesFilter(Filter):
    """Rules as a program that finds the network header in X, so that it is there only once."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._labels = 0
        self._entered: set[int] = set()

    def enter(self, code: Assembler, version: int, base: int, shift: int) -> None:
        if not version:
            code.jump("accept" if self.rules.everything() else "reject")
            return
        code.emit(LDX_IMM, base)
        code.jump(f"rules{version}")
        self._entered.add(version)

    def write(self, code: Assembler) -> None:
        for version in sorted(self._entered):
            code.label(f"rules{version}")
            self._protocol(code, version)
            if self.rules.sources or self.rules.destinations:
                self._addresses(code, version)
            if self.rules.ports:
                self._ports(code, version)
            else:
                code.jump("accept")
        self._entered.clear()

    def _new(self) -> str:
        self._labels += 1
        return f"rule{self._labels}"

    def _protocol(self, code: Assembler, version: int) -> None:
        wanted = PROTOCOLS.get(self.rules.protocol, WITH_PORTS if self.rules.ports else ())
        if not wanted:
            return
        known = self._new()
        code.emit(LD_B_X, 9 if version == 4 else 6)
        for number in wanted:
            code.when(JEQ, number, known)
        if version == 6 and not self.rules.ports:
            # As libpcap: the protocol behind a fragment header counts too.
            code.unless(JEQ, IPV6_FRAGMENT, "reject")
            code.emit(LD_B_X, 40)
            for number in wanted:
                code.when(JEQ, number, known)
        code.jump("reject")
        code.label(known)

    def _addresses(self, code: Assembler, version: int) -> None:
        sources = [n for n in self.rules.sources if n.version == version]
        destinations = [n for n in self.rules.destinations if n.version == version]
        here, there = (12, 16) if version == 4 else (8, 24)
        good = self._new()
        if self.rules.sources and self.rules.destinations:
            for first, second in ((sources, destinations), (destinations, sources)):
                half, other = self._new(), self._new()
                self._one_of(code, here, first, half)
                code.jump(other)
                code.label(half)
                self._one_of(code, there, second, good)
                code.label(other)
        else:
            self._one_of(code, here, sources or destinations, good)
            self._one_of(code, there, sources or destinations, good)
        code.jump("reject")
        code.label(good)

    def _one_of(self, code: Assembler, place: int, networks: Iterable[Network], found: str) -> None:
        """Go to `found` if the address at `place` lies in one of the networks; else fall through."""
        masks: dict[int, list[Network]] = {}
        for network in networks:
            masks.setdefault(network.prefixlen, []).append(network)
        for length, members in sorted(masks.items()):
            if members[0].version == 4:
                if length:
                    self._load(code, place, length)
                for network in members:
                    if length:
                        code.when(JEQ, int(network.network_address), found)
                    else:
                        code.jump(found)
                continue
            for network in members:
                self._long_address(code, place, network, found)

    def _load(self, code: Assembler, place: int, bits: int) -> None:
        code.emit(LD_W_X, place)
        if bits < 32:
            code.emit(AND, (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF)

    def _long_address(self, code: Assembler, place: int, network: Network, found: str) -> None:
        other = self._new()
        value = int(network.network_address)
        for word in range(4):
            bits = min(32, network.prefixlen - 32 * word)
            if bits <= 0:
                break
            self._load(code, place + 4 * word, bits)
            code.unless(JEQ, value >> (96 - 32 * word) & 0xFFFFFFFF, other)
        code.jump(found)
        code.label(other)

    def _ports(self, code: Assembler, version: int) -> None:
        source = 40
        if version == 4:
            source = 0
            code.emit(LD_H_X, 6)
            code.when(JSET, 0x1FFF, "reject")
            code.emit(LD_B_X, 0)
            code.emit(AND, 0xF)
            code.emit(LSH, 2)
            code.emit(ADD_X, 0)
            code.emit(TAX, 0)
        for place in (source, source + 2):
            code.emit(LD_H_X, place)
            for low, high in self.rules.ports:
                if low == high:
                    code.when(JEQ, low, "accept")
                else:
                    code.emit(JGE, low, 0, 2)
                    code.emit(JGT, high, 1, 0)
                    code.jump("accept")
        code.jump("reject")

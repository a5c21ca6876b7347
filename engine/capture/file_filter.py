"""A capture filter on the packets of a file, between its reader and the packet road."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from engine.capture import cbpf
from engine.capture.filters import CHILD, build_program
from engine.capture.packet_filter import PacketFilter
from engine.capture.sink import PacketSink
from engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


COMPILER = (sys.executable, str(CHILD))
"""What has to be readable while a file is read: a process compiles for each new link type."""
MOST_PROGRAMS = 16
"""Link types of one file with a program of their own: each is a run of the compiler."""


class FilterSink(PacketSink):
    """Hands on what matches; each link type in the file gets its own program when its first packet comes."""

    def __init__(self, sink: PacketSink, rules: Mapping[str, Any], filters: dict[int, PacketFilter]) -> None:
        """`rules`: the plain form of engine.config.Filter; `filters` gets a program for each link type."""
        self.sink = sink
        self.rules = dict(rules)
        self.filters = filters
        self.nothing = PacketFilter(cbpf.REJECT)
        self.buf: Any = b""
        self.left_out = 0

    def attach(self, buf: Any) -> None:
        """All following offsets are into `buf`."""
        self.buf = buf
        self.sink.attach(buf)
        for one in self.filters.values():
            one.attach(buf)

    def packet(
        self,
        start: int,
        end: int,
        wire_length: int,
        timestamp: int,
        interface: int,
        link_type: int,
        vlan: int,
        packet_type: int,
    ) -> int:
        """Hand a packet on if it matches."""
        one = self.filters.get(link_type)
        if one is None:
            one = self.first(link_type)
        one.wire_length = wire_length
        if not one.match(start, end):
            self.left_out += 1
            return 0
        return self.sink.packet(start, end, wire_length, timestamp, interface, link_type, vlan, packet_type)

    def first(self, link_type: int) -> PacketFilter:
        """The program for a link type; nothing of one matches for which the expression has no meaning."""
        if len(self.filters) >= MOST_PROGRAMS:
            return self.nothing
        try:
            one = PacketFilter(build_program(self.rules, link_type))
        except UsageError:
            one = self.nothing
        self.filters[link_type] = one
        one.attach(self.buf)
        return one

    def idle(self, now: int) -> int:
        """Time passed."""
        return self.sink.idle(now)

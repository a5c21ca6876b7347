"""Where a driver puts its packets: the one interface between capture and the packet road."""

from __future__ import annotations

PACKET_OUTGOING = 4
"""sll_pkttype of a frame that this host sent (include/uapi/linux/if_packet.h)."""


class PacketSink:
    """Takes packets in the order of the driver. Subclasses: the pipeline; in tests, a recorder.

    `packet()` is called once a packet and never raises for anything that stands in one. Its first
    act is to count `received` in shared memory, which is also the driver's progress mark.
    """

    def attach(self, buf: memoryview) -> None:
        """All following offsets are into `buf` (a mapped ring, a chunk of a file)."""
        raise NotImplementedError

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
        """One frame: octets start..end of the buffer, `wire_length` on the wire, `timestamp` ns since 1970.

        `link_type` is a LINKTYPE_ number; `vlan` the tag that the kernel took off, TPID << 16 | TCI, or
        0; `packet_type` the sll_pkttype, 0 in files. The octets are valid only during the call.
        """
        raise NotImplementedError

    def moment(self, now: int, shift: int) -> int:
        """Live only, before each block: `now` on the task's clock; the wall clock is `shift` ns ahead of it.

        The clock starts with the wall clock and does not follow its steps; timestamps do.
        """
        return 0

    def idle(self, now: int) -> int:
        """It is `now` on the task's clock: expire what is due. Called at most 10 times a second."""
        return 0

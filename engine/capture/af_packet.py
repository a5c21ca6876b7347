"""The supervisor's end of live capture: TPACKET_V3 sockets with their ring, filter and fanout group.

The supervisor makes one RingSocket a worker and keeps it; the worker gets the descriptor, maps the
ring (`engine.capture.ring_walk.map_ring`) and needs no rights of its own. Only the supervisor
reads PACKET_STATISTICS, which the kernel clears on reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.capture.cbpf import Program


class RingSocket:
    """One capture socket with its ring.

    `interface` as given, `block_size`, `block_count`: the ring as the kernel granted it,
    `generation`: +1 when the socket had to be replaced (see check()).
    """

    interface: str
    block_size: int
    block_count: int
    generation: int

    def fileno(self) -> int:
        """Descriptor for the worker (pass_fds); another one after `generation` rose."""
        raise NotImplementedError

    def statistics(self) -> dict[str, int]:
        """Totals since the socket was opened: `packets` (drops included), `drops`, `freezes`."""
        raise NotImplementedError

    def blocks_waiting(self) -> int:
        """Blocks of the ring that are ready and unread."""
        raise NotImplementedError

    def set_filter(self, program: Program) -> None:
        """Replace the filter of the running capture; what is in the ring already stays there."""
        raise NotImplementedError

    def check(self) -> str:
        """Look at the interface, at least once a second: `up`, `down` or `gone`.

        Mends what can be mended: an interface that came back under its name is bound again, on the same
        socket and ring; only a socket in a fanout group cannot be bound again and is replaced: then
        `generation` rises, and the worker must be stopped after it emptied the old ring,
        `ring_walk.forget_progress()` called, and a worker started on the new descriptor and geometry.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the socket; the ring lives until the worker unmaps it."""
        raise NotImplementedError


def open_rings(capture: dict[str, Any], workers: int, program: Program) -> list[RingSocket]:
    """Open `workers` sockets on an interface (a name, `eth0,lo`, or `any`), filtered from the first packet.

    `capture` is the plain form of engine.config.Capture: interface, fanout_group, fanout_mode,
    config{ring_mb, block_kb, retire_ms, promiscuous}; `program` comes from `filters.live_program()`.
    UsageError: no such interface; NotPermittedError: CAP_NET_RAW is missing; OtusError: fanout group
    in use otherwise, no memory for the ring.
    An interface that is down is no error: capture begins when it comes up (check()).
    """
    raise NotImplementedError

"""The capture sockets of a live task: opened, looked at twice a second, given a new filter, closed.

What each layer before the workers lost is read here and nowhere else: the rings (PACKET_STATISTICS, which
reading clears), the interfaces and the backlog of the host.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from engine.errors import OtusError
from engine.log import log

if TYPE_CHECKING:
    from engine.capture.af_packet import RingSocket
    from engine.config import Capture
    from engine.shm.counters import Counters
    from engine.snapshot import CaptureFigures, RingFacts

HOST_PERIOD = 1.0
"""Seconds between two questions to the host."""
HOST_DROPS = ("rx_dropped", "rx_missed", "rx_fifo", "softnet")


class TaskRings:
    """One socket a worker; false where there is none (a file)."""

    def __init__(self, capture: Capture, task: str) -> None:
        self.capture = capture
        self.task = task
        self.sockets: list[RingSocket] = []
        self.links: list[str] = []
        self.totals: list[dict[str, int]] = []
        """Cumulative, of each socket; they stay when it is closed."""
        self.cpus: list[int] = []
        """The CPU that each worker was last given; empty where workers are not bound."""
        self.ended = False
        self._generations: list[int] = []
        self._program: Any = None
        self._changed = False
        self._host_before: dict[str, int | None] = {}
        self._host: dict[str, int | None] = {}
        self._host_next = 0.0
        self._clock_offset = time.time_ns() - time.monotonic_ns()

    def __bool__(self) -> bool:
        return bool(self.sockets)

    def open(self, workers: int, program: Any) -> None:
        """Open the sockets, filtered from the first packet; OtusError says why not."""
        from engine.capture import af_packet, interfaces

        self._program = program
        self._host_before = interfaces.host_drops(self.capture.interface)
        self.sockets = af_packet.open_rings(self.capture.model_dump(), workers, program)
        self._generations = [socket.generation for socket in self.sockets]
        self.links = ["up"] * workers
        self.totals = [{"packets": 0, "drops": 0, "freezes": 0} for _ in self.sockets]
        self._look_at_host()

    def source(self, number: int, most_waiting: int, counters: Counters) -> dict[str, Any]:
        """What worker `number` is told of its ring (engine.pipeline.worker), for each of its starts."""
        from engine.capture.placement import place_workers
        from engine.capture.ring_walk import forget_progress

        socket = self.sockets[number]
        if socket.generation != self._generations[number]:
            self._generations[number] = socket.generation
            forget_progress(counters)
        if self.capture.config.pin:
            self.cpus = place_workers(self.capture.interface, len(self.sockets))
        return {
            "kind": "ring",
            "fd": socket.fileno(),
            "block_size": socket.block_size,
            "block_count": socket.block_count,
            "max_waiting": min(most_waiting, socket.block_count),
            "retire_ms": self.capture.config.retire_ms,
            "program": self._program,
            # The ring may hold what an earlier filter let in.
            "recheck": self._changed,
            "cpu": self.cpus[number] if self.cpus else None,
            "clock_offset": self._clock_offset,
        }

    # ---- while it runs ----

    def look(self) -> list[int]:
        """Read the statistics, mend interfaces; numbers of the workers whose socket was replaced."""
        replaced = []
        for number, socket in enumerate(self.sockets):
            self.totals[number] = socket.statistics()
            link = socket.check()
            if link != self.links[number]:
                log.warning("capture", f"{socket.interface} is {link}", task=self.task)
                self.links[number] = link
            if socket.generation != self._generations[number]:
                replaced.append(number)
        self._look_at_host()
        return replaced

    def _look_at_host(self) -> None:
        from engine.capture import interfaces

        now = time.monotonic()
        if now >= self._host_next:
            self._host_next = now + HOST_PERIOD
            self._host = interfaces.host_drops(self.capture.interface)

    def lost_before(self) -> dict[str, int | None]:
        """What interface and host lost since the task began, before any ring; None where unknown."""
        lost: dict[str, int | None] = {}
        for name in HOST_DROPS:
            first, last = self._host_before.get(name), self._host.get(name)
            # An interface that was made anew counts from 0 again.
            lost[name] = None if first is None or last is None else last - first if last >= first else last
        return lost

    def announce(self, program: Any) -> Any:
        """Workers that start from now on get this filter; returns the one before."""
        before, self._program, self._changed = self._program, program, True
        return before

    def attach(self, program: Any) -> None:
        """Give every socket the filter; if the kernel refuses it, all keep the one before, and OtusError."""
        for socket in self.sockets:
            socket.try_filter(program)
        for socket in self.sockets:
            socket.set_filter(program)

    def sample(self, share: int, key: int) -> None:
        """Leave media out before it is copied; where the kernel refuses that, the workers do it alone."""
        for socket in self.sockets:
            with contextlib.suppress(OSError, OtusError):
                socket.sample(share, key)

    def shut(self) -> None:
        """Let nothing in any more."""
        from engine.capture.cbpf import REJECT

        for socket in self.sockets:
            with contextlib.suppress(OSError, OtusError):
                socket.set_filter(REJECT)

    def close(self) -> None:
        """Read the statistics a last time and close."""
        for number, socket in enumerate(self.sockets):
            with contextlib.suppress(OSError):
                self.totals[number] = socket.statistics()
            socket.close()
        if self.sockets:
            with contextlib.suppress(OSError):
                self._host_next = 0.0
                self._look_at_host()
        self.ended = True

    # ---- figures ----

    def link(self) -> str | None:
        """down or gone while an interface is, else None."""
        return max((link for link in self.links if link != "up" and not self.ended), default=None)

    def figures(self) -> list[CaptureFigures]:
        """One row a ring."""
        return [
            {
                "interface": self.capture.interface,
                "ring_packets": totals["packets"],
                "ring_drops": totals["drops"],
                "ring_freezes": totals["freezes"],
                "blocks_waiting": None if self.ended else self.sockets[number].blocks_waiting(),
                "blocks_total": None if self.ended else self.sockets[number].block_count,
                "link": self.links[number],
            }
            for number, totals in enumerate(self.totals)
        ]

    def facts(self) -> RingFacts | None:
        """The rings as they are, beside what was asked for."""
        if not self.totals:
            return None
        options, first = self.capture.config, self.sockets[0]
        return {
            "ring_mb": first.block_size * first.block_count / (1 << 20),
            "block_kb": first.block_size >> 10,
            "blocks": first.block_count,
            "retire_ms": options.retire_ms,
            "snaplen": options.snaplen,
            "promiscuous": options.promiscuous,
            "fanout_mode": self.capture.fanout_mode,
            "fanout_group": first.fanout_group,
            "cpus": list(self.cpus),
        }

"""The supervisor's end of live capture: TPACKET_V3 sockets with their ring, filter and fanout group.

The supervisor makes one RingSocket a worker and keeps it; the worker gets the descriptor, maps the
ring (`engine.capture.ring_walk.map_ring`) and needs no rights of its own. Only the supervisor
reads PACKET_STATISTICS, which the kernel clears on reading. Constants: include/uapi/linux/if_packet.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from typing import Any

from engine.capture import cbpf, interfaces
from engine.capture.cbpf import Program
from engine.capture.media_sampling import leave_out
from engine.errors import NotPermittedError, OtusError

SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION = 1, 5, 6, 10
PACKET_FANOUT, PACKET_IGNORE_OUTGOING = 18, 23
SO_ATTACH_FILTER = 26
TPACKET_V3 = 2
PACKET_MR_PROMISC = 1
ETH_P_ALL = 3
FANOUT_MODES = {"hash": 0, "lb": 1, "cpu": 2}
FANOUT_UNIQUE_ID = 0x2000
FRAME_SIZE = 2048
"""The kernel only checks that frames fill blocks; TPACKET_V3 packs packets as they come."""
SMALLEST_BLOCK = 64 * 1024
SMALLEST_RING = 1024 * 1024
TP_STATUS_USER = 1
LOOPBACK = "lo"


class Fanout:
    """The group that the sockets of one task share; its number is the kernel's choice unless given."""

    def __init__(self, group: int, mode: str, members: int) -> None:
        """`group` 0: one of our own. A single socket outside a given group needs none."""
        self.wanted = group
        self.mode = FANOUT_MODES[mode]
        self.needed = members > 1 or group > 0
        self._device = 0
        self._id: int | None = None

    @property
    def number(self) -> int | None:
        """The group's number, once it is made."""
        return self._id

    def join(self, ring: socket.socket, device: int, interface: str) -> None:
        """Add a bound socket; the first one makes the group, also anew for another device."""
        if self._device != device:
            self._id, self._device = None, device
        if self._id is not None:
            self._set(ring, self._id | self.mode << 16)
            return
        try:
            if self.wanted:
                self._set(ring, self.wanted | self.mode << 16)
                self._id = self.wanted
                return
            self._set(ring, (self.mode | FANOUT_UNIQUE_ID) << 16)
        except OSError as error:
            # Before Linux 6.10 no group is joined while the interface is switched off.
            waits = len(interfaces.split(interface)) == 1 and not interfaces.switched_on(interface)
            if error.errno not in (errno.EINVAL, errno.ENOSPC) or waits:
                raise
            if self.wanted:
                raise OtusError(
                    f"fanout group {self.wanted} on {interface} is in use with another interface or mode",
                    "fanout_group: 0 lets the kernel pick a free one",
                ) from error
            self._set(ring, (os.getpid() & 0xFFFF) | self.mode << 16)
        self._id = struct.unpack("I", ring.getsockopt(SOL_PACKET, PACKET_FANOUT, 4))[0] & 0xFFFF

    @staticmethod
    def _set(ring: socket.socket, value: int) -> None:
        # As octets: setsockopt() of Python refuses integers beyond INT_MAX.
        ring.setsockopt(SOL_PACKET, PACKET_FANOUT, struct.pack("I", value))


class RingSocket:
    """One capture socket with its ring. Made by open_rings().

    `interface` as given; `block_size`, `block_count`: the ring as the kernel granted it;
    `generation`: +1 when the socket had to be replaced (see check()); `link`: as check() found it last;
    `problem`: why check() could not mend it, empty when all is well.
    """

    def __init__(self, capture: dict[str, Any], program: Program, fanout: Fanout) -> None:
        """A socket with ring and filter that takes nothing in yet."""
        options = capture.get("config") or {}
        self.interface = str(capture["interface"])
        self.names = interfaces.split(self.interface)
        self.generation = 0
        self.link = "down"
        self.problem = ""
        self.block_size = 0
        self.block_count = 0
        self._ring_octets = int(options.get("ring_mb", 32)) << 20
        self._block_octets = int(options.get("block_kb", 256)) << 10
        self._retire_ms = int(options.get("retire_ms", 1))
        self._promiscuous = bool(options.get("promiscuous", True))
        self._program = program
        self._sampled: tuple[int, int] | None = None
        self._fanout = fanout
        self._indexes: list[int] = []
        self._bound = 0
        self._open = False
        self._totals = [0, 0, 0]
        self._map: mmap.mmap | None = None
        self._status: memoryview | None = None
        self._socket = self._make()

    # -- making -----------------------------------------------------------------------------------

    @property
    def _single(self) -> bool:
        """One device, which the socket is bound to; else it takes all and the filter chooses."""
        return len(self.names) == 1

    def _make(self) -> socket.socket:
        try:
            # Protocol 0: nothing arrives before bind() names interface and protocol.
            ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise NotPermittedError(
                f"capturing on {self.interface} needs the capability CAP_NET_RAW, which this process lacks",
                f"sudo otus-tui -d {self.interface}\n"
                "or, for a service: AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN in its systemd unit",
            ) from error
        try:
            ring.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
            if self.names == [LOOPBACK]:
                # Saves a clone of each packet. Not in a fanout group and not before Linux 4.20, so the filter
                # leaves the second copy out in any case.
                with contextlib.suppress(OSError):
                    ring.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self._make_ring(ring)
            # Nothing passes until the socket is in its fanout group: outside, it would see every packet.
            attach(ring, cbpf.REJECT)
        except BaseException:
            ring.close()
            raise
        return ring

    def _make_ring(self, ring: socket.socket) -> None:
        """Ask for the ring; smaller blocks, then fewer, where the kernel has no such memory."""
        size = max(mmap.PAGESIZE, 1 << (self._block_octets - 1).bit_length())
        octets = max(self._ring_octets, 2 * size)
        while True:
            count = octets // size
            request = struct.pack(
                "7I", size, count, FRAME_SIZE, count * (size // FRAME_SIZE), self._retire_ms, 0, 0
            )
            try:
                ring.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise OtusError(
                        f"no TPACKET_V3 ring on {self.interface}: {error.strerror}",
                        "it takes Linux 3.2 or newer with CONFIG_PACKET",
                    ) from error
                if size > SMALLEST_BLOCK:
                    size //= 2
                elif octets > SMALLEST_RING:
                    octets //= 2
                else:
                    raise OtusError(
                        f"no memory for a capture ring of {octets >> 20} MiB on {self.interface}",
                        "lower capture.config.ring_mb or workers",
                    ) from error
                continue
            self.block_size, self.block_count = size, count
            return

    def _effective(self, program: Program) -> Program:
        """The filter as attached: with interfaces chosen, one copy of packets on `lo`, and sampling."""
        if program == cbpf.REJECT:
            return program
        if not self._single or self.names == [LOOPBACK]:
            program = cbpf.once_on_loopback(program)
        if len(self.names) > 1:
            program = cbpf.only_interfaces(program, self._indexes)
        if self._sampled is not None:
            program = leave_out(program, *self._sampled)
        return program

    def join(self) -> bool:
        """Bind and join the fanout group, with nothing let in; False: the interface is not ready."""
        index = 0
        if self._single:
            index = interfaces.index_of(self.names[0])
            if not index:
                self.link = "gone"
                return False
        try:
            bind(self._socket, index, ETH_P_ALL)
            self._bound = index
            if self._fanout.needed:
                self._fanout.join(self._socket, index, self.interface)
        except OSError as error:
            self.link = self._state()
            if self.link == "up":
                raise OtusError(f"cannot capture on {self.interface}: {error.strerror}") from error
            # Gone in between; or a kernel before 6.10, which joins no group while the interface is down.
            return False
        self._join_promiscuous()
        self._indexes = [interfaces.index_of(name) for name in self.names]
        return True

    def admit(self) -> None:
        """Let packets in, once every socket of the group has joined."""
        attach(self._socket, self._effective(self._program))
        self._open = True
        self.link = self._state()

    def _join_promiscuous(self) -> None:
        """By membership: the kernel counts members and takes the mode back when the socket closes."""
        if not self._promiscuous:
            return
        for name in self.names:
            if name != LOOPBACK and (index := interfaces.index_of(name)):
                request = struct.pack("IHH8s", index, PACKET_MR_PROMISC, 0, b"")
                with contextlib.suppress(OSError):  # tunnels may have no such mode
                    self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)

    # -- running ----------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Descriptor for the worker (pass_fds); another one after `generation` rose."""
        return self._socket.fileno()

    def statistics(self) -> dict[str, int]:
        """Totals since open_rings(): `packets` (drops included), `drops`, `freezes`."""
        answer = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)
        for position, value in enumerate(struct.unpack("3I", answer)):
            self._totals[position] += value
        packets, drops, freezes = self._totals
        return {"packets": packets, "drops": drops, "freezes": freezes}

    def blocks_waiting(self) -> int:
        """Blocks of the ring that are ready and unread."""
        if self._status is None:
            self._map = mmap.mmap(
                self._socket.fileno(), self.block_size * self.block_count, mmap.MAP_SHARED, mmap.PROT_READ
            )
            for block in range(self.block_count):
                # Only the headers are looked at: the rest of the ring shall not count as our memory.
                with contextlib.suppress(OSError):
                    self._map.madvise(
                        mmap.MADV_DONTNEED,
                        block * self.block_size + mmap.PAGESIZE,
                        self.block_size - mmap.PAGESIZE,
                    )
            self._status = memoryview(self._map).cast("I")
        step = self.block_size >> 2
        return sum(self._status[block * step + 2] & TP_STATUS_USER for block in range(self.block_count))

    @property
    def fanout_group(self) -> int | None:
        """Number of the fanout group that the kernel knows; None outside of any."""
        return self._fanout.number

    def set_filter(self, program: Program) -> None:
        """Replace the filter of the running capture; what is in the ring already stays there."""
        self._program = program
        if self._open:
            attach(self._socket, self._effective(self._program))

    def try_filter(self, program: Program) -> None:
        """OtusError if the kernel would not take this filter with what stands around it; nothing changes."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as spare:
            attach(spare, self._effective(program))

    def sample(self, share: int, key: int) -> None:
        """Leave media out of what passes the filter (engine.capture.media_sampling); all passes at 2**32.

        OtusError where the kernel takes no longer filter: then what was left out before still is.
        """
        before = self._sampled
        self._sampled = None if share >> 32 else (share, key)
        if self._open:
            try:
                attach(self._socket, self._effective(self._program))
            except (OSError, OtusError):
                self._sampled = before
                raise

    def check(self) -> str:
        """Look at the interface, at least once a second: `up`, `down` or `gone`.

        Mends what can be mended: an interface that came back under its name is bound again, on the same
        socket and ring; only a socket in a fanout group cannot be bound again and is replaced: then
        `generation` rises, and the worker must be stopped after it emptied the old ring,
        `ring_walk.forget_progress()` called, and a worker started on the new descriptor and geometry.
        Never raises: what cannot be mended is in `problem`, and is tried again by the next call.
        """
        try:
            self._mend()
            self.problem = ""
        except (OSError, OtusError) as error:
            self.problem = error.message if isinstance(error, OtusError) else str(error)
        self.link = self._state()
        return self.link

    def _mend(self) -> None:
        if not self._open:
            if self._single and self._bound and self._device_lost():
                self._rebind()
            elif self.join():
                self.admit()
        elif self._single:
            if self._device_lost() and interfaces.index_of(self.names[0]):
                self._rebind()
        elif self.names:
            present = [interfaces.index_of(name) for name in self.names]
            if present != self._indexes:
                self._indexes = present
                self._join_promiscuous()
                attach(self._socket, self._effective(self._program))

    def _state(self) -> str:
        if not self.names:
            return "up"
        if self._single and self._bound:
            # The bound device, which may have another name by now.
            try:
                return interfaces.link_state(socket.if_indextoname(self._bound))
            except OSError:
                return "gone"
        states = {interfaces.link_state(name) for name in self.names}
        return next(state for state in ("up", "down", "gone") if state in states)

    def _device_lost(self) -> bool:
        """The device that the socket was bound to is no more (not: renamed, or down)."""
        try:
            socket.if_indextoname(self._bound)
        except OSError:
            return True
        # Deleted and made again with the same index: the kernel has cut the socket off all the same.
        return not self._socket.getsockname()[0]

    def _rebind(self) -> None:
        """Bind again to the interface of the same name; in a fanout group, on a socket of its own."""
        self._open = False
        attach(self._socket, cbpf.REJECT)
        if self._fanout.needed:
            self.statistics()
            replacement = self._make()
            self._unmap()
            self._socket.close()
            self._socket = replacement
            self._bound = 0
            self.generation += 1
        if self.join():
            self.admit()

    def _unmap(self) -> None:
        if self._status is not None and self._map is not None:
            self._status.release()
            self._map.close()
            self._status = self._map = None

    def close(self) -> None:
        """Close the socket; the ring lives until the worker unmaps it."""
        self._unmap()
        self._socket.close()


def attach(ring: socket.socket, program: Program) -> None:
    """SO_ATTACH_FILTER, replacing what is there."""
    code = ctypes.create_string_buffer(cbpf.pack(program))
    try:
        ring.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
        )
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOMEM):
            raise OtusError(
                f"the kernel takes no filter of {len(program)} instructions: {error.strerror}",
                "networks instead of many hosts; sysctl net.core.optmem_max bounds the memory of a filter",
            ) from error
        raise


def bind(ring: socket.socket, index: int, protocol: int) -> None:
    """bind() by index, which is what the kernel keeps; 0 is every interface."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(protocol), index, 0, 0, 0, b"")
    if _libc.bind(ring.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_libc = ctypes.CDLL(None, use_errno=True)


def open_rings(capture: dict[str, Any], workers: int, program: Program) -> list[RingSocket]:
    """Open `workers` sockets on an interface (a name, `eth0,lo`, or `any`), filtered from the first packet.

    `capture` is the plain form of engine.config.Capture: interface, fanout_group, fanout_mode,
    config{ring_mb, block_kb, retire_ms, promiscuous}; `program` comes from `filters.live_program()`.
    UsageError: no such interface; NotPermittedError: CAP_NET_RAW is missing; OtusError: fanout group
    in use otherwise, no memory for the ring.
    An interface that is down is no error: capture begins when it comes up (check()).
    """
    if not sys.platform.startswith("linux"):
        raise OtusError("live capture needs Linux", "otus-tui -I FILE shows a capture file")
    interfaces.require(str(capture["interface"]))
    group, mode = int(capture.get("fanout_group") or 0), str(capture.get("fanout_mode") or "hash")
    fanout = Fanout(group, mode, workers)
    rings: list[RingSocket] = []
    try:
        for _ in range(max(1, workers)):
            rings.append(RingSocket(capture, program, fanout))  # noqa: PERF401 -- closed below if one fails
        joined = [ring for ring in rings if ring.join()]
        for ring in joined:
            ring.admit()
    except BaseException:
        for ring in rings:
            ring.close()
        raise
    return rings

"""Sockets of a namespace over NETLINK_SOCK_DIAG: what `ss -tim` prints, and each socket that is destroyed.

Layouts: include/uapi/linux/inet_diag.h and tcp.h. Structures only grow at their end, so an attribute that is
shorter than what is known here lacks the newest fields, which are None.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.errors import OtusError
from engine.tcp.backend import STATES, Connection
from engine.tcp.namespaces import call_inside
from engine.text import MAPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Namespace

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
GROUPS = (1, 3)
"""SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY."""
SO_RCVBUFFORCE = 33
ATTRIBUTE_INFO, ATTRIBUTE_SKMEMINFO, ATTRIBUTE_CGROUP = 2, 7, 21
_EXTENSIONS = 1 << ATTRIBUTE_INFO - 1 | 1 << ATTRIBUTE_SKMEMINFO - 1
LISTEN = 10
CONNECTED = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
"""Every state but TIME_WAIT, CLOSE, LISTEN and NEW_SYN_RECV."""
_FINISHED = (8, 9, 11)
"""CLOSE_WAIT, LAST_ACK, CLOSING: the peer's FIN was received."""
TIMER_PROBE = 4
UNLIMITED_PACING = (1 << 64) - 1
INITIAL_SSTHRESH = 0x7FFF_FFFF
_BUFFER = 1 << 18
_ROOM = 8192
"""Addresses whose text is kept."""
_EVENTS_BUFFER = 8 << 20
_SECONDS = 10.0

_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=4B2s2s16s16sIQ5I")
_ATTRIBUTE = struct.Struct("=HH")
_REQUEST = struct.Struct("=4BI48s")
_INFO = (
    ("state", "B"), ("ca_state", "B"), ("retransmits", "B"), ("probes", "B"), ("backoff", "B"),
    ("options", "B"), ("wscale", "B"), ("flags", "B"), ("rto", "I"), ("ato", "I"), ("snd_mss", "I"),
    ("rcv_mss", "I"), ("unacked", "I"), ("sacked", "I"), ("lost", "I"), ("retrans", "I"), ("fackets", "I"),
    ("last_data_sent", "I"), ("last_ack_sent", "I"), ("last_data_recv", "I"), ("last_ack_recv", "I"),
    ("pmtu", "I"), ("rcv_ssthresh", "I"), ("rtt", "I"), ("rttvar", "I"), ("snd_ssthresh", "I"),
    ("snd_cwnd", "I"), ("advmss", "I"), ("reordering", "I"), ("rcv_rtt", "I"), ("rcv_space", "I"),
    ("total_retrans", "I"), ("pacing_rate", "Q"), ("max_pacing_rate", "Q"), ("bytes_acked", "Q"),
    ("bytes_received", "Q"), ("segs_out", "I"), ("segs_in", "I"), ("notsent_bytes", "I"), ("min_rtt", "I"),
    ("data_segs_in", "I"), ("data_segs_out", "I"), ("delivery_rate", "Q"), ("busy_time", "Q"),
    ("rwnd_limited", "Q"), ("sndbuf_limited", "Q"), ("delivered", "I"), ("delivered_ce", "I"),
    ("bytes_sent", "Q"), ("bytes_retrans", "Q"), ("dsack_dups", "I"), ("reord_seen", "I"),
    ("rcv_ooopack", "I"), ("snd_wnd", "I"), ("rcv_wnd", "I"), ("rehash", "I"), ("total_rto", "H"),
    ("total_rto_recoveries", "H"), ("total_rto_time", "I"),
)  # fmt: skip
"""struct tcp_info, in order."""
_NAMES = tuple(name for name, _ in _INFO)
_FULL = struct.Struct("=" + "".join(code for _, code in _INFO))
_MEMORY = (
    "rmem_alloc",
    "rcvbuf",
    "wmem_alloc",
    "sndbuf",
    "fwd_alloc",
    "wmem_queued",
    "optmem",
    "backlog",
    "drops",
)
"""SK_MEMINFO_*, in order."""


def _lengths() -> dict[int, struct.Struct]:
    """Octets of a whole number of fields -> what unpacks them."""
    made = {}
    for count in range(1, len(_INFO) + 1):
        layout = struct.Struct("=" + "".join(code for _, code in _INFO[:count]))
        made[layout.size] = layout
    return made


_LENGTHS = _lengths()


@dataclass(slots=True)
class Socket:
    """One socket of a dump or of a destroy message."""

    family: int
    state: int
    timer: int
    local: bytes
    """16 octets; IPv4 as ::ffff:a.b.c.d."""
    local_port: int
    remote: bytes
    remote_port: int
    interface: int
    cookie: int
    receive_queue: int
    """A listening socket: connections that wait to be accepted."""
    send_queue: int
    """A listening socket: how many may wait."""
    uid: int
    inode: int
    info: dict[str, int]
    """Fields of struct tcp_info that this kernel has; empty where there is none (request sockets)."""
    memory: dict[str, int] | None = None
    """skmem: SK_MEMINFO_*."""
    cgroup: int | None = None


class Diag:
    """Asks one namespace; ends with close()."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.lost = 0
        """Destroy messages that this process was too slow for: times, not messages, that the kernel said
        so."""
        self._ask, self._closed = call_inside(namespace, _sockets)
        self._sequence = 0

    def dump(self, states: int) -> list[Socket]:
        """The TCP sockets in these states (a mask by state number), IPv4 and IPv6."""
        found: list[Socket] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            self._sequence += 1
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, _EXTENSIONS, 0, states, bytes(48))
            header = _HEADER.pack(
                _HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0
            )
            try:
                self._ask.send(header + body)
                self._take(found)
            except OSError as error:
                # Built without IPv6: there are no such sockets.
                if family == socket.AF_INET6 and error.errno in (errno.ENOENT, errno.EAFNOSUPPORT):
                    continue
                raise OtusError(f"inet_diag: {error.strerror or error}", _HINT) from error
        return found

    def _take(self, found: list[Socket]) -> None:
        while True:
            data = self._ask.recv(_BUFFER)
            for kind, sequence, payload in messages(data):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else errno.EIO
                    raise OSError(number, os.strerror(number))
                one = parse(payload)
                if one is not None:
                    found.append(one)

    def closed(self) -> list[Socket]:
        """The sockets that were destroyed since the last call, with their last figures."""
        found: list[Socket] = []
        while True:
            try:
                data = self._closed.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self.lost += 1
                    continue
                raise OtusError(f"inet_diag: {error.strerror}", _HINT) from error
            for kind, _, payload in messages(data):
                one = parse(payload) if kind == SOCK_DIAG_BY_FAMILY else None
                if one is not None:
                    found.append(one)

    def fileno(self) -> int:
        """Readable when a socket was destroyed."""
        return self._closed.fileno()

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        self._ask.close()
        self._closed.close()


_HINT = "the kernel needs CONFIG_INET_DIAG (module tcp_diag)"


def _sockets() -> tuple[socket.socket, socket.socket]:
    """One to ask with, and one that is told of sockets that are destroyed."""
    with contextlib.ExitStack() as opened:
        try:
            ask, closed = (
                opened.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG))
                for _ in range(2)
            )
        except OSError as error:
            raise OtusError(f"netlink: {error.strerror}", _HINT) from error
        ask.settimeout(_SECONDS)
        ask.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        with contextlib.suppress(OSError):
            closed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _EVENTS_BUFFER)
        with contextlib.suppress(OSError):  # CAP_NET_ADMIN
            closed.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _EVENTS_BUFFER)
        ask.bind((0, 0))
        closed.bind((0, 0))
        for group in GROUPS:
            closed.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        opened.pop_all()
    return ask, closed


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, payload) of the netlink messages in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def parse(payload: bytes) -> Socket | None:
    """struct inet_diag_msg and its attributes; None where the octets are too few."""
    if len(payload) < _MESSAGE.size:
        return None
    (
        family, state, timer, _, local_port, remote_port, local, remote, interface, cookie, _, receive_queue,
        send_queue, uid, inode,
    ) = _MESSAGE.unpack_from(payload)  # fmt: skip
    if family == socket.AF_INET:
        local, remote = MAPPED + local[:4], MAPPED + remote[:4]
    one = Socket(
        family, state, timer, local, int.from_bytes(local_port, "big"), remote,
        int.from_bytes(remote_port, "big"), interface, cookie, receive_queue, send_queue, uid, inode, {},
    )  # fmt: skip
    offset = _MESSAGE.size
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < _ATTRIBUTE.size or offset + length > len(payload):
            break
        _attribute(one, kind, payload[offset + _ATTRIBUTE.size : offset + length])
        offset += (length + 3) & ~3
    return one


def _attribute(one: Socket, kind: int, value: bytes) -> None:
    if kind == ATTRIBUTE_INFO:
        one.info = info(value)
    elif kind == ATTRIBUTE_SKMEMINFO:
        count = min(len(value) // 4, len(_MEMORY))
        one.memory = dict(zip(_MEMORY, struct.unpack_from(f"={count}I", value), strict=False))
    elif kind == ATTRIBUTE_CGROUP and len(value) == 8:
        one.cgroup = int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def info(value: bytes) -> dict[str, int]:
    """struct tcp_info as far as this kernel has it."""
    if len(value) >= _FULL.size:
        return dict(zip(_NAMES, _FULL.unpack_from(value), strict=True))
    layout = _LENGTHS.get(len(value))
    if layout is None:
        size = max((known for known in _LENGTHS if known <= len(value)), default=0)
        if not size:
            return {}
        layout = _LENGTHS[size]
    fields: tuple[Any, ...] = layout.unpack_from(value)
    return dict(zip(_NAMES, fields, strict=False))


@lru_cache(maxsize=1)
def told() -> frozenset[str]:
    """The fields of struct tcp_info that this kernel fills, by a socket of no use."""
    with contextlib.suppress(OSError), socket.socket() as one:
        return frozenset(info(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1024)))
    return frozenset(_NAMES)


@lru_cache(maxsize=_ROOM)
def address(octets: bytes) -> str:
    """As people write it; mapped IPv4 as IPv4, unset as the family's any."""
    if octets.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, octets[12:])
    return socket.inet_ntop(socket.AF_INET6, octets)


def octets(one: Socket) -> tuple[int | None, int | None]:
    """Octets of data that the peer has acknowledged, and that it has sent; None: the kernel does not tell.

    The kernel counts a SYN and a FIN as one each, too. The FIN of the peer stays in the count of a socket
    that is closed, where nothing tells whether there was one.
    """
    figures = one.info
    acked, received = figures.get("bytes_acked"), figures.get("bytes_received")
    if acked and "bytes_retrans" in figures:
        more = acked - figures["bytes_sent"] + figures["bytes_retrans"]
        acked -= more if more in (1, 2) else 0
    if received and (one.state in _FINISHED or not figures.get("data_segs_in", 1)):
        received -= 1
    return acked, received


def connection_of(one: Socket, local: str, remote: str, netns: int) -> Connection:
    """The row of a socket; what this kernel does not tell is None."""
    figures = one.info
    made = Connection(one.cookie, STATES[one.state] if one.state < len(STATES) else str(one.state), local,
                      one.local_port, remote, one.remote_port)  # fmt: skip
    made.interface, made.netns, made.uid = one.interface, netns, one.uid
    made.inode, made.cgroup = one.inode or None, one.cgroup
    made.send_queue, made.receive_queue = one.send_queue, one.receive_queue
    if not figures:
        return made
    made.srtt_us, made.rttvar_us = figures.get("rtt") or None, figures.get("rttvar")
    made.cwnd = figures.get("snd_cwnd")
    ssthresh = figures.get("snd_ssthresh")
    made.ssthresh = ssthresh if ssthresh is not None and ssthresh < INITIAL_SSTHRESH else None
    pacing = figures.get("pacing_rate")
    made.pacing_bps = pacing if pacing is not None and pacing != UNLIMITED_PACING else None
    flight = figures["unacked"] - figures["sacked"] - figures["lost"] + figures["retrans"]
    made.in_flight = max(0, flight)
    made.unsent_queue = figures.get("notsent_bytes")
    if made.unsent_queue is not None:
        made.bytes_in_flight = max(0, one.send_queue - made.unsent_queue)
    made.bytes_acked, made.bytes_received = octets(one)
    made.retransmits = figures.get("total_retrans")
    made.rto_us = figures.get("rto")
    made.send_window, made.receive_window = figures.get("snd_wnd"), figures.get("rcv_wnd")
    return made

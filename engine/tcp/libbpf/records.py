"""Records of the programs -> the types of engine.tcp.backend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.tcp.backend import RETRANSMIT_CLASSES, STATES, Connection, Event, Listener
from engine.tcp.inet_diag import address
from engine.tcp.libbpf import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.tcp.libbpf.reasons import Reasons

_UNLIMITED = ((1 << 64) - 1, (1 << 32) - 1)
_NO_SSTHRESH = 0x7FFFFFFF
KIND = 48 + 48 + 72 + 1
"""Place of connection.kind in its record."""
CLOCK_MONOTONIC_COARSE = 6


def tick_us() -> int:
    """Microseconds of a jiffy: the resolution of the coarse clock is one tick."""
    return round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e6)


class Records:
    """Unpacks records. reasons, function: see engine.tcp.libbpf.reasons and .symbols. cookies: the kernel
    gives programs the cookies of sockets; else they make numbers of their own, which have bit 63."""

    def __init__(self, reasons: Reasons, function: Callable[[int], str], *, cookies: bool = False) -> None:
        self._reasons = reasons
        self._function = function
        self._cookies = cookies
        self._tick_us = tick_us()

    def socket(self, record: bytes) -> Connection | Listener:
        """One socket of the iterator."""
        if record[KIND] == layout.RECORD_LISTENER:
            return self._listener(record)
        return self.connection(record)[0]

    def _listener(self, record: bytes) -> Listener:
        fields = layout.CONNECTION.unpack(record)
        local, _, local_port, _, _, netns = fields[:6]
        cookie, inode, limit, backlog, drops, told, pid, comm = (
            fields[7], fields[9], fields[19], fields[21], fields[28], fields[29], fields[30], fields[36],
        )  # fmt: skip
        # A final ACK that found no room is counted twice in sk_drops: as that, and as a packet that is freed.
        told = min(told, drops)
        listener = Listener(address(local), local_port, backlog, limit, drops - told)
        listener.told = told
        listener.netns, listener.cookie, listener.inode = netns, cookie, inode or None
        if pid:
            listener.pid, listener.comm, listener.pid_source = pid, _text(comm), "listen"
        return listener

    def connection(self, record: bytes) -> tuple[Connection, int]:
        """A connection, and its last RTT sample in us (0: none)."""
        (
            local, remote, local_port, remote_port, interface, netns, uid, cookie, cgroup, inode, pacing,
            acked, received, srtt, rttvar, cwnd, ssthresh, in_flight, octets_in_flight, send_queue, unsent,
            receive_queue, retransmits, tlp, rto, send_window, receive_window, sample, _drops, _accept_drops,
            pid, state, _kind, pid_source, role, full, comm,
        ) = layout.CONNECTION.unpack(record)  # fmt: skip
        one = Connection(
            cookie, STATES[state] if state < len(STATES) else "", address(local), local_port, address(remote),
            remote_port, interface, netns,
        )  # fmt: skip
        if not full:
            return one, 0
        one.uid, one.inode, one.cgroup = uid, inode or None, cgroup or None
        if pid:
            one.pid, one.comm, one.pid_source = pid, _text(comm), layout.PID_SOURCES[pid_source]
        one.role = layout.ROLES[role]
        if one.state == "LISTEN":
            one.send_queue, one.receive_queue = send_queue, receive_queue
            return one, 0
        one.srtt_us, one.rttvar_us = (srtt, rttvar) if srtt else (None, None)
        one.cwnd, one.ssthresh = cwnd, ssthresh if ssthresh < _NO_SSTHRESH else None
        one.pacing_bps = None if pacing in _UNLIMITED else pacing
        one.in_flight, one.bytes_in_flight = in_flight, octets_in_flight
        one.send_queue, one.unsent_queue, one.receive_queue = send_queue, unsent, receive_queue
        one.bytes_acked, one.bytes_received, one.retransmits = acked, received, retransmits
        one.tlp = tlp
        one.rto_us = rto * self._tick_us
        one.send_window, one.receive_window = send_window, receive_window
        return one, sample

    def event(self, record: bytes) -> Event:
        """One detail event."""
        head = layout.EVENT_HEAD
        time_ns, value, threshold, location, trigger, number, reason, _ = head.unpack_from(record)
        connection, sample = self.connection(record[head.size : head.size + layout.CONNECTION.size])
        if self._cookies and connection.cookie >> 63:
            # The program could not ask for a cookie, and the socket had none yet.
            connection.cookie = 0
        event = Event(time_ns, layout.TRIGGERS[trigger], value, threshold or None, connection)
        event.rtt_sample_us = sample or None
        if event.trigger in ("rto", "tlp", "retransmit_burst"):
            event.retransmit_class = RETRANSMIT_CLASSES[number]
        elif event.trigger == "drop":
            event.drop_reason = self._reasons.drop(reason)
            event.drop_function = self._function(location)
        elif event.trigger in ("reset", "zero_window"):
            event.direction = layout.DIRECTIONS[number]
            if reason:
                event.reset_reason = self._reasons.reset(reason)
        return event


def _text(octets: bytes) -> str:
    return octets.split(b"\0", 1)[0].decode("utf-8", "replace")

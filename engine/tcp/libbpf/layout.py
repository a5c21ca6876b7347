"""What bpf/observer.h declares, for this side: constants, records, configuration.

A test compares every size and offset with the BTF of the built object.
"""

from __future__ import annotations

import ctypes
import struct

from engine.tcp.backend import HISTOGRAMS as NAMED_HISTOGRAMS
from engine.tcp.backend import RETRANSMIT_CLASSES

PREFIXES, TOP_FLOWS, LAST_EVENTS, RESET_REASONS, COMM, STATES = 32, 64, 16, 64, 16, 16
HISTOGRAMS = len(NAMED_HISTOGRAMS) + STATES
HISTOGRAM_HEAD = 16
"""Octets of total and largest before the buckets."""

COUNTERS = (
    "handshake_client_failed", "handshake_server_unsampled",
    *(f"retransmit_{name}_{unit}" for name in RETRANSMIT_CLASSES for unit in ("events", "segments")),
    "tlp_new_data", "zero_window_received", "zero_window_received_ns", "zero_window_sent",
    "zero_window_sent_ns", "resets_sent", "resets_received", "drops", "drops_benign", "drops_unlisted",
    "drops_benign_unlisted",
    "events_emitted", "events_lost", "closed_lost", "sockets_inserted", "sockets_deleted",
)  # fmt: skip

TRIGGERS = (
    "rtt_above", "rtt_jump", "rtt_p99", "retransmit_burst", "rto", "tlp", "cwnd_drop", "pacing_zero",
    "zero_window", "backlog_overflow", "reset", "drop",
)  # fmt: skip

SUPPRESSED = ("repeat", "sample", "flow", "first", "rate")
PID_SOURCES = ("unknown", "connect", "listen", "io")
DIRECTIONS = ("received", "sent")
ROLES = ("unknown", "client", "server")
RECORD_LISTENER = 1
REASON_UNKNOWN = 0xFFFF

CONNECTION = struct.Struct("=16s16sHHIIIQQQQQQIIIIIIIIIIIIIIIIIIBBBBI16s")
EVENT_HEAD = struct.Struct("=QQQQIIII")
CLOSED = struct.Struct("=QQQQ")
DROP_KEY = struct.Struct("=QII")
SOCKET_STATE_OCTETS = 200
LAST_KEY_OCTETS = 16
LISTENER_KEY_OCTETS, OWNER_OCTETS = 8, 20


_WORDS = (
    "netns", "interface", "filtered", "port_filtered_local", "port_filtered_remote", "local_networks",
    "remote_networks", "pid_filtered", "sub_bits", "bucket_count", "socket_cookie", "rdonly_cast",
    "listen_overflow", "rtt_above_us", "rtt_p99", "retransmit_burst", "rto", "tlp", "pacing_zero",
    "zero_window", "backlog_overflow", "resets", "drops", "sample", "top_flows", "first", "last",
    "per_second",
)  # fmt: skip


class Config(ctypes.Structure):
    """Constants of one run."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("cgroup", "pid_namespace_device", "pid_namespace_inode")),
        ("benign", ctypes.c_uint64 * 4),
        ("rtt_jump_percent", ctypes.c_uint64),
        ("cwnd_halved_ns", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in _WORDS),
    )


class Prefix(ctypes.Structure):
    """A network: 16 octets each, IPv4 mapped."""

    _fields_ = (("address", ctypes.c_ubyte * 16), ("mask", ctypes.c_ubyte * 16))


class TopSlot(ctypes.Structure):
    """A flow of --top-flows."""

    _fields_ = (("flow", ctypes.c_uint64), ("triggers", ctypes.c_uint64))


class Runtime(ctypes.Structure):
    """What both sides write while the programs run."""

    _fields_ = (
        ("rtt_p99_us", ctypes.c_uint64),
        ("sample_shift", ctypes.c_uint64),
        ("zero_windows_sent", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
        ("used", ctypes.c_uint64),
        ("top", TopSlot * TOP_FLOWS),
    )


TOTALS = (
    ("counters", len(COUNTERS)),
    ("transitions", STATES * STATES),
    ("resets_after", STATES),
    ("reset_reasons", RESET_REASONS),
    ("suppressed", len(SUPPRESSED)),
)
"""Parts of struct totals, 8 octets each."""
TOTALS_WORDS = sum(words for _, words in TOTALS)

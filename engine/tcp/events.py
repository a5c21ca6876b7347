"""Detail events as JSON Lines: one object an event, and one at the end that says what was kept back and lost.

Times are RFC 3339 UTC with microseconds; unknown is null. `src` is this host's side, `dest` the peer's,
whoever began the connection (`role` says that). Schema: docs/schemas/tcp-event.json.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import orjson

from engine.tcp.community import community_id

if TYPE_CHECKING:
    from engine.tcp.backend import Event
    from engine.tcp.mask import Mask

UNITS = {
    "rtt_above": "us", "rtt_jump": "us", "rtt_p99": "us", "retransmit_burst": "segments/s", "rto": "timeouts",
    "tlp": "probes", "cwnd_drop": "segments", "pacing_zero": "octets/s", "zero_window": "bytes",
    "backlog_overflow": "drops", "reset": "resets", "reset_rate": "resets/s", "drop": "packets",
}  # fmt: skip
"""Trigger -> unit of its value and threshold."""


_OBEYED = re.compile(rb"\x7f|\xc2[\x80-\x9f]")
"""Controls that JSON may hold as they are and a terminal obeys: DEL, C1."""


def line(document: dict[str, Any]) -> bytes:
    """The JSON line of a document, with every control character escaped: names of processes are anybody's."""
    octets = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    return _OBEYED.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), octets)


def timestamp(wall_ns: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"


def document(event: Event, wall_ns: int, mask: Mask) -> dict[str, Any]:
    """The object of one event. wall_ns: its time since 1970."""
    one = event.connection
    flow = bool(one.remote_port)
    hidden = mask.hides_addresses or mask.hides_ports
    return {
        "timestamp": timestamp(wall_ns),
        "event_type": "tcp",
        "trigger": {
            "name": event.trigger,
            "value": event.value,
            "threshold": event.threshold,
            "unit": UNITS.get(event.trigger, ""),
        },
        "src_ip": mask.address(one.local) or None,
        "src_port": mask.port(one.local_port) if one.local_port else None,
        "dest_ip": mask.address(one.remote) or None if flow else None,
        "dest_port": mask.port(one.remote_port) if flow else None,
        "proto": "TCP",
        # A hash of the whole five-tuple could be tried out: it gives away what is masked.
        "community_id": (
            community_id(one.local, one.local_port, one.remote, one.remote_port)
            if flow and one.local and not hidden
            else None
        ),
        # A number that the kernel gave, as text; it says nothing of the addresses. Those that programs make
        # have bit 63.
        "socket_cookie": str(one.cookie) if one.cookie and not one.cookie >> 63 else None,
        "netns": one.netns or None,
        "cgroup": one.cgroup,
        "pid": one.pid,
        "comm": one.comm or None,
        "pid_source": one.pid_source,
        "role": one.role,
        "tcp_state": one.state or None,
        "srtt_us": one.srtt_us,
        "rttvar_us": one.rttvar_us,
        "rtt_sample_us": event.rtt_sample_us,
        "cwnd": one.cwnd,
        "ssthresh": one.ssthresh,
        "pacing_bps": None if one.pacing_bps is None else one.pacing_bps * 8,
        "in_flight": one.in_flight,
        "bytes_in_flight": one.bytes_in_flight,
        "retransmits": one.retransmits,
        "retrans_reason": event.retransmit_class or None,
        "drop_reason": event.drop_reason or None,
        "drop_function": event.drop_function or None,
        "reset_reason": event.reset_reason or None,
        "direction": event.direction or None,
        "queue": {
            "send_bytes": one.send_queue,
            "unsent_bytes": one.unsent_queue,
            "receive_bytes": one.receive_queue,
            "send_window": one.send_window,
            "receive_window": one.receive_window,
        },
    }


def end(wall_ns: int, emitted: int, suppressed: dict[str, int], lost: int) -> dict[str, Any]:
    """The last object of a stream: what was given out, what each stage kept back, what the ring lost."""
    return {
        "timestamp": timestamp(wall_ns),
        "event_type": "tcp_end",
        "emitted": emitted,
        "suppressed": dict(suppressed),
        "lost": lost,
    }

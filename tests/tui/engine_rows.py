"""What an engine could answer: rows of calls, streams and messages, tasks, windows of TCP; a frozen clock."""

from __future__ import annotations

from typing import Any

NOW_NS = 1_763_800_867_000_000_000
"""A frozen clock: 2025-11-22 08:41:07 UTC."""
SECOND = 1_000_000_000

INVITE = (
    "INVITE sip:bob@10.0.0.9 SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bK1\r\n"
    'From: "Alice [bold red]x[/]" <sip:alice@10.0.0.7>;tag=f1\r\n'
    "To: <sip:bob@10.0.0.9>\r\n"
    "Call-ID: call-0@10.0.0.7\r\n"
    "CSeq: 1 INVITE\r\n"
    "X-Evil: \x1b[31mred\x07 \u202eabc\r\n"
    "Content-Type: application/sdp\r\n"
    "Content-Length: 129\r\n"
    "\r\n"
    "v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 10.0.0.7\r\nt=0 0\r\nm=audio 40012 RTP/AVP 8\r\n"
    "a=rtpmap:8 PCMA/8000\r\n"
)
OK = (
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bK1\r\n"
    "From: <sip:alice@10.0.0.7>;tag=f1\r\n"
    "To: <sip:bob@10.0.0.9>;tag=t1\r\nCall-ID: call-0@10.0.0.7\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
)


def call_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the store of calls."""
    states = ("in_call", "completed", "rejected", "call_setup", "cancelled")
    state = states[number % 5]
    row = {
        "id": 1000 + number,
        "number": number + 1,
        "method": ("INVITE", "REGISTER", "OPTIONS")[0 if number % 7 else 1],
        "state": state,
        "from": f"alice{number}@example.com",
        "to": f"bob{number}@example.com",
        "from_user": f"alice{number}",
        "to_user": f"bob{number}",
        "call_id": f"call-{number}@10.0.0.7",
        "x_call_id": None,
        "src": "10.0.0.7:5060",
        "dst": "10.0.0.9:5060",
        "messages": 5 + number % 9,
        "start_ns": NOW_NS - (100_000 - number) * SECOND // 100,
        "last_ns": NOW_NS,
        "duration_s": 72.4 if state in ("in_call", "completed") else None,
        "total_s": 80.0,
        "setup_s": 0.412,
        "pdd_s": 0.41 if number % 3 else None,
        "code": 503 if state == "rejected" else 200,
        "reason": None,
        "transport": "udp",
        "streams": 2,
        "lost_pct": None if state == "call_setup" else (9.8 if number % 11 == 0 else 0.0),
        "mos": None,
        "evidence": 0,
        "malformed": 0,
    }
    return {**row, **changes}


def stream_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the store of streams."""
    row = {
        "id": 500 + number,
        "call_id": f"call-{number // 2}@10.0.0.7",
        "src": "10.0.0.7" if number % 2 == 0 else "10.0.0.9",
        "sport": 40012,
        "dst": "10.0.0.9" if number % 2 == 0 else "10.0.0.7",
        "dport": 40012,
        "ssrc": 0x1A2B3C00 + number,
        "codec": "PCMA",
        "payload_types": [8],
        "packets": 3612,
        "bytes": 620_000,
        "expected": 3614,
        "lost": 2,
        "lost_pct": 0.055,
        "out_of_order": 0,
        "duplicates": 0,
        "max_delta_ms": 41.2,
        "mean_jitter_ms": 1.25,
        "max_jitter_ms": 4.5,
        "jitter_ms": 1.1,
        "start_ns": NOW_NS - 72 * SECOND,
        "last_ns": NOW_NS,
        "duration_s": 72.2,
        "found_by": "sdp" if number % 5 else "heuristic",
        "active": True,
    }
    return {**row, **changes}


def message_row(index: int, **changes: Any) -> dict[str, Any]:
    """One of the five messages of a call."""
    a, b = "10.0.0.7:5060", "10.0.0.9:5060"
    script = (
        (0, a, b, "INVITE", None, None, "audio 40012 PCMA sendrecv"),
        (2, b, a, "INVITE", 100, "Trying", None),
        (413, b, a, "INVITE", 180, "Ringing", None),
        (1310, b, a, "INVITE", 200, "OK", "audio 40012 PCMA sendrecv"),
        (1312, a, b, "ACK", None, None, None),
    )
    ms, src, dst, method, status, reason, sdp = script[index % 5]
    row = {
        "index": index,
        "time_ns": NOW_NS - 73 * SECOND + ms * 1_000_000 + index // 5 * 2 * SECOND,
        "src": src,
        "dst": dst,
        "method": method,
        "status": status,
        "reason": reason,
        "cseq": 1,
        "sdp": sdp,
        "retransmission": False,
        "copies": 0,
        "error": None,
        "frame": None,
        "length": 500,
        "gone": False,
    }
    return {**row, **changes}


def task(**changes: Any) -> dict[str, Any]:
    """The section of a live task in a snapshot."""
    books = {
        "received": 1_240_000,
        "captured": 1_240_000,
        "output": 0,
        "reported": 0,
        "handled": 1_240_000,
        "in_flight": 0,
        "dropped": {
            "ring": {"drops": 0},
            "worker": {"malformed": 0},
            "buffer": {"send_ring": 0},
            "report": {"queue_full": 0},
        },
        "even": True,
        "difference": 0,
    }
    worker = {
        "index": 0,
        "pid": 4711,
        "state": "running",
        "restarts": 0,
        "heartbeat_age_s": 0.2,
        "cpu_s": 12.5,
        "counters": {"received": 1_240_000, "handled": 1_240_000, "malformed": 0},
        "send_ring": {"used": 0, "lost": 0},
        "cpu": 0,
        "evidence_ring": {"used": 10, "lost": 0},
        "latency_buckets": [],
    }
    capture = {
        "interface": "eth0",
        "ring_packets": 1_240_000,
        "ring_drops": 0,
        "ring_freezes": 0,
        "blocks_waiting": 1,
        "blocks_total": 64,
        "link": "up",
    }
    row = {
        "task_id": "live",
        "state": "running",
        "driver": "af_packet_v3",
        "interface": "eth0",
        "filter": "",
        "started_ns": NOW_NS - 764 * SECOND,
        "stopped_ns": None,
        "error": "",
        "capture": [capture],
        "workers": [worker, {**worker, "index": 1, "pid": 4712, "cpu": 1}],
        "reporters": [{"name": "file", "reported": 0, "queue": 0}],
        "books": books,
        "progress": None,
        "newest_packet_ns": NOW_NS,
        "ring": {
            "ring_mb": 16.0, "block_kb": 256, "blocks": 64, "retire_ms": 20, "snaplen": 262144,
            "promiscuous": True, "fanout_mode": "hash", "fanout_group": 4711, "cpus": [0, 1],
        },
        "lost_before": {"rx_dropped": 0, "rx_missed": 0, "rx_fifo": None, "softnet": 0},
    }  # fmt: skip
    return {**row, **changes}


def file_task(share: float = 1.0, **changes: Any) -> dict[str, Any]:
    """The section of a task that reads a file, `share` of it so far."""
    progress = {
        "path": "/captures/call.pcapng",
        "octets": int(1_000_000 * share),
        "size": 1_000_000,
        "packets": int(4_000 * share),
        "done": share >= 1,
        "warning": "",
    }
    state = "finished" if share >= 1 else "running"
    return task(
        task_id="file", driver="pcap", interface="/captures/call.pcapng", state=state, progress=progress,
        capture=[], **changes,
    )  # fmt: skip


def hist(*buckets: tuple[int, int]) -> dict[str, Any]:
    """A histogram of a summary."""
    count = sum(number for _, number in buckets)
    top = buckets[-1][0] if buckets else None
    middle = buckets[len(buckets) // 2][0] if buckets else None
    return {
        "count": count, "sum": sum(bound * number for bound, number in buckets), "p50": middle, "p90": top,
        "p99": top, "max": top, "buckets": [list(one) for one in buckets],
    }  # fmt: skip


def tcp_window(seconds: float, **changes: Any) -> dict[str, Any]:
    """What the screens read of a summary (docs/schemas/tcp-summary.json)."""
    classes = ("syn", "synack", "rto", "window_probe", "tlp", "fast", "slow_start", "other")
    again = {"rto": 21, "tlp": 50, "fast": 4}
    by_class = {name: {"events": again.get(name, 0), "segments": again.get(name, 0)} for name in classes}
    window = {
        "window_s": seconds,
        "rtt_us": hist((71, 812), (143, 1902), (287, 2960), (575, 400), (229375, 31)),
        "rttvar_us": hist((23, 500), (47, 2000), (95, 900)),
        "handshake_us": {"client": hist((287, 12)), "server": hist((319, 9)), "failed": 0, "unsampled": 0},
        "retransmits": {"events": 75, "segments": 75, "tlp_new_data": 3, "by_class": by_class},
        "throughput_bps": {"send": None, "receive": None, "send_total": 81.2e6, "receive_total": 1.2e6},
        "states": {
            "transitions": {},
            "dwell_us": {"SYN_SENT": hist((1_048_575, 2)), "CLOSE_WAIT": hist((412_000_000, 31))},
        },
        "zero_window": {
            "received": {"episodes": 1, "seconds": 0.2}, "sent": {"episodes": 0, "seconds": 0.0},
        },
        "listen": [
            {"port": 443, "backlog": 12, "limit": 128, "syn_drops": 0, "accept_drops": 3, "drops": 3,
             "address": "0.0.0.0", "netns": 4026531840, "open": True, "sockets": 1, "fullest": 0.0938},
            {"port": 9091, "backlog": 0, "limit": 100, "syn_drops": 0, "accept_drops": 0, "drops": 0,
             "address": "127.0.0.1", "netns": 4026531840, "open": True, "sockets": 1, "fullest": 0.0},
        ],
        "resets": {"sent": 2, "received": 1, "by_reason": {}},
        "drops": {
            "total": 31, "by_reason": {"NO_SOCKET": 30, "SUBSYSTEM_9_1": 1},
            "by_function": {"tcp_v4_rcv": 30, "somewhere": 1}, "benign": {"TCP_OLD_ACK": 4},
        },
        "tables": {"sockets_evicted": 0, "closed_lost": None, "runs_missed": 0},
    }  # fmt: skip
    return {**window, **changes}


def tcp_section(**changes: Any) -> dict[str, Any]:
    """The observer while it runs."""
    lengths = {"1": 1, "10": 10, "60": 60, "run": 764}
    section = {
        "state": "running", "error": "", "hint": "", "restarts": 0, "backend": "libbpf", "netns": 4026531840,
        "notes": [], "off": {},
        "windows": {name: tcp_window(float(length)) for name, length in lengths.items()},
        "drop_places": {
            "60": [["NO_SOCKET", "tcp_v4_rcv", 30]],
            "run": [["NO_SOCKET", "tcp_v4_rcv", 30], ["SUBSYSTEM_9_1", "somewhere", 1]],
        },
        "connections": 1237, "states": {"ESTABLISHED": 1204, "CLOSE_WAIT": 31, "SYN_SENT": 2},
        "sampling": {}, "owners_hidden": 0, "events": {"newest": 1, "held": 1, "file_lost": 0}, "version": 1,
    }  # fmt: skip
    return {**section, **changes}


def tcp_row(number: int, **changes: Any) -> dict[str, Any]:
    """A connection as `tcp_connections` gives it."""
    slow = number == 3
    row = {
        "id": str(9000 + number), "state": "SYN_SENT" if number % 17 == 5 else "ESTABLISHED",
        "local": "10.0.0.7", "remote": f"203.0.113.{number % 200 + 1}", "role": "server", "comm": "nginx",
        "pid_source": "proc", "local_port": 443, "remote_port": 50_000 + number, "interface": 0,
        "netns": 4026531840, "srtt_us": 212_000 if slow else 400 + number,
        "rttvar_us": 41_000 if slow else 90, "cwnd": 4 if slow else 10, "ssthresh": None,
        "pacing_bps": 12_000_000, "in_flight": 2, "bytes_in_flight": 2896,
        "send_queue": 412_000 if slow else 0, "unsent_queue": 0, "receive_queue": 0,
        "bytes_acked": 10_000, "bytes_received": 2_000, "retransmits": 31 if slow else 0, "rto_us": 204_000,
        "send_window": 65_536, "receive_window": 64_512, "uid": 33, "inode": 7, "pid": 812 + number % 2,
        "cgroup": 1, "send_bps": 1_200_000.0 - number * 1000, "receive_bps": 12_000.0,
        "retransmits_new": 2 if slow else 0,
    }  # fmt: skip
    return {**row, **changes}


def tcp_event(**changes: Any) -> dict[str, Any]:
    """A detail event of the slow connection."""
    event = {
        "sequence": 1, "timestamp": "2025-11-22T08:41:02.125000Z", "event_type": "tcp",
        "trigger": {"name": "rto", "value": 3, "threshold": None, "unit": "timeouts"},
        "srtt_us": 212_000, "cwnd": 4, "retrans_reason": "rto", "reset_reason": None, "drop_reason": None,
        "drop_function": None,
    }  # fmt: skip
    return {**event, **changes}


def tcp_listener(port: int, **changes: Any) -> dict[str, Any]:
    """A listening socket of a summary."""
    row = {
        "local": "0.0.0.0", "port": port, "netns": 4026531840, "backlog": 12, "limit": 128, "drops": 3,
        "syn_drops": 0, "accept_drops": 3, "pid": 812, "comm": "nginx",
    }  # fmt: skip
    return {**row, **changes}

"""The methods of the control socket: one table for the server, the clients, the help and the docs.

JSON-RPC 2.0, one object a line, UTF-8, at most MAX_LINE octets. `jsonrpc` may be absent and ids may be
strings or numbers. Standard error codes (-32700 parse, -32600 request, -32601 method, -32602
params, -32603 internal) and ours below; `error.data` is {"hint": str}, for a fault in a filter also
"position": its character from 0. The engine sends one notification: `snapshot` (params: a Snapshot).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import OtusError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = 1
"""Version of this protocol; `hello` answers it, another version is refused by the client."""
MAX_LINE = 1_048_576

ERROR_REFUSED = -32000
"""The engine can do it, but not now: another task is active, no such task, no such call."""
ERROR_NOT_PERMITTED = -32001
"""A right to capture is missing, or the caller may not use this engine."""
ERROR_INVALID = -32002
"""The configuration or the query is wrong; the message names the place."""


PARSE, REQUEST, METHOD, PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
"""The standard codes."""


class RpcError(OtusError):
    """An error with its JSON-RPC code; `data` goes into `error.data` beside the hint."""

    def __init__(
        self, rpc_code: int, message: str, hint: str = "", data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint)
        self.rpc_code = rpc_code
        self.data = dict(data or {})


class Method(NamedTuple):
    """One method."""

    writes: bool
    params: str
    result: str
    about: str


METHODS = {
    "hello": Method(
        False,
        "{protocol?}",
        "{protocol, version, pid, node, started, mode}",
        "Who answers. started: ns since 1970. mode: live, file or idle.",
    ),
    "status": Method(
        False, "{}", "{version, pid, node, uptime_s, mode, tasks: [TASK], compiled}", "The daemon in short."
    ),
    "stats": Method(False, "{}", "Snapshot with every section", "All figures once."),
    "create_task": Method(
        True, "{config: {...} | text: str, name?: str}", "{task_id, state}", "Validate, build and run a task."
    ),
    "stop_task": Method(
        True,
        "{task_id}",
        "{task_id, state, already, books}",
        "Stop, flush and clean up. already: it had ended before.",
    ),
    "set_filter": Method(
        True,
        "{task_id, filter?: str | {...}}",
        "{task_id, filter}",
        "Another capture filter for the live task that runs, on the same rings: an expression in tcpdump's "
        "syntax (empty: everything) or the keys of a task file's `filter`. When it is answered, no packet is "
        "used any more that the new filter leaves out; of those that the rings held, these are `filtered` in "
        "the books. A filter that cannot be is refused, and the old one stays.",
    ),
    "list_tasks": Method(False, "{}", "{tasks: [TASK]}", "Active and finished tasks, newest first."),
    "task_status": Method(
        False,
        "{task_id}",
        "TASK & TaskSection & {config}",
        "One task; `config` is what `create_task` takes, without defaults. "
        "Of one that made room for another: TASK & {books}.",
    ),
    "subscribe": Method(
        False,
        "{sections?: [str], hz?: number}",
        "{sections, hz}",
        "Send `snapshot` notifications on this connection, twice a second or hz times, at most 10; with "
        "every section or those named (engine.snapshot).",
    ),
    "unsubscribe": Method(False, "{}", "{}", "No more notifications on this connection."),
    "query": Method(
        False,
        "{store: calls|streams, task?, filter?: str, sort?: column, descending?: bool, anchor?: id, "
        "offset?: int, count?: int, ids?: [id]}",
        "{total, matched, offset, version, rows: [ROW]}",
        "A window of a store: 100 rows or count, at most 1000, fewer where the line would be too long. With "
        "anchor it begins `offset` rows from that row (which may be negative). With ids the rows are those, "
        "in that order, matching or not, whatever count says; those that are gone are left out. Rows "
        "of streams have the keys of STREAM_DETAIL then, too.",
    ),
    "call": Method(
        False,
        "{task?, id, from?: int, count?: int}",
        "{call: ROW, hosts: [str], messages: [MESSAGE], more: bool, streams: [ROW], media: [SDP]}",
        "One call: its ladder, without bodies. 500 messages or count, at most 1000; hosts are those of all. "
        "SDP is {index, src, sdp}.",
    ),
    "message": Method(
        False,
        "{task?, id, index?: int}",
        "{index, raw, raw_base64, error, gone}",
        "One message as it was on the wire. raw: as text, octets that are no UTF-8 as \\xNN, a very long one "
        "cut. raw_base64: its octets, where raw is not just these; else null. Both are null when gone.",
    ),
    "clear": Method(
        True,
        "{store: calls|streams, task?, keep?: [id], keep_filter?: str}",
        "{removed}",
        "Forget the rows of a store but those named and those that match the filter.",
    ),
    "tcp_connections": Method(
        False,
        "{filter?: str, sort?: column, descending?: bool, anchor?: id, offset?: int, count?: int, "
        "ids?: [id]}",
        "{total, matched, offset, version, rows: [engine.tcp.rows.CONNECTION_ROW]}",
        "A window of the TCP connections of the last look, as `query` of a store. Starts the observer.",
    ),
    "tcp_connection": Method(
        False,
        "{id}",
        "{row, history: {field: [value]}, events: [EVENT]}",
        "One connection: its row, its last looks (engine.tcp.history.FIELDS) and the last 100 of its events.",
    ),
    "tcp_groups": Method(
        False,
        "{by?: process|peer|local_port|remote_port|netns|cgroup|state|role, filter?: str}",
        "{total, version, rows: [engine.tcp.rows.GROUP_ROW]}",
        "Sums over the connections that pass the filter.",
    ),
    "tcp_listeners": Method(
        False, "{}", "{total, rows: [engine.tcp.rows.LISTENER_ROW]}", "Listening sockets, the worst first."
    ),
    "tcp_events": Method(
        False,
        "{after?: sequence, count?: int}",
        "{newest, lost, events: [{sequence, ...EVENT}]}",
        "Detail events after a sequence number, oldest first; lost: how many of them made room.",
    ),
    "tcp_history": Method(
        False,
        "{count?: int}",
        "{interval, points: [{time_ns, seconds, rtt_buckets: [[power, count]], ...}]}",
        "The last reports, at most 600: RTT by powers of two of us, retransmits by class, rates, drops.",
    ),
    "tcp_retry": Method(
        False,
        "{}",
        "{state, error, hint}",
        "Start an observer that could not start once more, now; without this after 10, 20, then each 60 s.",
    ),
    "shutdown": Method(True, "{}", "{}", "Stop all tasks and end the engine."),
}

TASK = (
    "{task_id, state, driver, interface, workers, started, stopped, error, file, link, calls_restarts, "
    "lost_calls, calls_restarted}"
)
"""One task in short; in `task_status` the keys of TaskSection (engine.snapshot) win. interface and file are
null where there is none. link: down or gone while the interface is, else null. lost_calls: those that a
killed calls process took along, calls_restarted: when it was replaced last, ns since 1970. state: creating,
running, stopping, stopped, failed, finished (a file was read to its end). `task` in params is an id; without
it the task that runs, else the last one, is meant."""

CALL_ROW = (
    "id",  # stable while the call is in the store
    "number",  # sngrep's index: order of arrival, from 1
    "method",
    "state",
    "from",
    "to",
    "from_user",
    "to_user",
    "call_id",
    "x_call_id",
    "src",  # address:port of the first message
    "dst",
    "messages",
    "start_ns",
    "last_ns",
    "duration_s",  # INVITE answered until ended or now; None before
    "total_s",
    "setup_s",  # INVITE until 200
    "pdd_s",  # INVITE until the first 18x
    "code",  # last final code, None before
    "reason",  # Reason header or reason phrase of the end
    "transport",
    "streams",  # number of media streams
    "lost_pct",  # worst stream; None where unknown
    "mos",  # worst stream; None where unknown
    "evidence",  # SIP quoted in ICMP errors: how many
    "malformed",  # messages with an error
)
"""Keys of a row of the calls store; unknown is null. Times are ns since 1970."""

STREAM_ROW = (
    "id",
    "call_id",
    "src",
    "sport",
    "dst",
    "dport",
    "ssrc",
    "codec",
    "payload_types",
    "packets",
    "bytes",
    "expected",
    "lost",
    "lost_pct",
    "out_of_order",
    "duplicates",
    "max_delta_ms",
    "mean_jitter_ms",
    "max_jitter_ms",
    "jitter_ms",
    "start_ns",
    "last_ns",
    "duration_s",
    "found_by",
    "active",
    "silent_for_s",  # since its newest packet: until now, or until its call was over
    "mos",  # E-model, mean of its intervals; unknown codecs have none
    "mos_now",
    "mos_min",
    "delay_ms",  # one way, of RTCP from both ends
    "late",
    "burst_count",
    "burst_lost",
    "burst_density_pct",
    "burst_ms",
    "gap_lost",
    "gap_density_pct",
    "gap_ms",
    "longest_loss",
    "mean_delta_ms",
    "skew_ppm",
    "clock_jumps",
    "pauses",
    "paused_s",
    "longest_pause_s",
    "longest_pause_ns",
    "silence_s",
    "talk_spurts",
    "comfort_noise",
    "markers",
    "resets",
    "type_changes",
    "codec_changes",
    "ssrc_changes",
    "previous_ssrc",
    "dscp",
    "dscp_first",
    "dscp_changes",
    "dtmf_count",
    "digits",
    "rtcp",
    "far",
    "sender",
    "xr",
    "tunnel",  # None, or type and number of the innermost one, such as "vxlan 77"
)
"""Keys of a row of the streams store (docs/fields.md); unknown is null. far: what the receiver of the stream
reported by RTCP, STREAM_FAR; sender: what its sender did, STREAM_SENDER; xr: the receiver's VoIP metrics,
STREAM_XR. None of these is a figure of this engine. In a filter their keys have a dot: far.lost_pct > 1."""

STREAM_DETAIL = ("dtmf", "loss_runs", "intervals")
"""More keys of the streams of one call, and of `query` with ids: telephone events, runs of 1 to 9 and more
losses, intervals with their MOS; null where the stream has left the table."""

_TRIPS = ("rtt_ms", "rtt_min_ms", "rtt_mean_ms", "rtt_max_ms")
STREAM_FAR = (
    "reports", "ssrc", "last_ns", "lost", "lost_pct", "max_lost_pct", "highest_sequence", "jitter_ms",
    "max_jitter_ms", *_TRIPS,
)  # fmt: skip
"""Report blocks; lost_pct of the newest interval, round trips from here to the receiver and back."""
STREAM_SENDER = (
    "reports", "receiver_reports", "packets", "bytes", "last_ns", "cname", "bye_ns", "apps", "app", *_TRIPS,
)  # fmt: skip
"""Sender reports and what came with them; round trips from here to the sender and back."""
STREAM_XR = (
    "reports", "last_ns", "lost_pct", "discarded_pct", "burst_density_pct", "gap_density_pct", "burst_ms",
    "gap_ms", "rtt_ms", "end_delay_ms", "signal_dbm", "noise_dbm", "echo_db", "gmin", "r", "external_r",
    "mos_lq", "mos_cq", "buffer_ms", "buffer_max_ms", "buffer_limit_ms", "buffer_adaptive", "concealment",
)  # fmt: skip
"""RFC 3611 section 4.7."""

MESSAGE_ROW = (
    "index",
    "time_ns",
    "src",  # address:port
    "dst",
    "method",  # of a request; of a response the method of its CSeq
    "status",  # None for a request
    "reason",  # reason phrase
    "cseq",
    "sdp",  # None, or a summary such as "audio 40012 PCMA PCMU sendrecv"
    "retransmission",
    "copies",  # how often the same packet came on other interfaces within 1 ms
    "error",  # None or what is malformed
    "frame",  # frame number in a file, else None
    "length",
    "gone",  # the octets had to make room
    "tunnel",  # None, or the innermost one it came in: type, outer_src_ip, outer_dst_ip, vni
)
"""Keys of a message of the `call` answer."""

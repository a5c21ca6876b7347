"""The Snapshot: what the engine measures, read once, immutable, in sections.

The controller makes one at most 10 times a second from shared memory and from its children; the
screens, `stats`, metrics and the heartbeat are views of it. Counters are cumulative (the reader
subtracts two snapshots), unknown is None, times are ns since 1970.
"""

from __future__ import annotations

from typing import Any, TypedDict

SECTIONS = ("engine", "tasks", "sip", "media", "tcp", "findings")


class EngineSection(TypedDict):
    """The process itself."""

    version: str
    pid: int
    node: str
    mode: str
    started_ns: int
    uptime_s: float
    compiled: bool
    cpu_s: float
    memory_bytes: int | None
    """Of all its processes, what they share counted once (PSS); None where the kernel does not say."""
    clients: int


class CaptureFigures(TypedDict):
    """What the kernel says of one ring; None where the driver has no such figure."""

    interface: str
    ring_packets: int | None
    ring_drops: int | None
    ring_freezes: int | None
    blocks_waiting: int | None
    blocks_total: int | None
    link: str
    """up, down, gone or file."""


class RingFacts(TypedDict):
    """The rings of a live task as the kernel granted them, and how packets are spread over them."""

    ring_mb: float
    """Of one worker."""
    block_kb: int
    blocks: int
    retire_ms: int
    snaplen: int
    promiscuous: bool
    fanout_mode: str
    fanout_group: int | None
    """None: a single ring outside of any group."""
    cpus: list[int]
    """The CPU of each worker; empty where they are not bound."""


class WorkerFigures(TypedDict):
    """One worker."""

    index: int
    pid: int | None
    state: str
    restarts: int
    heartbeat_age_s: float | None
    cpu: int | None
    """The CPU that it is bound to."""
    cpu_s: float
    counters: dict[str, int]
    send_ring: dict[str, int] | None
    evidence_ring: dict[str, int] | None
    latency_buckets: list[int]


class Books(TypedDict):
    """The ledger of a task: captured = reported + handled + every drop; `difference` says what is off."""

    received: int
    """Delivered to workers."""
    captured: int | None
    """Received plus what ring and interface lost; None where the driver does not know."""
    output: int
    reported: int
    handled: int
    in_flight: int
    """Written to a send ring or a reporter's queue and not yet out; or a fragment that waits for the rest."""
    dropped: dict[str, dict[str, int]]
    """Layer -> name -> packets; the screens show layer sums. ring, worker, buffer, report: lost there.
    left_out: not reported on purpose (unmatched, filtered, second copies, fragments merged into a packet)."""
    partly: dict[str, int]
    """Reporter -> packets that it lost although another one took them (or still may). They are part of
    `reported` (or `in_flight`), not of `dropped`; with a single reporter there are none."""
    even: bool
    difference: int


class SendBufferFigures(TypedDict):
    """What stands between workers and reporters."""

    usage: float
    """How full the fullest of the send rings and reporters' queues is: 0 to 1."""
    high_watermark: float
    low_watermark: float
    sampling: bool
    """Whether the node asks for sampling."""
    sample_rate: float
    """The share of media conversations that is reported now; 1 without sampling."""


class RuleFigures(TypedDict):
    """A rule of the processors."""

    rule: str
    packets: int
    """That it decided, to drop or to pass."""


class LoadProgress(TypedDict):
    """How far a capture file is read."""

    path: str
    octets: int
    size: int | None
    packets: int
    done: bool
    warning: str


class TaskSection(TypedDict):
    """One task."""

    task_id: str
    state: str
    driver: str
    interface: str
    filter: str
    started_ns: int
    stopped_ns: int | None
    error: str
    capture: list[CaptureFigures]
    workers: list[WorkerFigures]
    reporters: list[dict[str, Any]]
    books: Books
    send_buffer: SendBufferFigures | None
    """None where nothing is reported."""
    plugins: list[dict[str, str]]
    """{type, name} of each that the task runs."""
    rules: list[RuleFigures]
    """Of all filters in their order, then of other processors that drop."""
    progress: LoadProgress | None
    newest_packet_ns: int | None
    ring: RingFacts | None
    lost_before: dict[str, int | None]
    """Lost before any ring since the task began, beside the books: rx_dropped, rx_missed and rx_fifo of the
    interface, softnet of the whole host; None where unknown."""
    troubles: list[str]
    """Processes of the task that die again and again, and how often they are started."""


class SipSection(TypedDict):
    """The calls process."""

    calls: int
    active: int
    by_state: dict[str, int]
    messages: int
    retransmissions: int
    malformed: int
    requests: dict[str, int]
    responses: dict[str, int]
    removed: int
    """Calls that had to make room."""
    lost: int
    """Evidence records that the calls process was too slow for."""
    held_bytes: int
    restarts: int
    lost_calls: int | None
    """Calls that a killed calls process took along; None if none was killed."""
    restarted_ns: int | None
    """When it was replaced last."""
    version: int


class MediaSection(TypedDict):
    """The media streams."""

    streams: int
    active: int
    packets: int
    lost: int
    one_way: int | None
    """Calls whose media goes one way only (engine.calls.one_way); None where no call can be judged."""
    version: int


class TcpSection(TypedDict, total=False):
    """The TCP observer: the first four keys always, the others while it runs (docs/tcp.md)."""

    state: str
    """off (nobody has looked yet), starting, running, restarting, stopping, stopped or failed."""
    error: str
    """Why it failed, in a line; `hint` is the line that mends it."""
    hint: str
    restarts: int
    backend: str
    netns: int | str
    notes: list[str]
    """Why better backends do not run."""
    off: dict[str, str]
    """Metric -> why it is not measured."""
    windows: dict[str, dict[str, Any]]
    """1, 10, 60 (seconds) and run: objects as of docs/schemas/tcp-summary.json."""
    drop_places: dict[str, list[list[Any]]]
    """60 and run: [reason, kernel function, packets] of what the kernel dropped, the most frequent first."""
    connections: int
    states: dict[str, int]
    """State -> connections now."""
    owners_hidden: int
    """Processes whose sockets may not be seen."""
    sampling: dict[str, Any]
    events: dict[str, int]
    """newest: sequence number of the newest; held; file_lost: lines that the file did not take."""
    version: int
    """Rises with each look."""


class Snapshot(TypedDict, total=False):
    """All sections; a subscriber gets those it named, `sequence` and `time_ns` always."""

    sequence: int
    time_ns: int
    engine: EngineSection
    tasks: list[TaskSection]
    sip: SipSection | None
    media: MediaSection | None
    tcp: TcpSection | None
    findings: list[dict[str, Any]] | None

"""What every backend of the observer (libbpf, bcc, netlink) gives: one cumulative reading, samples, events.

A backend counts; it knows nothing of windows, thresholds on screens or output. Everything in a `Reading` only
grows from the start of the backend, so that a window is the difference of two readings and no reset races
with the kernel. What a backend cannot measure is absent from its reading and stands in `Backend.off` with the
reason: absent is unknown, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network


class BeyondBackendError(UsageError):
    """This backend cannot do what was asked; another one can."""


METRICS = (
    "rtt", "rttvar", "handshake_client", "handshake_server", "retransmits", "tlp_new_data", "throughput",
    "cwnd", "ssthresh", "pacing", "send_queue", "unsent_queue", "receive_queue", "transitions", "dwell",
    "zero_window_received", "zero_window_sent", "listen", "resets", "reset_reasons", "drops", "drop_reasons",
    "events", "process", "cgroup",
)  # fmt: skip
"""What can be off by itself; the keys of `Backend.off`."""

RETRANSMIT_CLASSES = ("syn", "synack", "rto", "window_probe", "tlp", "fast", "slow_start", "other")

STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
    "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "RESET",
)  # fmt: skip
"""By the kernel's number (include/net/tcp_states.h); RESET is ours: closed by a reset, sent or received."""

HISTOGRAMS = (
    "rtt_us", "rttvar_us", "handshake_client_us", "handshake_server_us", "cwnd", "ssthresh", "pacing_bps",
    "send_queue_bytes", "unsent_queue_bytes", "receive_queue_bytes", "retransmits_per_connection",
    "tlp_per_connection",
)  # fmt: skip
"""Histograms of a reading; `dwell_us` of each state stands beside them in `Reading.dwell`."""

COUNTERS = (
    "rtt_samples", "handshake_client_failed", "handshake_server_unsampled",
    *(f"retransmit_{name}_{unit}" for name in RETRANSMIT_CLASSES for unit in ("events", "segments")),
    "retransmit_events", "retransmit_segments", "tlp_new_data", "send_bytes", "receive_bytes",
    "zero_window_received", "zero_window_received_ns", "zero_window_sent", "zero_window_sent_ns",
    "resets_sent", "resets_received", "drops", "drops_benign", "events_emitted", "events_lost",
    "sockets_evicted", "closed_lost", "runs_missed",
    "listen_drops", "listen_syn_drops", "listen_accept_drops",
)  # fmt: skip
"""Counters of a reading; sockets_evicted are those that there was no room to follow, closed_lost connections
that ended and were not told (at least so many: inet_diag does not say how many messages were lost),
runs_missed runs of programs that the kernel left out because the program ran on that CPU already. Those
of events that a stage kept back stand in `Reading.suppressed`. send_bytes and
receive_bytes are the observer's: it adds up connections() and closed(). retransmit_events and
retransmit_segments are only there where the total is known without the classes; else the observer adds the
classes up."""


@dataclass(slots=True)
class Histogram:
    """Counts per bucket of engine.tcp.histogram's log-linear scale, with their sum and largest value."""

    buckets: list[int]
    total: int = 0
    """Sum of all values, in the histogram's unit."""
    largest: int = 0
    """Since the start."""


MOST_NETWORKS = 32
"""Prefixes of each side: the programs walk them for each event."""
MOST_TOP_FLOWS, MOST_LAST = 64, 16
FEWEST_SUB_BITS, MOST_SUB_BITS = 2, 6
"""Bounds of Limits and Sizes that every backend has room for."""


@dataclass(slots=True)
class Reading:
    """All that was counted since the backend started; names as in COUNTERS and HISTOGRAMS."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    counters: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    transitions: dict[tuple[str, str], int] = field(default_factory=dict)
    dwell: dict[str, Histogram] = field(default_factory=dict)
    """State -> time in it, microseconds; only of states whose begin was seen."""
    resets: dict[str, int] = field(default_factory=dict)
    """By reason (the kernel's enum sk_rst_reason, from BTF); empty where reset_reasons is off."""
    drops: dict[tuple[str, str], int] = field(default_factory=dict)
    """(reason, kernel function) -> packets."""
    benign: dict[str, int] = field(default_factory=dict)
    """Reasons that are normal life (old data, window probes to a closed window) -> packets."""
    suppressed: dict[str, int] = field(default_factory=dict)
    """Stage (sample, flow, first, rate) -> events."""
    kernel: dict[str, int] = field(default_factory=dict)
    """The observer's: the kernel's own counters of the namespaces watched, by the names of `nstat`."""
    listen_drops: dict[tuple[int, str, int], tuple[int, int, int]] = field(default_factory=dict)
    """The observer's: (netns, address, port) -> drops, those known to be of SYNs, those known to be for want
    of room to accept (engine.tcp.listen.parts)."""


@dataclass(slots=True)
class Connection:
    """One TCP socket at one moment; None is unknown. Times in us, rates in octets a second."""

    cookie: int
    """Names the socket while it lives (kernel's socket cookie)."""
    state: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    interface: int = 0
    netns: int = 0
    srtt_us: int | None = None
    rttvar_us: int | None = None
    cwnd: int | None = None
    ssthresh: int | None = None
    pacing_bps: int | None = None
    """Octets a second; None also for unlimited."""
    in_flight: int | None = None
    bytes_in_flight: int | None = None
    send_queue: int | None = None
    unsent_queue: int | None = None
    receive_queue: int | None = None
    bytes_acked: int | None = None
    """Since the connection began, as `ss -i` prints it."""
    bytes_received: int | None = None
    retransmits: int | None = None
    """Segments, since the connection began."""
    tlp: int | None = None
    """Tail loss probes, those with new data too, since the observer began."""
    rto_us: int | None = None
    send_window: int | None = None
    receive_window: int | None = None
    uid: int | None = None
    inode: int | None = None
    pid: int | None = None
    comm: str = ""
    pid_source: str = "unknown"
    """connect, listen, io, proc or unknown."""
    role: str = "unknown"
    """client, server or unknown."""
    cgroup: int | None = None


@dataclass(slots=True)
class Listener:
    """One listening socket: its accept queue and what it dropped since it was opened (engine.tcp.listen tells
    that apart)."""

    local: str
    port: int
    backlog: int
    limit: int
    drops: int | None
    """sk_drops: SYNs and final ACKs turned away, as in `ss -ltm`."""
    netns: int = 0
    cookie: int = 0
    """Names the socket while it lives."""
    closed: bool = False
    told: int = 0
    """Of its drops, those of which the kernel's programs have told: final ACKs that found no room."""
    sockets: int = 1
    """So many of one address (SO_REUSEPORT) stand here for all: backlog, limit and drops are their sums."""
    fullest: float = 0.0
    """The fullest of their accept queues, as a share of its limit."""
    inode: int | None = None
    pid: int | None = None
    comm: str = ""
    pid_source: str = "unknown"


@dataclass(slots=True)
class Closed:
    """A connection that ended between two readings, with its last totals."""

    cookie: int
    bytes_acked: int
    bytes_received: int
    retransmits: int | None = None


@dataclass(slots=True)
class Event:
    """One detail event as the backend saw it; engine.tcp.events makes the JSON line of it."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    trigger: str
    """rtt_above, rtt_jump, rtt_p99, retransmit_burst, rto, tlp, cwnd_drop, pacing_zero, zero_window,
    backlog_overflow, reset, reset_rate, drop."""
    value: int
    threshold: int | None
    connection: Connection
    rtt_sample_us: int | None = None
    retransmit_class: str = ""
    drop_reason: str = ""
    drop_function: str = ""
    reset_reason: str = ""
    direction: str = ""
    """Of a window that closed or of a reset: sent or received."""


@dataclass(slots=True, frozen=True)
class Namespace:
    """A network namespace that can be entered."""

    inode: int
    path: str
    """Such as /proc/self/ns/net, /run/netns/NAME or /proc/PID/ns/net."""
    name: str = ""
    held: object = field(default=None, compare=False, repr=False)
    """What keeps it there as long as it is watched, whatever becomes of its name (engine.tcp.namespaces)."""


@dataclass(slots=True)
class Filters:
    """Which sockets count; empty means all. Addresses of either family, mapped IPv4 is IPv4."""

    interface: str = ""
    local_ports: Sequence[tuple[int, int]] = ()
    """Ranges, both ends inside."""
    remote_ports: Sequence[tuple[int, int]] = ()
    local_networks: Sequence[IPv4Network | IPv6Network] = ()
    remote_networks: Sequence[IPv4Network | IPv6Network] = ()
    pids: Sequence[int] = ()
    cgroup: int = 0
    """Inode of a cgroup v2 directory; its descendants count too. 0: all."""
    netns: int = 0
    """Inode of the network namespace; 0: all of the host."""
    namespaces: Sequence[Namespace] = ()
    """The namespaces that iter and inet_diag visit (engine.tcp.namespaces enters them); empty: the own one.
    With netns 0 they are all that were found, and the observer gives a new list when one comes or goes."""


@dataclass(slots=True)
class Triggers:
    """When a detail event is made; None: that trigger is off. Times in us."""

    rtt_above_us: int | None = None
    rtt_jump: float | None = None
    """Times the connection's own smoothed RTT."""
    rtt_p99: bool = False
    """Above the p99 of the last window; the observer tells the backend by `set_rtt_p99()`."""
    retransmit_burst: int | None = None
    """Segments within a second on one connection."""
    rto: bool = True
    tlp: bool = True
    cwnd_halved_s: float | None = None
    """cwnd at half or less of its largest of the last so many seconds."""
    pacing_zero: bool = True
    zero_window: bool = True
    backlog_overflow: bool = True
    resets: bool = False
    reset_rate: int | None = None
    """Resets a second."""
    drops: bool = False

    @classmethod
    def none(cls) -> Triggers:
        """All off."""
        return cls(rto=False, tlp=False, pacing_zero=False, zero_window=False, backlog_overflow=False)


@dataclass(slots=True)
class Limits:
    """How many events leave the kernel, in the order of the stages."""

    sample: int = 1
    """One of so many flows."""
    top_flows: int = 0
    """Only the so many flows with most triggers; 0: all."""
    first: int = 0
    """Of each flow only the first so many; 0: all."""
    last: int = 0
    """And the last so many, when the connection ends."""
    per_second: int = 200


@dataclass(slots=True)
class Sizes:
    """Entries of the maps and detail of the histograms; what they take is printed."""

    sockets: int = 16_384
    ring_bytes: int = 262_144
    stacks: int = 1_024
    sub_bits: int = 3
    """Log-linear: 2 ** sub_bits buckets for each power of two, so a quantile is off by at most 1 / 2 **
    sub_bits."""


@dataclass(slots=True)
class Program:
    """One program that is loaded, or why it is not."""

    name: str
    hook: str
    """Such as tp_btf/tcp_probe or iter/tcp."""
    metrics: Sequence[str]
    on: bool
    why: str = ""
    """Why it is off: in words, with the kernel feature that it wants."""


@dataclass(slots=True)
class Map:
    """One map; `octets` is what it takes in the kernel, all CPUs together."""

    name: str
    kind: str
    entries: int
    octets: int


@dataclass(slots=True)
class Plan:
    """What start() would load; made without root and without loading."""

    programs: list[Program]
    maps: list[Map]
    source: str
    """The C text with the constants in effect; empty where there is none."""


@dataclass(slots=True)
class Cost:
    """What one program took since count_costs(), from bpf_stats."""

    program: str
    runs: int
    ns: int
    missed: int = 0
    """Runs that the kernel left out, because the program ran already on this CPU (Linux 5.12)."""


class Backend(Protocol):
    """A source of readings; constructed with Filters, Triggers, Limits and Sizes, then start() ... stop()."""

    name: str
    """libbpf, bcc or netlink."""

    @property
    def off(self) -> Mapping[str, str]:
        """Metric of METRICS -> why it is not measured, in words for people; complete after start().

        A key may name a part of a metric after a dot (retransmits.synack): the rest of it is measured.
        """

    def plan(self) -> Plan:
        """What start() would load; may be called without start()."""

    def start(self) -> None:
        """Load and attach. NotPermittedError: what is missing; OtusError: why not."""

    def read(self) -> Reading:
        """The counters and histograms of now."""

    def connections(self) -> list[Connection]:
        """All sockets that pass the filters, listening ones left out.

        Each call is one sample: it adds one value for each socket to the histograms of cwnd, ssthresh, pacing
        and the queues. The observer decides how often.
        """

    def listeners(self) -> list[Listener]:
        """The listening sockets that pass the filters."""

    def closed_listeners(self) -> list[Listener]:
        """Listening sockets that ended since the last call, with their last counts; none where only looks
        tell."""

    def closed(self) -> list[Closed]:
        """Connections that ended since the last call."""

    def events(self) -> list[Event]:
        """Detail events since the last call, in time order; each was counted as emitted."""

    def offer(self, event: Event) -> None:
        """An event that the observer has found: it takes the same stages and comes with the next events()."""

    def event_fd(self) -> int:
        """Readable when events() has something; -1 where there are none."""

    def set_rtt_p99(self, value_us: int) -> None:
        """The p99 of the last window, for Triggers.rtt_p99."""

    def set_namespaces(self, namespaces: Sequence[Namespace]) -> None:
        """The list of Filters.namespaces has changed."""

    def set_sampling(self, one_of: int) -> None:
        """Programs that run for each segment look at one of so many flows from now on; 1: at all.

        Counters of rarer events (retransmits, resets, drops, states) stay exact. A value that the kernel side
        cannot do is rounded up to the next power of two by the caller.
        """

    def count_costs(self) -> None:
        """Have costs() measured from now on (bpf_stats: costs some ns a run itself)."""

    def costs(self) -> list[Cost]:
        """Cumulative; empty before count_costs() and where no program runs in the kernel."""

    def stop(self) -> None:
        """Detach and unload; a second call does nothing.

        What was counted until then is still given by one more read(), closed() and events().
        """

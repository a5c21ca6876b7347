"""The models of the node and task configuration; engine.config_file reads the files.

Two layers: the node file (`otus:`), read at start, and the task file (`task:`), given to each
task. Unknown keys are refused.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from engine.config_values import Duration, Model, Port, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CALLS = 10_000_000
_LISTEN = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*):([0-9]{1,5})")


class Node(Model):
    """Who this node is; the label processor reads it."""

    id: str = ""
    """Empty: the hostname."""
    ip: str = ""
    hostname: str = ""
    dc: str = ""
    env: str = ""
    region: str = ""

    def host(self) -> str:
        """Its hostname, else the kernel's."""
        return self.hostname or os.uname().nodename

    def name(self) -> str:
        """Its id, else its hostname."""
        return self.id or self.host()


class Control(Model):
    """The control socket."""

    socket: str = ""
    """Empty: /run/otus/otus.sock for root, $XDG_RUNTIME_DIR/otus/otus.sock else."""
    group: str = "otus"
    """Group of the socket file, where it exists."""


class Resources(Model):
    """Limits of the whole engine."""

    max_workers: int = Field(0, ge=0, le=256)
    """0: as many as CPUs."""


class PipelineChannel(Model):
    """Bounds the ring blocks that wait for a worker."""

    capacity: int = Field(65536, ge=1)
    drop_policy: Literal["tail"] = "tail"


class SendBuffer(Model):
    """The ring between a worker and the sender."""

    capacity: int = Field(16384, ge=16, le=16_777_216)
    """Records."""
    drop_policy: Literal["head"] = "head"
    high_watermark: float = Field(0.8, gt=0, le=1)
    low_watermark: float = Field(0.3, ge=0, lt=1)

    @model_validator(mode="after")
    def _order(self) -> SendBuffer:
        if self.low_watermark >= self.high_watermark:
            raise ValueError("low_watermark must be below high_watermark")
        return self


class ReporterPressure(Model):
    """How long a reporter may take."""

    send_timeout: Duration = Field(3.0, ge=0.01, le=3600)
    max_retries: int = Field(1, ge=0, le=2)


class Sampling(Model):
    """Above the high watermark of the send buffer, media is sampled by stream."""

    enabled: bool = False
    lowest_rate: float = Field(0.01, gt=0, le=1)
    """The share of streams that stays, however full the send buffer is."""
    in_kernel: bool = False
    """Leave them out before they are copied, too: cheaper; then they are not in the figures of streams."""


class BackPressure(Model):
    """What each layer does with more than it can take."""

    pipeline_channel: PipelineChannel = PipelineChannel()
    send_buffer: SendBuffer = SendBuffer()
    reporter: ReporterPressure = ReporterPressure()
    sampling: Sampling = Sampling()


class Metrics(Model):
    """The Prometheus endpoint of a daemon."""

    enabled: bool = True
    listen: str = "127.0.0.1:9091"
    """ADDRESS:PORT; 0.0.0.0:9091 lets other hosts ask."""

    @field_validator("listen")
    @classmethod
    def _place(cls, listen: str) -> str:
        found = _LISTEN.fullmatch(listen)
        if found is None or int(found[1]) > 65535:
            raise ValueError(f"{listen!r} is no ADDRESS:PORT such as 127.0.0.1:9091 or [::1]:9091")
        return listen


class Tunnels(Model):
    """Which tunnels are taken off a live capture; of a capture file all are."""

    vxlan: bool = False
    vxlan_ports: list[Port] = Field([4789, 8472, 4790], min_length=1, max_length=16)
    """UDP destination ports of VXLAN: the registered one, and the one that Linux had before it."""
    geneve: bool = False
    gtp_u: bool = False
    gre: bool = False
    """GRE with IP, a whole frame (0x6558) or MPLS inside."""
    nvgre: bool = False
    ppp_gre: bool = False
    """PPP in GRE version 1 (PPTP)."""
    erspan: bool = False
    """Types I, II and III."""
    ipip: bool = False
    """IP in IP, of either version in either."""

    @field_validator("vxlan_ports")
    @classmethod
    def _ports(cls, ports: list[int]) -> list[int]:
        taken = {0: "no port", 2152: "that of GTP-U", 6081: "that of Geneve"}
        for port in ports:
            if port in taken:
                raise ValueError(f"{port} is {taken[port]}: leave it out")
        return ports


class IpReassembly(Model):
    """IP fragments (always reassembled)."""

    timeout: Duration = Field(30.0, ge=0.1, le=3600)
    """How long a datagram may be incomplete."""
    max_fragments: int = Field(10000, ge=16, le=1_000_000)
    """Datagrams in work at once."""
    max_bytes: Size = Field(16 * 1024**2, ge=1024**2, le=1024**3)
    """Of one worker."""
    fragments_per_datagram: int = Field(64, ge=2, le=8192)


class Decoder(Model):
    """Section core.decoder."""

    tunnel: Tunnels = Tunnels()
    ip_reassembly: IpReassembly = IpReassembly()


class Core(Model):
    """Section core."""

    decoder: Decoder = Decoder()


class Log(Model):
    """The engine's own log."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Stores(Model):
    """Bounds of what the calls process keeps."""

    calls: int = Field(20000, ge=1, le=MAX_CALLS)
    messages_per_call: int = Field(500, ge=1, le=1_000_000)
    message_bytes: Size = Field(128 * 1024**2, le=64 * 1024**3)
    streams: int = Field(32768, ge=16, le=4_194_304)
    """In shared memory, 1.5 KiB each when used."""
    flows: int = Field(131072, ge=64, le=16_777_216)
    """In shared memory, 528 octets each when used."""


Word = str | int | float | bool | list[str | int] | None


class Tcp(Model):
    """The TCP observer: the options of `otus-tui tcp`, and when it runs."""

    start: Literal["demand", "always", "never"] = "demand"
    """demand: from when somebody looks at TCP on."""
    events_file: str = ""
    """JSON Lines of its events; empty: they are kept for the screens alone."""
    events_size: Size = 100 * 1024**2
    """The file is renamed to FILE.1 when it has reached this size; 0: never."""
    events_backups: int = Field(5, ge=0, le=1000)
    options: dict[str, Word] = {}
    """As on the command line, without the dashes: `rtt-above: 200ms`, `lport: [80, 8000-8100]`."""

    @field_validator("options")
    @classmethod
    def _meant(cls, options: dict[str, Word]) -> dict[str, Word]:
        from engine.errors import UsageError
        from engine.tcp.options import check

        try:
            check({name.replace("-", "_"): word for name, word in options.items()})
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.hint}".rstrip("; ")) from error
        return options

    def words(self) -> dict[str, Word]:
        """For engine.tcp.options.make()."""
        return {name.replace("-", "_"): word for name, word in self.options.items()}


class NodeConfig(Model):
    """The file /etc/otus/otus.yml: everything below `otus:`."""

    node: Node = Node()
    control: Control = Control()
    resources: Resources = Resources()
    backpressure: BackPressure = BackPressure()
    core: Core = Core()
    log: Log = Log()
    metrics: Metrics = Metrics()
    stores: Stores = Stores()
    tcp: Tcp = Tcp()
    reporters: dict[str, dict[str, Any]] = {}
    """Shared connections by reporter type; a task's own keys win over them."""


class CaptureOptions(Model):
    """Section capture.config: the ring."""

    ring_mb: int = Field(32, ge=1, le=2048)
    block_kb: int = Field(128, ge=128, le=4096)
    """A packet that GRO merged, up to 64 KB, must fit into one block."""
    retire_ms: int = Field(20, ge=1, le=200)
    """A block is handed over when full or this old. With few packets the ring lasts blocks x this: 256 x 20
    ms are more than the 2 s in which a killed or stopped worker is back; 1 is for the lowest latency."""
    snaplen: int = Field(262144, ge=64, le=262144)
    """Octets of a packet that are kept; what SIP needs may be 64 KB."""
    promiscuous: bool = True
    pin: bool = True
    """Each worker is bound to a CPU, those of the interface's NUMA node first."""

    @model_validator(mode="after")
    def _blocks(self) -> CaptureOptions:
        if 2 * self.block_kb > 1024 * self.ring_mb:
            raise ValueError(
                f"ring_mb {self.ring_mb} has no room for two blocks of block_kb {self.block_kb}: "
                f"at most {512 * self.ring_mb}"
            )
        return self


class Capture(Model):
    """What to capture from."""

    driver: Literal["af_packet_v3", "pcap"] = "af_packet_v3"
    interface: str = ""
    """A name, or `any`; live only."""
    file: str = ""
    """Path of a capture, or - for standard input; driver pcap only."""
    workers: int = Field(0, ge=0, le=256)
    """0: one per CPU. The pcap driver has one."""
    fanout_group: int = Field(0, ge=0, le=65535)
    """0: the kernel picks one."""
    fanout_mode: Literal["hash", "cpu", "lb"] = "hash"
    config: CaptureOptions = CaptureOptions()

    @model_validator(mode="after")
    def _source(self) -> Capture:
        if self.driver == "pcap" and not self.file:
            raise ValueError("driver pcap needs file")
        if self.driver == "af_packet_v3" and not self.interface:
            raise ValueError("driver af_packet_v3 needs interface (a name, or any)")
        return self


class Filter(Model):
    """What the kernel lets through: `bpf`, or the structured keys, which take both directions."""

    bpf: str = Field("", max_length=4096)
    src_ip: list[str] = []
    dst_ip: list[str] = []
    ports: list[Port] = []
    port_range: str = ""
    protocol: Literal["udp", "tcp", "any"] = "any"

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f'a mapping is wanted, not a text: filter: {{bpf: "{value[:80]}"}}')
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Filter:
        structured = self.src_ip or self.dst_ip or self.ports or self.port_range or self.protocol != "any"
        if self.bpf and structured:
            raise ValueError("bpf and the structured keys exclude each other")
        return self


class ParserRef(Model):
    """One entry of `parsers:`."""

    plugin: str
    enabled: bool = True
    config: dict[str, Any] = {}


class ProcessorRef(Model):
    """One entry of `processors:`."""

    plugin: str
    enabled: bool = True
    priority: int | None = None
    config: dict[str, Any] = {}


class ReporterRef(Model):
    """`reporter:` or one entry of `reporters:`."""

    type: str
    enabled: bool = True
    config: dict[str, Any] = {}


class TaskConfig(Model):
    """The task file: everything below `task:`."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    capture: Capture
    filter: Filter = Filter()
    parsers: list[ParserRef] = [ParserRef(plugin="sip"), ParserRef(plugin="rtp")]
    processors: list[ProcessorRef] = []
    reporter: ReporterRef | None = None
    reporters: list[ReporterRef] = []
    unmatched_policy: Literal["forward", "drop"] = "drop"
    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    def mark(self, places: Mapping[str, str]) -> None:
        """Remember where keys such as `filter.ports` stand: `file:line:column`."""
        self._places.update(places)

    def place(self, key: str) -> str:
        """Where a key stands in its file; empty where the task came from elsewhere."""
        return self._places.get(key, "")

    @model_validator(mode="after")
    def _one_of(self) -> TaskConfig:
        if self.reporter is not None and self.reporters:
            raise ValueError("reporter and reporters exclude each other")
        return self

    def all_reporters(self) -> list[ReporterRef]:
        """The enabled reporters, however they were written."""
        return [r for r in ([self.reporter] if self.reporter else self.reporters) if r.enabled]

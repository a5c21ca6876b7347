"""The plugin contract, and how plugins of other packages are found.

Four kinds: capture, parser, processor, reporter. What this package brings stands in a table where
it is used; another package names its classes in entry points of the groups GROUPS, and a task file
then names them like our own. A plugin that raises is isolated and counted by its caller; new code
is taken by new tasks only, because each task starts its own processes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from engine.errors import OtusError, UsageError
from engine.log import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.packet import DecodedPacket, FiveTuple, NetworkMeta, OutputPacket

LABEL_KEY = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""Label keys: lower case, dots and dashes, no underscore."""

GROUPS = {
    "capture": "otus.capture",
    "parser": "otus.parser",
    "processor": "otus.processor",
    "reporter": "otus.reporter",
}


RAISED = (Exception, SystemExit)
"""What is caught around each call of a plugin: one that calls sys.exit() ends neither process nor thread."""


class Plugin(ABC):
    """What every kind has: a name, a version, a life cycle."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"

    def init(self, config: Mapping[str, Any]) -> None:
        """Take the `config:` mapping of the task file; raise UsageError with the key at fault."""

    def start(self) -> None:
        """Called once before the first packet, in each process that may call it: a processor in all workers
        and in the sender."""

    def stop(self) -> None:
        """Called once after the last packet."""

    def health(self) -> str:
        """Empty while well, else one line that says what is wrong."""
        return ""


class Capture(Plugin):
    """A driver: makes parallel streams of frames. Drivers live in `engine.capture`."""

    @abstractmethod
    def streams(self, wanted: int) -> int:
        """How many parallel streams it will deliver when `wanted` workers are asked for."""


class Parser(Plugin):
    """Turns a packet into an OutputPacket; runs in the workers, on packets that none of our parsers claimed.

    `ports` with `transport` (a name of engine.packet.PROTOCOL_NAMES) say in data about which packets it is
    asked; without ports it is asked about all that are left. `labels` names every label key it may write; a
    key that breaks LABEL_KEY is refused when the plugin loads, and left out of a packet.
    """

    protocol: ClassVar[str]
    ports: ClassVar[Sequence[int]] = ()
    transport: ClassVar[str] = "udp"
    labels: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def can_handle(self, packet: DecodedPacket) -> bool:
        """Whether this parser takes the packet; looks at ports and first octets only."""

    @abstractmethod
    def handle(self, packet: DecodedPacket) -> OutputPacket | None:
        """Parse it. None means handled without output, which is not the same as unmatched.

        Of the OutputPacket `protocol`, `labels` and what `payload.as_dict()` gives are reported (plain JSON
        values); time, five-tuple and network are those of the packet.
        """


class Envelope(NamedTuple):
    """What a processor may read of a packet beside its labels: no payload, no octets."""

    timestamp_ns: int
    protocol: str
    flow_id: FiveTuple
    network: NetworkMeta


class Processor(Plugin):
    """Filters, and adds labels. Never sees payload or raw bytes.

    It runs in the workers and decides there, for each SIP message, and for media once a flow and payload type
    while `pure`. One that `writes` labels runs again in the sender, for what is reported; its verdict
    there counts nothing.
    """

    priority: int = 100
    """Smaller runs first."""
    reads: Sequence[str] = ()
    """The label keys its verdict depends on; without any it is not asked for verdicts."""
    writes: Sequence[str] = ()
    """The label keys it may write; one that breaks LABEL_KEY is refused when the plugin loads."""
    pure: ClassVar[bool] = True
    """Same labels, same verdict: the verdict of a flow may be kept."""
    wants_envelope: ClassVar[bool] = False
    """Whether `envelope` is made before process() is called."""
    envelope: Envelope | None = None

    @abstractmethod
    def process(self, labels: dict[str, str]) -> bool:
        """Read and change `labels`; False drops the packet."""


class Reporter(Plugin):
    """Sends batches of OutputPackets on; runs in the sender process.

    start() has the rights of the engine, everything behind it those of engine.privileges: no capability, and
    where the engine is root, another user.
    """

    @abstractmethod
    def report(self, batch: Sequence[OutputPacket]) -> int:
        """Send the batch; return how many were accepted. Raise OSError to have the rest counted as errors."""

    def flush(self) -> None:
        """Everything accepted so far leaves now; called before stop()."""

    def folders(self) -> Sequence[str]:
        """Folders in which it makes or renames files after start(): the sender runs as their owner."""
        return ()


def check_label_keys(keys: Sequence[str], owner: str) -> None:
    """Raise ValueError for the first key of `owner` that breaks LABEL_KEY."""
    for key in keys:
        if not LABEL_KEY.fullmatch(key):
            raise ValueError(f"{owner}: label key {key!r} must match {LABEL_KEY.pattern}")


def installed(kind: str) -> list[str]:
    """Names of the plugins of one kind (a key of GROUPS) that other packages bring; loads none of them."""
    from importlib.metadata import entry_points  # costs 15 ms, and few tasks name a plugin of others

    return sorted({point.name for point in entry_points(group=GROUPS[kind])})


def load(kind: str, name: str, own: Mapping[str, type[Any]]) -> type[Any]:
    """The class of a plugin: one of our `own`, else of another package. UsageError if it cannot be had."""
    from importlib.metadata import entry_points

    if name in own:
        return own[name]
    for point in entry_points(group=GROUPS[kind], name=name):
        try:
            found = point.load()
            for declared in ("labels", "writes"):
                check_label_keys(getattr(found, declared, ()), f"{kind} {name}")
        except RAISED as error:
            raise UsageError(f"{kind} {name!r} ({point.value}) does not load: {error}") from error
        if isinstance(found, type) and issubclass(found, Plugin):
            return found
        raise UsageError(f"{kind} {name!r} ({point.value}) is no engine.plugin.Plugin")
    raise UsageError(f"no {kind} {name!r}", f"known: {', '.join([*own, *installed(kind)])}")


def started(kind: str, name: str, own: Mapping[str, type[Any]], config: Mapping[str, Any]) -> Any:
    """A plugin of the class that load() finds, with its options; UsageError where it does not start."""
    found = load(kind, name, own)
    try:
        plugin = found()
        plugin.init(config)
        plugin.start()
    except OtusError:
        raise
    except RAISED as error:
        raise UsageError(f"{kind} {name!r} does not start: {error}") from error
    return plugin


def stop_all(plugins: Iterable[Plugin]) -> None:
    """Behind the last packet; one that raises is a line of the log."""
    for plugin in plugins:
        try:
            plugin.stop()
        except RAISED:
            log.exception("plugin", f"{type(plugin).__name__} does not stop")


class Faults:
    """What plugins raised: all of it is counted, and the first of each class stands in the log."""

    def __init__(self) -> None:
        self.count = 0
        self._told: set[type[Plugin]] = set()

    def note(self, plugin: Plugin) -> None:
        """The exception in hand is one of `plugin`."""
        self.count += 1
        if type(plugin) not in self._told:
            self._told.add(type(plugin))
            log.exception("plugin", f"{type(plugin).__name__} failed; from here on its faults are counted")

    def take(self) -> int:
        """How many there were since the last call."""
        count, self.count = self.count, 0
        return count

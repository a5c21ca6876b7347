"""What the screens show, without a terminal: the newest snapshot, the last minutes, the connection."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otus_tui import format as fmt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.snapshot import Books, SipSection, Snapshot, TaskSection

NS = 1_000_000_000
HISTORY_S = 300
"""The charts show this much."""
RATE_WINDOW_S = 2.0
"""Rates are means over this window."""
LAYERS = ("ring", "worker", "buffer", "report")
"""Layers of the books where packets are lost, in the order of the road. What a task leaves out on purpose
stands in the books as `left_out`."""
LIVE = "live"
"""The task that `otus-tui -d` makes; any other one is its owner's."""
GOING_ON = ("creating", "running", "stopping")
"""States of a task that is not over."""

_FIELDS = ("received", "reported", "sip", "rtp", "rtp_lost", "calls", "dropped")


@dataclass(frozen=True, slots=True)
class Sample:
    """Cumulative counters of one snapshot; None where the engine does not know."""

    time_ns: int
    values: dict[str, int | None]


class History:
    """Counters of the last minutes, thinned to two a second, as rates."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """Take a snapshot's counters."""
        now = snapshot.get("time_ns") or 0
        if self.samples and now < self.samples[-1].time_ns:
            self.samples.clear()
        if self.samples and now - self.samples[-1].time_ns < NS // 3:
            return
        self.samples.append(Sample(now, counters(snapshot)))
        while self.samples and now - self.samples[0].time_ns > (HISTORY_S + 10) * NS:
            self.samples.popleft()

    def rate(self, name: str, window_s: float = RATE_WINDOW_S) -> float | None:
        """Mean rate per second over the last `window_s`; None before there are two samples."""
        if len(self.samples) < 2:
            return None
        newest = self.samples[-1]
        oldest = self.samples[-2]
        for sample in reversed(self.samples):
            oldest = sample if sample is not newest else oldest
            if newest.time_ns - sample.time_ns >= window_s * NS:
                break
        return _slope(oldest, newest, name)

    def series(self, name: str, points: int, seconds: int = HISTORY_S) -> list[float | None]:
        """`points` rates over the last `seconds`, oldest first; None where nothing was measured."""
        return [None if d is None else d[0] / d[1] for d in self._differences(name, points, seconds)]

    def loss_series(self, points: int, seconds: int = HISTORY_S) -> list[float | None]:
        """Share of media packets lost in percent, in `points` steps over the last `seconds`."""
        lost = self._differences("rtp_lost", points, seconds)
        seen = self._differences("rtp", points, seconds)
        result: list[float | None] = []
        for a, b in zip(lost, seen, strict=True):
            if a is None or b is None:
                result.append(None)
                continue
            whole = a[0] + b[0]
            result.append(100.0 * max(0.0, a[0]) / whole if whole > 0 else None)
        return result

    def _differences(self, name: str, points: int, seconds: int) -> list[tuple[float, float] | None]:
        if points <= 0 or not self.samples:
            return [None] * max(0, points)
        end = self.samples[-1].time_ns
        step = seconds * NS / points
        # Cumulative value at each edge, between samples on the straight line.
        edges = [end - step * (points - i) for i in range(points + 1)]
        values = _at(self.samples, name, edges)
        result: list[tuple[float, float] | None] = []
        for low, high in itertools.pairwise(values):
            if low is None or high is None or high < low:
                result.append(None)
            else:
                result.append((high - low, step / NS))
        return result


def _slope(old: Sample, new: Sample, name: str) -> float | None:
    first, last = old.values.get(name), new.values.get(name)
    span = (new.time_ns - old.time_ns) / NS
    if first is None or last is None or span <= 0 or last < first:
        return None
    return (last - first) / span


def _at(samples: Iterable[Sample], name: str, times: list[float]) -> list[float | None]:
    known = [(s.time_ns, s.values[name]) for s in samples if s.values.get(name) is not None]
    result: list[float | None] = []
    i = 0
    for moment in times:
        while i + 1 < len(known) and known[i + 1][0] <= moment:
            i += 1
        if not known or moment < known[0][0]:
            result.append(None)
            continue
        when, number = known[i]
        assert number is not None
        value = float(number)
        if i + 1 < len(known):
            after, later = known[i + 1]
            assert later is not None
            value += (later - value) * (moment - when) / (after - when)
        result.append(value)
    return result


def counters(snapshot: Snapshot) -> dict[str, int | None]:
    """The counters that the history keeps."""
    values: dict[str, int | None] = dict.fromkeys(_FIELDS)
    tasks = snapshot.get("tasks")
    if tasks:
        books = [task["books"] for task in tasks if task.get("books")]
        values["received"] = sum(book["received"] for book in books)
        values["reported"] = sum(book["reported"] for book in books)
        values["dropped"] = sum(sum(lost_by_layer(book).values()) for book in books)
    sip = snapshot.get("sip")
    if sip:
        values["sip"] = sip["messages"]
        values["calls"] = sip["calls"] + sip["removed"]
    media = snapshot.get("media")
    if media:
        values["rtp"] = media["packets"]
        values["rtp_lost"] = media["lost"]
    return values


def lost_by_layer(books: Books) -> dict[str, int]:
    """Packets lost, by layer; with the reporters' also what one of them lost and another one took."""
    lost = {layer: sum(books["dropped"][layer].values()) for layer in LAYERS if layer in books["dropped"]}
    if "report" in lost:
        lost["report"] += sum(books.get("partly", {}).values())
    return lost


def calls_loss(sip: SipSection | None) -> str:
    """What killed calls processes took along, in words; empty if none was killed."""
    if not sip or not sip["restarts"]:
        return ""
    when = fmt.clock(sip["restarted_ns"])
    calls = f"{fmt.count(sip['lost_calls'])} {'call was' if sip['lost_calls'] == 1 else 'calls were'} lost"
    if sip["restarts"] == 1:
        return f"{calls} when the calls process was restarted at {when}"
    return f"{calls} in {sip['restarts']} restarts of the calls process, last at {when}"


def lost_before(task: TaskSection) -> dict[str, int | None]:
    """What a live task's interface (`nic`) and the host's backlog (`softnet`) lost before any ring."""
    found = task.get("lost_before") or {}
    if task["driver"] == "pcap" or not found:
        return {}
    nic = [found.get(name) for name in ("rx_dropped", "rx_missed", "rx_fifo")]
    known = [number for number in nic if number is not None]
    return {"nic": sum(known) if known else None, "softnet": found.get("softnet")}


def place_of(task: TaskSection) -> str:
    """Where a task's packets come from: the interface, or the name of the file without its folders."""
    progress = task["progress"]
    if task["driver"] == "pcap" and progress:
        return fmt.clean(str(progress["path"])).rsplit("/", 1)[-1]
    return fmt.clean(str(task["interface"]).rsplit("/", 1)[-1])


@dataclass(frozen=True, slots=True)
class Ledger:
    """The books of the shown task (or of all running ones), for the books line."""

    received: int | None = None
    lost: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(LAYERS))
    left_out: int | None = None
    even: bool | None = None
    difference: int = 0
    before: dict[str, int | None] = field(default_factory=dict)
    """Lost before any ring, beside the books: `nic`, `softnet`; nothing of files."""


class Model:
    """The state that all screens look at."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self.clock = clock
        """Time now in ns since 1970; tests freeze it."""
        self.snapshot: Snapshot = {}
        self.history = History()
        self.hello: dict[str, Any] = {}
        self.lost: str | None = None
        """Why the engine is gone; None while it is there."""
        self.notice: str = ""

    def take(self, snapshot: Snapshot) -> None:
        """A new snapshot; a section that it leaves out stays as it was known."""
        self.snapshot = {**self.snapshot, **snapshot}
        self.history.add(self.snapshot)

    # --- views

    @property
    def tasks(self) -> list[TaskSection]:
        """The task that runs, or the last one; none before the first."""
        return self.snapshot.get("tasks") or []

    @property
    def task(self) -> TaskSection | None:
        """The task that the header names: the first that is not over, else the newest."""
        for task in self.tasks:
            if task["state"] in GOING_ON:
                return task
        return self.tasks[0] if self.tasks else None

    @property
    def link(self) -> str:
        """down or gone while the interface of the task is; else empty."""
        task = self.task
        links = {one["link"] for one in task["capture"]} if task and task["state"] == "running" else set()
        return next((link for link in ("gone", "down") if link in links), "")

    @property
    def file(self) -> bool:
        """Whether a capture file is what we look at."""
        task = self.task
        if task is not None:
            return task["driver"] == "pcap"
        return self.hello.get("mode") == "file"

    @property
    def reading(self) -> bool:
        """Whether a capture file is being read: not to its end yet, and not stopped."""
        task = self.task
        progress = task["progress"] if task else None
        return bool(task and progress and not progress["done"] and task["state"] in GOING_ON)

    @property
    def node(self) -> str:
        engine = self.snapshot.get("engine")
        return str((engine["node"] if engine else "") or self.hello.get("node") or "")

    def ledger(self) -> Ledger:
        """Sums over the tasks that run, or over the newest one."""
        running = [t for t in self.tasks if t["state"] in GOING_ON]
        tasks = running or self.tasks[:1]
        if not tasks:
            return Ledger()
        losses = [lost_by_layer(t["books"]) for t in tasks]
        lost: dict[str, int | None] = {}
        for layer in LAYERS:
            parts = [found[layer] for found in losses if layer in found]
            lost[layer] = sum(parts) if parts else None
        return Ledger(
            received=sum(t["books"]["received"] for t in tasks),
            lost=lost,
            left_out=sum(sum(t["books"]["dropped"].get("left_out", {}).values()) for t in tasks),
            even=all(t["books"]["even"] for t in tasks),
            difference=sum(t["books"]["difference"] for t in tasks),
            before=lost_before(tasks[0]),
        )

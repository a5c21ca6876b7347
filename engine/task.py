"""One task: validate, build, run, clean up; it owns its sockets, memory and processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.books import make_books, ring_drops, ring_page
from engine.errors import OtusError
from engine.log import log
from engine.pressure import SendPressure
from engine.reporters.figures import HEARTBEAT as SENDER_HEARTBEAT
from engine.reporters.figures import SenderFigures
from engine.shm import counters as layout
from engine.shm import ring
from engine.shm.counters import Counters
from engine.shm.flows import FlowTable
from engine.shm.region import memory_file
from engine.shm.streams import StreamTable
from engine.supervisor import Child, Supervisor
from engine.task_checks import check_capture, effective_workers
from engine.task_config import (
    calls_config,
    file_filter,
    media_ttl_ns,
    plugins_of,
    sender_config,
    worker_config,
)
from engine.task_figures import reporter_figures, worker_figures
from engine.task_rings import TaskRings

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from engine.config import Filter, NodeConfig, TaskConfig
    from engine.shm.region import Region
    from engine.snapshot import Books, CaptureFigures, LoadProgress, TaskSection

EVIDENCE_OCTETS = {"af_packet_v3": 8 << 20, "pcap": 32 << 20}
"""Of one worker; touched as it is used."""
CALLS_PAGE = 16
"""Octets that the calls process shares: sign of life, then how many calls it holds (64 bits each)."""
MEAN_RECORD = 512
"""Octets of a send ring by record: media in short records, SIP in long ones."""
STREAM_TTL_NS = 600_000_000_000
"""At least so long a silent stream stays; then its place is free for another."""
WORKER_STOP = 0.9
SENDER_STOP = 1.2
SENDER_SETTLE = 1.0
CALLS_STOP = 0.3
FILE_DRAIN = 30.0
SECTION_TIMEOUT = 0.4
LOOK = 0.5
"""Seconds between two looks at the rings."""
RECHECK = 1.0
"""Seconds that a worker may take to say that it holds packets against a new filter."""
FINAL = ("stopped", "failed", "finished")


class Task:
    """One task and all that belongs to it.

    `state`: creating, running, stopping, stopped, failed, finished (a file was read to its end). After
    its end the tables and the calls process stay, so that it can still be asked, until `release()`.
    """

    def __init__(self, config: TaskConfig, node: NodeConfig, supervisor: Supervisor) -> None:
        self.config = config
        self.node = node
        self.id = config.id
        self.state = "creating"
        self.error = ""
        self.started_ns = time.time_ns()
        self.stopped_ns: int | None = None
        self.filter_text = ""
        self.calls: Child | None = None
        self.calls_restarts = 0
        self.lost_calls: int | None = None
        self.calls_restarted_ns: int | None = None
        self.calls_section: dict[str, Any] = {}
        self.file_fd: int | None = None
        self._supervisor = supervisor
        self._rings = TaskRings(config.capture, config.id)
        self._filter_lock = asyncio.Lock()
        self._counters: list[Counters] = []
        self._evidence: list[Region] = []
        self._send: list[Region] = []
        self._flows: FlowTable | None = None
        self._streams: StreamTable | None = None
        self._figures: SenderFigures | None = None
        self._pressure: SendPressure | None = None
        self._workers: list[Child] = []
        self._sender: Child | None = None
        self._problems: list[str] = []
        self._progress: LoadProgress | None = None
        self._measure: asyncio.Task[None] | None = None
        self._calls_beat = -1
        self._background: set[asyncio.Task[None]] = set()
        self._ended = False

    # ---- validate and build ----

    async def create(self) -> None:
        """Validate, build and run; OtusError, with nothing left behind, if it does not come to run."""
        try:
            workers = effective_workers(self.config, self.node)
            program = await asyncio.to_thread(self._validate)
            self._build_memory(workers)
            if self.config.capture.driver == "af_packet_v3":
                await asyncio.to_thread(self._rings.open, workers, program)
            await self._start_children(workers)
        except BaseException as error:
            self.state = "failed"
            self.error = getattr(error, "message", str(error))
            await self._stop_children()
            self._close_capture()
            await self.release()
            raise
        self.state = "running"
        if self._rings and self._pressure is not None:
            if self.node.backpressure.sampling.in_kernel:
                self._pressure.kernel = self._rings.sample
            self._later(self._pressure.watch(lambda: self.state == "running"))
        self._measure = asyncio.create_task(self._measure_rings())
        log.info("task", "running", task=self.id, workers=workers)

    def _validate(self) -> Any:
        """Check capture and filter; returns the compiled filter of a live task."""
        for parser in self.config.parsers:
            if parser.plugin == "rtp" and parser.config.get("raw") and not self.config.all_reporters():
                log.warning("task", "rtp.raw without a reporter changes nothing", task=self.id)
        self.filter_text, program = check_capture(self.config, self.file_fd)
        return program

    def _build_memory(self, workers: int) -> None:
        stores = self.node.stores
        self._counters = [Counters.create(self.id, number) for number in range(workers)]
        octets = EVIDENCE_OCTETS[self.config.capture.driver]
        self._evidence = [ring.create(self.id, number, octets) for number in range(workers)]
        self._flows = FlowTable.create(self.id, 0, stores.flows)
        offline = self.config.capture.driver == "pcap"
        ttl_ns = 0 if offline else max(STREAM_TTL_NS, media_ttl_ns(self.config))
        self._streams = StreamTable.create(self.id, 0, stores.streams, ttl_ns)
        if self.config.all_reporters():
            capacity = self.node.backpressure.send_buffer.capacity
            size = max(1 << 20, capacity * MEAN_RECORD)
            self._send = [ring.create(self.id, number, size, capacity) for number in range(workers)]
            self._figures = SenderFigures.create(self.id)
        pressure, reporters = self.node.backpressure, len(self.config.all_reporters())
        self._pressure = SendPressure(self.id, pressure, self._counters, self._send, self._figures, reporters)

    async def _start_children(self, workers: int) -> None:
        self._calls_beat = memory_file("calls", CALLS_PAGE)
        self.calls = Child("calls", "engine.calls.process", self._configure_calls, self._calls_heartbeat)
        self.calls.on_restart = self._calls_restarted
        children = [self.calls]
        if self._figures is not None:
            words = self._figures.words
            self._sender = Child(
                "sender",
                "engine.reporters.sender",
                self._configure_sender,
                lambda: int(words[SENDER_HEARTBEAT]),
            )
            self._sender.on_message = self._from_sender
            children.append(self._sender)
        for number in range(workers):
            worker = Child(
                f"worker {number}",
                "engine.pipeline.worker",
                partial(self._configure_worker, number),
                # Who reads a file may wait for a slow disk or for the other end of a pipe.
                partial(self._worker_heartbeat, number) if self._rings else None,
            )
            worker.restartable = self.file_fd is None
            worker.on_message = self._from_worker
            self._workers.append(worker)
        children += self._workers
        for child in children:
            self._supervisor.add(child)
            child.start()
        for child in children:
            await child.ready()
        for child in children:
            child.on_state = partial(self._child_changed, child)
            if child.state in ("failed", "finished"):
                self._child_changed(child, child.state)

    def _configure_worker(self, number: int) -> tuple[dict[str, Any], list[int]]:
        shared = {
            "index": number,
            "counters": self._counters[number].region.fd,
            "evidence": self._evidence[number].fd,
            "send": self._send[number].fd if self._send else None,
            "flows": self._flows.region.fd if self._flows else None,
            "streams": self._streams.region.fd if self._streams else None,
        }
        descriptors = [int(fd) for key, fd in shared.items() if key != "index" and fd is not None]
        if self._rings:
            waiting = self.node.backpressure.pipeline_channel.capacity
            source = self._rings.source(number, waiting, self._counters[number])
            descriptors.append(source["fd"])
        else:
            rules = file_filter(self.config)
            source = {"kind": "file", "path": self.config.capture.file, "fd": self.file_fd, "filter": rules}
            descriptors += [] if self.file_fd is None else [self.file_fd]
        return {**worker_config(self.config, self.node), **shared, "source": source}, descriptors

    def _worker_heartbeat(self, number: int) -> int:
        return int(self._counters[number].words[layout.HEARTBEAT])

    def _calls_heartbeat(self) -> int:
        return int.from_bytes(os.pread(self._calls_beat, 8, 0), "little")

    def _configure_sender(self) -> tuple[dict[str, Any], list[int]]:
        rings = [region.fd for region in self._send]
        figures = self._figures.region.fd if self._figures else -1
        flows = self._flows.region.fd if self._flows else -1
        streams = self._streams.region.fd if self._streams else -1
        shared = {"rings": rings, "figures": figures, "flows": flows, "streams": streams}
        return {**sender_config(self.config, self.node), **shared}, [*rings, figures, flows, streams]

    def _configure_calls(self) -> tuple[dict[str, Any], list[int]]:
        evidence = [region.fd for region in self._evidence]
        streams = self._streams.region.fd if self._streams else -1
        shared = {"evidence_fds": evidence, "streams_fd": streams, "heartbeat_fd": self._calls_beat}
        return {**calls_config(self.config, self.node), **shared}, [*evidence, streams, self._calls_beat]

    # ---- run ----

    def _from_worker(self, message: dict[str, Any]) -> None:
        if "rules" in message and self._pressure is not None:
            self._pressure.rules = message["rules"]
        progress = message.get("progress")
        if progress is not None:
            self._progress = {
                "path": self.config.capture.file,
                "octets": progress["octets"],
                "size": progress["size"],
                "packets": progress["packets"],
                "done": progress["done"],
                "warning": progress["warning"],
            }

    def _from_sender(self, message: dict[str, Any]) -> None:
        if "problems" in message:
            self._problems = message["problems"]

    def _calls_restarted(self) -> None:
        """What it held is gone: say how much that was."""
        lost = int.from_bytes(os.pread(self._calls_beat, 8, 8), "little")
        os.pwrite(self._calls_beat, bytes(8), 8)
        self.calls_restarts += 1
        self.lost_calls = (self.lost_calls or 0) + lost
        self.calls_restarted_ns = time.time_ns()
        self.calls_section = {}
        log.error("calls", f"{lost} calls were lost with the calls process", task=self.id)

    async def ask_calls(self) -> dict[str, Any]:
        """Sections sip and media from the calls process; the last known ones while it does not answer."""
        if self.calls is not None:
            with contextlib.suppress(OtusError):
                self.calls_section = dict(await self.calls.request("section", {}, SECTION_TIMEOUT))
        section = dict(self.calls_section)
        if section.get("sip"):
            restarts, lost, when = self.calls_restarts, self.lost_calls, self.calls_restarted_ns
            extra = {"restarts": restarts, "lost_calls": lost, "restarted_ns": when}
            section["sip"] = {**section["sip"], **extra}
        return section

    def _child_changed(self, child: Child, state: str) -> None:
        """A child failed for good, or the file is read."""
        if self.state not in ("running", "creating"):
            return
        if state == "failed":
            self._later(self._end("failed", f"{child.name}: {child.last_error}"))
        elif state == "finished" and all(worker.state == "finished" for worker in self._workers):
            self._later(self._finish())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _finish(self) -> None:
        """The file is read: wait until the calls process and the reporters have seen all of it."""
        deadline = time.monotonic() + FILE_DRAIN
        while time.monotonic() < deadline and self._unseen():
            await asyncio.sleep(0.01)
        await self._end("finished", "")

    def _unseen(self) -> bool:
        if any(ring.figures(region)["unread"] for region in (*self._evidence, *self._send)):
            return True
        return self._figures is not None and self._figures.settled() < sum(
            ring_page(r)[0] for r in self._send
        )

    async def _end(self, state: str, error: str) -> None:
        if self.state in ("stopping", *FINAL):
            return
        self.state = "stopping"
        await self._stop_children()
        self._close_capture()
        self.state, self.error = state, error
        self.stopped_ns = time.time_ns()
        (log.error if error else log.info)("task", error or state, task=self.id)

    async def _measure_rings(self) -> None:
        """Read the sockets' statistics (nobody else may: reading clears them) and mend the interfaces."""
        while self.state == "running" and self._rings:
            try:
                for number in self._rings.look():
                    await self._workers[number].stop(WORKER_STOP)
                    self._workers[number].start_again()
            except OSError as error:
                log.error("capture", f"statistics: {error}", task=self.id)
            await asyncio.sleep(LOOK)

    async def change_filter(self, wanted: Filter) -> None:
        """Capture by another filter from now on, on the same rings; OtusError, and the old one stays.

        Workers hold every packet against the new filter before the sockets have it, and go on so for the
        blocks that were opened earlier: when this returns, no packet is used any more that the new filter
        leaves out. What it leaves out of the rings is `filtered` in the books.
        """
        if not self._rings or self.state != "running":
            raise OtusError(
                f"task {self.id} is {self.state}: its filter cannot be changed"
                if self._rings or self.config.capture.driver != "pcap"
                else f"task {self.id} reads a file: its filter cannot be changed",
                "the filter of a live task that runs can be",
            )
        async with self._filter_lock:
            config = self.config.model_copy(update={"filter": wanted})
            text, program = await asyncio.to_thread(check_capture, config, None)
            before = self._rings.announce(program)
            try:
                # A worker that gives no answer is on its way down: its successor starts with the new filter.
                await self._tell_workers("filter", {"program": program})
                self._rings.attach(program)
            except (OSError, OtusError) as error:
                self._rings.announce(before)
                self._rings.attach(before)
                await self._tell_workers("filter", {"program": before})
                raise error if isinstance(error, OtusError) else OtusError(str(error)) from error
            finally:
                await self._tell_workers("filter_attached", {})
            self.config, self.filter_text = config, text
            log.info("task", "new filter", task=self.id, filter=text)

    async def _tell_workers(self, method: str, params: dict[str, Any]) -> None:
        requests = (worker.request(method, params, RECHECK) for worker in self._workers)
        await asyncio.gather(*requests, return_exceptions=True)

    # ---- clean up ----

    async def stop(self) -> None:
        """End it: the rings are read empty, the sender sends what it has, the sockets are closed."""
        if self.state in FINAL:
            return
        await self._end("stopped", "")
        while self.state == "stopping":
            await asyncio.sleep(0.01)

    async def _stop_children(self) -> None:
        if self._measure is not None:
            self._measure.cancel()
            await asyncio.gather(self._measure, return_exceptions=True)
            self._measure = None
        self._rings.shut()
        await asyncio.gather(*(worker.stop(WORKER_STOP) for worker in self._workers))
        for number, counters in enumerate(self._counters):
            if counters.get("received"):
                counters.recover(ring.recovered(self._send[number]) if self._send else 0)
        if self._sender is not None:
            await self._sender.settle(SENDER_SETTLE)
            await self._sender.stop(SENDER_STOP)
            if self._figures is not None:
                taken = sum(ring_page(region)[0] for region in self._send)
                self._figures.add("lost_with_sender", max(0, taken - self._figures.settled()))
        for child in [*self._workers, *([self._sender] if self._sender else [])]:
            self._supervisor.remove(child)

    def _close_capture(self) -> None:
        self._rings.close()
        self._ended = True
        if self.file_fd is not None:
            os.close(self.file_fd)
            self.file_fd = None

    async def release(self) -> None:
        """Forget everything: the calls process ends, the shared memory is given back."""
        if self.calls is not None:
            self._supervisor.remove(self.calls)
            await self.calls.stop(CALLS_STOP)
            self.calls = None
        regions = [*self._evidence, *self._send, *(counters.region for counters in self._counters)]
        regions += [
            table.region for table in (self._flows, self._streams, self._figures) if table is not None
        ]
        for region in regions:
            with contextlib.suppress(OSError):
                os.close(region.fd)
        if self._calls_beat >= 0:
            os.close(self._calls_beat)
            self._calls_beat = -1

    # ---- figures ----

    def books(self) -> Books:
        """The ledger now."""
        totals = self._rings.totals
        drops = ring_drops(totals, self._counters, self._ended) if totals else None
        kinds = [reporter.type for reporter in self.config.all_reporters()]
        return make_books(self._counters, self._send, self._figures, drops, self._ended, kinds)

    def summary(self) -> dict[str, Any]:
        """TASK of engine.control.methods."""
        capture = self.config.capture
        return {
            "task_id": self.id,
            "state": self.state,
            "driver": capture.driver,
            "interface": capture.interface or None,
            "workers": len(self._workers),
            "started": self.started_ns,
            "stopped": self.stopped_ns,
            "error": self.error,
            "file": capture.file or None,
            "link": self._rings.link(),
            "calls_restarts": self.calls_restarts,
            "lost_calls": self.lost_calls,
            "calls_restarted": self.calls_restarted_ns,
        }

    def section(self) -> TaskSection:
        """Its part of the snapshot."""
        newest = max((int(c.words[layout.PACKET_TIME]) for c in self._counters), default=0)
        return {
            "task_id": self.id,
            "state": self.state,
            "driver": self.config.capture.driver,
            "interface": self.config.capture.interface,
            "filter": self.filter_text,
            "started_ns": self.started_ns,
            "stopped_ns": self.stopped_ns,
            "error": self.error,
            "capture": self._capture_figures(),
            "workers": [
                worker_figures(
                    number,
                    worker,
                    self._counters[number],
                    self._send[number] if self._send else None,
                    self._evidence[number],
                )
                for number, worker in enumerate(self._workers)
            ],
            "reporters": reporter_figures(self.config, self._figures, self._sender, self._problems),
            "books": self.books(),
            "send_buffer": self._pressure.section() if self._pressure else None,
            "plugins": plugins_of(self.config),
            "rules": self._pressure.rule_figures() if self._pressure else [],
            "progress": self._progress,
            "newest_packet_ns": newest or None,
            "ring": self._rings.facts(),
            "lost_before": self._rings.lost_before(),
            "troubles": self._troubles(),
        }

    def _troubles(self) -> list[str]:
        children = [*self._workers, self._sender, self.calls]
        return [text for child in children if child is not None and (text := child.trouble())]

    def _capture_figures(self) -> list[CaptureFigures]:
        if not self._rings.totals:
            name = self.config.capture.file
            empty = dict.fromkeys(
                ("ring_packets", "ring_drops", "ring_freezes", "blocks_waiting", "blocks_total")
            )
            return [{"interface": name, "link": "file", **empty}]  # type: ignore[typeddict-item]
        return self._rings.figures()

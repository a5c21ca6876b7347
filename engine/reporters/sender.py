"""The sender process of a task: records of the send rings -> OutputPackets -> a queue per reporter.

Started as `python -m engine.reporters.sender FD`. Configuration (first line on the control socket):
{"task", "parent", "user": [user, group] to become | null, "rings": [fd], "figures": fd, "flows": fd | null,
"streams": fd | null, "reporters": [{"type", "config"}], "processors": [all but filters], "node": {labels},
"send_timeout", "max_retries", "patient"}.
Told to end it reports what is left, for at most a second; so it does when its supervisor is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from engine import child, privileges
from engine.books import ring_page
from engine.errors import OtusError
from engine.log import log
from engine.packet import seal
from engine.plugin import Envelope, started
from engine.processors.chain import build_chain
from engine.reporters.console import ConsoleReporter
from engine.reporters.figures import CPU_TIME, HEARTBEAT, PID, STATE, SenderFigures
from engine.reporters.file import FileReporter
from engine.reporters.output import OutputMaker
from engine.reporters.queue import Item, ReporterQueue
from engine.shm.ring import RingReader, open_ring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.packet import OutputPacket
    from engine.plugin import Reporter

REPORTERS: dict[str, type[Reporter]] = {"console": ConsoleReporter, "file": FileReporter}
TAKE = 256
IDLE = 0.02
DRAIN = 0.5
"""Seconds for the rest of the rings at the end, and as many for the queues."""


class Sender:
    """The work of the process."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.figures = SenderFigures.open(config["figures"])
        self.readers = [RingReader(open_ring(fd)) for fd in config["rings"]]
        self.chain = build_chain(config["processors"], config["node"])
        self.writers = self.chain.writers()
        self.maker = OutputMaker(
            config["task"],
            self.chain.static_labels(),
            config.get("flows"),
            live=not config.get("patient"),
            streams=config.get("streams"),
        )
        self.lock = threading.Lock()
        self.patient = bool(config.get("patient"))
        """Packets of a file: what is not taken yet makes its worker wait, and nothing is lost."""
        self.queues: list[ReporterQueue] = []
        for number, spec in enumerate(config["reporters"]):
            options = {**spec["config"], "send_timeout": config["send_timeout"]}
            kind = spec["type"]
            reporter = started("reporter", kind, REPORTERS, options)
            queue = ReporterQueue(
                number,
                reporter,
                self.figures,
                self.lock,
                int(options.get("queue", 8192)),
                config["send_timeout"],
                config["max_retries"],
            )
            queue.on_problem = lambda problem, kind=kind: _tell(kind, problem)
            self.queues.append(queue)

    def drop_rights(self, user: Sequence[int] | None) -> None:
        """Before the first record is read: see engine.privileges."""
        folders = [folder for queue in self.queues for folder in queue.reporter.folders()]
        plugins = [*(queue.reporter for queue in self.queues), *self.writers.processors]
        needs = privileges.files_of(plugins)
        privileges.drop(*privileges.for_folders(user, folders, needs), needs)

    def start(self) -> None:
        """Book what a killed predecessor had taken, and begin."""
        words = self.figures.words
        words[PID] = os.getpid()
        taken = sum(ring_page(reader.region)[0] for reader in self.readers)
        self.figures.add("lost_with_sender", max(0, taken - self.figures.settled()))
        for queue in self.queues:
            self.figures.add_reporter(queue.number, "queued", 0)
            queue.start()
        words[STATE] = 1

    def take(self) -> int:
        """Move what is in the rings now into the queues; how many records."""
        taken = 0
        for reader in self.readers:
            records = reader.read(
                min(TAKE, *(queue.room() for queue in self.queues)) if self.patient else TAKE
            )
            taken += len(records)
            items, unreadable = [], 0
            for kind, _flags, timestamp, body in records:
                packet = self.maker.make(kind, timestamp, body)
                if packet is None:
                    unreadable += 1
                else:
                    items.append(Item(self.labelled(packet), len(self.queues)))
            if unreadable:
                with self.lock:
                    self.figures.add("unreadable", unreadable)
            if items:
                for queue in self.queues:
                    queue.put(items)
        return taken

    def labelled(self, packet: OutputPacket) -> OutputPacket:
        """The packet with the labels of all processors; from here on nobody changes it."""
        if self.writers.processors:
            envelope = Envelope(packet.timestamp_ns, packet.protocol, packet.flow_id, packet.network)
            self.writers.write(packet.labels, envelope)
        return seal(packet)

    def waiting(self) -> bool:
        """Whether it left records in the rings because a queue is full."""
        if not self.patient or not any(ring_page(reader.region)[2] for reader in self.readers):
            return False
        time.sleep(0.002)
        return True

    def beat(self) -> None:
        """Sign of life."""
        self.figures.words[HEARTBEAT] = time.monotonic_ns()
        self.figures.words[CPU_TIME] = time.process_time_ns()
        now = time.monotonic()
        for queue in self.queues:
            queue.watch(now)
        self.figures.add_fact("plugin_errors", self.writers.faults.take())
        self.figures.add_fact("labels_refused", self.writers.refused)
        self.writers.refused = 0

    def finish(self) -> None:
        """Report what is left."""
        end = time.monotonic() + DRAIN
        while time.monotonic() < end and (self.take() or self.waiting()):
            self.beat()
        for queue in self.queues:
            queue.finish(time.monotonic() + DRAIN)
        for queue in self.queues:
            queue.join()
        self.chain.stop()
        self.beat()
        self.figures.words[STATE] = 3


BEHIND_WORKERS = 5
"""Nice value: where it shares a CPU with a worker, that runs first."""


def _tell(kind: str, problem: str) -> None:
    if problem:
        log.error("sender", f"reporter {kind}: {problem}")
    else:
        log.info("sender", f"reporter {kind} works again")


def main() -> None:
    """Run until told to end."""
    channel, config, stop = child.begin(int(sys.argv[1]), child.END)
    log.fields = {"task": config["task"]}
    try:
        sender = Sender(config)
    except OtusError as error:
        sys.stderr.write(f"otus: {error.message}\n{error.hint}\n")
        raise SystemExit(error.code) from error
    sender.drop_rights(config.get("user"))
    sender.start()
    channel.send({"state": "running"})
    os.nice(BEHIND_WORKERS)
    beaten = reported = 0.0
    while not stop and not channel.ended:
        taken = sender.take()
        now = time.monotonic()
        if now - beaten > 0.1:
            sender.beat()
            beaten = now
        if now - reported > 0.5:
            channel.send({"problems": [queue.problem for queue in sender.queues]})
            reported = now
        if taken < TAKE:
            channel.wait(0.001 if taken else IDLE)
        channel.receive()
    sender.finish()
    channel.send({"state": "stopped"})


if __name__ == "__main__":
    main()

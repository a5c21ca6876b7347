"""One worker process: a ring or a capture file -> the packet road -> send ring and evidence ring.

Started as `python -m engine.pipeline.worker FD`. Configuration (first line on the control socket):

    {"task", "parent", "user": [user, group] to become | null, "index", "counters": fd, "flows": fd,
     "streams": fd, "send": fd | null, "evidence": fd,
     "source": {"kind": "ring", "fd", "block_size", "block_count", "max_waiting", "retire_ms",
                             "program": the filter as [[code, jt, jf, k], ...], "recheck": the ring
                             may hold what an earlier filter let in, "cpu": to be bound to | null,
                             "clock_offset": CLOCK_REALTIME - CLOCK_MONOTONIC when the task began, ns}
                            or {"kind": "file", "path", "fd" | null, "filter": {...} | null},
     "parsers": [{"plugin", "config"}] of other packages,
     "processors": [{"plugin", "priority", "config"}], "node": {labels}, "tunnels": bits,
     "vxlan_ports": [UDP ports],
     "reassembly": {... of Reassembly}, "options": {... of the Pipeline}}

It tells {"rules": [names]}, what the rules in its counters are, {"state": "running"}, of a file also
{"progress": {...}} and, before it leaves at its end,
{"state": "finished"}. One with a ring obeys the requests `filter` {"program"}: hold every packet against this
filter, and `filter_attached` {}: the socket has it now (engine.task.Task.change_filter()).
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from engine import child, privileges
from engine.capture.packet_filter import PacketFilter
from engine.capture.sink import PacketSink
from engine.decode.classifier import Decoder
from engine.decode.fragments import Reassembly
from engine.errors import OtusError
from engine.log import log
from engine.pipeline.loop import Pipeline
from engine.pipeline.plugins import load_parsers
from engine.processors.chain import Chain, build_chain
from engine.shm import counters as layout
from engine.shm import ring
from engine.shm.counters import Counters
from engine.shm.flows import FlowTable
from engine.shm.streams import StreamTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.capture.cbpf import Program
    from engine.capture.pcap_file import PcapFile
    from engine.capture.ring_walk import RingPoll, RingWalk
    from engine.shm.region import Region

POLL_MS = 100
BEAT = 0.05
"""Seconds between two signs of life while there is work."""
IDLE = 0.1
"""Seconds between two looks for what is due."""
BLOCKS = 2
"""Ring blocks between two looks at the clock: few, because a parser in plain Python may take long for each
packet, and without a sign of life a worker is killed."""
PACKETS = 2000
"""Most packets of a file between two looks; fewer where half a ring has no room for so many."""
RECORD = 1024
"""Octets of a record beside those of its packet: headers, the slots of a message, the figures of a stream."""
PROGRESS = 0.05
"""Seconds between two reports of how far a file is read: they stand beside books that are live."""
LAST_WALK = 0.5
"""Seconds for what the ring still holds when the task is stopped; more than twice the longest retire_ms."""
STARTING, RUNNING, STOPPING, STOPPED = range(4)


class Worker:
    """What both kinds of source share."""

    def __init__(self, config: Mapping[str, Any], channel: child.Channel, stop: child.Stop) -> None:
        self.channel = channel
        self.stop = stop
        self.user = config.get("user")
        self.counters = Counters.open(config["counters"])
        self.words = self.counters.words
        self.words[layout.PID] = os.getpid()
        self.words[layout.STATE] = STARTING
        index = int(config["index"])
        self.evidence = ring.open_ring(config["evidence"])
        self.evidence.next_generation()
        self.send = send = None if config["send"] is None else ring.open_ring(config["send"])
        flows = FlowTable.open(config["flows"], index)
        streams = StreamTable.open(config["streams"], index)
        writer = None if send is None else ring.RingWriter(send)
        self._take_over(send, flows, streams, index)
        self.chain = build_chain(config["processors"], config["node"]) if config["processors"] else Chain()
        self.filters = self._filters(config["source"])
        parsers = load_parsers(config["parsers"])
        self.needed = privileges.files_of([*parsers, *self.chain.processors])
        """Files that have to be readable while packets are read."""
        self.pipeline = Pipeline(
            self.counters,
            flows,
            streams,
            writer,
            ring.RingWriter(self.evidence),
            Reassembly(self.words, **config["reassembly"]),
            Decoder(self.words, int(config["tunnels"]), config["vxlan_ports"]),
            {
                **config["options"],
                "chain": self.chain if self.chain.filters else None,
                "filters": self.filters,
                "plugins": parsers,
            },
        )

    @staticmethod
    def _filters(source: Mapping[str, Any]) -> dict[int, PacketFilter] | None:
        """The capture filter by link type, for what the pipeline puts together; None: everything passes."""
        if source["kind"] == "file":
            # FilterSink fills it as it meets the link types of the file.
            return None if source["filter"] is None else {}
        return live_filters(source["program"])

    def _take_over(self, send: Any, flows: FlowTable, streams: StreamTable, index: int) -> None:
        """Book what a killed predecessor had in work, and free what it held."""
        if send is not None:
            send.next_generation()
        self.counters.recover(0 if send is None else ring.recovered(send))
        flows.break_locks(index)
        streams.break_locks(index)

    def beat(self) -> bool:
        """Sign of life; False when it is time to leave."""
        self.words[layout.HEARTBEAT] = time.monotonic_ns()
        self.words[layout.CPU_TIME] = time.process_time_ns()
        if self.chain.faults.count:
            self.counters.add("plugin_errors", self.chain.faults.take())
        if self.chain.refused:
            self.counters.add("labels_refused", self.chain.refused)
            self.chain.refused = 0
        for message in self.channel.receive():
            self.obey(message)
        return not self.stop and not self.channel.ended

    def obey(self, message: Mapping[str, Any]) -> None:
        """A message of the controller."""

    def running(self) -> None:
        """Tell the supervisor that the start is over."""
        self.words[layout.HEARTBEAT] = time.monotonic_ns()
        self.words[layout.STATE] = RUNNING
        self.channel.send({"rules": self.chain.reasons})
        self.channel.send({"state": "running", "generation": self.evidence.generation})

    def last_reports(self) -> None:
        """Figures of streams since their last record."""
        while self.pipeline.finish():
            self.wait_for_readers()

    def wait_for_readers(self) -> None:
        """A live ring waits for nobody."""
        self.beat()

    def end(self) -> None:
        """The last act."""
        if self.pipeline.foreign is not None:
            self.pipeline.foreign.stop()
        self.chain.stop()
        if self.pipeline.reassembly is not None:
            self.pipeline.reassembly.finish()
        self.beat()
        self.words[layout.STATE] = STOPPED
        self.channel.finish()


class RingWorker(Worker):
    """Reads a live ring."""

    walk: RingWalk
    poll: RingPoll

    def run(self, source: Mapping[str, Any]) -> None:
        """Walk until told to stop."""
        self._bind(source.get("cpu"))
        self._map(source)
        privileges.drop(self.user, needs=self.needed)
        self.running()
        walk, poll = self.walk, self.poll
        looked = 0.0
        while self.beat():
            beaten = now = time.monotonic()
            walk.moment(time.monotonic_ns())
            if now - looked > IDLE:
                self.pipeline.idle(walk.now)
                looked = now
            poll.called = False
            # As little as can be for each wake: with few packets in a block it is most of the cost.
            while now - beaten < BEAT and not poll.called:
                if walk.run(BLOCKS) < BLOCKS:
                    poll.wait(POLL_MS)
                now = time.monotonic()
        self.words[layout.STATE] = STOPPING
        # The kernel closes a block at the second timeout after its first packet, if not at the first one.
        self.walk_rest(0.02 + 2 * source["retire_ms"] / 1000)
        self.last_reports()

    def _map(self, source: Mapping[str, Any]) -> None:
        from engine.capture import ring_walk

        self.walk = ring_walk.RingWalk(
            ring_walk.map_ring(source["fd"], source["block_size"], source["block_count"]),
            source["block_size"],
            source["block_count"],
            self.counters,
            self.pipeline,
            source["max_waiting"],
            source.get("clock_offset") or 0,
        )
        if source.get("recheck"):
            self.walk.recheck(source["program"])
            self.walk.kernel_filters()
        self.poll = ring_walk.RingPoll(source["fd"], self.channel.fileno())

    def walk_rest(self, quiet: float) -> None:
        """What the ring still holds, until no block came for `quiet` seconds; LAST_WALK at most.

        A message or an error on the socket wakes poll(), and is no sign that nothing more comes.
        """
        now = found = time.monotonic()
        deadline = now + LAST_WALK
        while now < deadline and now - found < quiet and not self.channel.ended:
            if self.walk.run(BLOCKS):
                found = time.monotonic()
            else:
                self.poll.wait(1 + int(1000 * (found + quiet - now)))
            self.beat()
            now = time.monotonic()

    def _bind(self, cpu: int | None) -> None:
        """Run on one CPU only, if the kernel lets us (it may have been taken away meanwhile)."""
        self.words[layout.CPU] = 0
        if cpu is None:
            return
        try:
            os.sched_setaffinity(0, {cpu})
            self.words[layout.CPU] = cpu + 1
        except OSError as error:
            log.warning("worker", f"cannot run on CPU {cpu} alone: {error.strerror}")

    def obey(self, message: Mapping[str, Any]) -> None:
        """A new filter: see engine.task.Task.change_filter()."""
        if message.get("method") == "filter":
            program = message["params"]["program"]
            self.walk.recheck(program)
            assert self.filters is not None
            self.filters.clear()
            self.filters.update(live_filters(program))
        elif message.get("method") == "filter_attached":
            self.walk.kernel_filters()
        self.channel.send({"id": message.get("id", 0), "result": {}})


def live_filters(program: Program) -> dict[int, PacketFilter]:
    """The capture filter by link type, for what the pipeline puts together; empty if everything passes."""
    # One program for every interface, and the two link types with IP that the ring walk tells.
    return {} if len(program) == 1 else dict.fromkeys((1, 101), PacketFilter(program))


class FileWorker(Worker):
    """Reads a capture file, once."""

    def __init__(self, config: Mapping[str, Any], channel: child.Channel, stop: child.Stop) -> None:
        self.packets, self.octets = _at_once(config["evidence"], config["send"])
        options = {**config["options"], "silent_sweep": self.packets}
        super().__init__({**config, "options": options}, channel, stop)

    def run(self, source: Mapping[str, Any]) -> None:
        """Read to the end, then stay until told to stop."""
        file = self._open(source)
        self.running()
        warning, shown = "", 0.0
        while self.beat():
            self.wait_for_readers()
            if not file.ready(0.1):
                continue
            try:
                if not file.run(self.packets, self.octets):
                    break
            except OtusError as error:
                warning = error.message
                break
            # For a successor: behind a filter the last packets may be seen twice, never missed.
            self.words[layout.BLOCK_BASE] = file.packets
            if time.monotonic() - shown > PROGRESS:
                shown = time.monotonic()
                self._progress(file, False, "")
        whole = not self.stop and not self.channel.ended
        self.wait_for_readers()
        self.pipeline.idle(file.last_ns)
        self.wait_for_readers()
        self.last_reports()
        self._progress(file, whole, warning or file.truncated)
        if whole:
            self.channel.send({"state": "finished"})
        file.close()

    def _open(self, source: Mapping[str, Any]) -> PcapFile:
        """The file, behind what a killed predecessor has read; then nothing is opened any more."""
        from engine.capture.pcap_file import PcapFile

        done_before = self.counters.get("received")
        sink: PacketSink = self.pipeline
        needed = self.needed
        if self.filters is not None:
            from engine.capture.file_filter import COMPILER, FilterSink

            needed += COMPILER
            sink = FilterSink(sink, source["filter"], self.filters)
        if done_before:
            # With a filter, what was received does not tell how far the file was read.
            unfiltered = source["filter"] is None
            sink = Resume(sink, done_before if unfiltered else int(self.words[layout.BLOCK_BASE]))
        path = source["path"] if source.get("fd") is None else source["fd"]
        file = PcapFile(path, sink)
        privileges.drop(self.user, needs=needed)
        return file

    def wait_for_readers(self) -> None:
        """Pause while more than half of the evidence ring or of the send ring is unread.

        Only here: a file can wait for the calls process and the sender, a live ring waits for nobody.
        """
        while any(_more_than_half(region) for region in (self.evidence, self.send) if region is not None):
            if not self.beat():
                return
            self.channel.wait(0.002)

    def _progress(self, file: PcapFile, done: bool, warning: str) -> None:
        progress = {
            "octets": file.octets_read,
            "size": file.size,
            "packets": self.counters.get("received"),
            "done": done,
            "warning": warning,
        }
        self.channel.send({"progress": progress})


def _at_once(*rings: int | None) -> tuple[int, int]:
    """Packets and octets of a file whose records half of each of the rings has room for, by descriptor."""
    packets, octets = PACKETS, 1 << 30
    for descriptor in rings:
        if descriptor is not None:
            figures = ring.figures(ring.open_ring(descriptor))
            octets = min(octets, figures["capacity"] // 8)
            packets = min(packets, figures["limit"] // 2 or PACKETS, octets // RECORD)
    return max(1, packets), octets


def _more_than_half(region: Region) -> bool:
    figures = ring.figures(region)
    limit = figures["limit"]
    return figures["octets"] * 2 > figures["capacity"] or bool(limit and figures["unread"] * 2 > limit)


class Resume(PacketSink):
    """Leaves out the packets of a file that a killed predecessor has read."""

    def __init__(self, sink: PacketSink, skip: int) -> None:
        self.sink = sink
        self.skip = skip

    def attach(self, buf: Any) -> None:
        """Hand the buffer on."""
        self.sink.attach(buf)

    def packet(
        self,
        start: int,
        end: int,
        wire_length: int,
        timestamp: int,
        interface: int,
        link_type: int,
        vlan: int,
        packet_type: int,
    ) -> int:
        """Hand a packet on that was not seen yet."""
        if self.skip:
            self.skip -= 1
            return 0
        return self.sink.packet(start, end, wire_length, timestamp, interface, link_type, vlan, packet_type)


def main() -> None:
    """Run until told to end."""
    channel, config, stop = child.begin(int(sys.argv[1]))
    log.fields = {"task": config["task"]}
    source = config["source"]
    try:
        worker = (RingWorker if source["kind"] == "ring" else FileWorker)(config, channel, stop)
        worker.run(source)
    except OtusError as error:
        sys.stderr.write(f"otus: {error.message}\n{error.hint}\n")
        raise SystemExit(error.code) from error
    worker.end()


if __name__ == "__main__":
    main()

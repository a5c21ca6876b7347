"""What a second worker adds: packets per CPU-second of two workers at once against one alone.

    python bench/scaling.py [--seconds 2] [--rounds 5]

Two processes, each bound to a CPU, walk TPACKET_V3 blocks in memory as workers do (bench/worker.py): RTP of
1,000 known flows into a send ring of their own, half of the flows each, with one flow table and one stream
table that they share. They run in turn alone and together; the figure is the median of the ratios of packets
per CPU-second. In memory, because a source of packets would need a CPU for itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.figures import figure
from bench.worker import BLOCK, FLOWS, RING, RtpRing, rtp_frames, sip_frames
from bench.worker import Ring as Blocks
from engine.capture import ring_walk
from engine.decode.classifier import Decoder
from engine.decode.fragments import Reassembly
from engine.pipeline.loop import Pipeline
from engine.shm import ring as shared_ring
from engine.shm.counters import Counters
from engine.shm.flows import FlowTable
from engine.shm.streams import StreamTable

MUST, STRETCH = 85, 90
"""Percent."""
_ANSWER = struct.Struct("d")


class HalfRing(RtpRing):
    """Every second flow, from the first or from the second one."""

    def __init__(self, half: int) -> None:
        self.half = half
        super().__init__(rtp_frames()[half::2])

    def ready(self) -> None:
        """The numbers go on for the flows that are here."""
        Blocks.ready(self)
        per_walk = self.packets // (FLOWS // 2)
        for index, place in enumerate(self.places):
            step = index // (FLOWS // 2) + per_walk * self.walks
            flow = 2 * (index % (FLOWS // 2)) + self.half
            nanoseconds = step * 20_000_000 + flow * 15_000
            seconds = 1_700_000_000 + nanoseconds // 10**9
            struct.pack_into("=II", self.octets, place + 4, seconds, nanoseconds % 10**9)
            struct.pack_into("!HI", self.octets, place + 82 + 44, step & 0xFFFF, 160 * step & 0xFFFFFFFF)
        self.walks += 1


def worker(half: int, cpu: int, tables: tuple[int, int], commands: int, answers: int) -> None:
    """A process: for each octet that arrives walk so many tenths of a CPU-second, and tell the rate."""
    lab.die_with_parent()
    os.sched_setaffinity(0, {cpu})
    counters = Counters.create("bench", half)
    pipeline = Pipeline(
        counters,
        FlowTable.open(tables[0], half),
        StreamTable.open(tables[1], half),
        shared_ring.RingWriter(shared_ring.create("bench", half, RING)),
        shared_ring.RingWriter(shared_ring.create("bench", half, RING)),
        Reassembly(counters.words),
        Decoder(counters.words),
        {},
    )

    def walk(blocks: Blocks) -> float:
        blocks.ready()
        ring_walk.forget_progress(counters)
        one = ring_walk.RingWalk(memoryview(blocks.octets), BLOCK, blocks.count, counters, pipeline)
        begun = time.process_time()
        while one.run(64):
            pass
        return time.process_time() - begun

    walk(Blocks(sip_frames()))
    blocks = HalfRing(half)
    walk(blocks)
    os.write(answers, _ANSWER.pack(0.0))
    while command := os.read(commands, 1):
        spent, packets = 0.0, 0
        while spent < command[0] / 10:
            spent += walk(blocks)
            packets += blocks.packets
        os.write(answers, _ANSWER.pack(packets / spent))
    os._exit(0 if counters.get("rtp_by_sdp") == counters.get("rtp_packets") else 1)


class Crew:
    """Both workers, told what to do over pipes."""

    def __init__(self) -> None:
        self.flows, self.streams = (
            FlowTable.create("bench", 0, 16384),
            StreamTable.create("bench", 0, 16384),
        )
        cpus = sorted(os.sched_getaffinity(0))
        self.members: list[tuple[int, int, int]] = []
        for half in range(2):
            commands, to_worker = os.pipe()
            from_worker, answers = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(to_worker)
                for _, other, answer in self.members:
                    os.close(other)
                    os.close(answer)
                tables = (self.flows.region.fd, self.streams.region.fd)
                try:
                    worker(half, cpus[half % len(cpus)], tables, commands, answers)
                finally:
                    os._exit(2)
            os.close(commands)
            os.close(answers)
            self.members.append((pid, to_worker, from_worker))
            self.answer(half)

    def answer(self, number: int) -> float:
        """What a worker says."""
        octets = os.read(self.members[number][2], _ANSWER.size)
        if len(octets) < _ANSWER.size:
            raise SystemExit("a worker ended")
        return float(_ANSWER.unpack(octets)[0])

    def walk(self, seconds: float, *numbers: int) -> float:
        """Mean packets per CPU-second of these workers, at the same time."""
        for number in numbers:
            os.write(self.members[number][1], bytes([max(1, round(seconds * 10))]))
        return statistics.mean(self.answer(number) for number in numbers)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        """End them; `good`: all packets were of known flows."""
        self.good = True
        for pid, to_worker, from_worker in self.members:
            os.close(to_worker)
            os.close(from_worker)
            self.good = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 and self.good


def main() -> int:
    """Measure in turns; 1 when the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=0.6, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        print("scaling: not measured: there is one CPU only")
        return 0
    ratios, rates = [], []
    with lab.interruptible(), Crew() as crew:
        for _ in range(options.rounds):
            alone = (crew.walk(options.seconds, 0) + crew.walk(options.seconds, 1)) / 2
            together = crew.walk(options.seconds, 0, 1)
            ratios.append(100 * together / alone)
            rates.append(alone / 1e6)
    if not crew.good:
        raise SystemExit("scaling: not every packet was of a known flow")
    note = f"{min(ratios):.0f}-{max(ratios):.0f}, alone {statistics.median(rates):.2f} M/CPU-s, {lab.load()}"
    name = "scaling: packets per CPU-second, two workers against one"
    return 0 if figure(name, statistics.median(ratios), MUST, STRETCH, "%", note) else 1


if __name__ == "__main__":
    sys.exit(main())

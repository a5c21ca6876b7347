"""Whether every packet is accounted for: 4 workers on the CPUs that are here, one killed in the middle.

    python bench/conservation.py [--packets 400000] [--rate 100000]

Packets come from bench/frames.py into `lo` of a namespace; an engine with 4 workers and a file reporter takes
them. At half of them one worker gets SIGKILL. When all were sent the task is stopped, and the books must be
even, hold exactly what was sent, and agree with the lines of the file: captured = sent, and every packet is
reported, handled or in a drop that has a name.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.figures import figure
from bench.frames import Frames
from bench.live_frames import announce, task

WORKERS = 4


def run(packets: int, rate: float) -> bool:
    """One measurement."""
    with lab.folder() as where, lab.namespace() as space:
        lines = where / "packets.jsonl"
        rtp = {"plugin": "rtp", "config": {"report": "every"}}
        more: dict[str, Any] = {
            "parsers": [{"plugin": "sip"}, rtp],
            "reporter": {"type": "file", "config": {"path": str(lines), "max_size": 0}},
        }
        # Spread by the CPU-independent round robin: the frames of one source have few hashes.
        with lab.engine(space, where, task(where, WORKERS, config={"ring_mb": 16}, **more)) as engine:
            sent = announce(engine, space)
            victim = next(pid for pid, part in engine.pids().items() if part == "worker")
            with Frames(space, packets, rate) as source:
                source.wait(packets // 2)
                os.kill(victim, signal.SIGKILL)
                source.wait()
                sent += source.sent
            engine.settle(sent)
            workers = engine.call("stats")["tasks"][0]["workers"]
            engine.call("stop_task", task_id="bench")
            books = engine.books()
        written = sum(1 for _ in lines.open("rb")) if lines.exists() else 0
    drops = {layer: sum(names.values()) for layer, names in books["dropped"].items()}
    ended = books["reported"] + books["handled"] + sum(drops.values()) - drops["ring"]
    unaccounted = abs(sent - books["captured"]) + abs(books["received"] - ended) + abs(books["difference"])
    lost = {name: n for layer in books["dropped"].values() for name, n in layer.items() if n}
    restarts = sum(worker["restarts"] for worker in workers)
    shares = [worker["counters"]["received"] for worker in workers]
    print(
        f"conservation: {sent:,} sent, {books['captured']:,} captured, {books['reported']:,} reported "
        f"({written:,} lines), {books['handled']:,} handled, {restarts} restart, by worker {shares}, {lost}"
    )
    if restarts != 1 or written != books["reported"] or not books["even"]:
        print(f"conservation: MISS: {restarts} restarts, {written} lines, books {books}")
        return False
    name = f"conservation: {WORKERS} workers, one killed, packets unaccounted"
    return figure(name, unaccounted, 0, 0, "packets", lab.load(), most=True)


def main() -> int:
    """Measure once; 1 when a packet is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--packets", type=int, default=400_000)
    parser.add_argument("--rate", type=float, default=100_000)
    options = parser.parse_args()
    if reason := lab.missing("nsenter", "taskset"):
        print(f"conservation: not measured: {reason}")
        return 0
    with lab.interruptible():
        return 0 if run(options.packets, options.rate) else 1


if __name__ == "__main__":
    sys.exit(main())

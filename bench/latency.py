"""Time from a block that is handed to the worker until its packets are in the send buffer, at several rates.

    python bench/latency.py [--seconds 20]

RTP of known flows from bench/frames.py, all reported (`report: every`) to a file reporter on /dev/null. The
worker books each block from the moment it finds it ready until the last of its packets is in the send buffer
(engine.capture.ring_walk); the buckets are 25 % wide, and the upper bound of the one that holds the quantile
is printed. In 20 s there are 1,000 blocks or more at each rate; of 200 the P99 would be the third worst.
Wire -> user, which adds up to `retire_ms`, is another figure: see the note at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.figures import figure
from bench.frames import Frames
from bench.live_frames import announce, task
from engine.shm.counters import latency_bounds

RATES = (1_000, 10_000, 100_000)
MUST, STRETCH = 1.0, 0.2
"""Milliseconds, P99."""


def quantile(buckets: list[int], share: float) -> float:
    """Upper bound in ms of the bucket that holds a quantile."""
    wanted, seen = share * sum(buckets), 0
    for bucket, count in enumerate(buckets):
        seen += count
        if count and seen >= wanted:
            return latency_bounds(bucket) / 1e6
    return 0.0


def run(seconds: float) -> bool:
    """All rates on one engine."""
    good = True
    with lab.folder() as where, lab.namespace() as space:
        more = {
            "parsers": [{"plugin": "sip"}, {"plugin": "rtp", "config": {"report": "every"}}],
            "reporter": {"type": "file", "config": {"path": "/dev/null", "max_size": 0}},
        }
        with lab.engine(space, where, task(where, 1, **more)) as engine:
            announce(engine, space)
            for rate in RATES:
                time.sleep(0.3)
                before = engine.call("stats")["tasks"][0]["workers"][0]
                with Frames(space, int(rate * seconds), rate) as source:
                    source.wait(seconds=seconds * 3 + 20)
                time.sleep(0.3)
                after = engine.call("stats")["tasks"][0]["workers"][0]
                pairs = zip(after["latency_buckets"], before["latency_buckets"], strict=True)
                buckets = [new - old for new, old in pairs]
                packets = after["counters"]["received"] - before["counters"]["received"]
                blocks, median = sum(buckets), quantile(buckets, 0.5)
                note = f"P50 {median:.3f} ms, {blocks} blocks of {packets / max(1, blocks):.0f}, {lab.load()}"
                name = f"latency: block -> send buffer, P99 at {rate:,} packets/s"
                good = figure(name, quantile(buckets, 0.99), MUST, STRETCH, "ms", note, most=True) and good
            retire = engine.call("stats")["tasks"][0]["ring"]["retire_ms"]
    print(f"latency: wire -> user adds at most {retire} ms and a timer's slack, Linux {os.uname().release}")
    return good


def main() -> int:
    """Measure once; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if reason := lab.missing("nsenter", "taskset"):
        print(f"latency: not measured: {reason}")
        return 0
    with lab.interruptible():
        return 0 if run(options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The rate that one worker on a CPU of its own takes from a live ring: frames of BPF_PROG_TEST_RUN on `lo`.

    python bench/live_frames.py [--seconds 10] [--rate 2000000]

An engine with one worker, bound to the first CPU that is allowed, and no reporter; the source of packets
(bench/frames.py) on the last one. 1,000 flows, announced by SIP with SDP before, G.711 of 214 octets. The
books must be even and hold every packet that was sent; the ring may lose less than 0.01 % while the machine
has nothing else to do. The figure is what the worker took, in packets a second of the source's time.
60 s is what is promised, 10 s what is run by default.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.figures import figure
from bench.frames import FLOWS, Frames
from bench.worker import message

MUST, STRETCH = 2.0, 3.0
"""Million packets a second."""
LOSS = 1e-4
RING_MB = 64


def announce(engine: lab.Engine, space: str, flows: int = FLOWS) -> int:
    """Send the INVITEs that announce the flows of Frames; how many packets that were."""
    with lab.inside(space), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 5060))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
            for flow in range(flows):
                source.sendto(message(flow), ("127.0.0.1", 5060))
                if flow % 50 == 49:
                    time.sleep(0.002)
    books = engine.settle(flows)
    if books["received"] < flows:
        raise SystemExit(f"only {books['received']} of {flows} INVITEs arrived")
    return flows


def task(where: Path, workers: int, **more: Any) -> str:
    """A task file for `lo`; `more` stands beside `capture`."""
    import json

    options = {"ring_mb": RING_MB, "pin": True, **more.pop("config", {})}
    capture = {"interface": "lo", "workers": workers, "config": options}
    path = where / "task.yml"
    path.write_text(json.dumps({"task": {"id": "bench", "capture": capture, **more}}), "utf-8")
    return f"--task={path}"


def run(seconds: float, rate: float) -> bool:
    """One measurement."""
    wanted = int(seconds * rate)
    with (
        lab.folder() as where,
        lab.namespace() as space,
        lab.engine(space, where, task(where, 1)) as engine,
    ):
        before = announce(engine, space)
        worker = next(pid for pid, part in engine.pids().items() if part == "worker")
        cpu = lab.cpu_seconds(worker)
        with Frames(space, wanted, rate) as source:
            took = source.wait(seconds=seconds * 8 + 30)
            sent = source.sent
        books = engine.settle(sent + before)
        cpu = lab.cpu_seconds(worker) - cpu
        section = engine.call("stats")["tasks"][0]
        engine.call("stop_task", task_id="bench")
        books = engine.books()
    counters = section["workers"][0]["counters"]
    lost = sum(books["dropped"]["ring"].values())
    skipped = books["dropped"]["worker"]["skipped"]
    taken = (sent - lost - skipped) / took / 1e6
    print(
        f"live_frames: {sent:,} sent in {took:.1f} s ({sent / took / 1e6:.2f} M/s), ring lost {lost:,} "
        f"({lost / sent:.4%}), skipped {skipped:,}, {counters['rtp_by_sdp']:,} RTP of known flows, "
        f"worker {cpu:.2f} CPU-s = {(sent - lost) / cpu / 1e6:.2f} M packets/CPU-s, {lab.load()}"
    )
    exact = books["even"] and books["captured"] == sent + before
    if not exact:
        print(f"live_frames: MISS: the books are not exact: {sent + before:,} sent, {books}")
    loss = figure("live_frames: loss in the ring", 100 * lost / sent, 100 * LOSS, 0, "%", most=True)
    good = figure("live_frames: taken by one worker", taken, MUST, STRETCH, "M packets/s", f"{took:.0f} s")
    return exact and good and loss


def main() -> int:
    """Measure once; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2.05e6, help="packets a second that the source tries")
    options = parser.parse_args()
    if reason := lab.missing("nsenter", "taskset"):
        print(f"live_frames: not measured: {reason}")
        return 0
    with lab.interruptible():
        return 0 if run(options.seconds, options.rate) else 1


if __name__ == "__main__":
    sys.exit(main())

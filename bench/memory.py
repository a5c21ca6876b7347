"""Resident memory of a whole otus-tui: 4 workers, sender, calls process, controller and the screens.

    python bench/memory.py [--seconds 20] [--slope]

An engine with 4 workers, default rings and stores and a file reporter in a namespace; the screens attached to
it in a terminal of their own; 14,286 calls of SIP (bench/captures.py) played into it as fast as they are
taken, then G.711 of 1,000 known flows at 20,000 packets/s. The figure is the largest sum of PSS
(/proc/PID/smaps_rollup) of all processes: a page that n processes map counts 1/n in each, so shared
memory counts once. Ring pages are the kernel's and count where they are mapped.

`--slope`: go on for --seconds (1,800 for the figure that is promised) and fit a line through the sums of the
second half, when the stores are as full as they get.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.captures import sip_capture
from bench.figures import figure
from bench.frames import Frames
from bench.live_frames import announce, task

WORKERS = 4
MUST, STRETCH = 512, 350
"""MiB."""
SLOPE = 1.0
"""MiB in 10 min."""
CALLS = 14_286
SIP_RATE, RATE = 15_000, 20_000


def pss(pid: int) -> int:
    """Proportional set size in octets; 0 when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


@contextlib.contextmanager
def screens(path: str) -> Iterator[int]:
    """The screens, attached to an engine, in a terminal of 120x40; their pid."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "PYTHONPATH": str(lab.ROOT), "COLUMNS": "120", "LINES": "40"}
        os.execv(sys.executable, [sys.executable, "-P", "-m", "otus_tui", "attach", "--socket", path])

    def drain() -> None:
        with contextlib.suppress(OSError):
            while os.read(terminal, 65536):
                pass

    threading.Thread(target=drain, daemon=True).start()
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def slope(samples: list[tuple[float, int]]) -> float:
    """MiB in 10 min of the line through the second half of the samples."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return 0.0
    line = statistics.linear_regression([at for at, _ in half], [octets for _, octets in half])
    return line.slope * 600 / 2**20


def run(seconds: float, with_slope: bool) -> bool:
    """One measurement."""
    with lab.folder() as where, lab.namespace() as space:
        capture = where / "sip.pcap"
        packets = sip_capture(capture, CALLS)
        reporter = {"type": "file", "config": {"path": "/dev/null", "max_size": 0}}
        words = task(where, WORKERS, config={"ring_mb": 32}, reporter=reporter)
        with lab.engine(space, where, words) as engine, screens(engine.path) as front:
            announce(engine, space)
            replay = ["nsenter", f"--net=/run/netns/{space}", "tcpreplay", "-q", "-K", f"-p{SIP_RATE}"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with lab.process([*replay, "-i", "lo", str(capture)], **quiet) as player:
                if player.wait(packets / SIP_RATE * 4 + 20):
                    raise SystemExit("tcpreplay failed")
            parts = {**engine.pids(), front: "screens"}
            samples: list[tuple[float, int]] = []
            largest: dict[int, int] = {}
            begun = time.monotonic()
            with Frames(space, int(RATE * (seconds + 5)), RATE):
                while (at := time.monotonic() - begun) < seconds:
                    now = {pid: pss(pid) for pid in parts}
                    samples.append((at, sum(now.values())))
                    if sum(now.values()) >= max(octets for _, octets in samples):
                        largest = now
                    time.sleep(min(5.0, seconds / 20))
            snapshot = engine.call("stats")
            books, sip = snapshot["tasks"][0]["books"], snapshot["sip"]
        by_part: dict[str, int] = {}
        for pid, part in parts.items():
            by_part[part] = by_part.get(part, 0) + largest[pid]
        told = ", ".join(f"{part} {octets >> 20}" for part, octets in by_part.items())
        print(
            f"memory: MiB of PSS: {told}; {sip['calls']:,} calls of {sip['messages']:,} messages held in "
            f"{sip['held_bytes'] >> 20} MiB, {books['captured']:,} packets"
        )
        total = max(octets for _, octets in samples) / 2**20
        name = f"memory: {WORKERS} workers, sender, calls, controller, screens"
        good = figure(name, total, MUST, STRETCH, "MiB PSS", lab.load(), most=True)
        if with_slope:
            name = f"memory: slope over {seconds / 2:.0f} s at {RATE:,} packets/s"
            good = figure(name, slope(samples), SLOPE, SLOPE / 2, "MiB/10 min", most=True) and good
        return good and books["even"]


def main() -> int:
    """Measure once; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--slope", action="store_true")
    options = parser.parse_args()
    if reason := lab.missing("nsenter", "taskset", "tcpreplay"):
        print(f"memory: not measured: {reason}")
        return 0
    with lab.interruptible():
        return 0 if run(options.seconds, options.slope) else 1


if __name__ == "__main__":
    sys.exit(main())

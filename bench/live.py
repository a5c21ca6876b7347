"""CPU time of a running engine under a live mix: 50,000 packets a second over veth for 8 s.

    python bench/live.py [--seconds 8] [--workers N] [--parts]

500 calls at once, SIP and G.711 both ways, made by bench/captures.py, played by tcpreplay in its own time
from one namespace into another, in which an engine runs the task of `otus-tui --headless -d otus0`: all
packets, default ring, no reporter. The figure is user and system time of all processes of the engine between
the first packet and the last one, its start-up left out; `--parts` tells it by process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.captures import mix_capture
from bench.figures import figure

MUST, STRETCH = 1.0, 0.47
"""CPU-seconds for 8 s of 50,000 packets/s; the second is the best peer's."""
CALLS = 500


def run(seconds: float, workers: int, parts: bool) -> bool:
    """One measurement."""
    with lab.folder() as where, lab.pair() as (near, far):
        capture = where / "mix.pcap"
        packets = mix_capture(capture, CALLS, round(seconds * 50))
        words = [f"--interface={lab.LINK}"]
        if workers:
            task = where / "task.yml"
            task.write_text(
                f"task:\n  id: live\n  capture: {{interface: {lab.LINK}, workers: {workers}}}\n", "utf-8"
            )
            words = [f"--task={task}"]
        with lab.engine(near, where, *words) as engine:
            time.sleep(1.0)
            pids = engine.pids()
            before = {pid: (lab.cpu_seconds(pid), lab.switches(pid)) for pid in pids}
            begun = time.monotonic()
            replay = ["nsenter", f"--net=/run/netns/{far}", "tcpreplay", "-q", "-K", "-i", lab.LINK]
            with lab.process([*replay, str(capture)], stdout=subprocess.DEVNULL) as player:
                if player.wait(seconds * 4 + 20):
                    raise SystemExit("tcpreplay failed")
            took = time.monotonic() - begun
            spent = {pid: lab.cpu_seconds(pid) - before[pid][0] for pid in pids}
            woken = {pid: lab.switches(pid) - before[pid][1] for pid in pids}
            books = engine.settle(packets)
        if not books["even"] or books["captured"] != packets:
            raise SystemExit(f"live: {packets} packets were sent, the books say {books}")
        total = sum(spent.values())
        lost = sum(books["dropped"]["ring"].values())
        if parts:
            for pid, part in pids.items():
                each = f"{spent[pid]:7.3f} CPU-s {woken[pid] / took:8.0f} switches/s"
                print(f"live: {part:12} {pid:8} {each}")
        note = f"{took:.1f} s, ring lost {lost}, {lab.load()}"
        scale = packets / (CALLS * 807)
        name = f"live: {packets} packets of the mix over veth"
        return figure(name, total, MUST * scale, STRETCH * scale, "CPU-s", note, most=True)


def main() -> int:
    """Measure once; 1 when the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--workers", type=int, default=0, help="0: the default, one for each CPU")
    parser.add_argument("--parts", action="store_true", help="also by process")
    options = parser.parse_args()
    if reason := lab.missing("tcpreplay", "nsenter"):
        print(f"live: not measured: {reason}")
        return 0
    with lab.interruptible():
        return 0 if run(options.seconds, options.workers, options.parts) else 1


if __name__ == "__main__":
    sys.exit(main())

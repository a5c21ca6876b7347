"""`otus-tui report` against tshark on two captures made here: CPU time of whole processes, as ratios.

Run with `./dev bench` or `python bench/offline.py [--runs 3]`. Both programs run in turn, with
start-up; the figure is the median of user + system time, so a busy neighbour hardly matters.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.captures import mix_capture, sip_capture

TSHARK = ("tshark", "-n", "-q", "-z", "rtp,streams", "-z", "sip,stat", "-r")
REPORT = (sys.executable, "-m", "otus_tui", "report", "--json")


def cpu_seconds(command: list[str]) -> float:
    """User plus system time of one run; its output is thrown away."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def compare(name: str, path: Path, packets: int, runs: int) -> None:
    """Print one row: both medians, packets per CPU-second, the ratio."""
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(cpu_seconds([*REPORT, str(path)]))
        theirs.append(cpu_seconds([*TSHARK, str(path)]))
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"{name:4} {packets:>8,} packets   report {mine:6.2f} CPU-s ({packets / mine:>10,.0f}/s)   "
        f"tshark {other:6.2f} CPU-s ({packets / other:>8,.0f}/s)   ratio {other / mine:5.1f}x"
    )


def main() -> int:
    """Make the captures, compare on each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    if shutil.which("tshark") is None:
        print("bench/offline.py: tshark is not installed (apt-get install tshark): nothing to compare with")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        mix, sip = Path(folder, "mix.pcap"), Path(folder, "sip.pcap")
        compare("mix", mix, mix_capture(mix, calls=500, packets_each_way=400), runs)
        compare("sip", sip, sip_capture(sip, calls=14_286), runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())

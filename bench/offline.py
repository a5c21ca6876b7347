"""`otus-tui report` against tshark on captures made here: CPU time of whole processes, as ratios.

    python bench/offline.py [--runs 3] [--calls 1000] [mix] [sip] [lines]

mix: 4 M packets, 1,000 calls at once with G.711 both ways, against `tshark -q -z rtp,streams`.
sip: 100,002 messages of 14,286 calls without media, against `tshark -q -z sip,stat`.
lines: the same file, a line of JSON a message, against `tshark -T fields`; the rows must be the same.

Both programs run in turn, with start-up, and their output is thrown away; the figure is the median of user +
system time of all processes, so a busy neighbour spoils the absolute figures more than the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.captures import mix_capture, sip_capture
from bench.figures import figure

REPORT = (sys.executable, "-m", "otus_tui", "report", "--json")
MESSAGES = (sys.executable, "-m", "otus_tui", "report", "--messages")
FIELDS = (
    "frame.time_epoch", "ip.src", "ip.dst", "udp.srcport", "udp.dstport", "sip.Method", "sip.Status-Code",
    "sip.Call-ID", "sip.From", "sip.To", "sip.CSeq", "sdp.connection_info", "sdp.media",
)  # fmt: skip
_EACH = [word for name in FIELDS for word in ("-e", name)]
AS_FIELDS = ("tshark", "-n", "-Y", "sip", "-T", "fields", *_EACH, "-r")
CASES = {
    "mix": (REPORT, ("tshark", "-n", "-q", "-z", "rtp,streams", "-r"), 11.0, 15.0),
    "sip": (REPORT, ("tshark", "-n", "-q", "-z", "sip,stat", "-r"), 3.5, 5.0),
    "lines": (MESSAGES, AS_FIELDS, 6.5, 10.0),
}
"""Ours, theirs, and how many times less CPU time ours must take."""


def cpu_seconds(command: list[str]) -> float:
    """User plus system time of one run; its output is thrown away."""
    root = str(Path(__file__).parents[1])
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def compare(name: str, path: Path, packets: int, runs: int) -> bool:
    """Print one figure; whether it is reached."""
    mine, other, must, stretch = CASES[name]
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(cpu_seconds([*mine, str(path)]))
        theirs.append(cpu_seconds([*other, str(path)]))
    us, them = statistics.median(ours), statistics.median(theirs)
    print(
        f"{name}: {packets:,} packets   ours {us:.3f} CPU-s ({packets / us:,.0f}/s)   "
        f"tshark {them:.3f} CPU-s ({packets / them:,.0f}/s)"
    )
    peer = " ".join(other[1:5]) if name == "lines" else " ".join(other[2:5])
    return figure(f"offline: {name}, against tshark {peer}", them / us, must, stretch, "times")


def same_rows(path: Path) -> bool:
    """Whether the lines are the messages that tshark lists: time, ports, code, Call-ID, From, To."""
    root = str(Path(__file__).parents[1])
    ours = subprocess.run([*MESSAGES, str(path)], cwd=root, capture_output=True, check=True).stdout
    rows = []
    for line in ours.splitlines():
        found = json.loads(line)
        what = found["payload"]
        rows.append(
            (
                str(found["src_port"]),
                str(found["dest_port"]),
                str(what["status"] or ""),
                what["call_id"],
                what["from"],
                what["to"],
            )
        )
    wanted = (3, 4, 6, 7, 8, 9)
    theirs = subprocess.run([*AS_FIELDS, str(path)], capture_output=True, check=True, text=True).stdout
    listed = [tuple(line.split("\t")[number] for number in wanted) for line in theirs.splitlines()]
    if sorted(rows) == sorted(listed):
        return True
    print(f"lines: {len(rows):,} rows are not the {len(listed):,} of tshark")
    return False


def main() -> int:
    """Make the captures, compare on each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--calls", type=int, default=1000, help="calls of the mix, of 4,007 packets each")
    parser.add_argument("cases", nargs="*", help="mix, sip, lines; all of them without")
    wanted = parser.parse_args()
    cases = wanted.cases or list(CASES)
    if unknown := set(cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}: there are {', '.join(CASES)}")
    if shutil.which("tshark") is None:
        print("offline: not measured: no tshark to compare with (apt-get install tshark)")
        return 0
    good = True
    with tempfile.TemporaryDirectory() as folder:
        if "mix" in cases:
            mix = Path(folder, "mix.pcap")
            good = compare("mix", mix, mix_capture(mix, wanted.calls, 2000), wanted.runs) and good
            mix.unlink()
        if "sip" in cases or "lines" in cases:
            sip = Path(folder, "sip.pcap")
            packets = sip_capture(sip, calls=14_286)
            for name in ("sip", "lines"):
                if name in cases:
                    good = compare(name, sip, packets, wanted.runs) and good
            if "lines" in cases:
                good = same_rows(sip) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

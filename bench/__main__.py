"""All benchmarks, or those that are named, one after the other; then a table and one exit code.

    ./dev bench [NAME...] [--list] [--keep]

Each is a module of this folder with a `main()`, run as a process of its own. A line with PASS or MISS is a
figure; a benchmark that ends with something else than 0 has missed one. `--keep` writes the baseline of
`calibration` anew.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.calibration import processor

HERE = Path(__file__).parent
NAMES = (
    "worker", "offline", "calibration", "fragments", "latency", "scaling", "memory", "conservation", "live",
    "live_frames", "tcp_cost",
)  # fmt: skip
"""In this order; others of the folder that have a `main()` behind them."""
HELPERS = ("captures", "figures", "lab", "__init__", "__main__")
VERDICT = re.compile(r"\b(PASS|MISS)\b")
NOT_MEASURED = re.compile(r"\bnot measured\b")


def benchmarks() -> list[str]:
    """Every benchmark that is here."""
    found = [
        path.stem
        for path in sorted(HERE.glob("*.py"))
        if path.stem not in HELPERS and "def main(" in path.read_text("utf-8")
    ]
    return [*(name for name in NAMES if name in found), *(name for name in found if name not in NAMES)]


def run(name: str, arguments: list[str]) -> tuple[int, list[str]]:
    """Exit code and the lines with a verdict; everything is shown as it comes."""
    lines = []
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if VERDICT.search(line) or NOT_MEASURED.search(line):
                lines.append(line.rstrip())
    return process.returncode, lines


def main() -> int:
    """Run them; 1 where one missed, 2 for a name that is none."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--keep", action="store_true", help="write the baseline of `calibration` anew")
    wanted = parser.parse_args()
    there = benchmarks()
    if wanted.list:
        print("\n".join(there))
        return 0
    if unknown := [name for name in wanted.names if name not in there]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(there)}")
    print(f"{processor()}, {platform.system()} {platform.release()}, {time.strftime('%Y-%m-%d %H:%M %Z')}\n")
    results = {}
    for name in wanted.names or there:
        begun = time.monotonic()
        print(f"-- {name}", flush=True)
        code, lines = run(name, ["--keep"] if wanted.keep and name == "calibration" else [])
        results[name] = (code, lines)
        print(f"   {time.monotonic() - begun:.0f} s\n", flush=True)
    print("== all figures")
    for name, (code, lines) in results.items():
        for line in lines or [f"{name}: no figure"]:
            print(f"  {line}")
        if code:
            print(f"  {name}: MISS, ended with {code}")
    return 1 if any(code for code, _ in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

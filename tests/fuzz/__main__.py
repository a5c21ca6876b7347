"""Fuzz the engine's parsers and decoders (`./dev fuzz`).

    ./dev fuzz [TARGET...] [--seconds N] [--only blind|guided] [--sanitized] [--list] [--replay FILE...]

Each target runs for N seconds (60): half of them guided by the coverage of the uncompiled build (atheris),
half with random changes on the compiled one. Either way both builds must agree, nothing may be raised and no
input may take longer than the target's patience. Inputs that fail stand in tests/fuzz/findings, with
a text beside them; exit code 1 where there are any. What runs keep to go on with is in build/fuzz.
With --sanitized the modules are compiled once more, with gcc's sanitizers, and all the time is for blind runs
on these; targets without compiled modules are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz import sanitized
from tests.fuzz.blind import in_work
from tests.fuzz.finding import FOLDER
from tests.fuzz.targets import TARGETS, Pair

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "fuzz"
STUCK_S = 90
"""Without a new input a process hangs."""
COVERED = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+)")


def run(way: str, name: str, seconds: int, checked: bool = False) -> tuple[str, int]:
    """One process; what it did, and how many findings it had. What kills or stops it is one."""
    place, environment = (sanitized.PLACE, sanitized.environment()) if checked else (ROOT, None)
    work = WORK / name
    (work / "corpus").mkdir(parents=True, exist_ok=True)
    mark = work / "input"
    mark.write_bytes(bytes(16))
    log = work / f"{way}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.fuzz.{way}", name, str(seconds), str(work)],
            cwd=place, env=environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        ended = wait(process, mark)
    text = log.read_text("utf-8", "replace")
    found = [line for line in text.splitlines() if line.startswith("FOUND ")]
    if ended:
        FOLDER.joinpath(name).mkdir(parents=True, exist_ok=True)
        path = FOLDER / name / f"{way}-{int(time.time())}"
        path.write_bytes(in_work(mark)[1])
        path.with_suffix(".txt").write_text(f"{ended}\n\n{text[-4000:]}", encoding="utf-8")
        found.append(f"FOUND {path}: {ended}")
    for line in found:
        print(f"  {line}", flush=True)
    return figures(way, text, in_work(mark)[0], seconds), len(found)


def wait(process: subprocess.Popen[bytes], mark: Path) -> str:
    """Until it ends by itself; empty, or what went wrong."""
    count, since = 0, time.monotonic()
    while True:
        try:
            code = process.wait(2)
        except subprocess.TimeoutExpired:
            now = in_work(mark)[0]
            if now != count:
                count, since = now, time.monotonic()
            elif time.monotonic() - since > STUCK_S:
                process.kill()
                process.wait()
                return f"hangs: no other input for {STUCK_S} s"
            continue
        return "" if code == 0 else f"ended with {code}"


def figures(way: str, text: str, runs: int, seconds: int) -> str:
    """Runs a second, and how far it came."""
    if way == "guided":
        lines = COVERED.findall(text)
        reached = f"{lines[-1][1]} branches, {lines[-1][2]} features" if lines else "nothing reached"
    else:
        done = re.search(r"DONE runs \d+ kept (\d+) features (\d+)", text)
        reached = f"{done[2]} kinds of answers, {done[1]} inputs kept" if done else "not ended"
    return f"{way:7} {runs:>10,} runs {runs / max(1, seconds):>9,.0f} a second  {reached}"


def replay(paths: list[str]) -> int:
    """Run files again; the folder that they stand in is their target."""
    for path in map(Path, paths):
        Pair(path.resolve().parent.name).check(path.read_bytes(), timed=True)
        print(f"{path}: nothing wrong")
    return 0


def main() -> int:
    """1 where something was found."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__.split("\n", 1)[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="for each target (60)")
    parser.add_argument("--only", choices=("blind", "guided"), help="one of the two ways")
    parser.add_argument("--sanitized", action="store_true", help="blind, compiled with gcc's sanitizers")
    parser.add_argument("--list", action="store_true", help="only say which targets there are")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="run these inputs again")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(f"{name:10} {one.about}" for name, one in TARGETS.items()))
        return 0
    if asked.replay:
        return replay(asked.replay)
    if unknown := [name for name in asked.targets if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    ways = [asked.only] if asked.only else ["guided", "blind"]
    if "guided" in ways and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed here: no guided runs")
        ways = ["blind"]
    names = asked.targets or list(TARGETS)
    if asked.sanitized:
        if not sanitized.libraries():
            parser.error("--sanitized needs gcc with libasan and libubsan")
        print("compiling with sanitizers (minutes the first time)", flush=True)
        sanitized.build()
        ways, names = ["blind"], [name for name in names if not TARGETS[name].cold]
    count = 0
    for name in names:
        for way in ways:
            line, found = run(way, name, max(1, asked.seconds // len(ways)), asked.sanitized)
            print(f"{name:10} {line}", flush=True)
            count += found
    print(f"{count} findings, in {FOLDER}" if count else "no findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())

"""The smoke test on Debian's kernels and on this host's: prints a table and, with --write, keeps it in docs/.

    run.py [--write] [SERIES ...] [--backend NAME ...]

Series: 5.10 6.1 6.12 host. Wants root, Debian 12, qemu-system-x86 and kmod.
A kernel is booted by virtme-ng without KVM: a minute for it, two for each backend, and some more for BCC to
compile.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kernels

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "kernels.md"
BACKENDS = ("libbpf", "bcc", "netlink")
BEGIN, END = "<!-- results: tests/kernels/run.py --write -->\n", "<!-- end of results -->\n"


def on_host(backends: list[str]) -> str:
    """The smoke test here."""
    command = [sys.executable, str(HERE / "smoke.py"), *backends]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900).stdout


def in_guest(series: str, backends: list[str]) -> str:
    """The smoke test on Debian's kernel of a series."""
    release = next(one for one in kernels.RELEASES if one.series == series)
    version, root = kernels.unpack(release)
    script = (
        f"cd {shlex.quote(str(HERE.parents[1]))}; {kernels.for_bcc(root) if 'bcc' in backends else ''}"
        f"{sys.executable} {HERE}/smoke.py {' '.join(backends)}"
    )
    return kernels.boot(root, version, script)


def results(text: str) -> list[dict[str, Any]]:
    """The lines `RESULT {...}` of an output."""
    found = (line.partition("RESULT ")[2] for line in text.splitlines() if "RESULT {" in line)
    return [json.loads(one) for one in found]


def row(one: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in one:
        return f"| {one.get('kernel', '')} | {one['backend']} | {one['error']} | | | | | | |"
    cells = [
        "unknown" if own is None else str(own) if own == kernel else f"**{own}** of {kernel}"
        for own, kernel in one["pairs"].values()
    ]
    off = ", ".join(sorted(one["off"])) or "none"
    return f"| {one['kernel']} | {one['used']} | " + " | ".join([*cells, str(one["rtt"])]) + f" | {off} |"


def table(found: list[dict[str, Any]]) -> str:
    """All results, as Markdown."""
    names = (
        "kernel",
        "backend",
        "segments again",
        "RTO",
        "TLP",
        "handshakes",
        "resets sent",
        "RTT samples",
        "off",
    )
    head = f"| {' | '.join(names)} |\n"
    return head + "|---" * len(names) + "|\n" + "\n".join(map(row, found)) + "\n"


def keep(text: str) -> None:
    """Replace the table in the page."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN, 1)
    PAGE.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.split(END, 1)[1])


def main() -> None:
    """As the module says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    series = [*(one.series for one in kernels.RELEASES), "host"]
    parser.add_argument("series", nargs="*", help=f"of {' '.join(series)}; all of them")
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    backends = chosen.backend or list(BACKENDS)
    wanted = chosen.series or series
    if unknown := sorted(set(wanted) - set(series)):
        parser.error(f"unknown kernels {', '.join(unknown)}: {', '.join(series)}")
    found: list[dict[str, Any]] = []
    if set(wanted) - {"host"}:
        if packages := kernels.missing():
            sys.exit(f"missing: apt-get install {' '.join(packages)}")
        kernels.read_lists()
    failed = False
    for one in wanted:
        text = on_host(backends) if one == "host" else in_guest(one, backends)
        own = results(text)
        for each in own:
            each.setdefault("kernel", platform.release() if one == "host" else one)
            print(json.dumps(each), flush=True)
        if len(own) < len(backends):
            failed = True
            print(f"{one}: {len(own)} of {len(backends)} backends answered\n{text[-2000:]}", file=sys.stderr)
        found += own
    print("\n" + table(found))
    if chosen.write:
        keep(table(found))
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""The smoke test on Debian's kernels and on this host's: prints a table and, with --write, keeps it in docs/.

    run.py [--write] [SERIES ...] [--backend NAME ...]

Series: 5.10 6.1 6.12 host. Wants root, Debian 12, qemu-system-x86 and kmod.
A kernel is booted by virtme-ng without KVM: a minute for it and one or two for each backend, many more where
BCC is to compile with headers (--backend bcc-headers).
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kernels

ALL = ("libbpf", "bcc", "bcc-headers", "netlink")
HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "kernels.md"
BACKENDS = ("libbpf", "bcc", "netlink")
HEADERS = "bcc-headers"
"""bcc as on a kernel without BTF: where there are headers, and only when it is asked for."""
BEGIN, END = "<!-- results: tests/kernels/run.py --write -->\n", "<!-- end of results -->\n"


def on_host(backends: list[str]) -> str:
    """The smoke test here."""
    command = [sys.executable, str(HERE / "smoke.py"), *backends]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900).stdout


def in_guest(series: str, backends: list[str]) -> str:
    """The smoke test on Debian's kernel of a series."""
    release = next(one for one in kernels.RELEASES if one.series == series)
    version, root = kernels.unpack(release)
    before = kernels.for_bcc(root, HEADERS in backends) if {"bcc", HEADERS} & set(backends) else ""
    script = (
        f"cd {shlex.quote(str(HERE.parents[1]))}; {before}"
        f"{sys.executable} {HERE}/smoke.py {' '.join(backends)}"
    )
    return kernels.boot(root, version, script)


def results(text: str) -> list[dict[str, Any]]:
    """The lines `RESULT {...}` of an output."""
    found = (line.partition("RESULT ")[2] for line in text.splitlines() if "RESULT {" in line)
    return [json.loads(one) for one in found]


def cell(own: int | None, kernel: int) -> str:
    """Two counters side by side."""
    return "unknown" if own is None else str(own) if own == kernel else f"**{own}** of {kernel}"


def row(one: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in one:
        return f"| {one.get('kernel', '')} | {one['backend']} | {one['error']} | | | | | | |"
    cells = [cell(own, kernel) for own, kernel in one["pairs"].values()]
    if "resets.no_socket" in one["off"]:
        cells[-1] = "{} of {}, the rest without a socket".format(*one["pairs"]["resets sent"])
    off = ", ".join(sorted(one["off"])) or "none"
    return f"| {one['kernel']} | {one['used']} | " + " | ".join([*cells, str(one["rtt"])]) + f" | {off} |"


def order(line: str) -> tuple[list[int], int]:
    """Of a row: by the kernel's version, then as BACKENDS."""
    kernel, backend = (cell.strip() for cell in line.split("|")[1:3])
    return [int(word) for word in re.findall(r"\d+", kernel)], ALL.index(backend)


def table(rows: list[str]) -> str:
    """Rows of results, as Markdown."""
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
    return head + "|---" * len(names) + "|\n" + "\n".join(rows) + "\n"


def keep(rows: list[str]) -> None:
    """Put rows into the table of the page, in the place of those of the same kernel and backend."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN, 1)
    old, rest = rest.split(END, 1)
    kept = {
        tuple(line.split("|")[1:3]): line
        for line in (*(line for line in old.splitlines() if re.match(r"\| \d", line)), *rows)
    }
    text = table(sorted(kept.values(), key=order))
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest}")


def main() -> None:
    """As the module says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    series = [*(one.series for one in kernels.RELEASES), "host"]
    parser.add_argument("series", nargs="*", help=f"of {' '.join(series)}; all of them")
    parser.add_argument("--backend", action="append", choices=ALL)
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
    rows = list(map(row, found))
    print("\n" + table(rows))
    if chosen.write:
        keep(rows)
    sys.exit(failed)


if __name__ == "__main__":
    main()

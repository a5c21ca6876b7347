"""What this host can do for otus-tui, and the one line that mends each thing that it cannot.

Looks, and changes nothing: a packet socket is opened and closed, the eBPF probe is loaded and
dropped in a child process with a time limit. `examine()` gives the findings in the order in which a
person would want them.
"""

from __future__ import annotations

import errno
import json
import locale
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine import bpf_probe, privileges, resources

Level = Literal["ok", "warn", "missing"]

ETH_P_ALL = 3
PROBE_SECONDS = 10
SMALLEST_TERMINAL = (80, 24)
CAPABILITIES = {
    "net_admin": (12, "promiscuous mode"),
    "net_raw": (13, "live capture"),
    "sys_ptrace": (19, "the owner of other users' sockets"),
    "sys_admin": (21, "the TCP observer on kernels before 5.8"),
    "perfmon": (38, "the TCP observer"),
    "bpf": (39, "the TCP observer"),
}
"""Bit in CapEff (include/uapi/linux/capability.h) and what it is for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `missing`: a main use does not work; `warn`: something works less well."""

    name: str
    level: Level
    text: str
    mend: str = ""
    """The one line that a person can run, empty when nothing is to be mended."""


def examine() -> list[Finding]:
    """Every finding. Takes well under a second, at most PROBE_SECONDS; never raises."""
    findings: list[Finding] = []
    for examination in _EXAMINATIONS:
        try:
            findings += examination()
        except Exception as error:  # one broken examination must not hide the others
            name = examination.__name__.strip("_")
            findings.append(Finding(name, "warn", f"could not be examined: {error!r}"))
    return findings


def capabilities() -> set[str]:
    """Names out of CAPABILITIES that this process has in its effective set."""
    mask = privileges.effective()
    return {name for name, (bit, _) in CAPABILITIES.items() if mask >> bit & 1}


def kernel_version() -> tuple[int, int]:
    """Major and minor of the running kernel, (0, 0) if it does not say."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _with_sudo() -> str:
    """The command that starts this very program with every capability (sudo has its own PATH)."""
    program = sys.argv[0]
    named = os.path.basename(program) in ("otus", "otus-tui") and os.path.exists(program)
    return f"sudo {os.path.abspath(program)}" if named else "sudo otus-tui"


def _python() -> list[Finding]:
    free = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"
    return [Finding("python", "ok", f"Python {platform.python_version()}{free}, {platform.machine()}")]


def _kernel() -> list[Finding]:
    version, release = kernel_version(), platform.release()
    facts = []
    if version >= (6, 18):
        facts.append("ring blocks retire by high-resolution timer")
    if version >= (5, 8):
        facts.append("CAP_BPF")
    level: Level = "ok"
    if version < (5, 8):
        level = "warn"
        facts.append("before 5.8: no eBPF ring buffer, the TCP observer uses bcc or netlink")
    findings = [Finding("kernel", level, f"Linux {release}" + (f" ({', '.join(facts)})" if facts else ""))]
    if os.access("/sys/kernel/btf/vmlinux", os.R_OK):
        findings.append(Finding("btf", "ok", "/sys/kernel/btf/vmlinux describes the kernel's types"))
    else:
        text = "no /sys/kernel/btf/vmlinux: the TCP observer uses bcc or netlink"
        findings.append(Finding("btf", "warn", text, "sudo apt-get install python3-bpfcc"))
    return findings


def _capture() -> list[Finding]:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return [Finding("capture", "missing", "not permitted: CAP_NET_RAW is missing", _with_sudo())]
    except OSError as error:
        text = f"this kernel gives no packet socket: {error.strerror}"
        return [Finding("capture", "missing", text, "sudo modprobe af_packet")]
    if "net_admin" not in capabilities():
        text = "permitted, without promiscuous mode: CAP_NET_ADMIN is missing"
        return [Finding("capture", "warn", text, _with_sudo())]
    return [Finding("capture", "ok", "a packet socket opens, with promiscuous mode")]


def _capability_sets() -> list[Finding]:
    have = capabilities()
    # CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, and nobody needs it beside them.
    if "sys_admin" in have or {"bpf", "perfmon"} <= have:
        have |= {"sys_admin", "bpf", "perfmon"}
    lacks = [
        name for name in CAPABILITIES if name not in have and not (name == "sys_admin" and "bpf" in have)
    ]
    if not lacks:
        return [Finding("capabilities", "ok", "all that are used: " + ", ".join(sorted(capabilities())))]
    if lacks == ["sys_ptrace"]:
        return [Finding("capabilities", "warn", "no sys_ptrace: sockets of other users have no owner's name")]
    if "sys_admin" in lacks and kernel_version() >= (5, 8):
        lacks.remove("sys_admin")
    uses: dict[str, list[str]] = {}
    for name in lacks:
        uses.setdefault(CAPABILITIES[name][1], []).append(name)
    text = "; ".join(f"no {' and '.join(names)}: without {use}" for use, names in uses.items())
    return [Finding("capabilities", "warn", text, _with_sudo())]


def _hot_modules() -> list[Finding]:
    every, plain = resources.hot_modules(), resources.uncompiled()
    if not plain:
        return [Finding("compiled", "ok", f"all {len(every)} hot modules are compiled")]
    if os.environ.get("OTUS_PURE", "") not in ("", "0"):
        return [
            Finding("compiled", "warn", "OTUS_PURE is set: everything runs uncompiled", "unset OTUS_PURE")
        ]
    names = ", ".join(name.removeprefix("engine.") for name in plain)
    text = f"{len(plain)} of {len(every)} hot modules run uncompiled, about 50 times slower: {names}"
    return [
        Finding("compiled", "warn", text, "sudo apt-get install gcc libc6-dev python3-dev && ./dev setup")
    ]


def _libpcap() -> list[Finding]:
    from engine.capture import filter_child

    library = filter_child.load()
    if library is None:
        text = "not found: filters in tcpdump syntax do not work, structured ones do"
        return [Finding("libpcap", "missing", text, "sudo apt-get install libpcap0.8")]
    version: bytes = library.pcap_lib_version()
    return [Finding("libpcap", "ok", version.decode("ascii", "replace"))]


def _libbpf() -> list[Finding]:
    library = bpf_probe.library()
    if library is None:
        text = "not found: the TCP observer uses bcc or netlink"
        return [Finding("libbpf", "warn", text, "sudo apt-get install libbpf1")]
    findings = [Finding("libbpf", "ok", f"libbpf {bpf_probe.library_version(library)}")]
    probe = resources.data("bpf", "probe.bpf.o")
    if not probe.is_file():
        text = "this build left the eBPF objects out"
        mend = "sudo apt-get install clang libbpf-dev && ./dev setup"
        return [*findings, Finding("ebpf", "warn", text, mend)]
    return [*findings, _load_probe(str(probe))]


def _load_probe(path: str) -> Finding:
    command = [sys.executable, "-m", "engine.bpf_probe", path]
    # The child finds `engine` where this process did, whatever its working directory is.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False, env=environment
        )
        result = json.loads(ran.stdout)
    except subprocess.TimeoutExpired:
        return Finding("ebpf", "warn", f"loading a program took longer than {PROBE_SECONDS} s and was ended")
    except ValueError:
        return Finding(
            "ebpf", "warn", f"the loader ended with code {ran.returncode}: {ran.stderr.strip()[-200:]}"
        )
    if result["loaded"]:
        return Finding("ebpf", "ok", "a BTF tracepoint with a ring buffer loads")
    if result["errno"] in ("EPERM", "EACCES"):
        text = "not permitted: loading takes CAP_BPF and CAP_PERFMON"
        return Finding("ebpf", "warn", text, _with_sudo())
    reason = result["log"][-1] if result["log"] else "no reason given"
    return Finding("ebpf", "warn", f"the kernel refuses the program: {result['errno']}, {reason}")


def _tcp_probes() -> list[Finding]:
    """Each program of the TCP observer by the kernel's types: what it is for, or why it is off."""
    from engine.errors import OtusError
    from engine.tcp import choose, options
    from engine.tcp.libbpf import loader
    from engine.tcp.libbpf.btf import Btf

    try:
        Btf.of_kernel().close()
    except OtusError as error:
        return [Finding("tcp probes", "warn", f"not known: {error.message}", error.hint)]
    refused = "" if loader.capable() else loader.failure(errno.EPERM, "").message
    plan = choose.construct("libbpf", options.make()).plan()
    given = {metric for one in plan.programs if one.on for metric in one.metrics}
    hooks = {one.hook for one in plan.programs if one.on}
    findings = []
    for one in plan.programs:
        metrics = ", ".join(one.metrics)
        if one.on and refused:
            # What mends it stands at `ebpf`.
            findings.append(Finding(one.name, "warn", f"off: {refused}; without {metrics}"))
        elif one.on:
            findings.append(Finding(one.name, "ok", f"{one.hook}: {metrics}"))
        elif one.hook in hooks or given >= set(one.metrics) or "--pid" in one.why:
            findings.append(Finding(one.name, "ok", f"not needed: {one.why}"))
        else:
            findings.append(Finding(one.name, "warn", f"off: {one.why}; without {metrics}"))
    return findings


def _memory_lock() -> list[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return [Finding("memlock", "ok", "no limit on locked memory")]
    text = f"locked memory is limited to {soft // 1024} KiB"
    if kernel_version() < (5, 11) and soft < 64 * 1024**2:
        # Before 5.11 eBPF maps count against it (they moved to the memory cgroup then).
        return [Finding("memlock", "warn", f"{text}: too little for eBPF maps", "ulimit -l unlimited")]
    return [Finding("memlock", "ok", text)]


def _terminal() -> list[Finding]:
    term = os.environ.get("TERM", "")
    columns, rows = shutil.get_terminal_size((0, 0))
    colour = os.environ.get("COLORTERM", "")
    if os.environ.get("NO_COLOR"):
        shades = "no colour (NO_COLOR)"
    elif colour in ("truecolor", "24bit"):
        shades = "true colour"
    else:
        shades = "256 colours" if "256" in term else "16 colours"
    size = f"{columns}x{rows}" if columns and rows else "size unknown"
    text = f"{term or 'TERM is not set'}, {size}, {shades}"
    if not sys.stdout.isatty():
        text += ", standard output is no terminal"
    findings = []
    if term in ("", "dumb", "unknown"):
        findings.append(Finding("terminal", "warn", f"{text}: no screens here", "export TERM=xterm-256color"))
    elif sys.stdout.isatty() and (columns < SMALLEST_TERMINAL[0] or rows < SMALLEST_TERMINAL[1]):
        findings.append(Finding("terminal", "warn", f"{text}: smaller than 80x24", "enlarge the window"))
    else:
        findings.append(Finding("terminal", "ok", text))
    encoding = locale.getencoding()
    if encoding.lower().replace("-", "") == "utf8":
        return [*findings, Finding("locale", "ok", encoding)]
    text = f"{encoding}: lines and arrows are drawn in ASCII"
    return [*findings, Finding("locale", "warn", text, "export LC_ALL=C.UTF-8")]


_EXAMINATIONS: tuple[Callable[[], list[Finding]], ...] = (
    _python,
    _kernel,
    _capture,
    _capability_sets,
    _hot_modules,
    _libpcap,
    _libbpf,
    _memory_lock,
    _terminal,
    _tcp_probes,
)

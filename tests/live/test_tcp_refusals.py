"""What a host may lack: each is one clear line with what mends it, and the exit code that scripts go by; the
kernel is left as it was."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import ExitCode
from tests.live.refused import BPF
from tests.live.tcp_path import NEEDS_PROGRAMS

ROOT = Path(__file__).parents[2]
VMLINUX, LOCKDOWN = "/sys/kernel/btf/vmlinux", "/sys/kernel/security/lockdown"
pytestmark = [
    *NEEDS_PROGRAMS,
    pytest.mark.skipif(platform.machine() not in BPF, reason="the number of the system call is not known"),
]
NO_BTF = ("--without", VMLINUX)
NO_CALL = ("--errno", "38")
REFUSED = ("--errno", "1")
LOCKED = (*REFUSED, "--file", f"{LOCKDOWN}=none integrity [confidentiality]")


def observe(lacks: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.live.refused", *lacks, sys.executable, "-m", "otus_tui", "tcp"]
    command += ["--duration", "0.3", "--interval", "0.1", "--format", "jsonl", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(
    ("lacks", "code", "words", "hint"),
    [
        (NO_BTF, ExitCode.FAILED, "no BTF", "netlink"),
        (NO_CALL, ExitCode.FAILED, "no bpf system call", "--backend netlink"),
        (LOCKED, ExitCode.NOT_PERMITTED, "kernel lockdown (confidentiality)", "--backend netlink"),
        (REFUSED, ExitCode.NOT_PERMITTED, "bpf system call is refused", "seccomp=unconfined"),
    ],
    ids=["no BTF", "no bpf call", "lockdown", "seccomp"],
)
@pytest.mark.parametrize("backend", ["libbpf", "auto"])
def test_one_line_says_what_is_missing(
    lacks: tuple[str, ...], code: ExitCode, words: str, hint: str, backend: str
) -> None:
    """Named, it is an error; without a name, a missing right is one, and a kernel that lacks something is a
    warning: another backend does it."""
    done = observe(lacks, "--backend", backend)
    first, *rest = done.stderr.splitlines()
    assert words in first, done.stderr
    if backend == "auto" and code == ExitCode.FAILED:
        assert done.returncode == ExitCode.DONE
        assert first.startswith("otus-tui: warning: libbpf: ")
        assert all(line.startswith("otus-tui: warning: ") for line in rest)
        last = json.loads(done.stdout.splitlines()[-1])
        assert (last["final"], last["backend"]) == (True, "netlink")
        return
    assert (done.returncode, done.stdout) == (code, "")
    assert first.startswith("otus-tui: ")
    assert hint in rest[0]
    assert len(rest) == 1


def test_without_the_right_sudo_is_named() -> None:
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    command = [*bare, sys.executable, "-m", "otus_tui", "tcp", "--duration", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=30)
    assert done.returncode == ExitCode.NOT_PERMITTED
    assert "CAP_BPF and CAP_PERFMON" in done.stderr
    assert "sudo otus-tui tcp" in done.stderr
    assert done.stderr.count("\n") == 2


@pytest.mark.parametrize("lacks", [NO_BTF, NO_CALL, REFUSED, LOCKED])
def test_netlink_does_without(lacks: tuple[str, ...]) -> None:
    done = observe(lacks, "--backend", "netlink")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1])["rtt_us"] is not None

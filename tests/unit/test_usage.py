"""What the engine says it takes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from engine import usage
from tests.pace import within

MIB = 1 << 20
CHILD = (
    "import mmap, os, sys\n"
    "memory = mmap.mmap(int(sys.argv[1]), 0)\n"
    "for place in range(0, len(memory), 4096): memory[place] = 1\n"
    "print('ready', flush=True); sys.stdin.read()\n"
)


def test_shared_memory_counts_once() -> None:
    """Three processes that share 64 MiB do not take 192."""
    fd = os.memfd_create("shared")
    os.ftruncate(fd, 64 * MIB)
    children, found = [], []
    try:
        for _ in range(3):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(fd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[fd],
            )
            children.append(child)
            found.append(usage.open_memory(child.pid))
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        parts = [usage.memory(descriptor) or 0 for descriptor in found]
        assert 64 * MIB <= sum(parts) < 128 * MIB
        assert all(21 * MIB < part < 43 * MIB for part in parts)
    finally:
        for child in children:
            child.communicate()
    assert [usage.memory(descriptor) for descriptor in found] == [0, 0, 0], "who is gone takes nothing"
    for descriptor in found:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_process_that_became_another_user_is_still_known() -> None:
    code = (
        "import os, sys\n"
        "from engine import privileges\n"
        "sys.stdin.readline()\n"
        "privileges.drop((65534, 65534))\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    asker = (
        "import subprocess, sys\n"
        "from engine import privileges, usage\n"
        "pipe = subprocess.PIPE\n"
        f"child = subprocess.Popen([sys.executable, '-c', {code!r}], stdin=pipe, stdout=pipe)\n"
        "early = usage.open_memory(child.pid)\n"
        "child.stdin.write(b'go\\n'); child.stdin.flush(); child.stdout.readline()\n"
        "privileges.drop(None)\n"
        "assert usage.memory(early) > 1000000\n"
        "assert usage.open_memory(child.pid) == -1, 'CAP_SYS_PTRACE is gone'\n"
        "child.communicate()\n"
    )
    subprocess.run([sys.executable, "-c", asker], check=True, timeout=20)


def test_what_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usage.open_memory(1 << 30) == -1
    assert usage.memory(-1) is None
    assert (usage.Meter().octets([]) or 0) > MIB
    meter = usage.Meter()
    assert meter.octets([lambda: 5, lambda: None]) is None
    assert meter.octets([]) is None, "looked at a moment ago"
    monkeypatch.setattr(usage, "MEMORY_AGE", 0.0)
    assert (meter.octets([lambda: 7]) or 0) > 7


def test_looking_is_cheap() -> None:
    memory = mmap.mmap(-1, 64 * MIB)
    for place in range(0, len(memory), 4096):
        memory[place] = 1
    descriptor = usage.open_memory(os.getpid())
    assert within(60, lambda: usage.memory(descriptor))
    os.close(descriptor)
    memory.close()

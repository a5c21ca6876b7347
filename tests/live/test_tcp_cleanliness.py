"""Nothing of the observer stays in the kernel: after a stop, a SIGKILL, a load that failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import OtusError
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend, loader
from tests.live.tcp_path import NEEDS_PROGRAMS, needs

pytestmark = [*NEEDS_PROGRAMS, needs("bpftool")]
CHILD = """
import sys, time
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend
backend = LibbpfBackend(Filters(), Triggers(), Limits(), Sizes())
backend.start()
backend.count_costs()
print("up", flush=True)
if sys.stdin.readline():
    backend.stop()
    print("down", flush=True)
    time.sleep(60)
"""
# Of other observers on this host nothing is known: only what a process of ours holds is asked for.
OF_PROCESS = ("prog", "map", "link")


def held() -> dict[str, set[int]]:
    """Ids of all programs, maps and links of the kernel."""
    found = {}
    for kind in OF_PROCESS:
        text = subprocess.run(["bpftool", "-j", kind, "list"], check=True, capture_output=True, text=True)
        rows = json.loads(text.stdout or "[]")
        found[kind] = {row["id"] for row in rows if isinstance(row, dict)}
    return found


def of_process(pid: int) -> dict[str, set[int]]:
    """Ids of the programs, maps and links that a process has descriptors of."""
    keys = {"prog_id": "prog", "map_id": "map", "link_id": "link"}
    found: dict[str, set[int]] = {kind: set() for kind in OF_PROCESS}
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            text = Path(f"/proc/{pid}/fdinfo/{name}").read_text("ascii")
        except FileNotFoundError:
            continue  # the descriptor of this list itself
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        for key, kind in keys.items():
            # A link's file names its program, too.
            if key in fields and not (key == "prog_id" and "link_id" in fields):
                found[kind].add(int(fields[key]))
    return found


def gone(ids: dict[str, set[int]]) -> bool:
    """Whether none of them is left; the kernel frees them after a moment."""
    for _ in range(50):
        now = held()
        if not any(ids[kind] & now[kind] for kind in OF_PROCESS):
            return True
        time.sleep(0.1)
    return False


def start() -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def finish(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_a_stopped_observer_leaves_nothing() -> None:
    child = start()
    try:
        ids = of_process(child.pid)
        now = held()
        assert all(ids[kind] and ids[kind] <= now[kind] for kind in OF_PROCESS), ids
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("stop\n")
        child.stdin.flush()
        assert child.stdout.readline() == "down\n"
        assert not any(of_process(child.pid).values())
        assert gone(ids)
    finally:
        finish(child)


def test_a_killed_observer_leaves_nothing() -> None:
    child = start()
    ids = of_process(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert gone(ids)


def test_the_kernel_measures_no_longer_than_it_is_asked_to() -> None:
    setting = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = setting.read_text("ascii")
    finish(start())
    assert setting.read_text("ascii") == before


def test_a_load_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, set[int]]] = []

    def fail(self: loader.BpfObject, name: str) -> str:
        seen.append(of_process(os.getpid()))
        return "is not wanted here"

    monkeypatch.setattr(loader.BpfObject, "attach", fail)
    backend = LibbpfBackend(Filters(), Triggers(), Limits(), Sizes())
    with pytest.raises(OtusError, match="no program can be attached"):
        backend.start()
    assert seen[0]["prog"]
    assert gone(seen[0])
    assert not of_process(os.getpid())["map"]


def test_a_program_that_the_verifier_refuses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loader.BpfObject.load

    def refuse(self: loader.BpfObject, programs: list[str]) -> None:
        if "segment" in programs:
            raise loader.RefusedError(
                "segment", "R1 is not what it should be", ["R1 is not what it should be"]
            )
        whole(self, programs)

    monkeypatch.setattr(loader.BpfObject, "load", refuse)
    backend = LibbpfBackend(Filters(), Triggers(), Limits(), Sizes())
    backend.start()
    try:
        assert "R1 is not what it should be" in backend.off["rtt"]
        assert "transitions" not in backend.off
        reading = backend.read()
        assert "rtt_us" not in reading.histograms
        assert "zero_window_received" not in reading.counters
        assert "resets_sent" in reading.counters
        assert backend.log == ["R1 is not what it should be"]
    finally:
        backend.stop()


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_program_leaves_nothing_however_it_ends(number: signal.Signals | None) -> None:
    """`otus-tui tcp` at the end of its time, told to end, killed: bpftool lists what it listed before."""
    before = held()
    words = ["--backend", "libbpf", "--verbose", "--stats", "--max-cpu", "5%"]
    words += ["--format", "jsonl", "--duration", "2" if number is None else "60"]
    # The tests themselves may run under nohup, where a hang-up means nothing.
    child = subprocess.Popen(
        ["env", "--default-signal=HUP", sys.executable, "-m", "otus_tui", "tcp", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        assert child.stderr is not None
        assert child.stderr.readline().startswith("on ")
        ids = of_process(child.pid)
        assert all(ids[kind] for kind in OF_PROCESS)
        # Not there before: they are its own, and no other program's.
        assert not any(ids[kind] & before[kind] for kind in OF_PROCESS)
        if number is not None:
            child.send_signal(number)
        child.communicate(timeout=20)
    finally:
        finish(child)
    assert child.returncode == {None: 0, signal.SIGKILL: -9}.get(number, 130)
    assert gone(ids)


BARE = """
from engine.errors import OtusError
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend
try:
    LibbpfBackend(Filters(), Triggers(), Limits(), Sizes()).start()
except OtusError as error:
    print(int(error.code), error.message, "|", error.hint)
"""


def test_without_the_right_one_line_says_which() -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    drop = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    done = subprocess.run(
        ["setpriv", *drop, sys.executable, "-c", BARE], text=True, capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.startswith("3 loading eBPF programs is not permitted"), done
    assert "CAP_BPF and CAP_PERFMON" in done.stdout
    assert "sudo" in done.stdout
    assert done.stdout.count("\n") == 1
    assert not done.stderr


def test_two_observers_see_the_same() -> None:
    backends = [LibbpfBackend(Filters(), Triggers(), Limits(), Sizes()) for _ in range(2)]
    for backend in backends:
        backend.start()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    listener.accept()[0].close()
                    client.recv(1)
        closed = [{one.cookie for one in backend.closed()} for backend in backends]
        assert len(closed[0] & closed[1]) >= 10
        assert closed[0] == closed[1]
    finally:
        for backend in backends:
            backend.stop()

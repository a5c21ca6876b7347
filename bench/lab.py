"""What the live benchmarks share: namespaces, an engine and helpers of one's own, gone at the end of each.

Everything is a context manager, and SIGTERM and SIGHUP become KeyboardInterrupt (`interruptible()`), so that
namespaces and processes go whatever ends a benchmark. Names of namespaces begin with `otus-bench-`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine.errors import OtusError
from otus_tui.control_client import ControlClient

ROOT = Path(__file__).parents[1]
LINK = "otus0"
"""The interface at both ends of a pair of namespaces."""
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def missing(*programs: str) -> str:
    """Why a live benchmark cannot run here; empty if it can."""
    if os.geteuid():
        return "it makes network namespaces: run it as root"
    lacking = [name for name in ("ip", *programs) if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end a benchmark as Ctrl-C does: through every `finally`."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> None:
    """This process is killed when its parent is gone (PR_SET_PDEATHSIG)."""
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)


def ip(*words: str) -> str:
    """Run `ip`; its output."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A namespace with `lo` up and without IPv6 chatter; its name."""
    name = f"otus-bench-{os.getpid()}{uuid.uuid4().hex[:4]}"
    ip("netns", "add", name)
    try:
        quiet = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"
        subprocess.run(["ip", "netns", "exec", name, "sh", "-c", quiet], check=False, capture_output=True)
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextlib.contextmanager
def pair() -> Iterator[tuple[str, str]]:
    """Two namespaces, joined by veth interfaces named LINK at both ends."""
    with namespace() as near, namespace() as far:
        ip(*f"link add {LINK} netns {near} type veth peer {LINK} netns {far}".split())
        for name in (near, far):
            ip("-n", name, "link", "set", LINK, "up")
        yield near, far


@contextlib.contextmanager
def inside(space: str) -> Iterator[None]:
    """This thread in a namespace: sockets made here are of it."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{space}", "rb") as target:
        _setns(target.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A directory for what a benchmark writes."""
    with tempfile.TemporaryDirectory(prefix="otus-bench-") as name:
        yield Path(name)


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is killed at the end if it still runs."""
    options.setdefault("stdin", subprocess.DEVNULL)
    running = subprocess.Popen(command, **options)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()


class Engine:
    """An engine in a namespace, driven over its socket."""

    def __init__(self, running: subprocess.Popen[bytes], path: str, log: Path) -> None:
        self.process = running
        self.path = path
        self.log = log

    def call(self, method: str, /, **params: Any) -> Any:
        """One call over a connection of its own."""
        with ControlClient(self.path, 30.0) as client:
            return client.call(method, **params)

    def books(self) -> dict[str, Any]:
        """The books of the task."""
        found: dict[str, Any] = self.call("stats")["tasks"][0]["books"]
        return found

    def pids(self) -> dict[int, str]:
        """Every process of the engine -> its part: controller, calls, sender, worker."""
        own = self.process.pid
        found = {own: "controller"}
        with open(f"/proc/{own}/task/{own}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
        for pid in children:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode().split("\0")
                if "-m" in words:
                    parts = words[words.index("-m") + 1].split(".")
                    found[pid] = {"process": "calls"}.get(parts[-1], parts[-1])
        return found

    def settle(self, packets: int, seconds: float = 10.0) -> dict[str, Any]:
        """Wait until `packets` were captured or nothing more comes; the books."""
        books = self.books()
        end = time.monotonic() + seconds
        while books["captured"] < packets and time.monotonic() < end:
            time.sleep(0.1)
            books = self.books()
        return books


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far, to the nanosecond; 0 when it is gone."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def switches(pid: int) -> int:
    """Context switches of all threads of a process so far."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/status", "rb") as file:
                total += sum(int(row.split()[1]) for row in file if b"ctxt_switches" in row)
    return total


@contextlib.contextmanager
def engine(space: str, where: Path, *words: str, prefix: tuple[str, ...] = ()) -> Iterator[Engine]:
    """An engine with the daemon's arguments `words` in namespace `space`, ended and waited for."""
    path = str(where / "run" / "otus.sock")
    log = where / "engine.log"
    # nsenter and not `ip netns exec`, which would hide the BPF file system.
    command = ["nsenter", f"--net=/run/netns/{space}", *prefix, sys.executable, "-P", "-m", "engine.daemon"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        log.open("wb") as output,
        process(
            [*command, f"--socket={path}", *words], stdout=output, stderr=output, env=environment
        ) as running,
    ):
        found = Engine(running, path, log)
        end = time.monotonic() + 20
        while True:
            try:
                ControlClient(path, 2.0).close()
                break
            except OtusError:
                if running.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the engine did not start:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.05)
        try:
            yield found
        finally:
            if running.poll() is None:
                running.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(10)


def load() -> str:
    """How busy the machine is beside us, for the line with a figure."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"

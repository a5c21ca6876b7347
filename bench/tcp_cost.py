"""What the TCP observer's programs cost a run, beside a program that only fills one histogram.

    sudo python -m bench.tcp_cost [SECONDS]

Both hook the same segments at the same time: requests and answers, then bulk, over loopback in a namespace
of its own. Figures are the kernel's own (bpf_stats), which adds some ns to each run of either.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend
from engine.tcp.libbpf.loader import BpfObject

MOST = 1.5
"""Times the cost of the one histogram that the programs of each segment may cost."""
ROUNDS = 4
CLONE_NEWNET = 0x4000_0000


def build(folder: str) -> bytes:
    """The program to compare with."""
    here = Path(__file__).parent
    out = Path(folder, "rtt_only.o")
    command = ["clang", "-target", "bpf", "-mcpu=v3", "-g", "-O2", "-nostdinc", "-D__TARGET_ARCH_x86"]
    command += ["-idirafter", "/usr/include", "-I", str(here.parent / "bpf")]
    subprocess.run([*command, "-c", str(here / "rtt_only.bpf.c"), "-o", str(out)], check=True)
    return out.read_bytes()


class Baseline:
    """The one histogram."""

    def __init__(self, content: bytes, backend: LibbpfBackend) -> None:
        self.object = BpfObject(content)
        backend.prepare(self.object)
        self.object.load(["rtt_only"])
        if why := self.object.attach("rtt_only"):
            raise RuntimeError(why)

    def cost(self) -> tuple[int, int]:
        """Runs and ns."""
        runs, ns, _ = self.object.costs()["rtt_only"]
        return runs, ns


def answer(server: socket.socket) -> None:
    """Echo a short answer for each request, until the peer is gone."""
    peer, _ = server.accept()
    with peer:
        while peer.recv(65536):
            peer.sendall(b"y" * 10)


def swallow(server: socket.socket) -> None:
    """Read until the peer is gone."""
    peer, _ = server.accept()
    with peer:
        while peer.recv(1 << 20):
            pass


def load(seconds: float, bulk: bool) -> None:
    """Traffic of one connection."""
    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=swallow if bulk else answer, args=(server,))
    thread.start()
    block = b"x" * (65536 if bulk else 1000)
    with socket.create_connection(server.getsockname()) as client:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            client.sendall(block)
            if not bulk:
                client.recv(100)
    thread.join()
    server.close()


def main() -> int:
    """Print the costs; 1 where the set costs more than it may."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    if shutil.which("clang") is None:
        print("tcp_cost: needs clang")
        return 1
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        print(f"tcp_cost: no namespace of its own: {os.strerror(ctypes.get_errno())}")
        return 1
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    filters = Filters(netns=os.stat(f"/proc/self/task/{threading.get_native_id()}/ns/net").st_ino)
    backend = LibbpfBackend(filters, Triggers(), Limits(), Sizes())
    backend.start()
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        content = build(folder)
        for number in range(ROUNDS):
            # Who runs second finds the socket in the cache: they take turns, and the sums are compared.
            baseline = Baseline(content, backend)
            if number % 2:
                backend.stop()
                backend = LibbpfBackend(filters, Triggers(), Limits(), Sizes())
                backend.start()
            backend.count_costs()
            pairs += [compare(backend, baseline, seconds / ROUNDS / 2, bulk) for bulk in (False, True)]
            baseline.object.close()
    for cost in backend.costs():
        if cost.runs:
            print(f"tcp_cost: {cost.program:18} {cost.ns / cost.runs:7.0f} ns a run  ({cost.runs} runs)")
    backend.stop()
    ratio = sum(whole for whole, _ in pairs) / sum(one for _, one in pairs)
    print(f"tcp_cost: per segment, all against one histogram: {ratio:.2f} (at most {MOST})")
    return int(ratio > MOST)


def compare(backend: LibbpfBackend, baseline: Baseline, seconds: float, bulk: bool) -> tuple[float, float]:
    """ns a run of both over one load."""

    def segment() -> tuple[int, int]:
        return next((cost.runs, cost.ns) for cost in backend.costs() if cost.program == "segment")

    before, base = segment(), baseline.cost()
    load(seconds, bulk)
    after, base_after = segment(), baseline.cost()
    whole = (after[1] - before[1]) / (after[0] - before[0])
    one = (base_after[1] - base[1]) / (base_after[0] - base[0])
    what = "bulk" if bulk else "requests"
    print(f"tcp_cost: {what:9} segment {whole:5.0f} ns, one histogram {one:5.0f} ns")
    return whole, one


if __name__ == "__main__":
    sys.exit(main())

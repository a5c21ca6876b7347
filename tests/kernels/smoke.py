"""The smoke test of one kernel: lossy connections, the observer against the kernel's counters.

    smoke.py [BACKEND ...]      as root; prints a line `RESULT {...}` for each backend

`bcc-headers` is bcc with the kernel's headers, as on a kernel without BTF.

Runs in the guest of run.py and on the host. The loss is nftables' (one segment of LOSS, by chance).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OTUS = [sys.executable, "-m", "otus_tui"]
SERVER, CLIENT = f"kt-server-{os.getpid()}", f"kt-client-{os.getpid()}"
ADDRESS, PORT, SILENT_PORT = "10.213.0.1", 4000, 4001
LOSS = 30
CONNECTIONS = 12
OCTETS = 120_000
FEW_OCTETS = 500
DARK_AFTER, DARK_SECONDS = 3, 1
START_SECONDS = {"bcc-headers": 2400}
"""An emulated CPU needs its time to compile a thousand headers; the others have 600 s to load."""
HEADERS = {"BCC_KERNEL_SOURCE": f"/lib/modules/{platform.release()}/build"}

SERVE = f"""
import socket, threading
listener = socket.create_server(("", {PORT}), backlog=64)
print("listening", flush=True)
def serve(one):
    with one:
        while word := one.recv(1):
            one.sendall(bytes({OCTETS} if word == b"x" else {FEW_OCTETS}))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
ASK = f"""
import socket, sys, time
for _ in range({CONNECTIONS}):
    with socket.create_connection(("{ADDRESS}", {PORT}), 30) as one:
        for word in b"xxxx" + 12 * b"y":
            one.sendall(bytes([word]))
            left = {OCTETS} if word == ord("x") else {FEW_OCTETS}
            while left:
                left -= len(one.recv(min(left, 65536))) or sys.exit("short")
            time.sleep(0.05)
try:
    socket.create_connection(("{ADDRESS}", {SILENT_PORT}), 5)
except ConnectionRefusedError:
    pass
"""


def run(*command: str, check: bool = True) -> str:
    """A command's standard output."""
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=180).stdout


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    """Server and client, a lossy link between them."""
    try:
        for name in (SERVER, CLIENT):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "s0", "netns", SERVER, "type", "veth", "peer", "name", "c0", "netns", CLIENT)
        for name, link, address in ((SERVER, "s0", f"{ADDRESS}/24"), (CLIENT, "c0", "10.213.0.2/24")):
            run("ip", "-n", name, "address", "add", address, "dev", link)
            run("ip", "-n", name, "link", "set", link, "up")
        for words in (
            "add table ip lossy",
            "add chain ip lossy in { type filter hook input priority 0 ; }",
            f"add rule ip lossy in tcp sport {PORT} tcp flags & (syn|fin|rst) == 0 "
            f"numgen random mod {LOSS} == 0 drop",
        ):
            run("ip", "netns", "exec", CLIENT, "nft", words)
        yield
    finally:
        for name in (SERVER, CLIENT):
            run("ip", "netns", "delete", name, check=False)


def counters() -> dict[str, int]:
    """The TCP counters of the server's namespace, as nstat names them."""
    text = run("ip", "netns", "exec", SERVER, "cat", "/proc/net/snmp", "/proc/net/netstat")
    lines = text.splitlines()
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        prefix = "Tcp" if names.startswith("Tcp:") else ""
        for name, value in zip(names.split()[1:], values.split()[1:], strict=True):
            found[prefix + name] = int(value)
    return found


def ask() -> None:
    """The client's part, and in the midst of it a moment in which nothing arrives."""
    inside = ("ip", "netns", "exec", CLIENT)
    with subprocess.Popen([*inside, sys.executable, "-c", ASK]) as client:
        time.sleep(DARK_AFTER)
        # Handshakes pass: a SYN-ACK is sent again by its timer, which is a timeout, or for a repeated SYN.
        run(*inside, "nft", "add chain ip lossy dark { type filter hook input priority -1 ; }")
        run(*inside, "nft", "add rule ip lossy dark tcp flags & (syn|rst) == 0 drop")
        time.sleep(DARK_SECONDS)
        run(*inside, "nft", "delete chain ip lossy dark")
        if client.wait(180):
            raise RuntimeError("the client's connections failed")


def observe(backend: str) -> dict[str, Any]:
    """One run of a backend beside the traffic: what it said and what the kernel counted meanwhile."""
    started = time.monotonic()
    command = [
        *OTUS,
        "tcp",
        "--backend",
        backend.removesuffix("-headers"),
        "--format",
        "jsonl",
        "--interval",
        "1",
    ]
    observer = subprocess.Popen(
        ["ip", "netns", "exec", SERVER, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **(HEADERS if backend == "bcc-headers" else {})},
    )
    watchdog = threading.Timer(START_SECONDS.get(backend, 600), observer.kill)
    watchdog.start()
    server = None
    try:
        assert observer.stdout is not None
        assert observer.stderr is not None
        first = observer.stdout.readline()
        if not first:
            lines = observer.stderr.read().strip().splitlines() or ["nothing"]
            error = next((line for line in lines if "otus-tui: " in line), lines[-1])
            return {"backend": backend, "error": error}
        watchdog.cancel()
        print(f"{backend}: watching after {time.monotonic() - started:.0f} s", flush=True)
        before = counters()
        server = subprocess.Popen(
            ["ip", "netns", "exec", SERVER, sys.executable, "-c", SERVE], stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        server.stdout.readline()
        asked = time.monotonic()
        ask()
        lasted = time.monotonic() - asked
        time.sleep(2)
        after = counters()
        observer.send_signal(signal.SIGINT)
        said, words = observer.communicate(timeout=120)
        final = json.loads(said.splitlines()[-1])
        if not final["final"]:
            last = (words.strip().splitlines() or ["no words"])[-1]
            return {"backend": backend, "error": f"ended by itself ({observer.returncode}): {last}"}
        return result(backend, final, {name: after[name] - before.get(name, 0) for name in after}, lasted)
    finally:
        watchdog.cancel()
        for one in (server, observer):
            if one is not None and one.poll() is None:
                one.kill()
                one.wait()


def result(backend: str, final: dict[str, Any], kernel: dict[str, int], lasted: float) -> dict[str, Any]:
    """The observer's figures beside the kernel's."""
    classes = final["retransmits"]["by_class"]

    def of(name: str) -> int | None:
        one = classes.get(name)
        return None if one is None else one["events"]

    rto = [of("rto"), of("syn")]
    tlp = [of("tlp"), final["retransmits"]["tlp_new_data"]]
    server = final["handshake_us"]["server"]
    pairs = {
        "segments": (final["retransmits"]["segments"], kernel["TcpRetransSegs"]),
        "rto": (None if rto[0] is None else sum(one or 0 for one in rto), kernel["TCPTimeouts"]),
        "tlp": (None if tlp[0] is None else sum(one or 0 for one in tlp), kernel["TCPLossProbes"]),
        "handshakes": (
            None if server is None else server["count"] + final["handshake_us"]["unsampled"],
            kernel["TcpPassiveOpens"],
        ),
        "resets sent": (final["resets"]["sent"], kernel["TcpOutRsts"]),
    }
    return {
        "kernel": platform.release(),
        "backend": backend,
        "used": backend if backend.startswith(final["backend"]) else final["backend"],
        "seconds": round(lasted, 1),
        "pairs": pairs,
        "classes": {name: one["events"] for name, one in classes.items() if one and one["events"]},
        "resends failed": kernel["TCPRetransFail"] + kernel.get("TCPSpuriousRtxHostQueues", 0),
        "rtt": None if final["rtt_us"] is None else final["rtt_us"]["count"],
        "off": final["off"],
    }


def main() -> None:
    """The backends named, or all."""
    for backend in sys.argv[1:] or ("libbpf", "bcc", "netlink"):
        with namespaces():
            print("RESULT " + json.dumps(observe(backend)), flush=True)


if __name__ == "__main__":
    main()

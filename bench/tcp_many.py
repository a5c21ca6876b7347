"""The TCP observer under 200,000 connections one after the other, with maps of 16,384 sockets.

    sudo python -m bench.tcp_many [--connections 200000] [--open 10000]

`otus-tui tcp` watches a namespace in which they are made over loopback, from several addresses, so that no
port has to wait for TIME_WAIT. Then --open connections are kept at once: with both ends more sockets than the
map holds, which evicts and counts. Figures: growth of the process (PSS) and of its maps (memlock) between the
first tenth and the end, what it counted beside nstat, and what was lost. On a machine that is busy with other
things the observer may have to wait for a CPU for seconds: then ends are lost, and counted, and its memory
grows by the ring that it catches up with.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.figures import figure
from bench.memory import pss

SOCKETS = 16_384
GROWTH = 6.0
"""MiB of the process that come once: the readings of the last minute, the kernel's symbols with the first
drop, the ends of a quarter of a second. 100 octets of each connection would be 17."""
ADDRESSES = 16


def maps_octets(pid: int) -> int:
    """What the kernel holds for the maps of a process, each once."""
    found: dict[str, int] = {}
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            text = Path(f"/proc/{pid}/fdinfo/{name}").read_text("ascii")
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        if "map_id" in fields:
            found[fields["map_id"]] = int(fields["memlock"])
    return sum(found.values())


def connect(number: int, port: int) -> socket.socket:
    """One more connection, from one of several addresses."""
    made = socket.socket()
    made.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    made.bind((f"127.0.1.{number % ADDRESSES + 1}", 0))
    made.connect(("127.0.0.1", port))
    return made


def visits(server: socket.socket, count: int, begun: int = 0) -> None:
    """Connections one after the other."""
    port = server.getsockname()[1]
    for number in range(begun, begun + count):
        client = connect(number, port)
        peer, _ = server.accept()
        client.close()
        peer.close()


def nstat(space: str) -> dict[str, int]:
    """The kernel's counters of a namespace."""
    text = subprocess.run(
        ["ip", "netns", "exec", space, "nstat", "-asz", "-j"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, int] = json.loads(text)["kernel"]
    return found


def observer(space: str, out: Path, *words: str) -> list[str]:
    """The command that watches a namespace."""
    return [
        *(
            "ip",
            "netns",
            "exec",
            space,
            sys.executable,
            "-m",
            "otus_tui",
            "tcp",
            "--backend",
            "libbpf",
        ),
        *("--format", "jsonl", "--interval", "1", "--output", str(out), *words),
    ]


def last_line(path: Path) -> dict[str, Any]:
    """The newest window."""
    lines = path.read_text().splitlines() if path.exists() else []
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return found


def wait_for_line(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until it watches."""
    while not last_line(path):
        if process.poll() is not None:
            raise SystemExit("tcp_many: the observer has ended")
        time.sleep(0.1)


def measure(wanted: argparse.Namespace) -> bool:
    """Run it; whether every figure is good."""
    with lab.namespace() as space, lab.folder() as folder:
        out = folder / "tcp.jsonl"
        words = observer(space, out, "--sockets", str(SOCKETS), "--mode", "both", "--events", "/dev/null")
        with lab.process(words, cwd=lab.ROOT) as process, lab.inside(space):
            wait_for_line(out, process)
            before = nstat(space)
            with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
                tenth = wanted.connections // 10
                visits(server, tenth)
                time.sleep(2)
                memory, maps = pss(process.pid), maps_octets(process.pid)
                begun = time.monotonic()
                visits(server, wanted.connections - tenth, tenth)
                rate = (wanted.connections - tenth) / (time.monotonic() - begun)
                time.sleep(2)
                grown = (pss(process.pid) - memory) / 2**20
                grown_maps = maps_octets(process.pid) - maps
                kept = []
                for number in range(wanted.open):
                    kept += [connect(number, server.getsockname()[1]), server.accept()[0]]
                time.sleep(2)
                for one in kept:
                    one.close()
            after = nstat(space)
            process.send_signal(signal.SIGINT)
            process.wait(30)
            final = last_line(out)
        opened = wanted.connections + wanted.open
        counted = final["states"]["transitions"]["SYN_SENT>ESTABLISHED"]
        truth = after["TcpActiveOpens"] - before["TcpActiveOpens"]
        print(f"tcp_many: {opened} connections at {rate:.0f}/s, nstat has {truth}; {final['tables']}")
        surplus = 2 * wanted.open - SOCKETS
        good = [
            figure("tcp_many: connections that were not counted", abs(truth - counted), 0, 0, "", most=True),
            figure("tcp_many: growth of the process", grown, GROWTH, 1, "MiB", most=True),
            figure("tcp_many: growth of its maps", grown_maps, 0, 0, "octets", most=True),
            figure("tcp_many: ends that were lost", final["tables"]["closed_lost"], 0, 0, "", most=True),
        ]
        if surplus > 0:
            evicted = final["tables"]["sockets_evicted"]
            good.append(figure("tcp_many: evictions that were counted", evicted, surplus * 0.9, surplus, ""))
    return all(good)


def main() -> int:
    """Print the figures; 1 where one is missed."""
    parser = argparse.ArgumentParser(prog="bench.tcp_many", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--connections", type=int, default=200_000)
    parser.add_argument("--open", type=int, default=10_000)
    wanted = parser.parse_args()
    if why := lab.missing("nstat"):
        print(f"tcp_many: not measured: {why}")
        return 0
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < wanted.open * 2 + 100:
        wanted.open = (most - 100) // 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted.open * 2 + 100, most))
    with lab.interruptible():
        return int(not measure(wanted))


if __name__ == "__main__":
    sys.exit(main())

"""The TCP observer beside iperf3 with 200 parallel connections: nothing lost, nothing grows.

    sudo python -m bench.tcp_soak [--seconds 60] [--connections 200] [--rate 0]

600 seconds are what is promised; the default is shorter. `otus-tui tcp --mode both` watches a namespace in
which iperf3 runs over loopback, --rate bits a second for each connection (0: as fast as it goes). Figures:
what it lost, its counters beside nstat and iperf3's report, and the growth of its process (PSS) and maps
after the first tenth.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import lab
from bench.figures import figure
from bench.memory import pss
from bench.tcp_many import last_line, maps_octets, nstat, observer, wait_for_line

MOST_STREAMS = 100
"""Of one iperf3, which takes 128."""
GROWTH = 6.0
"""MiB: the readings of the last minute, once they are all there, take less."""


def load(space: str, wanted: argparse.Namespace) -> list[subprocess.Popen[bytes]]:
    """iperf3 servers and clients; the clients alone."""
    clients = []
    count = -(-wanted.connections // MOST_STREAMS)
    inside = ["ip", "netns", "exec", space, "nice"]
    for number in range(count):
        port = str(5201 + number)
        subprocess.Popen([*inside, "iperf3", "-s", "-1", "-p", port], stdout=subprocess.DEVNULL)
    time.sleep(1)
    for number in range(count):
        words = ["-c", "127.0.0.1", "-p", str(5201 + number), "-P", str(wanted.connections // count)]
        words += ["-t", str(wanted.seconds), "-b", wanted.rate, "-J"]
        clients.append(subprocess.Popen([*inside, "iperf3", *words], stdout=subprocess.PIPE))
    return clients


def reports(clients: list[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """(octets received, octets sent) by all of them."""
    received = sent = 0
    for one in clients:
        text, _ = one.communicate()
        end: dict[str, Any] = json.loads(text)["end"]
        received += end["sum_received"]["bytes"]
        sent += end["sum_sent"]["bytes"]
    return received, sent


def measure(wanted: argparse.Namespace) -> bool:
    """Run it; whether every figure is good."""
    with lab.namespace() as space, lab.folder() as folder:
        out = folder / "tcp.jsonl"
        words = observer(space, out, "--mode", "both", "--events", str(folder / "events.jsonl"))
        with lab.process(words, cwd=lab.ROOT) as process:
            wait_for_line(out, process)
            before = nstat(space)
            clients = load(space, wanted)
            time.sleep(max(5.0, wanted.seconds / 10))
            memory, maps = pss(process.pid), maps_octets(process.pid)
            received, sent = reports(clients)
            time.sleep(2)
            grown, grown_maps = (pss(process.pid) - memory) / 2**20, maps_octets(process.pid) - maps
            after = nstat(space)
            process.send_signal(signal.SIGINT)
            process.wait(30)
            windows = len(out.read_text().splitlines()) - 1
            final = last_line(out)
            events = len((folder / "events.jsonl").read_text().splitlines()) - 1
    moved = final["sampling"]["send_bytes"]
    again = after["TcpRetransSegs"] - before["TcpRetransSegs"]
    opened = after["TcpActiveOpens"] - before["TcpActiveOpens"]
    print(
        f"tcp_soak: {final['window_s']:.0f} s, {windows} windows, {opened} connections, {moved / 1e9:.2f} GB "
        f"(iperf3: {received / 1e9:.2f}), {final['retransmits']['segments']} segments sent again "
        f"(nstat: {again}), {events} events, {final['sampling']['cpu_percent']} % of a CPU, "
        f"PSS {memory / 2**20:.1f} MiB before, {final['tables']['runs_missed']:,} runs of programs left out"
    )
    tables = final["tables"]
    lost = final["events"]["lost"] + tables["closed_lost"] + tables["sockets_evicted"]
    counted = final["states"]["transitions"]["SYN_SENT>ESTABLISHED"]
    # The control connections of iperf3 and what is acknowledged after its time count here, and there not.
    beyond = max(0.0, received * 0.98 - moved, moved - sent * 1.02) / max(received, 1) * 100
    segments = abs(final["retransmits"]["segments"] - again) / max(again, 100) * 100
    return all(
        [
            figure("tcp_soak: lost events, ends and sockets", lost, 0, 0, "", most=True),
            figure(
                "tcp_soak: events that were not written",
                final["events"]["emitted"] - events,
                0,
                0,
                "",
                most=True,
            ),
            figure("tcp_soak: connections that were not counted", abs(opened - counted), 0, 0, "", most=True),
            figure("tcp_soak: octets beyond 2 % of iperf3's report", beyond, 0, 0, "%", most=True),
            figure("tcp_soak: retransmitted segments off nstat", segments, 1, 0, "%", most=True),
            figure("tcp_soak: growth of the process", grown, GROWTH, 2, "MiB", most=True),
            figure("tcp_soak: growth of its maps", grown_maps, 0, 0, "octets", most=True),
        ]
    )


def main() -> int:
    """Print the figures; 1 where one is missed."""
    parser = argparse.ArgumentParser(prog="bench.tcp_soak", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--rate", default="0", help="bits a second of each connection, as of iperf3 -b")
    wanted = parser.parse_args()
    if why := lab.missing("iperf3", "nstat"):
        print(f"tcp_soak: not measured: {why}")
        return 0
    with lab.interruptible():
        return int(not measure(wanted))


if __name__ == "__main__":
    sys.exit(main())

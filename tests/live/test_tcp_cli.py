"""`otus-tui tcp` in namespaces of its own, against `ss -ti`, `nstat` and iperf3, with every backend that runs
here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from engine.tcp.backend import Namespace
from engine.tcp.namespaces import call_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HERE = "10.79.0.1"
THERE = "10.79.0.2"
BACKENDS = ["netlink", "libbpf"]


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Two namespaces and the wire between them; the observer runs in the first."""

    def __init__(self) -> None:
        self.kept: list[socket.socket] = []
        self.processes: list[subprocess.Popen[str]] = []
        self.outputs: dict[int, IO[str]] = {}
        mark = uuid.uuid4().hex[:6]
        self.a, self.b = f"otus-ta{mark}", f"otus-tb{mark}"
        for name in (self.a, self.b):
            ip("netns", "add", name)
        ip("link", "add", "wire", "netns", self.a, "type", "veth", "peer", "name", "wire", "netns", self.b)
        for name, address, six in ((self.a, HERE, "fd79::1"), (self.b, THERE, "fd79::2")):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "-6", "addr", "add", f"{six}/64", "dev", "wire", "nodad")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "wire", "up")

    def inside(self, name: str, function: Any) -> Any:
        path = f"/run/netns/{name}"
        return call_inside(Namespace(os.stat(path).st_ino, path), function)

    def inode(self, name: str) -> int:
        return os.stat(f"/run/netns/{name}").st_ino

    def run(self, name: str, *words: str) -> str:
        command = ["ip", "netns", "exec", name, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def nstat(self, name: str) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.run(name, "nstat", "-asz", "-j"))["kernel"]
        return found

    def listen(self, name: str, address: str, port: int, backlog: int = 16) -> socket.socket:
        def make() -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.socket(family, socket.SOCK_STREAM)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.listen(backlog)
            return server

        made: socket.socket = self.inside(name, make)
        self.kept.append(made)
        return made

    def accept(self, server: socket.socket) -> socket.socket:
        peer, _ = server.accept()
        self.kept.append(peer)
        return peer

    def connect(self, name: str, address: str, port: int) -> socket.socket:
        made: socket.socket = self.inside(name, lambda: socket.create_connection((address, port), 5))
        self.kept.append(made)
        return made

    def close(self) -> None:
        for one in self.kept:
            one.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for pid, file in self.outputs.items():
            process_outputs.pop(pid, None)
            file.close()
        for name in (self.a, self.b):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    yield made
    made.close()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "libbpf" and not (ROOT / "engine/data/bpf/tcp_observer.bpf.o").exists():
        pytest.skip("the eBPF object is not built")
    return name


def start(hosts: Hosts, *words: str, where: str = "") -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", where or hosts.a, sys.executable, "-m", "otus_tui", "tcp", *words]
    return popen(hosts, command)


def popen(hosts: Hosts, command: list[str]) -> subprocess.Popen[str]:
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115
    made = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    hosts.processes.append(made)
    hosts.outputs[made.pid] = file
    process_outputs[made.pid] = file
    return made


process_outputs: dict[int, IO[str]] = {}


def written(process: subprocess.Popen[str]) -> str:
    """All that it has written so far."""
    file = process_outputs[process.pid]
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode()


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "$") -> str:
    """Where a value departs from a JSON Schema (what of it is used here); empty where it does not."""
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, where)
    if "oneOf" in schema:
        found = [conforms(value, one, root, where) for one in schema["oneOf"]]
        return "" if found.count("") == 1 else f"{where}: none or several of {found}"
    if "const" in schema and value != schema["const"]:
        return f"{where}: not {schema['const']}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}: {value!r} is none of {schema['enum']}"
    kinds = schema.get("type", [])
    names = [kinds] if isinstance(kinds, str) else kinds
    if names and not any(_is(value, name) for name in names):
        return f"{where}: {value!r} is no {names}"
    if isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        lacks = [name for name in schema.get("required", ()) if name not in value]
        if lacks:
            return f"{where}: lacks {lacks}"
        for name, part in value.items():
            if name not in known and more is False:
                return f"{where}.{name}: not known"
            rule = known.get(name, more if isinstance(more, dict) else {})
            if found_there := conforms(part, rule, root, f"{where}.{name}"):
                return found_there
    if isinstance(value, list) and "items" in schema:
        for place, part in enumerate(value):
            if found_there := conforms(part, schema["items"], root, f"{where}[{place}]"):
                return found_there
    return ""


def _is(value: Any, name: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
        "boolean": (bool,), "null": (type(None),),
    }  # fmt: skip
    return isinstance(value, kinds[name]) and (name == "boolean" or not isinstance(value, bool))


SCHEMAS = {
    name: json.loads((ROOT / f"docs/schemas/tcp-{name}.json").read_text()) for name in ("summary", "event")
}


def check_lines(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        schema = SCHEMAS["event" if "event_type" in line else "summary"]
        assert conforms(line, schema, schema) == ""


def finish(process: subprocess.Popen[str], code: int = 0) -> list[dict[str, Any]]:
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    lines = [json.loads(line) for line in written(process).splitlines()]
    check_lines(lines)
    return lines


def observing(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the first window: from then on everything counts."""
    while "\n" not in written(process):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    first: dict[str, Any] = json.loads(written(process).splitlines()[0])
    return first


def final_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    process.send_signal(signal.SIGINT)
    last = finish(process, 130)[-1]
    assert last["final"] is True
    return last


def test_throughput_is_what_iperf3_says(hosts: Hosts, backend: str) -> None:
    server = subprocess.Popen(
        ["ip", "netns", "exec", hosts.b, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
    )
    time.sleep(0.4)
    process = start(hosts, "--backend", backend, "--format", "jsonl", "--interval", "0.5")
    observing(process)
    words = ("iperf3", "-c", THERE, "-t", "3", "-b", "40M", "-P", "2", "-J")
    told = json.loads(hosts.run(hosts.a, *words))["end"]["sum_received"]
    server.wait(10)
    time.sleep(0.3)
    last = final_of(process)
    sent = last["throughput_bps"]["send_total"] * last["window_s"] / 8
    assert sent == pytest.approx(told["bytes"], rel=0.02)
    assert last["sampling"]["send_bytes"] == pytest.approx(told["bytes"], rel=0.02)
    assert last["throughput_bps"]["send"]["p50"] == pytest.approx(40e6, rel=0.3)


def test_rtt_is_what_ss_says(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    words = ("--backend", backend, "--format", "jsonl", "--rport", "7000", "--interval", "0.3")
    process = start(hosts, *words)
    observing(process)
    for _ in range(200):
        client.sendall(b"q" * 100)
        peer.sendall(peer.recv(100))
        client.recv(100)
        time.sleep(0.002)
    shown = hosts.run(hosts.a, "ss", "-tinHO", "dport", "=", ":7000")
    rtt = float(shown.split(" rtt:")[1].split("/")[0]) * 1000
    time.sleep(0.7)
    last = final_of(process)
    # The smoothed RTT moves while there is traffic: what ss saw at the end lies in what was counted.
    bounds = [bound for bound, _ in last["rtt_us"]["buckets"]]
    assert min(bounds) * 0.85 <= rtt <= last["rtt_us"]["max"] * 1.1
    assert last["rtt_us"]["count"] >= 1


def test_rtt_of_one_connection_within_a_tenth(hosts: Hosts) -> None:
    """Over a connection that rests, inet_diag says what ss says."""
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    for _ in range(50):
        client.sendall(b"q")
        peer.recv(1)
    time.sleep(0.1)
    shown = hosts.run(hosts.a, "ss", "-tinHO", "dport", "=", ":7000")
    rtt, variation = (float(part) * 1000 for part in shown.split(" rtt:")[1].split()[0].split("/"))
    words = ("--backend", "netlink", "--format", "jsonl", "--duration", "0.3", "--interval", "0.1")
    last = finish(start(hosts, *words))[-1]
    assert last["rtt_us"]["count"] == 1
    assert last["rtt_us"]["p50"] == pytest.approx(rtt, rel=0.1)
    assert last["rttvar_us"]["p50"] == pytest.approx(variation, rel=0.1, abs=2)
    assert last["cwnd"]["p50"] == float(shown.split(" cwnd:")[1].split()[0])


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_timeouts_and_probes_are_what_nstat_says(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    words = ("--backend", backend, "--format", "jsonl", "--mode", "both", "--retrans-burst", "1/s")
    process = start(hosts, *words, "--interval", "0.5")
    observing(process)
    before = hosts.nstat(hosts.a)
    client.sendall(b"q" * 1000)
    peer.recv(1000)
    hosts.run(hosts.b, "nft", "add", "table", "ip", "hole")
    hosts.run(hosts.b, "nft", "add chain ip hole in { type filter hook input priority 0; }")
    hosts.run(hosts.b, "nft", "add", "rule", "ip", "hole", "in", "tcp", "dport", "7000", "drop")
    client.sendall(b"q" * 1000)
    time.sleep(1.2)
    hosts.run(hosts.b, "nft", "delete", "table", "ip", "hole")
    peer.recv(1000)
    time.sleep(0.6)
    after = hosts.nstat(hosts.a)
    moved = {name: value - before.get(name, 0) for name, value in after.items()}
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    last = next(line for line in reversed(lines) if "final" in line)
    classes = last["retransmits"]["by_class"]
    assert moved["TcpExtTCPTimeouts"] >= 1
    assert classes["rto"]["events"] == moved["TcpExtTCPTimeouts"]
    tlp = (classes["tlp"]["events"] or 0) + (last["retransmits"]["tlp_new_data"] or 0)
    assert tlp == moved["TcpExtTCPLossProbes"]
    assert last["retransmits"]["segments"] == moved["TcpRetransSegs"]
    assert last["kernel"]["TcpRetransSegs"] == moved["TcpRetransSegs"]
    found = [line for line in lines if line.get("event_type") == "tcp"]
    assert {one["trigger"]["name"] for one in found} >= {"rto", "retransmit_burst"}
    assert all(one["dest_ip"] == THERE and one["dest_port"] == 7000 for one in found)
    assert all(one["role"] == "client" and one["community_id"].startswith("1:") for one in found)
    assert lines[-1]["event_type"] == "tcp_end"
    assert lines[-1]["emitted"] == len(found)


def storm(hosts: Hosts, count: int) -> None:
    """So many connections at once, that are kept open."""

    def connect() -> None:
        for _ in range(count):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((THERE, 7000))
            hosts.kept.append(one)

    hosts.inside(hosts.a, connect)


def test_listen_drops_are_what_nstat_says(hosts: Hosts, backend: str) -> None:
    hosts.listen(hosts.b, THERE, 7000, backlog=1)
    words = ("--backend", backend, "--format", "jsonl", "--mode", "both", "--interval", "0.5")
    process = start(hosts, *words, where=hosts.b)
    observing(process)
    before = hosts.nstat(hosts.b)

    storm(hosts, 12)
    time.sleep(1.6)
    after = hosts.nstat(hosts.b)
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    last = next(line for line in reversed(lines) if "final" in line)
    drops = after["TcpExtListenDrops"] - before["TcpExtListenDrops"]
    assert drops > 0
    [row] = [row for row in last["listen"] if row["port"] == 7000]
    # More SYNs may have come between nstat and the end: then the kernel has counted them, too.
    later = hosts.nstat(hosts.b)["TcpExtListenDrops"] - before["TcpExtListenDrops"]
    assert drops <= row["drops"] <= later
    assert row["accept_drops"] == row["drops"]
    assert row["syn_drops"] == 0
    assert row["limit"] == 1
    overflow = [line for line in lines if line.get("trigger", {}).get("name") == "backlog_overflow"]
    assert overflow
    assert overflow[0]["src_port"] == 7000


def test_a_server_that_is_gone_stands_in_the_summary_of_the_run(hosts: Hosts, backend: str) -> None:
    """With what it dropped; a window in which it was gone already does not have it."""
    server = hosts.listen(hosts.b, THERE, 7000, backlog=1)
    words = ("--backend", backend, "--format", "jsonl", "--interval", "0.3")
    process = start(hosts, *words, where=hosts.b)
    observing(process)

    storm(hosts, 9)
    time.sleep(0.7)
    server.close()
    for one in hosts.kept:
        one.close()
    time.sleep(1.0)
    drops = hosts.nstat(hosts.b)["TcpExtListenDrops"]
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    [row] = lines[-1]["listen"]
    assert (row["port"], row["limit"], row["open"]) == (7000, 1, False)
    assert row["drops"] == row["accept_drops"] == drops > 0
    assert lines[-2]["listen"] == []
    assert any(one["open"] for line in lines[:-1] for one in line["listen"])


def test_filters_take_both_families(hosts: Hosts, backend: str) -> None:
    """Bytes of one connection at a time, over IPv4, IPv6, and IPv4 in an IPv6 socket."""
    servers = [hosts.listen(hosts.b, "::", 7001), hosts.listen(hosts.b, "::", 7002)]
    words = ("--backend", backend, "--format", "jsonl", "--interval", "0.2")
    four = start(hosts, *words, "--rport", "7000-7001", "--raddr", "10.79.0.0/24")
    six = start(hosts, *words, "--rport", "7001", "--raddr", "fd79::/16")
    mapped = start(hosts, *words, "--lport", "7002", "--raddr", f"::ffff:{HERE}", where=hosts.b)
    for process in (four, six, mapped):
        observing(process)
    for address, port, size in ((THERE, 7001, 1000), ("fd79::2", 7001, 3000), (THERE, 7002, 5000)):
        client = hosts.connect(hosts.a, address, port)
        peer = hosts.accept(servers[port - 7001])
        client.sendall(b"q" * size)
        got = 0
        while got < size:
            got += len(peer.recv(size))
    time.sleep(0.5)
    assert final_of(four)["sampling"]["send_bytes"] == pytest.approx(1000, abs=2)
    assert final_of(six)["sampling"]["send_bytes"] == pytest.approx(3000, abs=2)
    assert final_of(mapped)["sampling"]["receive_bytes"] == pytest.approx(5000, abs=2)


def test_every_namespace_or_one_of_them(hosts: Hosts, backend: str) -> None:
    """What moves inside a namespace is seen from outside: with its name, and with all."""
    # Others may run this test at the same time, and `all` sees them.
    port = 20_000 + os.getpid() % 10_000
    server = hosts.listen(hosts.b, THERE, port)
    words = [sys.executable, "-m", "otus_tui", "tcp", "--backend", backend, "--format", "jsonl"]
    watched = (hosts.a, "all", str(os.getpid()))
    observers = [popen(hosts, [*words, "--rport", str(port), "--netns", name]) for name in watched]
    for process in observers:
        observing(process)
    client = hosts.connect(hosts.a, THERE, port)
    peer = hosts.accept(server)
    client.sendall(b"q" * 1000)
    peer.recv(1000)
    time.sleep(1.2)
    named, every, other = (final_of(process) for process in observers)
    assert named["netns"] == hosts.inode(hosts.a)
    assert every["netns"] == "all"
    assert named["sampling"]["send_bytes"] == every["sampling"]["send_bytes"] == pytest.approx(1000, abs=2)
    assert other["sampling"]["send_bytes"] == 0


def test_an_interface_is_that_of_the_namespace_watched(hosts: Hosts, backend: str) -> None:
    """Its number is not the one that this name, or another one's, has elsewhere."""
    for number in range(3):
        ip("-n", hosts.a, "link", "add", f"more{number}", "type", "veth", "peer", "name", f"peer{number}")
    ip("-n", hosts.a, "link", "add", "late", "type", "veth", "peer", "name", "late", "netns", hosts.b)
    for name, address in ((hosts.a, "10.80.0.1/24"), (hosts.b, "10.80.0.2/24")):
        ip("-n", name, "addr", "add", address, "dev", "late")
        ip("-n", name, "link", "set", "late", "up")
    server = hosts.listen(hosts.b, "0.0.0.0", 7000)
    command = [sys.executable, "-m", "otus_tui", "tcp", "--backend", backend, "--format", "jsonl"]
    process = popen(hosts, [*command, "--netns", hosts.a, "--iface", "late", "--interval", "0.3"])
    observing(process)
    for address, size in ((THERE, 500), ("10.80.0.2", 1000)):
        client = hosts.connect(hosts.a, address, 7000)
        peer = hosts.accept(server)
        client.sendall(b"q" * size)
        peer.recv(size)
    time.sleep(0.7)
    assert final_of(process)["sampling"]["send_bytes"] == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("named_by", ["name", "process"])
def test_a_namespace_is_watched_when_its_name_is_gone(hosts: Hosts, backend: str, named_by: str) -> None:
    """Its name is deleted, the process that named it ends: sockets that live there are still seen."""
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    sleeper = popen(hosts, ["ip", "netns", "exec", hosts.a, "sleep", "60"])
    time.sleep(0.2)
    word = hosts.a if named_by == "name" else str(sleeper.pid)
    command = [sys.executable, "-m", "otus_tui", "tcp", "--backend", backend, "--format", "jsonl"]
    process = popen(hosts, [*command, "--netns", word, "--rport", "7000", "--interval", "0.3"])
    observing(process)
    sleeper.kill()
    sleeper.wait()
    if named_by == "name":
        ip("netns", "del", hosts.a)
    client.sendall(b"q" * 1000)
    peer.recv(1000)
    time.sleep(1)
    assert process.poll() is None, process.communicate()
    assert final_of(process)["sampling"]["send_bytes"] == pytest.approx(1000, abs=2)


def test_a_process_and_its_name(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    code = (
        "import socket, time\n"
        f"one = socket.create_connection(('{THERE}', 7000)); one.sendall(b'q' * 700); time.sleep(30)"
    )
    client = popen(hosts, ["ip", "netns", "exec", hosts.a, sys.executable, "-c", code])
    peer = hosts.accept(server)
    words = ("--backend", backend, "--format", "jsonl", "--interval", "0.3", "--mode", "both")
    process = start(hosts, *words, "--pid", str(client.pid), "--rtt-above", "1us")
    mine = start(hosts, *words, "--pid", str(os.getpid()))
    observing(process)
    observing(mine)
    peer.sendall(b"r" * 900)
    time.sleep(0.8)
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    last = next(line for line in reversed(lines) if "final" in line)
    assert last["sampling"]["receive_bytes"] == 900
    assert final_lines(mine)["sampling"]["receive_bytes"] == 0
    events = [line for line in lines if line.get("event_type") == "tcp"]
    assert events
    assert {one["pid"] for one in events} == {client.pid}
    assert all(one["comm"].startswith("python") and one["pid_source"] != "unknown" for one in events)


def test_the_name_of_a_process_commands_no_terminal(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    code = (
        "import socket, time\n"
        "with open('/proc/self/comm', 'wb') as file: file.write(b'\\x1b]0;pwn\\x07\\x1b[31m')\n"
        f"one = socket.create_connection(('{THERE}', 7000)); one.sendall(b'q'); one.recv(1)\n"
        "one.sendall(b'q'); time.sleep(30)"
    )
    words = ("--backend", backend, "--mode", "both", "--interval", "0.3", "--rtt-above", "1us")
    process = start(hosts, *words)
    while "RTT" not in written(process):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    popen(hosts, ["ip", "netns", "exec", hosts.a, sys.executable, "-c", code])
    peer = hosts.accept(server)
    peer.recv(1)
    peer.sendall(b"r")
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    page = written(process)
    # The line ends at 80 columns.
    assert "\\x1b" in page
    assert not set(page) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160))}


def final_lines(process: subprocess.Popen[str]) -> dict[str, Any]:
    process.send_signal(signal.SIGINT)
    return next(line for line in reversed(finish(process, 130)) if "final" in line)


def test_two_observers_at_once_are_both_right(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    words = ("--backend", backend, "--format", "jsonl", "--rport", "7000")
    observers = [start(hosts, *words) for _ in range(2)]
    for process in observers:
        observing(process)
    for _ in range(20):
        client = hosts.connect(hosts.a, THERE, 7000)
        peer = hosts.accept(server)
        client.sendall(b"q" * 1000)
        client.close()
        while peer.recv(4096):
            pass
        peer.close()
    time.sleep(1.2)
    for process in observers:
        # Two octets of sequence space each, for SYN and FIN, as the kernel counts them.
        assert 20_000 <= final_of(process)["sampling"]["send_bytes"] <= 20_040
    server.close()


def test_prometheus_text_is_well_formed(hosts: Hosts, backend: str, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    path = tmp_path / "otus.prom"
    hosts.listen(hosts.b, THERE, 7000)
    hosts.connect(hosts.a, THERE, 7000)
    words = ("--backend", backend, "--format", "prometheus", "--output", str(path), "--duration", "1.5")
    process = start(hosts, *words)
    finish(process)
    text = path.read_text()
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert not check.stderr.strip(), check.stderr
    for name in ("otus_tcp_rtt_seconds_bucket", "otus_tcp_metric_available", "otus_tcp_send_bytes_total"):
        assert name in text
    assert HERE not in text
    assert THERE not in text
    buckets = [line for line in text.splitlines() if line.startswith("otus_tcp_rtt_seconds_bucket")]
    assert len(buckets) <= 20


def test_masks_hide_consistently(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    ends = [hosts.connect(hosts.a, THERE, 7000) for _ in range(3)]
    peers = [hosts.accept(server) for _ in ends]
    words = ("--backend", backend, "--mode", "detail", "--rtt-above", "1us", "--mask", "all")
    process = start(hosts, *words, "--interval", "0.3")
    ends_at = time.monotonic() + 15
    # The first of them come while it begins to watch.
    while written(process).count("\n") < 6 and time.monotonic() < ends_at:
        time.sleep(0.3)
        for peer in peers:
            peer.sendall(b"r" * 100)
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    events = [line for line in lines if line["event_type"] == "tcp"]
    assert len({one["dest_ip"] for one in events}) == 1
    assert len({one["dest_port"] for one in events}) == 1
    assert len({one["src_port"] for one in events}) == 3
    assert all(word not in json.dumps(events) for word in (HERE, THERE, "7000"))


def test_text_fits_a_terminal(hosts: Hosts, backend: str) -> None:
    hosts.listen(hosts.b, THERE, 7000)
    hosts.connect(hosts.a, THERE, 7000)
    process = start(hosts, "--backend", backend, "--mode", "both", "--duration", "1.2", "--rtt-above", "1us")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    out = written(process)
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "RTT" in out
    assert "whole run" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--interval", "0"], 2, "--interval 0"),
        (["--duration", "2d"], 2, "--duration 2d"),
        (["--lport", "htp"], 2, "--lport htp"),
        (["--raddr", "10.0.0.0/40"], 2, "--raddr"),
        (["--pid", "999999999"], 2, "there is no process"),
        (["--netns", "nosuch"], 2, "no network namespace"),
        (["--output", "/no/such/file"], 2, "--output /no/such/file"),
        (["--output", "/"], 2, "is a directory"),
        (["--mode", "both", "--output", "/tmp/x", "--events", "/tmp/x"], 2, "same file"),
        (["--backend", "netlink", "--no-such"], 2, "No such option"),
    ],
)
def test_bad_input_is_one_line_and_a_code(words: list[str], code: int, message: str) -> None:
    command = [sys.executable, "-m", "otus_tui", "tcp", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=20)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def as_nobody(*words: str, capabilities: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if capabilities:
        drop += ["--inh-caps", capabilities, "--ambient-caps", capabilities]
    command = [*drop, sys.executable, "-m", "otus_tui", "tcp", *words]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=30, env=environment
    )


def test_without_root() -> None:
    netlink = as_nobody("--backend", "netlink", "--duration", "0.3", "--format", "jsonl")
    if "Permission denied" in netlink.stderr or "No module" in netlink.stderr:
        pytest.skip("another user may not read this checkout")
    assert netlink.returncode == 0, netlink.stderr
    assert json.loads(netlink.stdout.splitlines()[-1])["final"]
    plan = as_nobody("--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "nothing is loaded" in plan.stdout
    entered = as_nobody("--backend", "netlink", "--netns", "1", "--duration", "0.3")
    assert entered.returncode == 3
    assert "sudo" in entered.stderr


def test_what_another_user_may_not_see_is_said() -> None:
    refused = as_nobody("--backend", "netlink", "--pid", "1", "--duration", "0.3")
    assert refused.returncode == 3
    assert "CAP_SYS_PTRACE" in refused.stderr


def test_a_reader_that_leaves_and_a_disk_that_is_full() -> None:
    command = f"{sys.executable} -m otus_tui tcp --backend netlink --interval 0.1 --duration 1"
    piped = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=20,
    )  # fmt: skip
    assert (piped.returncode, piped.stderr, piped.stdout.count("\n")) == (0, "", 1)
    full = subprocess.run(
        [*command.split(), "--output", "/dev/full"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=20,
    )
    assert full.returncode == 1
    assert "/dev/full: No space left on device" in full.stderr


def test_without_root_the_programs_are_refused() -> None:
    if not (ROOT / "engine/data/bpf/tcp_observer.bpf.o").exists():
        pytest.skip("the eBPF object is not built")
    refused = as_nobody("--duration", "0.3")
    assert refused.returncode == 3
    assert "--backend netlink" in refused.stderr


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--max-cpu", "50%"), 3), (("--stats",), 3)])
def test_with_three_capabilities_all_but_the_cost_is_seen(words: tuple[str, ...], code: int) -> None:
    """What docs/tcp.md says of CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN."""
    if not (ROOT / "engine/data/bpf/tcp_observer.bpf.o").exists():
        pytest.skip("the eBPF object is not built")
    common = ("--backend", "libbpf", "--duration", "0.3", "--format", "jsonl")
    done = as_nobody(*common, *words, capabilities="+bpf,+perfmon,+net_admin")
    if "Permission denied" in done.stderr or "No module" in done.stderr:
        pytest.skip("another user may not read this checkout")
    assert done.returncode == code, done.stderr
    assert ("CAP_SYS_ADMIN" in done.stderr) is (code == 3)


def test_importing_the_verb_imports_no_screen() -> None:
    code = "import otus_tui.cli.tcp, sys; print([m for m in sys.modules if m in ('textual', 'rich')])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout == "[]\n"

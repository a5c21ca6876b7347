"""What `otus-tui tcp` watches: addresses, ports, namespaces, interfaces, processes, with every backend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.live.engines import wait_for
from tests.live.namespace import ip
from tests.live.tcp_command import (
    HERE,
    THERE,
    Hosts,
    acknowledged,
    final_of,
    finish,
    observing,
    popen,
    start,
    until,
    windows,
    written,
)


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
        acknowledged(client)
    for process in (four, six, mapped):
        windows(process)
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
    acknowledged(client)
    for process in observers:
        windows(process)
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
        acknowledged(client)
    windows(process)
    assert final_of(process)["sampling"]["send_bytes"] == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("named_by", ["name", "process"])
def test_a_namespace_is_watched_when_its_name_is_gone(hosts: Hosts, backend: str, named_by: str) -> None:
    """Its name is deleted, the process that named it ends: sockets that live there are still seen."""
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    sleeper = popen(hosts, ["ip", "netns", "exec", hosts.a, "sleep", "60"])
    wait_for(lambda: os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino == hosts.inode(hosts.a))
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
    acknowledged(client)
    windows(process, 3)
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
    acknowledged(peer)
    windows(process)
    windows(mine)
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
    until(process, lambda text: "RTT" in text)
    popen(hosts, ["ip", "netns", "exec", hosts.a, sys.executable, "-c", code])
    peer = hosts.accept(server)
    peer.recv(1)
    peer.sendall(b"r")
    until(process, lambda text: "\\x1b" in text)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    page = written(process)
    # The line ends at 80 columns.
    assert "\\x1b" in page
    assert not set(page) & {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160))}


def final_lines(process: subprocess.Popen[str]) -> dict[str, Any]:
    process.send_signal(signal.SIGINT)
    return next(line for line in reversed(finish(process, 130)) if "final" in line)

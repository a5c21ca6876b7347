"""What the observer takes of the machine: its bound of the CPU, memory under many connections."""

from __future__ import annotations

import socket
import threading
from typing import Any

from tests.live.tcp_command import THERE, Hosts, finish, start
from tests.live.tcp_path import NEEDS_PROGRAMS

pytestmark = NEEDS_PROGRAMS


def bulk(hosts: Hosts, port: int, ends: threading.Event) -> threading.Thread:
    """A stream that does not rest."""
    server = hosts.listen(hosts.b, THERE, port)
    client = hosts.connect(hosts.a, THERE, port)
    peer = hosts.accept(server)

    def send() -> None:
        while not ends.is_set():
            client.sendall(b"q" * 65536)
        client.shutdown(socket.SHUT_WR)

    def receive() -> None:
        while peer.recv(1 << 18):
            pass

    threads = [threading.Thread(target=work) for work in (send, receive)]
    for thread in threads:
        thread.start()
    return threads[1]


def test_the_bound_of_the_cpu_holds(hosts: Hosts) -> None:
    """600 sockets to look at and segments without rest: the run as a whole stays below what was allowed."""
    server = hosts.listen(hosts.b, THERE, 7000, backlog=512)
    for _ in range(600):
        hosts.connect(hosts.a, THERE, 7000)
        hosts.accept(server)
    ends = threading.Event()
    thread = bulk(hosts, 7001, ends)
    try:
        words = ("--format", "jsonl", "--interval", "0.5", "--max-cpu", "2%", "--duration", "8")
        lines = finish(start(hosts, *words))
    finally:
        ends.set()
        thread.join()
    sampling: dict[str, Any] = lines[-1]["sampling"]
    assert sampling["cpu_percent"] <= 2.2, [line["sampling"] for line in lines]
    assert sampling["look_factor"] > 1 or sampling["segments_one_of"] > 1
    assert 0.05 < sampling["start_cpu_s"] < 5

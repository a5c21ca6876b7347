"""Fragments and merged packets off an interface: a flood, real datagrams through it, GRO and TSO."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.capture import af_packet, filters
from tests.live.engines import Engine, own_engine, wait_for
from tests.live.namespace import ip, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, PEER = "10.1.0.1", "10.1.0.2"
HERE6, PEER6 = "fd00:1::1", "fd00:1::2"
FLOOD, CALLS, SIZE = 60_000, 100, 3000
FANOUT_DEFRAG = 0x8000
FLOODER = """
import os, socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
wire.bind(("vb", 0))
flood, calls, size = map(int, sys.argv[1:4])
pairs = [(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), (sys.argv[4], 5060)),
         (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), (sys.argv[5], 5060))]
message = (
    "INVITE sip:bob@example.com SIP/2.0\\r\\nVia: SIP/2.0/UDP {0}:5060;branch=z9hG4bK{0}\\r\\n"
    "From: <sip:a@example.com>;tag={0}\\r\\nTo: <sip:b@example.com>\\r\\nCall-ID: c{0}\\r\\n"
    "CSeq: 1 INVITE\\r\\nContent-Length: 0\\r\\n\\r\\n")
# To a station that is not this host, as on a mirrored port.
frame = bytearray(bytes.fromhex("0200000000ff020000000001080045000054") + bytes(16) + bytes(64))
frame[20:22] = b"\\x20\\x00"
frame[22:24] = b"\\x40\\x11"
frame[30:38] = bytes((10, 9, 9, 9)) + struct.pack("!HH", 5060, 5060)
for number in range(flood):
    noise = os.urandom(6)
    frame[18:20] = noise[:2]
    frame[26:30] = noise[2:]
    wire.send(frame)
    if number % (flood // calls) == 0:
        call = number // (flood // calls)
        text = message.format(call).encode()
        sender, to = pairs[call & 1]
        sender.sendto(text + b"x" * (size - len(text)), to)
"""
SUPER = """
import socket, sys, time
stream = socket.create_connection((sys.argv[1], 7000), 5)
for _ in range(40):
    stream.sendall(b"q" * 60000)
    time.sleep(0.005)
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.IPPROTO_UDP, 103, 1400)
for _ in range(10):
    one.sendto(b"u" * 56000, (sys.argv[1], 7001))
"""


@contextmanager
def own_link() -> Iterator[str]:
    """`va` in a namespace of one's own, with addresses; its far end `vb` in another: the name of that one."""
    peer = f"otus-frag-{os.getpid()}"
    with own_namespace():
        ip("netns", "add", peer)
        try:
            ip("link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", peer)
            for prefix, name, addresses in (
                ((), "va", (HERE, HERE6)),
                (("-n", peer), "vb", (PEER, PEER6)),
            ):
                ip(*prefix, "link", "set", name, "up")
                ip(*prefix, "addr", "add", f"{addresses[0]}/24", "dev", name)
                ip(*prefix, "addr", "add", f"{addresses[1]}/64", "dev", name, "nodad")
            yield peer
        finally:
            ip("netns", "del", peer)


@pytest.fixture
def peer() -> Iterator[str]:
    with own_link() as name:
        yield name


@pytest.fixture
def engine(peer: str, tmp_path: Path) -> Iterator[Engine]:
    with own_engine(tmp_path) as found:
        found.start()
        yield found


def run(peer: str, code: str, *words: Any) -> None:
    """Run a program in the namespace of the far end."""
    command = ["ip", "netns", "exec", peer, sys.executable, "-S", "-c", code, *map(str, words)]
    subprocess.run(command, check=True, timeout=60)


def summed(engine: Engine) -> dict[str, int]:
    """The counters of all workers."""
    found: dict[str, int] = {}
    for worker in engine.task()["workers"]:
        for name, value in worker["counters"].items():
            found[name] = found.get(name, 0) + value
    return found


def private_memory(pid: int) -> int:
    """Octets of a process that are its own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def receivers() -> list[socket.socket]:
    """The host's own ends of what is sent to it."""
    found = []
    for family, address in ((socket.AF_INET, HERE), (socket.AF_INET6, HERE6)):
        one = socket.socket(family, socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        one.setblocking(False)
        one.bind((address, 5060))
        found.append(one)
    return found


def arrived(sockets: list[socket.socket]) -> list[int]:
    """Octets of each datagram that came."""
    found = []
    for one in sockets:
        while True:
            try:
                found.append(len(one.recv(1 << 16)))
            except BlockingIOError:
                break
        one.close()
    return found


def test_a_flood_of_fragments_harms_neither_calls_nor_the_host(engine: Engine, peer: str) -> None:
    config = {"ring_mb": 32}
    engine.create(
        capture={"driver": "af_packet_v3", "interface": "va", "workers": 2, "config": config},
        filter={"bpf": "udp port 5060"},
    )
    pids = [worker["pid"] for worker in engine.task()["workers"]]
    before = [private_memory(pid) for pid in pids]
    mine = receivers()
    run(peer, FLOODER, FLOOD, CALLS, SIZE, HERE, HERE6)
    wait_for(lambda: engine.received() >= FLOOD + 3 * CALLS - 5, 20.0, "everything is read")
    # The host's own reassembly: the capture takes nothing of its memory.
    assert arrived(mine) == [SIZE] * CALLS
    counters = summed(engine)
    assert counters["sip_messages"] >= 0.99 * CALLS
    wait_for(lambda: engine.call("query", store="calls", count=1)["total"] == counters["sip_messages"])
    # The table, which is of a fixed size, and what Python took beside it.
    for pid, octets in zip(pids, before, strict=True):
        assert private_memory(pid) - octets < 24 << 20
    books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    assert books["dropped"]["ring"]["kernel_ring"] == 0
    assert books["captured"] == books["received"]
    # Every fragment of the flood is a loss with a name; of the calls only what was merged is left out.
    lost = {name: n for name, n in books["dropped"]["worker"].items() if name.startswith("fragments_") and n}
    assert sum(lost.values()) >= FLOOD
    assert set(lost) <= {"fragments_evicted", "fragments_unfinished", "fragments_over_limit"}
    assert books["dropped"]["left_out"]["fragments"] <= 2 * CALLS


def test_datagrams_of_others_are_left_out_and_not_lost(engine: Engine, peer: str) -> None:
    """The filter cannot judge fragments: all of a datagram come, and it is filtered when it is whole."""
    engine.create(
        capture={"driver": "af_packet_v3", "interface": "va", "workers": 2, "config": {"ring_mb": 4}},
        filter={"bpf": "udp port 5060"},
    )
    code = (
        "import socket, sys\n"
        "for family, to in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):\n"
        "    one = socket.socket(family, socket.SOCK_DGRAM)\n"
        "    for _ in range(10): one.sendto(b'n' * 3000, (to, 2049))\n"
    )
    run(peer, code, HERE, HERE6)
    wait_for(lambda: engine.received() == 60)
    books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"]
    assert books["dropped"]["left_out"] | {"fragments": 40, "filtered": 20} == books["dropped"]["left_out"]
    assert sum(books["dropped"]["worker"].values()) == 0


@pytest.mark.usefixtures("peer")
def test_no_ring_asks_the_kernel_to_reassemble() -> None:
    """PACKET_FANOUT_FLAG_DEFRAG would take the memory of the host's own reassembly."""
    for mode in ("hash", "cpu", "lb"):
        rings = af_packet.open_rings(
            {"interface": "va", "fanout_mode": mode, "config": {"ring_mb": 1, "block_kb": 64}},
            2,
            filters.live_program({}),
        )
        try:
            for ring in rings:
                with socket.fromfd(ring.fileno(), socket.AF_PACKET, socket.SOCK_RAW) as one:
                    answer = one.getsockopt(af_packet.SOL_PACKET, af_packet.PACKET_FANOUT, 4)
                (value,) = struct.unpack("I", answer)
                assert value
                assert not (value >> 16) & FANOUT_DEFRAG
        finally:
            for ring in rings:
                ring.close()


@pytest.mark.parametrize("block_kb", [128, 256])
def test_merged_packets_are_whole_and_counted(engine: Engine, peer: str, block_kb: int) -> None:
    """Frames of up to 64 KiB on a link of 1,500: GRO, TSO and UDP GSO; checksums that nobody has computed."""
    engine.create(
        capture={
            "driver": "af_packet_v3",
            "interface": "va",
            "workers": 1,
            "config": {"ring_mb": 16, "block_kb": block_kb},
        },
        filter={},
    )
    with socket.create_server((HERE, 7000)) as server:
        sender = subprocess.Popen(["ip", "netns", "exec", peer, sys.executable, "-S", "-c", SUPER, HERE])
        server.settimeout(5)
        connection, _ = server.accept()
        with connection:
            while connection.recv(1 << 20):
                pass
        assert sender.wait(10) == 0
    wait_for(lambda: summed(engine)["udp"] >= 10, 20.0, "the datagrams are read")
    counters = summed(engine)
    assert counters["gro"] > 20
    assert counters["checksum_not_ready"] > 20
    largest = counters["wire_bytes"] / counters["received"]
    assert largest > 1514, "nothing was merged, so this shows nothing"
    assert counters["wire_bytes"] == counters["bytes"]
    faults = [name for name in counters if name.startswith("malformed") or name == "snapped"]
    assert {name: counters[name] for name in faults if counters[name]} == {}
    books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"]

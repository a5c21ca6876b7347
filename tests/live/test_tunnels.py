"""Tunnels on the wire: the kernel's own VXLAN with sipp inside, and frames of every form over a veth pair."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from tests.live.engines import Engine, lines_of, own_engine, wait_for
from tests.live.hosts import CALLEE, CALLER, Hosts, ip, two_hosts
from tests.live.namespace import own_namespace
from tests.tunnel_calls import call_frames, sip, speech
from tests.tunnel_packets import FORMS, OUTER, Form

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKETS = 50
TYPES = ("vxlan", "geneve", "gtp_u", "gre", "nvgre", "ppp_gre", "erspan", "ipip")
SEND = """
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind((sys.argv[1], 5070))
out.sendto(sys.stdin.buffer.read(), (sys.argv[2], 5070))
"""


def node_file(folder: Path, *on: str) -> str:
    """A node file that takes these tunnels off."""
    path = folder / "otus.yml"
    switches = ", ".join(f"{name}: true" for name in on)
    path.write_text(
        f"otus:\n  metrics: {{enabled: false}}\n  core: {{decoder: {{tunnel: {{{switches}}}}}}}\n"
    )
    return str(path)


def options(path: Path, interface: str = "otus0", **changes: Any) -> dict[str, Any]:
    """A task that writes every packet of media as a line."""
    capture = {"driver": "af_packet_v3", "interface": interface, "workers": 2, "config": {"ring_mb": 4}}
    return {
        "capture": capture,
        "filter": {},
        "parsers": [{"plugin": "sip"}, {"plugin": "rtp", "config": {"report": "every"}}],
        "reporter": {"type": "file", "config": {"path": str(path)}},
        **changes,
    }


@contextmanager
def overlay() -> Iterator[Hosts]:
    """Two hosts whose addresses are those of VXLAN devices; the link between them has others."""
    with two_hosts() as hosts:
        ends = (
            (hosts.caller, CALLER, "10.98.0.1", "10.98.0.2"),
            (hosts.callee, CALLEE, "10.98.0.2", "10.98.0.1"),
        )
        for namespace, address, near, far in ends:
            for words in (
                "addr flush dev otus0",
                f"addr add {near}/24 dev otus0",
                f"link add otusvx type vxlan id 77 local {near} remote {far} dstport 4789",
                f"addr add {address}/24 dev otusvx",
                "link set otusvx mtu 4000 up",
            ):
                ip("-n", namespace, *words.split())
        yield hosts


def stored(engine: Engine, store: str) -> list[dict[str, Any]]:
    """All rows of a store."""
    rows: list[dict[str, Any]] = engine.call("query", store=store, count=100)["rows"]
    return rows


def streams_of(engine: Engine, count: int, packets: int) -> list[dict[str, Any]]:
    """The streams, when there are so many with so many packets; they are read a moment later."""

    def there() -> list[dict[str, Any]]:
        rows = stored(engine, "streams")
        return rows if [row["packets"] for row in rows] == [packets] * count else []

    found: list[dict[str, Any]] = wait_for(there)
    return found


def completed(engine: Engine) -> list[dict[str, Any]]:
    """All calls, when all of them are over."""
    rows = stored(engine, "calls")
    return rows if rows and all(row["state"] == "completed" for row in rows) else []


@pytest.mark.skipif(shutil.which("sipp") is None, reason="needs sipp")
def test_calls_inside_the_kernels_vxlan(tmp_path: Path) -> None:
    path = tmp_path / "packets.jsonl"
    calls = 4
    with overlay() as hosts, own_engine(tmp_path) as engine:
        engine.start("--config", node_file(tmp_path, "vxlan"), prefix=["ip", "netns", "exec", hosts.caller])
        engine.create(**options(path, filter={"bpf": "udp port 4789"}))
        hosts.answer(PACKETS)
        assert hosts.call(calls=calls, rate=4, packets=PACKETS).wait(60) == 0
        rows = wait_for(lambda: len(found := completed(engine)) == calls and found)
        # A datagram beyond the MTU below: the kernel sends the tunnel's own datagram in fragments.
        message = sip(4, "large", filler=2500)
        python = ["ip", "netns", "exec", hosts.caller, sys.executable, "-c", SEND, CALLER, CALLEE]
        subprocess.run(python, input=message, check=True, timeout=10)
        wait_for(lambda: "large" in {row["call_id"] for row in stored(engine, "calls")})
        streams = streams_of(engine, 2 * calls, PACKETS)
        workers = [worker["counters"] for worker in engine.task()["workers"]]
        books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    assert {row["src"] for row in rows} == {f"{CALLER}:5060"}
    assert {(row["lost"], row["found_by"]) for row in streams} == {(0, "sdp")}
    assert {row["call_id"] for row in streams} == {row["call_id"] for row in rows}
    total: Counter[str] = Counter()
    for worker in workers:
        total.update(worker)
    assert total["tunnels"] == total["tunnels_vxlan"] >= calls * (6 + 2 * PACKETS) + 1
    assert (total["reassembled"], total["malformed_tunnel"]) == (1, 0)
    lines = lines_of(path)
    assert Counter(line["protocol"] for line in lines) == {"sip": 6 * calls + 1, "rtp": 2 * PACKETS * calls}
    for line in lines:
        tunnel = line["network"]["tunnel"]
        assert (tunnel["type"], tunnel["vni"]) == ("vxlan", 77)
        assert {tunnel["outer_src_ip"], tunnel["outer_dst_ip"]} == {"10.98.0.1", "10.98.0.2"}
        assert {line["src_ip"], line["dest_ip"]} == {CALLER, CALLEE}
        if line["protocol"] == "rtp":
            assert line["labels"]["call-id"] in {row["call_id"] for row in rows}


class Wire:
    """A veth pair in a namespace of one's own; what is sent at one end is captured at the other."""

    def __init__(self) -> None:
        ip(*["link", "add", "otus0", "type", "veth", "peer", "otus1"])
        for end in ("otus0", "otus1"):
            Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
            ip("link", "set", end, "up", "arp", "off")
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind(("otus1", 0))

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.socket.send(frame)
            time.sleep(0.0005)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with own_namespace():
        made = Wire()
        yield made
        made.socket.close()


def through(sport: int, inner: Any) -> bytes:
    """In VXLAN, sent from this port: a host of an overlay takes another one for each inner flow."""
    frame = bytearray(FORMS["vxlan"].wrap(inner))
    struct.pack_into(">H", frame, 34, sport)
    return bytes(frame)


def sums(engine: Engine, name: str) -> int:
    """A counter of all workers."""
    return sum(counts(engine, name))


def counts(engine: Engine, name: str) -> list[int]:
    """A counter of each worker."""
    return [worker["counters"][name] for worker in engine.task()["workers"]]


def test_signalling_and_media_at_two_workers(tmp_path: Path, wire: Wire) -> None:
    path = tmp_path / "packets.jsonl"
    with own_engine(tmp_path) as engine:
        engine.start("--config", node_file(tmp_path, "vxlan"))
        engine.create(**options(path))
        # Which worker the kernel's hash gives the outer flow of a port to.
        port_of: dict[int, int] = {}
        for sport in range(50_000, 50_032):
            before = counts(engine, "udp")
            wire.send(through(sport, IP(src="10.0.0.8", dst="10.0.0.9") / UDP(sport=1, dport=9) / b"?"))
            after = wait_for(lambda before=before: (now := counts(engine, "udp")) != before and now)
            port_of.setdefault(0 if after[0] > before[0] else 1, sport)
            if len(port_of) == 2:
                break
        assert len(port_of) == 2, port_of
        there, back = IP(src="10.0.0.1", dst="10.0.0.2"), IP(src="10.0.0.2", dst="10.0.0.1")
        signalling, media = port_of[0], port_of[1]
        wire.send(through(signalling, there / UDP(sport=5060, dport=5060) / Raw(sip(4, "two-workers"))))
        wire.send(through(signalling, back / UDP(sport=5060, dport=5060) / Raw(sip(4, "two-workers", True))))
        wait_for(lambda: counts(engine, "sip_messages") == [2, 0])
        for number in range(PACKETS):
            wire.send(through(media, there / UDP(sport=4000, dport=5000) / Raw(speech(number, 1))))
            wire.send(through(media, back / UDP(sport=5000, dport=4000) / Raw(speech(number, 2))))
        wait_for(lambda: sums(engine, "rtp_packets") == 2 * PACKETS)
        assert counts(engine, "sip_messages") == [2, 0]
        assert counts(engine, "rtp_by_sdp") == counts(engine, "rtp_packets") == [0, 2 * PACKETS]
        streams = streams_of(engine, 2, PACKETS)
        books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    assert [(row["call_id"], row["packets"], row["lost"]) for row in streams] == [
        ("two-workers", PACKETS, 0)
    ] * 2
    lines = [line for line in lines_of(path) if line["protocol"] == "rtp"]
    assert {line["labels"].get("call-id") for line in lines} == {"two-workers"}
    assert len(lines) == 2 * PACKETS


def test_every_form(tmp_path: Path, wire: Wire) -> None:
    with own_engine(tmp_path) as engine:
        engine.start("--config", node_file(tmp_path, *TYPES))
        engine.create(**options(tmp_path / "packets.jsonl"))
        calls = [
            call_frames(form, call=name, ssrc=100 * number, shift=2 * number)
            for number, (name, form) in enumerate(FORMS.items(), 1)
        ]
        # Another worker may be quicker than the one that reads the SDP, as no phone is.
        wire.send(*(frame for frames in calls for frame in frames[:2]))
        wait_for(lambda: sums(engine, "sip_messages") == 2 * len(FORMS))
        wire.send(*(frame for frames in calls for frame in frames[2:]))
        wait_for(lambda: sums(engine, "rtp_packets") == 6 * len(FORMS))
        rows = wait_for(lambda: len(found := stored(engine, "calls")) == len(FORMS) and found)
        streams = streams_of(engine, 2 * len(FORMS), 3)
        shown = subprocess.run(
            [sys.executable, "-m", "otus_tui", "stats", "--socket", engine.path],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout
        taken = {name: sums(engine, f"tunnels_{name}") for name in TYPES}
        books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    assert {row["call_id"] for row in rows} == set(FORMS)
    assert Counter(row["call_id"] for row in streams) == dict.fromkeys(FORMS, 2)
    vxlan_forms = sum(form.type == "vxlan" for form in FORMS.values())
    assert f"{8 * vxlan_forms} vxlan" in shown
    assert "8 nvgre" in shown
    assert taken == {
        name: 8 * sum(form.type.replace("-", "_") == name for form in FORMS.values()) for name in TYPES
    }
    for line in lines_of(tmp_path / "packets.jsonl"):
        form = FORMS[line["labels"]["sip.call-id" if line["protocol"] == "sip" else "call-id"]]
        tunnel = line["network"]["tunnel"]
        assert (tunnel["type"], tunnel["vni"]) == (form.type, form.vni)


def test_off_by_default_and_filters_see_what_is_outside(tmp_path: Path, wire: Wire) -> None:
    frames = call_frames(FORMS["vxlan"], call="inside")
    bare = call_frames(Form("", lambda _: b"", protocol=0), call="bare")
    bare = [bytes(OUTER / IP(frame[34:])) for frame in bare]
    with own_engine(tmp_path) as engine:
        engine.start()
        engine.create(**options(tmp_path / "off.jsonl"))
        wire.send(*frames, *bare)
        wait_for(lambda: engine.received() == 16)
        assert sums(engine, "sip_messages") == 2
        assert sums(engine, "tunnels") == 0
        engine.call("stop_task", task_id="test")
        engine.end()
        engine.start("--config", node_file(tmp_path, "vxlan"))
        # What stands in a tunnel no capture filter sees.
        for text, calls in (("udp port 5060", {"bare"}), ("udp port 4789", {"inside"})):
            engine.create(**options(tmp_path / "on.jsonl", filter={"bpf": text}))
            wire.send(*frames, *bare)
            wait_for(lambda: sums(engine, "sip_messages") == 2)
            rows = wait_for(lambda: stored(engine, "calls"))
            assert {row["call_id"] for row in rows} == calls
            engine.call("stop_task", task_id="test")

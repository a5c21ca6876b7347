"""Two hosts of one's own and real calls between them: network namespaces, a veth pair, sipp with media."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.live.engines import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLER, CALLEE = "10.99.0.1", "10.99.0.2"
PACKET_SECONDS = 0.02

HEAD = """\
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: "Alice" <sip:alice@[local_ip]:[local_port]>;tag=[pid]c[call_number]
      To: <sip:bob@[remote_ip]:[remote_port]>{tag}
      Call-ID: [call_id]
      CSeq: {cseq}
      Contact: <sip:alice@[local_ip]:[local_port]>
      Max-Forwards: 70
"""
REPLY = """\
      [last_Via:]
      [last_From:]
      [last_To:];tag=[pid]s[call_number]
      [last_Call-ID:]
      [last_CSeq:]
      Contact: <sip:bob@[local_ip]:[local_port]>
"""
SDP = """\
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=- 1 1 IN IP4 [local_ip]
      s=-
      c=IN IP4 [media_ip]
      t=0 0
      m=audio [auto_media_port] RTP/AVP 0
      a=rtpmap:0 PCMU/8000

"""


def send(start_line: str, headers: str, body: str = "      Content-Length: 0\n\n") -> str:
    return f"<send><![CDATA[\n      {start_line}\n{headers}{body}    ]]></send>\n"


def caller_scenario(media: Path, hold_ms: int) -> str:
    request = "{} sip:bob@[remote_ip]:[remote_port] SIP/2.0"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="caller">\n'
        + send(request.format("INVITE"), HEAD.format(tag="", cseq="1 INVITE"), SDP)
        + '<recv response="100" optional="true"/>\n<recv response="180" optional="true"/>\n'
        + '<recv response="200"/>\n'
        + send(request.format("ACK"), HEAD.format(tag="[peer_tag_param]", cseq="1 ACK"))
        + f'<nop><action><exec play_pcap_audio="{media}"/></action></nop>\n'
        + f'<pause milliseconds="{hold_ms}"/>\n'
        + send(request.format("BYE"), HEAD.format(tag="[peer_tag_param]", cseq="2 BYE"))
        + '<recv response="200"/>\n</scenario>\n'
    )


def callee_scenario(media: Path) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="callee">\n<recv request="INVITE"/>\n'
        + send("SIP/2.0 180 Ringing", REPLY)
        + '<pause milliseconds="100"/>\n'
        + send("SIP/2.0 200 OK", REPLY, SDP)
        + '<recv request="ACK"/>\n'
        + f'<nop><action><exec play_pcap_audio="{media}"/></action></nop>\n<recv request="BYE"/>\n'
        + send("SIP/2.0 200 OK", REPLY)
        + "</scenario>\n"
    )


def write_media(path: Path, packets: int, ssrc: int) -> None:
    """A capture of `packets` of G.711 in order, one each 20 ms, for sipp to play."""
    records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for index in range(packets):
        rtp = struct.pack(">BBHII", 0x80, 0, index, index * 160, ssrc) + b"\xd5" * 160
        udp = struct.pack(">HHHH", 16384, 16384, 8 + len(rtp), 0) + rtp
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), bytes(4)) + udp
        seconds, micros = divmod(round(index * PACKET_SECONDS * 1_000_000), 1_000_000)
        frame = bytes(12) + b"\x08\x00" + ip
        records.append(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(records))


class Hosts:
    """Namespaces `caller` and `callee`, joined by the interfaces `otus0` on both sides."""

    def __init__(self, name: str, folder: Path) -> None:
        self.caller, self.callee = f"{name}-a", f"{name}-b"
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def popen(self, namespace: str, *command: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a program inside a namespace; it is ended with the hosts."""
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *command], **options)  # type: ignore[call-overload]
        self.running.append(process)
        return process  # type: ignore[no-any-return]

    def answer(self, packets: int = 50) -> subprocess.Popen[bytes]:
        """Start a callee that answers every call and sends `packets` of RTP."""
        write_media(self.folder / "callee.pcap", packets, 0x0000BEEF)
        scenario = self.folder / "callee.xml"
        scenario.write_text(callee_scenario(self.folder / "callee.pcap"))
        sipp = self.popen(
            self.callee, "sipp", "-sf", str(scenario), "-i", CALLEE, "-p", "5060", "-nostdin", cwd=self.folder
        )
        listening = ["ip", "netns", "exec", self.callee, "ss", "-ulnH", "sport", "=", ":5060"]
        wait_for(
            lambda: subprocess.run(listening, check=True, capture_output=True).stdout, what="sipp listens"
        )
        return sipp

    def call(
        self, calls: int = 1, rate: float = 1, packets: int = 50, hold_ms: int = 1500
    ) -> subprocess.Popen[bytes]:
        """Start `calls` calls at `rate` a second, each with `packets` of RTP; ends when all are done."""
        write_media(self.folder / "caller.pcap", packets, 0x0000CAFE)
        scenario = self.folder / "caller.xml"
        scenario.write_text(caller_scenario(self.folder / "caller.pcap", hold_ms))
        options = [
            "-m",
            str(calls),
            "-r",
            str(rate),
            "-i",
            CALLER,
            "-p",
            "5060",
            "-nostdin",
            "-timeout",
            "60",
        ]
        return self.popen(
            self.caller, "sipp", f"{CALLEE}:5060", "-sf", str(scenario), *options, cwd=self.folder
        )

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make the namespaces, and take them away again with everything that runs in them."""
    name = f"otus{os.getpid()}{uuid.uuid4().hex[:4]}"
    folder = Path(tempfile.mkdtemp(prefix=name))
    hosts = Hosts(name, folder)
    try:
        for namespace in (hosts.caller, hosts.callee):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        link = "link add otus0 netns {} type veth peer otus0 netns {}"
        ip(*link.format(hosts.caller, hosts.callee).split())
        for namespace, address in ((hosts.caller, CALLER), (hosts.callee, CALLEE)):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "otus0")
            ip("-n", namespace, "link", "set", "otus0", "up")
        yield hosts
    finally:
        hosts.stop()
        for namespace in (hosts.caller, hosts.callee):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)

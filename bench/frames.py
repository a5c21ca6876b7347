"""A source of packets faster than veth: an XDP program that makes RTP, run by BPF_PROG_TEST_RUN.

    with Frames(namespace, packets, rate) as frames: ...

The kernel hands each frame that the program passes to the stack as if `lo` of the namespace had received
it (Linux 5.18, BPF_F_TEST_XDP_LIVE_FRAMES). The program paces itself by the clock, goes through FLOWS flows
in turn with right sequence numbers and timestamps, and counts what it let through: 214 octets each (G.711).
The destination MAC is not ours, so that IP drops each packet where the taps have seen it. It runs in a
process of its own, bound to a CPU, killed at the end. Flows are those of bench.worker.message().
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.lab import die_with_parent

FLOWS = 1000
OCTETS = 214
SYSCALL = {"x86_64": 321, "aarch64": 280}
MAP_CREATE, MAP_LOOKUP, PROG_LOAD, PROG_TEST_RUN = 0, 1, 5, 10
MAP_ARRAY, PROG_XDP = 2, 6
MMAPABLE = 1 << 10
LIVE_FRAMES, BATCH = 2, 64
XDP_DROP, XDP_PASS = 1, 2
LOOKUP_ELEM, KTIME_GET_NS = 1, 5
SENT, BEGUN, LIMIT, NS_EACH, FLOW_COUNT, DUE, WORDS = 0, 8, 16, 24, 32, 40, 6
"""Octets of the shared words: what was sent, when the first was, how many to send, ns a packet << 16, flows,
how many may be out by now."""
_libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2); OSError for what it refuses."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _libc.syscall(SYSCALL[platform.machine()], command, buffer, len(attributes))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def word(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One eBPF instruction."""
    return struct.pack("<BBhi", code, dst | src << 4, offset, value)


MOV, MOVI, ADD, ADDI, SUB, MUL, MULI, DIV, MOD, LSHI, RSHI = (
    0xBF, 0xB7, 0x0F, 0x07, 0x1F, 0x2F, 0x27, 0x3F, 0x9F, 0x67, 0x77,
)  # fmt: skip
LD32, LD64, ST16, ST32, ST64, STI32, STI64 = 0x61, 0x79, 0x6B, 0x63, 0x7B, 0x62, 0x7A
JGT, JGE, JEQI, JNEI, CALL, EXIT, TO_BE = 0x2D, 0x3D, 0x15, 0x55, 0x85, 0x95, 0xDC


def program(map_fd: int) -> bytes:
    """The XDP program: pace, then write flow, sequence number and timestamp into the frame."""
    code: list[bytes] = [
        word(LD32, 7, 1, 0),  # r7 = data
        word(LD32, 8, 1, 4),  # r8 = data_end
        word(MOV, 1, 7),
        word(ADDI, 1, value=OCTETS),
        b"drop" + word(JGT, 1, 8),
        word(STI32, 10, offset=-4, value=0),
        word(0x18, 1, 1, value=map_fd),  # r1 = the map, two words
        word(0),
        word(MOV, 2, 10),
        word(ADDI, 2, value=-4),
        word(CALL, value=LOOKUP_ELEM),
        b"drop" + word(JEQI, 0, value=0),
        word(MOV, 9, 0),
        word(LD64, 2, 9, SENT),
        word(LD64, 3, 9, LIMIT),
        b"drop" + word(JGE, 2, 3),
        word(LD64, 3, 9, DUE),
        word(JGT, 3, 2, 13),  # it is time for this one: the clock is asked only when it may not be
        word(CALL, value=KTIME_GET_NS),
        word(LD64, 1, 9, BEGUN),
        word(JNEI, 1, offset=2, value=0),
        word(ST64, 9, 0, BEGUN),
        word(MOV, 1, 0),
        word(SUB, 0, 1),  # r0 = ns since the first
        word(LSHI, 0, value=16),
        word(LD64, 3, 9, NS_EACH),
        word(DIV, 0, 3),
        word(ADDI, 0, value=1),
        word(ST64, 9, 0, DUE),
        word(LD64, 2, 9, SENT),
        b"drop" + word(JGE, 2, 0),
        word(MOV, 3, 2),
        word(ADDI, 2, value=1),
        word(ST64, 9, 2, SENT),
        word(LD64, 5, 9, FLOW_COUNT),
        word(MOV, 4, 3),
        word(MOD, 4, 5),  # r4 = flow
        word(DIV, 3, 5),  # r3 = packet of the flow
        word(MOV, 1, 4),
        word(ADDI, 1, value=0x0A000000),
        word(TO_BE, 1, value=32),
        word(ST32, 7, 1, 30),  # destination address
        word(ADDI, 4, value=0x1000),
        word(TO_BE, 4, value=32),
        word(ST32, 7, 4, 50),  # SSRC
        word(MOV, 1, 3),
        word(MULI, 1, value=160),
        word(TO_BE, 1, value=32),
        word(ST32, 7, 1, 46),  # timestamp
        word(TO_BE, 3, value=16),
        word(ST16, 7, 3, 44),  # sequence number
        word(MOVI, 0, value=XDP_PASS),
        word(EXIT),
        word(MOVI, 0, value=XDP_DROP),
        word(EXIT),
    ]
    end = len(code) - 2
    for place, one in enumerate(code):
        if one[:4] == b"drop":
            jump = bytearray(one[4:])
            struct.pack_into("<h", jump, 2, end - place - 1)
            code[place] = bytes(jump)
    return b"".join(code)


def frame() -> bytes:
    """G.711 of 20 ms with places for what the program writes."""
    rtp = struct.pack("!BBHII", 0x80, 8, 0, 0, 0) + b"\x55" * 160
    udp = struct.pack("!HHHH", 5000, 4000, 8 + len(rtp), 0) + rtp
    head = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, 0x0B000001, 0)
    octets = bytes.fromhex("020000000002040000000004") + b"\x08\0" + head + udp
    assert len(octets) == OCTETS
    return octets


class Frames:
    """The source in a process of its own; `sent` and `done` while it runs."""

    def __init__(self, namespace: str, packets: int, rate: float, flows: int = FLOWS, cpu: int = -1) -> None:
        """`rate`: packets a second; `cpu`: the last one that is allowed, unless told."""
        self.packets = packets
        self.map = bpf(MAP_CREATE, struct.pack("6I", MAP_ARRAY, 4, 8 * WORDS, 1, MMAPABLE, 0))
        self.memory = mmap.mmap(self.map, mmap.PAGESIZE)
        each = int((1 << 16) * 1e9 / rate)
        struct.pack_into("6Q", self.memory, 0, 0, 0, packets, each, flows, 0)
        cpu = max(os.sched_getaffinity(0)) if cpu < 0 else cpu
        command = [f"--net=/run/netns/{namespace}", "taskset", "-c", str(cpu), sys.executable, __file__]
        os.set_inheritable(self.map, True)
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            ["nsenter", *command, str(self.map)], pass_fds=(self.map,), stderr=subprocess.PIPE
        )

    @property
    def sent(self) -> int:
        """How many frames were passed to the stack."""
        return int(struct.unpack_from("Q", self.memory, SENT)[0])

    def wait(self, packets: int = 0, seconds: float = 120.0) -> float:
        """Until `packets` (all) were sent; seconds from the first one. SystemExit if that is not to be."""
        wanted = packets or self.packets
        end = time.monotonic() + seconds
        first = 0.0
        while (sent := self.sent) < wanted:
            first = first or (time.monotonic() if sent else 0.0)
            if self.process.poll() is not None or time.monotonic() > end:
                said = (
                    b"" if self.process.poll() is None else (self.process.stderr or sys.stdin.buffer).read()
                )
                raise SystemExit(f"the packet source stopped at {sent} of {wanted}: {said.decode()[-400:]}")
            time.sleep(0.002)
        return time.monotonic() - (first or self.begun)

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.memory.close()
        os.close(self.map)


def run(map_fd: int) -> None:
    """The process: load the program, run it until the end or until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    code, license_ = ctypes.create_string_buffer(program(map_fd)), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(65536)
    instructions = (len(code) - 1) // 8
    load = (PROG_XDP, instructions, ctypes.addressof(code), ctypes.addressof(license_), 1, len(log))
    try:
        fd = bpf(PROG_LOAD, struct.pack("=IIQQIIQ", *load, ctypes.addressof(log)) + bytes(72))
    except OSError as error:
        raise SystemExit(f"{error}: {log.value.decode()[-600:]}") from error
    data = ctypes.create_string_buffer(frame(), OCTETS)
    # Nothing ends the call but a signal: the program drops what is too early, and everything at the end.
    test = struct.pack(
        "=IIIIQQIIIIQQIII", fd, 0, OCTETS, 0, ctypes.addressof(data), 0, 0xFFFFFFFF, 0, 0, 0, 0, 0,
        LIVE_FRAMES, 0, BATCH,
    )  # fmt: skip
    while True:
        bpf(PROG_TEST_RUN, test + bytes(4))


if __name__ == "__main__":
    run(int(sys.argv[1]))

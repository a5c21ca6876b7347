"""`otus-tui tcp` in two namespaces of its own, and the connections between them that it sees."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import uuid
from typing import IO, TYPE_CHECKING, Any

from engine.tcp.backend import Namespace
from engine.tcp.namespaces import call_inside
from tests.builds import ROOT
from tests.live.engines import wait_for
from tests.live.namespace import ip
from tests.live.tcp_lines import WINDOW, check_lines

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = "10.79.0.1"
THERE = "10.79.0.2"


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
        """Call a function inside a namespace."""
        path = f"/run/netns/{name}"
        return call_inside(Namespace(os.stat(path).st_ino, path), function)

    def inode(self, name: str) -> int:
        return os.stat(f"/run/netns/{name}").st_ino

    def run(self, name: str, *words: str) -> str:
        command = ["ip", "netns", "exec", name, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def nstat(self, name: str) -> dict[str, int]:
        """The kernel's counters of a namespace."""
        found: dict[str, int] = json.loads(self.run(name, "nstat", "-asz", "-j"))["kernel"]
        return found

    def listen(self, name: str, address: str, port: int, backlog: int = 16) -> socket.socket:
        """A listening socket inside a namespace."""

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
        """A connection from inside a namespace."""
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


def start(hosts: Hosts, *words: str, where: str = "") -> subprocess.Popen[str]:
    """Run it, in the first namespace unless another one is named."""
    command = ["ip", "netns", "exec", where or hosts.a, sys.executable, "-m", "otus_tui", "tcp", *words]
    return popen(hosts, command)


def popen(hosts: Hosts, command: list[str]) -> subprocess.Popen[str]:
    """A program that is ended with the hosts."""
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


def until(process: subprocess.Popen[str], told: Callable[[str], bool]) -> None:
    """Wait until this holds of all that it has written."""

    def holds() -> bool:
        assert process.poll() is None, process.communicate()
        return told(written(process))

    wait_for(holds, 60.0, "what it writes")


def windows(process: subprocess.Popen[str], count: int = 2) -> None:
    """Wait for so many more windows: what was before them is counted and told."""
    before = written(process).count(WINDOW)
    until(process, lambda text: text.count(WINDOW) >= before + count)


def acknowledged(sender: socket.socket) -> None:
    """Wait until the other end has acknowledged all that was sent."""
    octets = struct.Struct("i")
    wait_for(lambda: not octets.unpack(fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))[0], what="an ACK")


def finish(process: subprocess.Popen[str], code: int = 0) -> list[dict[str, Any]]:
    """Wait for its end with this code; its lines, which conform to their schemas."""
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    lines = [json.loads(line) for line in written(process).splitlines()]
    check_lines(lines)
    return lines


def observing(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the first window: from then on everything counts."""
    until(process, lambda text: "\n" in text)
    first: dict[str, Any] = json.loads(written(process).splitlines()[0])
    return first


def final_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Interrupt it; the summary of the whole run."""
    process.send_signal(signal.SIGINT)
    last = finish(process, 130)[-1]
    assert last["final"] is True
    return last

"""The program ends when its terminal goes, stands still or a signal comes, and its private engine with it."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.css.query import NoMatches

from tests.captures import sip_capture
from tests.tui.conftest import Start

BOUND = 30.0
"""Far more than the grace: what does not end by itself stands for ever."""


class Screens:
    """The program over a capture file on a terminal of its own."""

    def __init__(self, capture: Path, log: Path | None = None) -> None:
        self.pid, self.terminal = os.forkpty()
        if self.pid == 0:
            if log is not None:
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "otus_tui", "-I", str(capture)])
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self.engine = 0

    def read_until(self, text: bytes, seconds: float = 60.0) -> None:
        seen = b""
        end = time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < end, seen[-400:]
            seen += os.read(self.terminal, 65536)
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        self.engine = int(children[0])

    def gone_after(self) -> float:
        """Seconds until program and engine are gone; BOUND if they are not."""
        begun = time.monotonic()
        ended = False
        while time.monotonic() - begun < BOUND:
            ended = ended or os.waitpid(self.pid, os.WNOHANG)[0] != 0
            if ended and not self._runs(self.engine):
                self.pid = 0
                return time.monotonic() - begun
            time.sleep(0.02)
        return BOUND

    @staticmethod
    def _runs(pid: int) -> bool:
        try:
            return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.terminal >= 0:
            os.close(self.terminal)


@pytest.fixture
def screens(tmp_path: Path) -> Iterator[Screens]:
    capture = tmp_path / "calls.pcap"
    sip_capture(capture, 20)
    shown = Screens(capture)
    shown.read_until(b"Call")
    yield shown
    shown.close()


def test_standard_error_elsewhere_leaves_the_screens_on_the_terminal(tmp_path: Path) -> None:
    sip_capture(tmp_path / "calls.pcap", 3)
    log = tmp_path / "log"
    shown = Screens(tmp_path / "calls.pcap", log)
    try:
        shown.read_until(b"Call")
    finally:
        shown.close()
    assert log.read_bytes() == b""


def test_nothing_stops_where_no_shell_could_wake_it(screens: Screens) -> None:
    os.write(screens.terminal, b"\x1a")
    screens.read_until(b"nothing would wake them up")


def test_out_to_the_shell_and_back(tmp_path: Path) -> None:
    sip_capture(tmp_path / "calls.pcap", 3)
    line = f"{sys.executable} -m otus_tui -I {tmp_path / 'calls.pcap'}\n"
    shell, terminal = os.forkpty()
    if shell == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "-i"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def answer(typed: bytes, *wanted: bytes) -> None:
        os.write(terminal, typed)
        seen, end = b"", time.monotonic() + 60
        while not all(words in seen for words in wanted):
            assert time.monotonic() < end, seen[-400:]
            seen += os.read(terminal, 65536)

    try:
        answer(line.encode(), b"INVITE", b"books even")
        answer(b"\x1a", b"Stopped")
        answer(b"fg\n", b"INVITE", b"books even")
    finally:
        os.kill(shell, signal.SIGKILL)
        os.waitpid(shell, 0)
        os.close(terminal)


def test_hang_up(screens: Screens) -> None:
    os.write(screens.terminal, b"3?")
    os.close(screens.terminal)
    screens.terminal = -1
    assert screens.gone_after() < BOUND


def test_a_terminal_that_takes_nothing(screens: Screens) -> None:
    """Nobody reads the terminal: a write waits, and with it the event loop."""
    for _ in range(60):
        for key in (b"5", b"2"):
            os.write(screens.terminal, key)
            time.sleep(0.03)
    os.kill(screens.pid, signal.SIGTERM)
    assert screens.gone_after() < BOUND


def test_sigterm(screens: Screens) -> None:
    os.kill(screens.pid, signal.SIGTERM)
    assert screens.gone_after() < BOUND


async def test_what_screens_miss_while_the_program_ends_is_no_fault(start: Start) -> None:
    async with start(screen="calls") as desk:
        desk.app.exit("leave")
        desk.app._handle_exception(NoMatches())
        assert desk.app._exception is None


STANDING = """
import asyncio, queue
from otus_tui.leaving import WayOut

async def main():
    loop = asyncio.get_running_loop()
    WayOut(lambda: loop.call_soon_threadsafe(loop.stop)).watch(0)
    full = queue.Queue(1)
    full.put(None)
    print("standing", flush=True)
    full.put(None)

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["signal", "hang-up"])
def test_an_event_loop_that_stands_still(way: str) -> None:
    """It waits for a thread that writes to the terminal no more; nothing that it would call is called."""
    pid, terminal = os.forkpty()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", STANDING])
    seen = b""
    while b"standing" not in seen:
        seen += os.read(terminal, 4096)
    begun = time.monotonic()
    if way == "signal":
        os.kill(pid, signal.SIGTERM)
    else:
        os.close(terminal)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() - begun > BOUND:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    if way == "signal":
        os.close(terminal)
    assert time.monotonic() - begun < BOUND

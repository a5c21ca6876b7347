"""Workers: bound to CPUs, fanout, rings as asked for, back in time, a new filter while they run."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import OtusError
from engine.supervisor import BACK_OFF
from otus_tui.control_client import ControlClient
from tests.live.capture import frame, make_pair, sending
from tests.live.engines import MESSAGE, Engine, Traffic, alive, own_engine, wait_for
from tests.live.namespace import ip, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
BACK_WITHIN = 2.0
"""Seconds from a kill -9 until the successor runs."""
STARTED_WITHIN = 0.4
"""Seconds in which a process is imported on a machine that is not overloaded."""


def live(workers: int = 2, interface: str = "lo", ring_mb: int = 4, **changes: Any) -> dict[str, Any]:
    options = {"ring_mb": ring_mb, **changes.pop("config", {})}
    capture = {"interface": interface, "workers": workers, "config": options, **changes}
    return {"driver": "af_packet_v3", **capture}


def allowed(pid: int) -> set[int]:
    return os.sched_getaffinity(pid)


def stopped_books(engine: Engine, sent: int) -> dict[str, Any]:
    wait_for(lambda: engine.task()["books"]["captured"] >= sent, 20.0, f"{sent} packets captured")
    books: dict[str, Any] = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    assert books["captured"] == sent, books
    return books


class TestCpus:
    def test_each_worker_has_its_own(self, engine: Engine) -> None:
        engine.create(capture=live(3))
        workers = engine.task()["workers"]
        cpus = sorted(os.sched_getaffinity(0))
        assert [allowed(worker["pid"]) for worker in workers] == [{cpus[n % len(cpus)]} for n in range(3)]
        assert [worker["cpu"] for worker in workers] == [cpus[n % len(cpus)] for n in range(3)]
        assert engine.task()["ring"]["cpus"] == [worker["cpu"] for worker in workers]
        assert engine.process is not None
        assert allowed(engine.process.pid) == set(cpus)

    def test_only_those_that_the_engine_may_use(self, engine: Engine) -> None:
        engine.end()
        cpu = max(os.sched_getaffinity(0))
        engine.start(prefix=["taskset", "-c", str(cpu)])
        engine.create(capture=live(0))
        assert [allowed(worker["pid"]) for worker in engine.task()["workers"]] == [{cpu}]

    def test_not_bound_where_not_wanted(self, engine: Engine) -> None:
        engine.create(capture=live(2, config={"pin": False}))
        assert [worker["cpu"] for worker in engine.task()["workers"]] == [None, None]
        assert engine.task()["ring"]["cpus"] == []
        for worker in engine.task()["workers"]:
            assert allowed(worker["pid"]) == os.sched_getaffinity(0)


class TestFanout:
    @pytest.mark.parametrize("mode", ["hash", "cpu", "lb"])
    def test_every_mode_counts_each_packet_once(self, engine: Engine, mode: str) -> None:
        make_pair()
        engine.create(capture=live(2, "va", fanout_mode=mode))
        ring = engine.task()["ring"]
        assert ring["fanout_mode"] == mode
        assert ring["fanout_group"] is not None
        with sending() as wire:
            wire.send(*[frame(4000 + number) for number in range(300)])
        workers = wait_for(lambda: engine.received() == 300 and engine.task()["workers"])
        shares = [worker["counters"]["received"] for worker in workers]
        if mode == "lb":
            assert shares == [150, 150]
        elif mode == "hash":
            assert all(shares)
        stopped_books(engine, 300)

    def test_a_group_is_shared_by_two_engines(self, tmp_path: Path) -> None:
        with own_namespace(), ExitStack() as stack:
            make_pair()
            engines = []
            for name in "ab":
                (tmp_path / name).mkdir()
                engines.append(stack.enter_context(own_engine(tmp_path / name)))
                engines[-1].start()
                engines[-1].create(capture=live(1, "va", fanout_group=77, fanout_mode="lb"))
                assert engines[-1].task()["ring"]["fanout_group"] == 77
            with sending() as wire:
                wire.send(*[frame(4000)] * 200)
            wait_for(lambda: sum(engine.received() for engine in engines) == 200)
            assert [engine.received() for engine in engines] == [100, 100]

    def test_a_group_in_use_otherwise_is_one_clear_line(self, tmp_path: Path) -> None:
        with own_namespace(), ExitStack() as stack:
            engines = []
            for name in "ab":
                (tmp_path / name).mkdir()
                engines.append(stack.enter_context(own_engine(tmp_path / name)))
                engines[-1].start()
            engines[0].create(capture=live(1, fanout_group=78))
            with pytest.raises(OtusError) as caught:
                engines[1].create(capture=live(1, fanout_group=78, fanout_mode="cpu"))
            assert caught.value.message == "fanout group 78 on lo is in use with another interface or mode"
            assert "fanout_group: 0" in caught.value.hint
            assert engines[1].call("list_tasks")["tasks"] == []


class TestRing:
    def test_options_are_obeyed_and_told(self, engine: Engine, traffic: Traffic) -> None:
        options = {"ring_mb": 2, "block_kb": 256, "retire_ms": 3, "snaplen": 200}
        engine.create(capture=live(1, config=options))
        status = engine.call("task_status", task_id="test")
        assert {key: status["ring"][key] for key in options} == options
        assert status["ring"]["blocks"] == 8
        assert status["ring"]["fanout_group"] is None
        assert status["config"]["capture"]["config"] == options
        traffic.send(10)
        counters = wait_for(lambda: (c := engine.task()["workers"][0]["counters"])["received"] == 10 and c)
        assert counters["snapped"] == 10
        assert counters["bytes"] == 2000
        text = verb(engine, "task", "status", "--id", "test")
        assert "2 MiB each: 8 blocks of 256 KiB, 3 ms at most; 200 octets of a packet" in text

    def test_ring_size_of_the_command_line(self, engine: Engine) -> None:
        engine.end()
        engine.start("-d", "lo", "-B", "8")
        assert engine.task()["ring"]["ring_mb"] == 8

    def test_what_the_interface_lost_is_told(self, engine: Engine) -> None:
        with open("/dev/net/tun", "r+b", buffering=0) as tunnel:
            fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", b"tun9", IFF_TUN | IFF_NO_PI))
            ip("link", "set", "tun9", "up")

            def lose(count: int) -> None:
                # What is neither IPv4 nor IPv6 is dropped by the device.
                for _ in range(count):
                    with suppress(OSError):
                        tunnel.write(bytes(40))

            lose(3)
            engine.create(capture=live(1, interface="tun9"))
            # What was lost before is not the task's.
            assert engine.task()["lost_before"]["rx_dropped"] == 0
            lose(5)
            wait_for(lambda: engine.task()["lost_before"]["rx_dropped"] == 5)
            assert engine.task()["books"]["even"]
            text = verb(engine, "stats")
            assert "interface 5 dropped, 0 missed, 0 fifo; backlog of the host" in text


def verb(engine: Engine, *words: str) -> str:
    """What a verb of the command line prints."""
    command = [sys.executable, "-m", "otus_tui", *words, "--socket", engine.path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Slowness:
    """How many times longer than on an idle machine the start of a process takes meanwhile; at least 1."""

    def __init__(self) -> None:
        self.worst = 1.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._start_again_and_again)

    def _start_again_and_again(self) -> None:
        command = [sys.executable, "-c", "import engine.calls.store, engine.pipeline.loop"]
        while not self._stop.is_set():
            begun = time.monotonic()
            subprocess.run(command, check=True)
            self.worst = max(self.worst, (time.monotonic() - begun) / STARTED_WITHIN)

    def __enter__(self) -> Slowness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class TestRestart:
    def seconds(self, find: Any, number: signal.Signals) -> float:
        """Seconds from a signal until `find()` names another running process."""
        pid = wait_for(find)
        begun = time.monotonic()
        os.kill(pid, number)
        wait_for(lambda: (now := find()) and now != pid and not alive(pid), 20.0, "a successor")
        return time.monotonic() - begun

    def running_worker(self, engine: Engine) -> Any:
        worker = engine.task()["workers"][0]
        return worker["pid"] if worker["state"] == "running" else None

    def running_sender(self, engine: Engine) -> Any:
        row = engine.task()["reporters"][0]
        return row["sender_pid"] if row["sender_state"] == "running" else None

    def running_calls(self, engine: Engine) -> Any:
        # It answers only when it runs; the answer may be from just before it was killed.
        with contextlib.suppress(AssertionError):
            return engine.call("stats")["sip"] and engine.child("engine.calls.process")
        return None

    @pytest.mark.parametrize("part", ["worker", "sender", "calls"])
    def test_killed_process_is_back_within_two_seconds(
        self, engine: Engine, traffic: Traffic, part: str
    ) -> None:
        engine.create(reporter={"type": "file", "config": {"path": "/dev/null"}})
        with Slowness() as machine:
            took = self.seconds(lambda: getattr(self, f"running_{part}")(engine), signal.SIGKILL)
        assert took < BACK_WITHIN * machine.worst
        traffic.send(200)
        stopped_books(engine, 200)

    @pytest.mark.parametrize("part", ["worker", "sender", "calls"])
    def test_stopped_process_is_noticed_and_replaced(
        self, engine: Engine, traffic: Traffic, part: str
    ) -> None:
        engine.create(reporter={"type": "file", "config": {"path": "/dev/null"}})
        find = getattr(self, f"running_{part}")
        wait_for(lambda: find(engine))
        stopped = engine.child({"worker": "engine.pipeline.worker", "sender": "engine.reporters.sender"}.get(
            part, "engine.calls.process"
        ))  # fmt: skip
        with Slowness() as machine:
            begun = time.monotonic()
            os.kill(stopped, signal.SIGSTOP)
            traffic.send(300)
            wait_for(lambda: not alive(stopped), 20.0, "the stopped one is killed")
            wait_for(lambda: find(engine) not in (None, stopped), 20.0, "a successor")
            took = time.monotonic() - begun
        # The heartbeat is missed after 1.5 s; it may be 0.25 s until somebody looks.
        assert took < 1.75 + 1.25 * machine.worst
        assert "no heartbeat" in engine.log.read_text()
        books = stopped_books(engine, 300)
        assert books["dropped"]["ring"]["kernel_ring"] == 0

    def test_a_worker_that_dies_again_and_again(self, engine: Engine, traffic: Traffic) -> None:
        engine.create(capture=live(1), reporters=[])
        died: list[float] = []
        while len(died) < 6:
            worker = engine.task()["workers"][0]
            if worker["pid"] and worker["state"] == "running":
                died.append(time.monotonic())
                os.kill(worker["pid"], signal.SIGKILL)
                wait_for(lambda pid=worker["pid"]: engine.task()["workers"][0]["pid"] != pid)
            time.sleep(0.02)
        # Not as often as it can die: the pauses grow.
        pauses = [after - before for before, after in itertools.pairwise(died)]
        assert all(pause >= wanted for pause, wanted in zip(pauses, BACK_OFF, strict=False)), pauses
        (trouble,) = engine.task()["troubles"]
        assert trouble.startswith("worker 0 ended ")
        assert "in a row" in trouble
        assert "SIGKILL" in trouble
        assert "times in a row" in verb(engine, "task", "status", "--id", "test")
        wait_for(lambda: engine.task()["workers"][0]["state"] == "running")
        traffic.send(100)
        stopped_books(engine, 100)


class TestFilter:
    """Packets go to ports 5060 and 5070 of `lo`; the task begins with the first one."""

    def send(self, source: socket.socket, port: int, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            text = MESSAGE.format(method="OPTIONS", number=f"{port}x{number}", sport=port)
            source.sendto(text.encode(), ("127.0.0.1", port))

    def ports(self, path: Path) -> list[int]:
        lines = path.read_text().splitlines()
        return [int(line.split('"dest_port":')[1].split(",")[0].split("}")[0]) for line in lines]

    @pytest.fixture
    def source(self, engine: Engine) -> Iterator[socket.socket]:
        with ExitStack() as stack:
            for port in (5060, 5070):
                sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sink.bind(("127.0.0.1", port))
            yield stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def test_nothing_of_the_old_filter_behind_the_change(
        self, engine: Engine, source: socket.socket, tmp_path: Path
    ) -> None:
        path = tmp_path / "packets.jsonl"
        engine.create(reporter={"type": "file", "config": {"path": str(path)}})
        sent = {5060: 0, 5070: 0}
        going = threading.Event()
        going.set()

        def send() -> None:
            while going.is_set():
                for port, number in sent.items():
                    self.send(source, port, 1, number)
                    sent[port] += 1
                time.sleep(0.0005)

        thread = threading.Thread(target=send)
        thread.start()
        wait_for(lambda: engine.received() > 200)
        answer = engine.call("set_filter", task_id="test", filter="udp dst port 5070")
        assert answer == {"task_id": "test", "filter": "udp dst port 5070"}
        used = engine.task()["workers"]
        begun = sent[5070]
        time.sleep(0.5)
        going.clear()
        thread.join()
        assert engine.call("task_status", task_id="test")["config"]["filter"] == {"bpf": "udp dst port 5070"}
        assert engine.task()["filter"] == "udp dst port 5070"
        before = sum(worker["counters"]["received"] for worker in used)
        wait_for(lambda: engine.received() >= before + sent[5070] - begun)
        books = engine.call("stop_task", task_id="test")["books"]
        assert books["even"], books
        assert books["reported"] == books["received"] - books["dropped"]["left_out"]["filtered"]
        ports = self.ports(path)
        change = ports.index(5070)
        # Workers change one by one, within a moment; then the old port is over.
        assert 5060 not in ports[change + 200 :]
        # Everything of the new port that was sent when the change was answered.
        assert ports.count(5070) >= sent[5070] - begun

    def test_what_the_ring_holds_is_held_against_the_new_filter(
        self, engine: Engine, source: socket.socket, tmp_path: Path
    ) -> None:
        path = tmp_path / "packets.jsonl"
        engine.create(
            capture=live(1),
            filter={"bpf": "udp dst portrange 5060-5070"},
            reporter={"type": "file", "config": {"path": str(path)}},
        )
        pid = engine.task()["workers"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        self.send(source, 5060, 60)
        self.send(source, 5070, 40)
        with ControlClient(engine.path, 10.0) as client:
            threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
            client.call("set_filter", task_id="test", filter="udp dst port 5070")
        self.send(source, 5060, 30, 60)
        self.send(source, 5070, 30, 40)
        wait_for(lambda: engine.received() == 130)
        assert engine.task()["workers"][0]["restarts"] == 0
        books = engine.call("stop_task", task_id="test")["books"]
        assert books["even"], books
        assert books["dropped"]["left_out"]["filtered"] == 60
        assert self.ports(path) == [5070] * 70

    def test_a_successor_holds_the_ring_against_the_new_filter(
        self, engine: Engine, source: socket.socket
    ) -> None:
        engine.create(capture=live(1), filter={"bpf": "udp dst portrange 5060-5070"}, reporters=[])
        worker = engine.task()["workers"][0]
        os.kill(worker["pid"], signal.SIGSTOP)
        self.send(source, 5060, 60)
        self.send(source, 5070, 40)
        engine.call("set_filter", task_id="test", filter="udp dst port 5070")
        with suppress(ProcessLookupError):
            os.kill(worker["pid"], signal.SIGKILL)
        wait_for(lambda: engine.received() == 100)
        books = engine.call("stop_task", task_id="test")["books"]
        assert books["even"], books
        assert books["dropped"]["left_out"]["filtered"] == 60
        assert books["handled"] == 40

    def test_a_bad_filter_is_refused_and_the_old_one_stays(
        self, engine: Engine, source: socket.socket
    ) -> None:
        engine.create(reporters=[])
        for text, words in {
            "udp prot 5060": "'prot' is a name or no keyword",
            "udp port 99999": "99999",
            "vlan 5": "vlan cannot be tested on live traffic",
        }.items():
            with pytest.raises(OtusError, match=words):
                engine.call("set_filter", task_id="test", filter=text)
        with pytest.raises(OtusError, match="porst"):
            engine.call("set_filter", task_id="test", filter={"porst": [5060]})
        hosts = " or ".join(f"host 10.{n // 250}.{n % 250}.1" for n in range(180))
        with pytest.raises(OtusError, match="filter"):
            engine.call("set_filter", task_id="test", filter=f"({hosts}) and ({hosts[:30]}")
        assert engine.task()["filter"] == "udp dst port 5060"
        self.send(source, 5060, 20)
        self.send(source, 5070, 20)
        books = stopped_books(engine, 20)
        assert books["handled"] == 20

    def test_everything_and_structured_keys(self, engine: Engine, source: socket.socket) -> None:
        engine.create(reporters=[])
        engine.call("set_filter", task_id="test", filter={"ports": [5070], "protocol": "udp"})
        self.send(source, 5060, 10)
        self.send(source, 5070, 10)
        wait_for(lambda: engine.received() == 10)
        assert engine.call("set_filter", task_id="test", filter="")["filter"] == ""
        self.send(source, 5060, 10)
        self.send(source, 5070, 10)
        wait_for(lambda: engine.task()["workers"] and engine.received() >= 30)
        assert engine.call("stop_task", task_id="test")["books"]["even"]

    def test_the_verb(self, engine: Engine) -> None:
        engine.create(reporters=[])
        text = verb(engine, "task", "filter", "--id", "test", "--filter", "udp port 5060")
        assert text == "task test captures udp port 5060\n"
        command = [sys.executable, "-m", "otus_tui", "task", "filter", "--id", "test", "-f", "udp prt 1"]
        failed = subprocess.run(
            [*command, "--socket", engine.path], capture_output=True, text=True, check=False
        )
        assert failed.returncode in (1, 2)
        assert "'prt' is a name or no keyword" in failed.stderr
        assert "Traceback" not in failed.stderr

    def test_only_of_a_live_task_that_runs(self, engine: Engine) -> None:
        with pytest.raises(OtusError, match="no task"):
            engine.call("set_filter", task_id="test", filter="udp")
        engine.create(reporters=[])
        engine.call("stop_task", task_id="test")
        with pytest.raises(OtusError, match="task test is stopped: its filter cannot be changed"):
            engine.call("set_filter", task_id="test", filter="udp")

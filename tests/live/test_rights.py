"""Rights of the processes behind the controller, which is root here."""

from __future__ import annotations

import os
import signal
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from engine.capture.file_filter import COMPILER
from engine.privileges import out_of_reach
from engine.reporters.sender import BEHIND_WORKERS
from tests.live.capture import frame
from tests.live.engines import Traffic, alive, own_engine, wait_for
from tests.live.namespace import own_namespace

if TYPE_CHECKING:
    from pathlib import Path


def rights_of(pid: int) -> tuple[set[str], list[int], str]:
    """Users, capability sets and NoNewPrivs of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    sets = [int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
    return set(facts["Uid"].split()), sets, facts["NoNewPrivs"]


NOTHING = ({"65534"}, [0, 0, 0, 0], "1")


def test_who_decodes_has_no_rights(tmp_path: Path) -> None:
    """The controller opens and hands on: a fault in a decoder is then none of root's.

    Of the ring's workers, the calls process and a sender that writes no files; all of them can be ended and
    replaced, and end with their controller.
    """
    with own_namespace(), own_engine(tmp_path) as engine:
        engine.start()
        engine.create(reporter={"type": "console"})
        workers = [worker["pid"] for worker in engine.task()["workers"]]
        others = [engine.child("engine.calls.process"), engine.child("engine.reporters.sender")]
        assert [rights_of(pid) for pid in [*workers, *others]] == [NOTHING] * 4
        assert engine.process is not None
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        sender = os.getpriority(os.PRIO_PROCESS, others[1])
        assert sender == min(ours + BEHIND_WORKERS, 19)
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in workers] == [ours] * 2
        os.kill(workers[0], signal.SIGSTOP)
        wait_for(lambda: not alive(workers[0]), 20.0, "the controller ends a worker that hangs")
        wait_for(lambda: engine.task()["workers"][0]["state"] == "running", 20.0, "its successor runs")
        successor = engine.task()["workers"][0]["pid"]
        assert rights_of(successor) == NOTHING
        assert os.getpriority(os.PRIO_PROCESS, successor) == ours
        engine.process.kill()
        engine.process.wait()
        wait_for(lambda: not any(map(alive, [successor, workers[1], *others])), 20.0, "all end with it")


@pytest.mark.parametrize("owner", [0, 1234])
def test_sender_that_writes_files_is_the_owner_of_their_folder(tmp_path: Path, owner: int) -> None:
    """Only so can it rename what is full: the file is renamed, and made anew, without capabilities."""
    with (
        tempfile.TemporaryDirectory() as folder,
        own_namespace(),
        own_engine(tmp_path) as engine,
        closing(Traffic()) as traffic,
    ):
        os.chown(folder, owner, owner)
        engine.start()
        path = f"{folder}/x.jsonl"
        engine.create(reporter={"type": "file", "config": {"path": path, "max_size": 1000}})
        assert rights_of(engine.child("engine.reporters.sender")) == ({str(owner)}, [0, 0, 0, 0], "1")
        for _ in range(3):
            traffic.send(5)
            wait_for(lambda: engine.task()["books"]["reported"] == traffic.sent)
        wait_for(lambda: os.path.exists(f"{path}.2"), 20.0, "the file is renamed")
        assert {os.stat(f"{folder}/{name}").st_uid for name in os.listdir(folder)} == {owner}
        assert engine.task()["reporters"][0]["problem"] == ""


def record(sport: int) -> bytes:
    """A packet as it stands in a pcap file."""
    octets = frame(sport)
    return struct.pack("<IIII", 1, 0, len(octets), len(octets)) + octets


@pytest.mark.parametrize("expression", ["", "port 4001"])
def test_worker_of_a_file_has_no_rights(tmp_path: Path, expression: str) -> None:
    """Capture files are strangers' packets, too. The filter's compiler has to run at the first of them."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    capture = {"driver": "pcap", "file": str(path)}
    config = {"id": "test", "capture": capture, "filter": {"bpf": expression}}
    with own_engine(tmp_path) as engine, ThreadPoolExecutor(1) as pool:
        engine.start()
        pipe = os.open(path, os.O_RDWR)
        os.write(pipe, struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        made = pool.submit(engine.call, "create_task", config=config)
        os.write(pipe, record(4002))
        made.result(10)
        user = "0" if expression and out_of_reach((65534, 65534), COMPILER, os.R_OK) else "65534"
        assert rights_of(engine.task()["workers"][0]["pid"]) == ({user}, [0, 0, 0, 0], "1")
        os.write(pipe, record(4001) + record(4002) + record(4001))
        os.close(pipe)
        wait_for(lambda: engine.task()["state"] == "finished", 20.0, "the file is read")
        assert engine.received() == (2 if expression else 4)

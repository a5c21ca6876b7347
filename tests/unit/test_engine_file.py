"""A capture file through a whole engine, without root: every packet counted, every line written."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from otus_tui.client import Client
from otus_tui.control_client import ClientError, start_private_engine
from tests.live.engines import alive, lines_of, own_engine, wait_for

MESSAGE = (
    "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{number}\r\nFrom: <sip:a@x>;tag=1\r\n"
    "To: <sip:b@x>\r\nCall-ID: {number}@file\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
)


def capture(packets: int, sport: int = 5060, body: int = 0) -> bytes:
    """A pcap file of SIP requests with so many octets of body, each of a call of its own."""
    records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number in range(packets):
        message = MESSAGE.format(number=number).encode().replace(b": 0\r\n\r\n", b": %d\r\n\r\n" % body)
        message += b"x" * body
        udp = struct.pack(">HHHH", sport, 5060, 8 + len(message), 0) + message
        sides = bytes([10, 0, 0, 1, 10, 0, 0, 2])
        ip = struct.pack(">BBHHHBBH8s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, sides) + udp
        frame = bytes(12) + b"\x08\x00" + ip
        seconds, micros = divmod(number * 1000, 1_000_000)
        records.append(struct.pack("<IIII", 1_700_000_000 + seconds, micros, len(frame), len(frame)) + frame)
    return b"".join(records)


async def read_file(*arguments: str, pass_fds: tuple[int, ...] = ()) -> tuple[Any, Client]:
    """The task's section when the private engine has read a file, and the connection to it."""
    client = await Client.connect(start_private_engine(arguments, pass_fds))
    for _ in range(1000):
        section = (await client.call("stats"))["tasks"][0]
        if section["state"] in ("finished", "failed"):
            return section, client
        await asyncio.sleep(0.02)
    raise AssertionError(section)


async def test_calls_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(capture(500))
    section, client = await read_file(f"--file={path}")
    assert section["state"] == "finished"
    assert section["progress"]["done"]
    assert section["progress"]["packets"] == 500
    assert section["books"]["even"]
    assert section["books"]["handled"] == 500
    assert (await client.call("query", store="calls", count=1))["total"] == 500
    pid = client.hello["pid"]
    await client.close()
    for _ in range(1000):
        if not alive(pid):
            break
        await asyncio.sleep(0.02)
    assert not alive(pid)


async def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.pcap")
    Path(path).write_bytes(capture(20))
    section, client = await read_file(f"--file={path}")
    assert (section["state"], section["progress"]["path"], section["books"]["handled"]) == (
        "finished",
        path,
        20,
    )
    await client.close()


async def test_a_stopped_load_keeps_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    os.mkfifo(path)
    client_at_work = asyncio.create_task(Client.connect(start_private_engine([f"--file={path}"])))
    pipe = await asyncio.to_thread(path.open, "wb")
    pipe.write(capture(300))
    pipe.flush()
    client = await client_at_work
    for _ in range(2000):
        if (await client.call("stats"))["tasks"][0]["books"]["handled"] == 300:
            break
        await asyncio.sleep(0.01)
    await client.call("stop_task", task_id="file")
    section = (await client.call("stats"))["tasks"][0]
    assert (section["state"], section["progress"]["packets"], section["progress"]["done"]) == (
        "stopped",
        300,
        False,
    )
    assert section["books"]["even"]
    assert (await client.call("query", store="calls"))["total"] == 300
    pipe.close()
    await client.close()


async def test_standard_input(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    path = tmp_path / "a.pcap.gz"
    path.write_bytes(gzip.compress(capture(300)))
    with path.open("rb") as source:
        feeder = subprocess.Popen(["cat"], stdin=source, stdout=write_end)
    os.close(write_end)
    section, client = await read_file("--file=-", f"--file-fd={read_end}", pass_fds=(read_end,))
    os.close(read_end)
    feeder.wait()
    assert section["state"] == "finished", section
    assert section["books"]["handled"] == 300
    await client.close()


async def test_filter_on_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(capture(100) + capture(50, 5070)[24:])
    section, client = await read_file(f"--file={path}", "--filter=udp port 5070")
    assert section["books"]["received"] == 50
    await client.close()


async def test_cut_file_is_shown_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(capture(100)[:-30])
    section, client = await read_file(f"--file={path}")
    assert section["state"] == "finished"
    assert section["books"]["received"] == 99
    assert "cut" in section["progress"]["warning"]
    await client.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "empty"), (b"hello, world, this is no capture", "not a capture")],
)
async def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.pcap"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClientError, match=message) as caught:
        await Client.connect(start_private_engine([f"--file={path}"]))
    assert caught.value.code == 2


def test_every_line_of_a_file_is_written(tmp_path: Path) -> None:
    """A file waits for its reporter: more packets than all rings and queues hold, and none is dropped."""
    path, output = tmp_path / "a.pcap", tmp_path / "out.jsonl"
    path.write_bytes(capture(30_000))
    task = tmp_path / "task.yml"
    task.write_text(
        f"task:\n  id: t\n  capture: {{driver: pcap, file: {path}}}\n"
        f"  reporter: {{type: file, config: {{path: {output}, max_size: 0, queue: 100}}}}\n"
    )
    with own_engine(tmp_path) as engine:
        engine.start()
        environment = {**os.environ, "OTUS_SOCKET": engine.path}
        command = [sys.executable, "-m", "otus_tui", "task", "create", "--file", str(task)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        wait_for(lambda: engine.call("status")["tasks"][0]["state"] == "finished", 30)
        found = engine.call("task_status", task_id="t")
        books = found["books"]
        assert found["config"]["capture"] == {"driver": "pcap", "file": str(path)}
        assert books["even"]
        assert books["reported"] == 30_000
        assert len(lines_of(output)) == 30_000
        assert engine.call("query", store="calls", count=1)["total"] == 20_000, "the store is bounded"
        engine.end()


@pytest.mark.parametrize(("capacity", "body"), [(64, 0), (16_384, 12_000)], ids=["few", "long"])
def test_no_line_is_lost_where_a_ring_has_room_for_few_messages(
    tmp_path: Path, capacity: int, body: int
) -> None:
    path, node = tmp_path / "a.pcap", tmp_path / "otus.yml"
    path.write_bytes(capture(1500, body=body))
    node.write_text(f"otus:\n  backpressure: {{send_buffer: {{capacity: {capacity}}}}}\n")
    reporter = {"type": "file", "config": {"path": str(tmp_path / "out.jsonl")}}
    source = {"driver": "pcap", "file": str(path)}
    with own_engine(tmp_path) as engine:
        engine.start("--config", str(node))
        engine.call("create_task", config={"id": "t", "capture": source, "reporter": reporter})
        wait_for(lambda: engine.call("status")["tasks"][0]["state"] == "finished", 30)
        books = engine.task()["books"]
        assert books["reported"] == 1500, books
        engine.end()


def test_killed_file_worker_goes_on(tmp_path: Path) -> None:
    fifo = tmp_path / "slow.jsonl"
    path = tmp_path / "a.pcap"
    path.write_bytes(capture(20_000))
    with own_engine(tmp_path) as engine:
        engine.start()
        reporter = {"type": "file", "config": {"path": str(fifo), "queue": 100}}
        capture_ = {"driver": "pcap", "file": str(path)}
        engine.call("create_task", config={"id": "t", "capture": capture_, "reporter": reporter})
        wait_for(lambda: engine.received() > 5000)
        time.sleep(0.01)
        worker = engine.task()["workers"][0]
        if worker["pid"]:
            os.kill(worker["pid"], signal.SIGKILL)
        wait_for(lambda: engine.call("status")["tasks"][0]["state"] == "finished", 30)
        section = engine.task()
        assert section["books"]["even"]
        assert section["books"]["received"] == 20_000
        engine.end()

"""The engine as a service: from the wire to JSON Lines, and every way in which a task cannot be created."""

from __future__ import annotations

import grp
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otus_tui.control_client import ClientError, start_engine, start_private_engine
from tests.live.engines import Engine, Traffic, alive, lines_of, own_engine, wait_for
from tests.live.namespace import ip, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with own_namespace(), own_engine(tmp_path) as found:
        yield found


def test_wire_to_lines(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    path = tmp_path / "packets.jsonl"
    engine.start()
    rules = [{"label": "sip.method", "values": ["OPTIONS"], "action": "drop"}]
    engine.create(
        reporter={"type": "file", "config": {"path": str(path)}},
        processors=[{"plugin": "filter", "config": {"rules": rules}}, {"plugin": "label"}],
    )
    traffic.send(300)
    traffic.send(100, "OPTIONS")
    wait_for(lambda: engine.received() == 400)
    # Processors decide what is reported; the call list shows what was on the wire.
    wait_for(lambda: engine.call("query", store="calls", count=5)["total"] == 400)
    answer = engine.call("stop_task", task_id="test")
    books = answer["books"]
    assert answer["state"] == "stopped"
    assert books["even"], books
    assert books["captured"] == books["received"] == 400
    assert books["reported"] == 300
    assert books["dropped"]["left_out"]["filtered"] == 100
    lines = lines_of(path)
    assert len(lines) == 300
    assert {line["labels"]["sip.call-id"] for line in lines} == {f"call-{n}@test" for n in range(1, 301)}
    assert lines[0]["labels"]["node"] == os.uname().nodename
    assert lines[0]["payload"]["message"].startswith("INVITE sip:bob")
    # What a stopped task has seen stays to be asked for, until the next one.
    assert engine.call("query", store="calls", count=5)["total"] == 400
    engine.create()
    assert engine.call("query", store="calls", count=5)["total"] == 0
    tasks = engine.call("list_tasks")["tasks"]
    assert [task["state"] for task in tasks] == ["running", "stopped"]


def test_blocks_have_latencies(engine: Engine, traffic: Traffic) -> None:
    engine.start()
    engine.create()
    traffic.send(200, pause=0.001)
    wait_for(lambda: engine.received() == 200)
    workers = engine.task()["workers"]
    blocks = sum(worker["counters"]["blocks"] for worker in workers)
    assert blocks > 0
    assert sum(sum(worker["latency_buckets"]) for worker in workers) == blocks


@pytest.mark.parametrize("retire_ms", [1, 200])
def test_what_the_kernel_holds_back_at_the_stop_is_read(
    engine: Engine, traffic: Traffic, retire_ms: int
) -> None:
    engine.start()
    options = {"ring_mb": 4, "retire_ms": retire_ms}
    engine.create(capture={"driver": "af_packet_v3", "interface": "lo", "workers": 2, "config": options})
    traffic.send(50)
    books = engine.call("stop_task", task_id="test")["books"]
    assert (books["captured"], books["received"], books["even"]) == (50, 50, True)


def test_what_no_worker_came_to_read_is_named(engine: Engine, traffic: Traffic) -> None:
    engine.start()
    engine.create()
    for worker in engine.task()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    traffic.send(50)
    books = engine.call("stop_task", task_id="test")["books"]
    # However far the successors came before they were stopped.
    assert (books["captured"], books["even"]) == (50, True)
    assert books["dropped"]["ring"] == {"kernel_ring": 0, "unread": 50 - books["received"]}


def test_fragments_meet_the_filter_when_they_are_a_datagram(engine: Engine) -> None:
    ip("link", "set", "lo", "mtu", "1500")
    engine.start()
    engine.create()
    message = b"OPTIONS sip:bob@[::1] SIP/2.0\r\nCall-ID: a\r\n\r\n" + b"x" * 3000
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        for port in (5060, 5061):
            sender.sendto(message, ("::1", port))

    def figures() -> tuple[int, ...]:
        names = ("received", "fragments", "filter_rechecked", "filtered", "sip_messages")
        workers = [worker["counters"] for worker in engine.task()["workers"]]
        return tuple(sum(worker[name] for worker in workers) for name in names)

    wait_for(lambda: figures()[0] == 6)
    assert figures() == (6, 4, 2, 1, 1)


def test_refusals(engine: Engine, tmp_path: Path) -> None:
    engine.start()

    def refused(**changes: object) -> ClientError:
        with pytest.raises(ClientError) as caught:
            engine.create(**changes)
        assert engine.call("status")["tasks"] == []
        assert engine.children() == []
        return caught.value

    capture = {"driver": "af_packet_v3", "interface": "lo"}
    error = refused(capture={**capture, "interface": "lo0"})
    assert (error.code, "lo0" in error.message, "lo" in error.hint) == (2, True, True)
    error = refused(filter={"bpf": "udp prot 5060"})
    assert error.code == 2
    assert "prot" in error.message
    error = refused(reporter={"type": "file", "config": {"path": str(tmp_path / "no" / "x.jsonl")}})
    assert "No such file" in error.message
    assert "known" in refused(reporter={"type": "carrier-pigeon"}).hint
    assert "wrkers" in refused(capture={**capture, "wrkers": 3}).message
    assert "no such file" in refused(capture={"driver": "pcap", "file": "/no.pcap"}, filter={}).message
    assert (
        "regular expression"
        in refused(
            processors=[
                {"plugin": "filter", "config": {"rules": [{"label": "sip.method", "values": ["/(/"]}]}}
            ]
        ).message
    )


def test_one_task_at_a_time(engine: Engine) -> None:
    engine.start("-d", "lo")
    assert engine.call("status")["tasks"][0]["task_id"] == "live"
    with pytest.raises(ClientError, match="one task at a time"):
        engine.create()
    with pytest.raises(ClientError, match="no task other"):
        engine.call("stop_task", task_id="other")
    engine.call("stop_task", task_id="live")
    engine.create()


def test_worker_limit(engine: Engine, tmp_path: Path) -> None:
    node = tmp_path / "otus.yml"
    node.write_text("otus:\n  resources:\n    max_workers: 1\n")
    engine.start("--config", str(node))
    with pytest.raises(ClientError, match="allows 1"):
        engine.create()
    engine.create(capture={"driver": "af_packet_v3", "interface": "lo"})
    assert len(engine.task()["workers"]) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clean_end(engine: Engine, traffic: Traffic, tmp_path: Path, number: int) -> None:
    path = tmp_path / "packets.jsonl"
    engine.start()
    engine.create(reporter={"type": "file", "config": {"path": str(path)}})
    traffic.send(2000)
    wait_for(lambda: engine.received() > 0)
    children = engine.children()
    assert engine.end(number) < 2.0
    assert engine.process is not None
    assert engine.process.returncode == 0
    assert not os.path.exists(engine.path)
    assert not any(alive(pid) for pid in children)
    assert len(lines_of(path)) == 2000
    log = engine.log.read_text()
    assert "Traceback" not in log, log
    assert '"level": "error"' not in log, log


@pytest.mark.parametrize("member", [False, True], ids=["stranger", "member"])
def test_socket_is_for_its_owner_and_its_group(engine: Engine, tmp_path: Path, member: bool) -> None:
    group = grp.getgrnam("daemon")
    node = tmp_path / "otus.yml"
    node.write_text(f"otus:\n  control: {{group: {group.gr_name}}}\n")
    engine.start("--config", str(node))
    assert stat.S_IMODE(os.stat(engine.path).st_mode) == 0o660
    assert os.stat(engine.path).st_gid == group.gr_gid
    os.chmod(os.path.dirname(engine.path), 0o755)
    for folder in Path(engine.path).parents:
        if os.stat(folder).st_uid == 0 and not stat.S_IMODE(os.stat(folder).st_mode) & 1:
            os.chmod(folder, 0o755)
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"id":1,"method":"hello"}\\n\'); print(s.makefile().readline())'
    )
    groups = f"--groups={group.gr_gid}" if member else "--clear-groups"
    if not member:
        # Past the file's mode, the engine still asks who is calling.
        os.chmod(engine.path, 0o666)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", groups]
    pythons = (sys.executable, "/usr/bin/python3")
    python = next(
        (
            one
            for one in pythons
            if not subprocess.run([*nobody, one, "-c", ""], capture_output=True, check=False).returncode
        ),
        "",
    )
    if not python:
        pytest.skip("no Python that another user may run")
    answer = subprocess.run(
        [*nobody, python, "-c", script, engine.path], capture_output=True, text=True, cwd="/", check=False
    )
    assert ('"protocol":1' if member else "may not control this engine") in answer.stdout, answer
    assert engine.call("status")["tasks"] == []


def on_terminal(engine: Engine, *arguments: str) -> tuple[int, str]:
    """Run the program on a terminal of its own: its exit code and what it wrote."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OTUS_SOCKET": engine.path, "TERM": "xterm"}
    command = [sys.executable, "-m", "otus_tui", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    code = process.wait(20)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:
        pass
    os.close(ours)
    return code, text.decode()


def test_other_capture_is_refused_with_the_way_out(engine: Engine) -> None:
    engine.start("-d", "lo", "udp")
    for arguments in (["-d", "eth9"], ["-d", "lo", "tcp"], ["tcp", "port", "5060"]):
        code, text = on_terminal(engine, *arguments)
        assert code == 1
        assert "the engine runs task live on lo, filter udp" in text
        assert "otus-tui task stop --id live" in text
    assert engine.task()["state"] == "running"


def test_second_engine_and_stale_socket(engine: Engine) -> None:
    first = engine.start()
    second = engine.start(wait=False)
    assert second.wait(10) == 1
    assert f"already runs at {engine.path} (pid {first.pid})" in engine.log.read_text()
    engine.process = first
    assert engine.answers()
    children = engine.children()
    first.kill()
    first.wait()
    assert os.path.exists(engine.path)
    engine.start()
    assert engine.answers()
    assert not any(alive(pid) for pid in children)


def test_without_rights(engine: Engine) -> None:
    """Root without the capability to capture is as good as anybody: it is told what is missing."""
    less = ["setpriv", "--bounding-set=-net_raw,-net_admin"]
    process = engine.start("-d", "lo", wait=False, prefix=less)
    assert process.wait(10) == 3, engine.log.read_text()
    text = engine.log.read_text()
    assert "otus-tui: " in text
    assert "CAP_NET_RAW" in text
    assert "Traceback" not in text


def test_detached_engine_tells_why_it_did_not_start(engine: Engine) -> None:
    with pytest.raises(ClientError, match="no interface 'lo9'") as caught:
        start_engine(["--interface=lo9"], engine.path)
    assert caught.value.code == 2
    path = start_engine(["--interface=lo"], engine.path)
    assert engine.call("status")["mode"] == "live"
    pid = engine.call("status")["pid"]
    assert os.getsid(pid) == pid
    engine.call("shutdown")
    wait_for(lambda: not alive(pid))
    assert not os.path.exists(path)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="it is no zombie of who started it")


def test_private_engine_ends_with_its_front_end() -> None:
    connection = start_private_engine([])
    connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1}}\n')
    connection.settimeout(10)
    assert b'"mode":"idle"' in connection.recv(4096)
    connection.close()
    assert os.waitstatus_to_exitcode(os.waitpid(connection.pid, 0)[1]) == 0


def test_interface_that_goes_and_comes_back(engine: Engine) -> None:
    def appear() -> None:
        ip("link", "add", "dum0", "type", "veth", "peer", "name", "dum1")
        ip("link", "set", "dum1", "up")
        ip("link", "set", "dum0", "up")

    appear()
    engine.start()
    engine.create(capture={"driver": "af_packet_v3", "interface": "dum0", "workers": 2}, filter={})
    ip("link", "del", "dum0")
    wait_for(lambda: {ring["link"] for ring in engine.task()["capture"]} == {"gone"})
    appear()
    ip("addr", "add", "10.98.0.1/24", "dev", "dum0")
    wait_for(lambda: {ring["link"] for ring in engine.task()["capture"]} != {"gone"})
    before = engine.received()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        # The ring of the new interface may not be there yet.
        wait_for(lambda: source.sendto(b"who has it", ("10.98.0.77", 9)) and engine.received() > before)
    assert engine.task()["state"] == "running"

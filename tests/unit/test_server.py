"""The control socket and both of its clients."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.control.methods import ERROR_INVALID, ERROR_REFUSED, MAX_LINE, PROTOCOL
from engine.control.server import Connection, Server, bind_socket
from engine.errors import NotPermittedError, OtusError, UsageError
from otus_tui.client import Client
from otus_tui.control_client import ClientError, ControlClient, check_hello
from tests.builds import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


async def hello(_: Connection, protocol: int = PROTOCOL) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "version": "1",
        "pid": os.getpid(),
        "node": "n",
        "started": 0,
        "mode": "idle",
    }


async def stats(_: Connection) -> dict[str, Any]:
    return {"big": "x" * 100_000}


async def task_status(_: Connection, task_id: str) -> dict[str, Any]:
    if task_id == "usage":
        raise UsageError("no such thing", "another thing")
    if task_id == "refused":
        raise OtusError("not now", "later")
    if task_id == "right":
        raise NotPermittedError("no right", "sudo")
    if task_id == "octets":
        return {"task_id": task_id, "file": "bad\udcff.pcap"}
    if task_id == "bug":
        raise ValueError("a secret detail")
    return {"task_id": task_id}


async def subscribe(connection: Connection, hz: float = 2.0, sections: Any = ()) -> dict[str, Any]:
    count = 0

    async def make() -> dict[str, Any]:
        nonlocal count
        count += 1
        return {"sequence": count, "filler": "y" * 20_000}

    connection.subscribe(1 / hz, make)
    return {}


HANDLERS = {"hello": hello, "stats": stats, "task_status": task_status, "subscribe": subscribe}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found = Server(HANDLERS)
    await found.serve(found.bind(str(tmp_path / "s")))
    yield found
    await found.close()


class Raw:
    """A client that can send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, path: Path) -> Raw:
        return cls(*await asyncio.open_unix_connection(str(path / "s"), limit=1 << 24))

    async def ask(self, line: bytes) -> Any:
        self.writer.write(line + b"\n")
        return json.loads(await asyncio.wait_for(self.reader.readline(), 5))


@pytest.fixture
async def raw(server: Server, tmp_path: Path) -> AsyncIterator[Raw]:
    found = await Raw.connect(tmp_path)
    yield found
    found.writer.close()
    await found.writer.wait_closed()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 10_000, -32700),
        (b"[]", -32600),
        (b"3", -32600),
        (b'{"id":1}', -32600),
        (b'{"id":[1],"method":"hello"}', -32600),
        (b'{"id":1,"method":3}', -32600),
        (b'{"id":1,"method":"nope"}', -32601),
        (b'{"id":1,"method":"__class__"}', -32601),
        (b'{"id":1,"method":"stats","params":[1]}', -32602),
        (b'{"id":1,"method":"stats","params":{"x":1}}', -32602),
        (b'{"id":1,"method":"task_status"}', -32602),
        (b'{"id":1,"method":"task_status","params":{"task_id":"usage"}}', ERROR_INVALID),
        (b'{"id":1,"method":"task_status","params":{"task_id":"refused"}}', ERROR_REFUSED),
        (b'{"id":1,"method":"task_status","params":{"task_id":"bug"}}', -32603),
    ],
)
async def test_errors(raw: Raw, line: bytes, code: int) -> None:
    answer = await raw.ask(line)
    assert answer["error"]["code"] == code
    assert "secret" not in json.dumps(answer)
    # And the connection goes on.
    assert (await raw.ask(b'{"id":"a","method":"hello"}'))["result"]["protocol"] == PROTOCOL


async def test_requests_of_the_go_implementation(raw: Raw) -> None:
    """No `jsonrpc`, ids are strings; notifications get no answer."""
    raw.writer.write(b'{"method":"hello"}\n\n')
    answer = await raw.ask(b'{"method":"task_status","params":{"task_id":"x"},"id":"req-1"}')
    assert answer == {"jsonrpc": "2.0", "id": "req-1", "result": {"task_id": "x"}}


async def test_line_too_long(raw: Raw) -> None:
    answer = await raw.ask(b'{"id":1,"method":"' + b"x" * (MAX_LINE + 10))
    assert answer["error"]["code"] == -32600
    assert await raw.reader.read() == b""


async def until(condition: Callable[[], bool]) -> None:
    """Let the server work until something holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_slow_client_loses_snapshots_and_nobody_else_does(
    server: Server, raw: Raw, tmp_path: Path
) -> None:
    await raw.ask(b'{"id":1,"method":"subscribe","params":{"hz":1000}}')
    client = await Client.connect(str(tmp_path / "s"))
    seen: list[Any] = []
    client.on_snapshot(seen.append)
    await client.call("subscribe", hz=100)
    await until(lambda: server.notifications_lost > 0)
    before = len(seen)
    await until(lambda: len(seen) > before)
    await client.close()


async def test_client(server: Server, tmp_path: Path) -> None:
    client = await Client.connect(str(tmp_path / "s"))
    assert client.hello["node"] == "n"
    answers = await asyncio.gather(*(client.call("task_status", task_id=str(n)) for n in range(50)))
    assert [answer["task_id"] for answer in answers] == [str(n) for n in range(50)]
    with pytest.raises(ClientError) as caught:
        await client.call("task_status", task_id="usage")
    assert (caught.value.message, caught.value.hint, caught.value.code) == (
        "no such thing",
        "another thing",
        2,
    )
    lost: list[str] = []
    client.on_lost(lost.append)
    waiting = asyncio.create_task(client.call("hello"))
    await server.close()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: bool(lost))
    assert len(lost) == 1
    with pytest.raises(ClientError):
        await client.call("hello")
    await client.close()


async def test_names_that_are_no_utf8_reach_the_client(server: Server, tmp_path: Path) -> None:
    client = await Client.connect(str(tmp_path / "s"))
    assert (await client.call("task_status", task_id="octets"))["file"] == "bad\udcff.pcap"
    await client.close()


async def test_a_client_says_when_it_cannot_read_an_answer() -> None:
    ours, theirs = socket.socketpair()
    connecting = asyncio.create_task(Client.connect(ours))
    await asyncio.sleep(0.05)
    theirs.sendall(b"[]\n")
    with pytest.raises(ClientError, match="not understood"):
        await connecting
    theirs.close()


async def test_blocking_client(server: Server, tmp_path: Path) -> None:
    def work() -> None:
        with ControlClient(str(tmp_path / "s")) as client:
            assert len(client.call("stats")["big"]) == 100_000
            with pytest.raises(ClientError) as caught:
                client.call("task_status", task_id="right")
            assert caught.value.code == 3

    await asyncio.to_thread(work)


async def test_adopted_connection(server: Server) -> None:
    ours, theirs = socket.socketpair()
    empty = asyncio.Event()
    server.on_empty = empty.set
    await server.adopt(theirs)
    client = await Client.connect(ours)
    await client.close()
    await asyncio.wait_for(empty.wait(), 2)


def test_other_version() -> None:
    with pytest.raises(ClientError, match="speaks protocol 99, this program 1"):
        check_hello({"protocol": 99, "version": "9", "pid": 1})


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="no engine runs at") as caught:
        ControlClient(str(tmp_path / "s"))
    assert "--headless" in caught.value.hint


# ---- the socket's file ----


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    bind_socket(path, None).close()
    assert os.path.exists(path)
    second = bind_socket(path, None)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    second.close()


@pytest.mark.parametrize("answer", [b"", b"220 ready\n", b'{"jsonrpc": "1"}\n', None])
def test_a_listener_that_is_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    monkeypatch.setattr("engine.control.server.PROBE_TIMEOUT", 0.1)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()

        def serve() -> None:
            for _ in range(2):
                caller, _ = other.accept()
                with caller:
                    if answer is None:
                        caller.recv(1000)
                        caller.recv(1000)
                    else:
                        caller.recv(1000)
                        caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        words = f"something that is no engine listens at {path} .*pid {os.getpid()}\\)"
        with pytest.raises(OtusError, match=words):
            bind_socket(path, None)
        with pytest.raises(ClientError) as caught:
            ControlClient(path, 0.1)
        thread.join()
    if answer and answer[:1] != b"{":
        assert caught.value.message == f"something that is no engine listens at {path}"


@pytest.mark.parametrize("answer", [b'{"jsonrpc":"2.0","id":1,"result":{}}\n', None])
def test_an_engine_that_runs_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    monkeypatch.setattr("engine.control.server.PROBE_TIMEOUT", 0.1)
    path = str(tmp_path / "s")
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "print(1, flush=True)\n"
        "c=s.accept()[0]; c.recv(1000); sys.argv[2] and c.sendall(sys.argv[2].encode()); c.recv(1000)"
    )
    command = [sys.executable, "-c", script, path, (answer or b"").decode(), "engine.daemon"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(
            OtusError, match=f"an engine already runs at {path} \\(pid {first.pid}\\)"
        ) as caught:
            bind_socket(path, None)
        assert ("no answer yet" in caught.value.message) == (answer is None)


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder of this user that everybody may look into."""
    folder = Path(tempfile.mkdtemp(prefix="otus"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_folder_that_this_user_may_not_write_in(foreign: Path) -> None:
    script = (
        "import os,sys\nfrom engine.control.server import bind_socket\nfrom engine.errors import OtusError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: bind_socket(sys.argv[1], None)\nexcept OtusError as error: print(error.code, error.message)"
    )

    def tried(path: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True, cwd=ROOT
        )
        return done.stdout.strip()

    said = f"3 this user may not write in {foreign}, which belongs to root: Permission denied"
    assert tried(foreign / "s") == said
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(foreign / "s"))
        other.listen()
        assert tried(foreign / "s") == f"3 the socket {foreign / 's'} is taken by root"


def test_file_that_is_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(UsageError, match="is no socket"):
        bind_socket(str(path), None)
    assert path.read_text() == "precious"


def test_path_too_long(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="longer than 107"):
        bind_socket(str(tmp_path / ("x" * 108)), None)


async def test_close_leaves_the_socket_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = Server(HANDLERS)
    await first.serve(first.bind(str(path)))
    path.unlink()
    second = bind_socket(str(path), None)
    await first.close()
    assert path.exists()
    second.close()

"""Speaking to an engine from the command line: blocking, without asyncio, so that a verb starts at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from engine.control.methods import ERROR_INVALID, ERROR_NOT_PERMITTED, MAX_LINE, PARAMS, PROTOCOL
from engine.control.paths import SERVICE_SOCKET, client_socket_path, own_socket_path, prepare_directory
from engine.errors import ExitCode, OtusError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXIT_CODES = {
    ERROR_NOT_PERMITTED: ExitCode.NOT_PERMITTED,
    ERROR_INVALID: ExitCode.USAGE,
    PARAMS: ExitCode.USAGE,
}
NOBODY = 0
"""`rpc_code` of an error that did not come from an engine: nobody listens, or the connection broke."""
START_TIMEOUT = 15.0


class ClientError(OtusError):
    """A call failed: `message` and `hint` for a person, `rpc_code` as in engine.control.methods.

    `data` is what the engine said beside the hint: `position` of a fault in a filter, from 0.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        rpc_code: int = NOBODY,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.rpc_code = rpc_code
        self.data = dict(data or {})
        self.code = _EXIT_CODES.get(rpc_code, ExitCode.FAILED)


def default_socket_path() -> str:
    """The socket that a front end tries when it was told none."""
    return client_socket_path()


def request_line(number: int, method: str, params: Mapping[str, Any]) -> bytes:
    """One JSON-RPC request as it goes over the socket."""
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(request, separators=(",", ":")).encode() + b"\n"


def answer_result(answer: Mapping[str, Any]) -> Any:
    """The result in an answer; raises ClientError for an error."""
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    found = error.get("data")
    data = dict(found) if isinstance(found, dict) else {}
    hint = str(data.pop("hint", ""))
    raise ClientError(str(error.get("message", "the engine refused")), hint, int(error.get("code", 0)), data)


def check_hello(hello: Mapping[str, Any]) -> None:
    """Raise ClientError if the engine speaks another version of the protocol."""
    found = hello.get("protocol")
    if found != PROTOCOL:
        raise ClientError(
            f"the engine (version {hello.get('version')}, pid {hello.get('pid')}) speaks protocol {found}, "
            f"this program {PROTOCOL}",
            "end it with the otus-tui that started it, or restart the service, then try again",
        )


def connect_error(path: str, error: OSError) -> ClientError:
    """Why no engine could be reached at `path`, and the way out."""
    if isinstance(error, PermissionError):
        trouble = ClientError(
            f"may not use the engine's socket {path}",
            "use sudo, or be a member of its group: see ls -l on it",
        )
        trouble.code = ExitCode.NOT_PERMITTED
        return trouble
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        hint = "start one: otus-tui --headless, or otus-tui for the screens"
        if os.path.isdir(service := os.path.dirname(SERVICE_SOCKET)) and not os.access(service, os.X_OK):
            hint += "; the service's needs sudo"
        return ClientError(f"no engine runs at {path}", hint)
    return ClientError(f"cannot reach the engine at {path}: {error.strerror or error}")


def _understood(line: bytes, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ClientError(
            f"something that is no engine listens at {path}", "name the engine's: --socket PATH"
        )
    return answer


class ControlClient:
    """One connection, one call at a time. A context manager."""

    def __init__(self, path: str | None = None, timeout: float = 10.0) -> None:
        """Connect and say hello; ClientError if nobody answers or another version does."""
        self.path = path or client_socket_path()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._number = 0
        try:
            self._socket.connect(self.path)
        except OSError as error:
            self._socket.close()
            raise connect_error(self.path, error) from error
        self._reader = self._socket.makefile("rb")
        try:
            self.hello: dict[str, Any] = self.call("hello", protocol=PROTOCOL)
            check_hello(self.hello)
        except OtusError:
            self.close()
            raise

    def call(self, method: str, /, **params: Any) -> Any:
        """The result of a method; ClientError with the engine's message and hint."""
        self._number += 1
        try:
            self._socket.sendall(request_line(self._number, method, params))
            while True:
                line = self._reader.readline(MAX_LINE + 1)
                if not line.endswith(b"\n"):
                    raise ClientError(
                        "the engine closed the connection", "see its log, or journalctl -u otus"
                    )
                answer = _understood(line, self.path)
                if answer.get("id") == self._number:
                    return answer_result(answer)
                if "id" in answer and answer["id"] is None:
                    return answer_result(answer)
        except TimeoutError as error:
            raise ClientError(f"the engine gave no answer to {method}") from error
        except OSError as error:
            raise ClientError(f"the connection to the engine broke: {error.strerror or error}") from error

    def wait_closed(self, seconds: float) -> None:
        """Wait until the engine hangs up."""
        self._socket.settimeout(seconds)
        try:
            while self._reader.readline(MAX_LINE):
                pass
        except TimeoutError as error:
            raise ClientError(f"the engine still runs after {seconds:.0f} s") from error
        except OSError:
            pass

    def close(self) -> None:
        """Hang up."""
        if hasattr(self, "_reader"):
            self._reader.close()
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _answers(path: str) -> bool:
    """Whether an engine says hello at `path`: it does so when its first task runs."""
    try:
        ControlClient(path, 1.0).close()
    except ClientError as error:
        if error.rpc_code or "protocol" in error.message:
            raise
        return False
    return True


def start_engine(args: Sequence[str] = (), path: str | None = None) -> str:
    """Start a detached engine with the daemon's arguments `args`; returns its socket's path once it listens.

    It has its own session, so it outlives this program and its terminal; what it prints is appended to
    `engine.log` beside the socket. OtusError with its last line if it ends before it listens.
    """
    path = path or own_socket_path()
    prepare_directory(path)
    name = os.path.join(os.path.dirname(os.path.abspath(path)), "engine.log")
    with open(name, "a+b") as log:
        begun = log.tell()
        process = _spawn(["--socket", path, "--log", name, *args], log, ())
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(path):
            if process.poll() is not None:
                raise _died(log, process.returncode, begun)
            if time.monotonic() > deadline:
                process.terminate()
                raise ClientError(
                    f"the engine did not open {path} within {START_TIMEOUT:.0f} s", f"see {log.name}"
                )
            time.sleep(0.01)
        _detach(process)
        # If it ends before us, it shall be no zombie.
        threading.Thread(target=os.waitpid, args=(process.pid, 0), daemon=True).start()
    return path


class PrivateConnection(socket.socket):
    """The connection to an engine that serves this front end alone, and ends when it is closed."""

    pid = 0
    log: IO[bytes]

    def error(self) -> OtusError | None:
        """Why the engine ended; None while it runs."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid:
                return _died(self.log, os.waitstatus_to_exitcode(status))
            time.sleep(0.01)
        return None

    def __del__(self) -> None:
        # Not in close(): an event loop closes the socket before anybody asks why the engine went.
        self.close()
        self.log.close()


def start_private_engine(args: Sequence[str], pass_fds: Sequence[int] = ()) -> PrivateConnection:
    """Start an engine for this front end alone and return the connection to it.

    It has no socket file. `hello` is still to be said: an engine that dies at once closes the
    connection, and `error()` of it says why.
    """
    left, theirs = socket.socketpair()
    ours = PrivateConnection(left.family, left.type, left.proto, left.detach())
    ours.log = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the connection
    with theirs:
        process = _spawn(["--private", str(theirs.fileno()), *args], ours.log, (theirs.fileno(), *pass_fds))
    ours.pid = process.pid
    _detach(process)
    return ours


def _spawn(args: Sequence[str], log: IO[bytes], pass_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "engine.daemon", *args],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=tuple(pass_fds),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def _detach(process: subprocess.Popen[bytes]) -> None:
    """It is meant to outlive us: no warning about a child that still runs."""
    process.returncode = 0


def _died(log: IO[bytes], code: int, begun: int = 0) -> OtusError:
    """The error that an engine printed, from octet `begun` on, before it ended: with hint and exit code."""
    log.seek(0, os.SEEK_END)
    log.seek(max(begun, log.tell() - 8192))
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    message, hint = f"the engine ended at once (exit code {code})", ""
    for position, line in enumerate(lines):
        if line.startswith(("otus: ", "otus-tui: ")):
            message = line.split(": ", 1)[1]
            hint = "\n".join(line.rstrip() for line in lines[position + 1 :])
            break
    else:
        if lines:
            message += ": " + lines[-1]
    trouble = ClientError(message, hint)
    if code in set(ExitCode):
        trouble.code = ExitCode(code)
    return trouble

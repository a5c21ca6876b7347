"""The controller: tasks, the control socket, snapshots, signals, the service manager.

    python -m engine.daemon [--socket PATH | --private FD] [--config FILE] [--task FILE | --interface NAME
        [--filter EXPRESSION] | --file PATH [--file-fd FD]] [--ring-mb N] [--limit CALLS] [--log FILE]

With `--private FD` it serves one client over an inherited connection and ends when that one leaves.
Errors at the start go to standard error as `otus: MESSAGE` and a line with the hint; exit codes are those of
engine.errors. The log follows on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import engine
from engine import config_file, purity, systemd, usage
from engine.books import balance
from engine.config import MAX_CALLS, NodeConfig, TaskConfig
from engine.control.methods import PARAMS, PROTOCOL, RpcError
from engine.control.paths import own_socket_path, prepare_directory
from engine.control.server import Connection, Server
from engine.control.socket_guard import socket_guard
from engine.errors import ExitCode, OtusError, UsageError
from engine.log import log
from engine.snapshot import SECTIONS
from engine.supervisor import Supervisor
from engine.task import FINAL, Task
from engine.task_checks import check_capture
from engine.tcp import service as tcp_service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.snapshot import EngineSection, Snapshot
    from engine.telemetry.endpoint import MetricsEndpoint

LIVE_TASK = "live"
FILE_TASK = "file"
MAX_HZ = 10.0
DEFAULT_HZ = 2.0
HISTORY = 20
STORES = ("calls", "streams")
FORWARDED = ("query", "call", "message", "clear")
"""Methods that the calls process answers."""


class Controller:
    """The engine of one host."""

    def __init__(self, node: NodeConfig) -> None:
        self.node = node
        self.supervisor = Supervisor()
        self.tcp = tcp_service.TcpService(node.tcp, self.supervisor)
        self.task: Task | None = None
        """The active task, or the last one, which can still be asked."""
        self.history: list[dict[str, Any]] = []
        self.started_ns = time.time_ns()
        self.stopping = asyncio.Event()
        self._lock = asyncio.Lock()
        self._sequence = 0
        self._cached: tuple[float, dict[str, Any]] = (0.0, {})
        self._memory = usage.Meter()
        handlers = {name: getattr(self, f"rpc_{name}") for name in _METHODS}
        handlers |= {name: self._forwarder(name) for name in FORWARDED}
        handlers |= self.tcp.handlers()
        self.server = Server(handlers)

    # ---- tasks ----

    async def create_task(self, config: TaskConfig, file_fd: int | None = None) -> Task:
        """Run a task; OtusError if another one is active or it does not come to run."""
        async with self._lock:
            if self.task is not None and self.task.state not in FINAL:
                raise OtusError(
                    f"task {self.task.id} is {self.task.state}, and one task at a time is possible",
                    f"stop it first: otus-tui task stop --id {self.task.id}",
                )
            task = Task(config, self.node, self.supervisor)
            task.file_fd = file_fd
            # What the last task has seen stays to be asked for until another one really runs.
            await task.create()
            await self._forget_task()
            self.task = task
            self._cached = (0.0, {})
            log.fields["task"] = task.id
            return task

    async def create_first(self, config: TaskConfig, file_fd: int | None) -> None:
        """create_task() at the start, given up when a signal comes first."""
        creation = asyncio.ensure_future(self.create_task(config, file_fd))
        stopping = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait((creation, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not creation.done():
            creation.cancel()
            await asyncio.gather(creation, return_exceptions=True)
        else:
            await creation

    async def stop_task(self, task_id: str) -> dict[str, Any]:
        """Stop the active task: what it is then, its books, and whether it had ended before."""
        async with self._lock:
            row = self._past(task_id)
            if row is not None:
                return {**{key: row[key] for key in ("task_id", "state", "books")}, "already": True}
            task = self._find(task_id)
            already = task.state in FINAL
            await task.stop()
            return {"task_id": task.id, "state": task.state, "books": task.books(), "already": already}

    def _past(self, task_id: str) -> dict[str, Any] | None:
        """What is left of a task that made room for another one."""
        if self.task is not None and self.task.id == task_id:
            return None
        return next((row for row in self.history if row["task_id"] == task_id), None)

    async def _forget_task(self) -> None:
        """The last task makes room for the next one: of it, a line in the history stays."""
        if self.task is not None:
            self.history.insert(0, {**self.task.summary(), "books": self.task.books()})
            del self.history[HISTORY:]
            await self.task.release()
            self.task = None
            # A task and its children name each other: its mappings, up to 200 MB, shall go now, not some day.
            gc.collect()

    def _find(self, task_id: str | None) -> Task:
        if self.task is None or (task_id is not None and task_id != self.task.id):
            known = self.task.id if self.task else None
            gone = any(row["task_id"] == task_id for row in self.history)
            raise OtusError(
                f"task {task_id} has made room for another one"
                if gone
                else f"no task {task_id or ''}".rstrip(),
                f"the last one is {known}" if known else "create one: otus-tui task create --file FILE",
            )
        return self.task

    def mode(self) -> str:
        """live, file or idle."""
        if self.task is None:
            return "idle"
        if self.task.config.capture.driver == "pcap":
            return "file"
        return "live" if self.task.state not in FINAL else "idle"

    # ---- methods of the control socket ----

    async def rpc_hello(self, _: Connection, protocol: int = PROTOCOL) -> dict[str, Any]:
        """Who answers."""
        return {
            "protocol": PROTOCOL,
            "version": engine.__version__,
            "pid": os.getpid(),
            "node": self.node.node.name(),
            "started": self.started_ns,
            "mode": self.mode(),
        }

    async def rpc_status(self, _: Connection) -> dict[str, Any]:
        """The daemon in short."""
        section = self._engine_section()
        keys = ("version", "pid", "node", "uptime_s", "mode", "compiled")
        return {**{key: section[key] for key in keys}, "tasks": self._tasks()}  # type: ignore[literal-required]

    async def rpc_stats(self, _: Connection) -> Snapshot:
        """All figures once."""
        return await self.snapshot(SECTIONS)

    async def rpc_create_task(
        self, _: Connection, config: Any = None, text: str | None = None, name: str = "task"
    ) -> dict[str, Any]:
        """Validate, build and run."""
        if (config is None) == (text is None):
            raise RpcError(PARAMS, "create_task: give either config or text")
        if text is not None:
            task_config = config_file.task_from_text(str(text), str(name), self.node)
        else:
            task_config = config_file.task_from_values(config, self.node)
        task = await self.create_task(task_config)
        return {"task_id": task.id, "state": task.state}

    async def rpc_stop_task(self, _: Connection, task_id: str) -> dict[str, Any]:
        """Stop, flush, clean up."""
        return await self.stop_task(task_id)

    async def rpc_set_filter(self, _: Connection, task_id: str, filter: Any = "") -> dict[str, Any]:
        """Another capture filter on the running rings."""
        task = self._find(task_id)
        values = task.config.model_dump(mode="json", exclude_defaults=True)
        values["filter"] = {"bpf": filter.strip()} if isinstance(filter, str) else filter
        wanted = config_file.task_from_values(values, self.node, "filter").filter
        async with self._lock:
            await task.change_filter(wanted)
        return {"task_id": task.id, "filter": task.filter_text}

    async def rpc_list_tasks(self, _: Connection) -> dict[str, Any]:
        """Active and finished tasks, newest first."""
        return {"tasks": self._tasks()}

    async def rpc_task_status(self, _: Connection, task_id: str) -> dict[str, Any]:
        """One task."""
        row = self._past(task_id)
        if row is not None:
            return row
        task = self._find(task_id)
        config = task.config.model_dump(mode="json", exclude_defaults=True)
        return {**task.summary(), **task.section(), "config": config}

    async def rpc_subscribe(
        self, connection: Connection, sections: Sequence[str] = SECTIONS, hz: float = DEFAULT_HZ
    ) -> dict[str, Any]:
        """Snapshots from now on."""
        if not isinstance(sections, list | tuple) or not all(name in SECTIONS for name in sections):
            raise RpcError(PARAMS, f"subscribe: sections are {', '.join(SECTIONS)}")
        if isinstance(hz, bool) or not isinstance(hz, int | float) or not 0 < hz <= 1000:
            raise RpcError(PARAMS, "subscribe: hz is a number above 0")
        wanted, hz = tuple(sections), min(float(hz), MAX_HZ)
        if "tcp" in wanted and sections is not SECTIONS:
            self.tcp.want()

        async def make() -> Mapping[str, Any]:
            return await self.snapshot(wanted)

        connection.subscribe(1 / hz, make)
        return {"sections": list(wanted), "hz": hz}

    async def rpc_unsubscribe(self, connection: Connection) -> dict[str, Any]:
        """No more snapshots."""
        connection.unsubscribe()
        return {}

    async def rpc_shutdown(self, _: Connection) -> dict[str, Any]:
        """End the engine, after this answer."""
        asyncio.get_running_loop().call_later(0.05, self.stopping.set)
        return {}

    def _forwarder(self, method: str) -> Any:
        async def forward(connection: Connection, **params: Any) -> Any:
            if method in ("query", "clear") and params.get("store") not in STORES:
                raise RpcError(PARAMS, f"{method}: store is {' or '.join(STORES)}")
            task = self._find(params.pop("task", None))
            if task.calls is None:
                raise OtusError(f"task {task.id} has no calls to ask for")
            return await task.calls.request(method, params)

        return forward

    def _tasks(self) -> list[dict[str, Any]]:
        rows = [{key: value for key, value in row.items() if key != "books"} for row in self.history]
        return [*([self.task.summary()] if self.task else []), *rows]

    # ---- snapshots ----

    async def snapshot(self, sections: Sequence[str]) -> Snapshot:
        """What the engine measures, in the sections that are asked for."""
        self._sequence += 1
        snapshot: dict[str, Any] = {"sequence": self._sequence, "time_ns": time.time_ns()}
        if "engine" in sections:
            snapshot["engine"] = self._engine_section()
        if "tasks" in sections:
            snapshot["tasks"] = [self.task.section()] if self.task else []
        if "sip" in sections or "media" in sections:
            figures = await self._calls_figures()
            snapshot |= {name: figures.get(name) for name in ("sip", "media") if name in sections}
        if "tcp" in sections:
            snapshot["tcp"] = await self.tcp.section()
        snapshot |= {name: None for name in ("findings",) if name in sections}
        return snapshot  # type: ignore[return-value]

    async def _calls_figures(self) -> dict[str, Any]:
        """Sections sip and media from the calls process, at most ten times a second."""
        now = time.monotonic()
        if now - self._cached[0] < 1 / MAX_HZ:
            return self._cached[1]
        task = self.task
        if task is None or task.calls is None:
            self._cached = (now, {})
            return {}
        figures = await task.ask_calls()
        self._cached = (now, figures)
        return figures

    def _engine_section(self) -> EngineSection:
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        children = [child.pid for child in self.supervisor.children if child.pid]
        return {
            "version": engine.__version__,
            "pid": os.getpid(),
            "node": self.node.node.name(),
            "mode": self.mode(),
            "started_ns": self.started_ns,
            "uptime_s": (time.time_ns() - self.started_ns) / 1e9,
            "compiled": _compiled(),
            "cpu_s": sum(one.ru_utime + one.ru_stime for one in own) + usage.cpu_seconds(children),
            "memory_bytes": self._memory.octets(child.memory for child in self.supervisor.children),
            "clients": len(self.server.connections),
        }

    # ---- life ----

    async def close(self) -> None:
        """Stop everything, within two seconds."""
        systemd.notify("STOPPING=1")
        if self.task is not None:
            await self.task.stop()
            books = self.task.books()
            log.info("books", "even" if books["even"] else f"off by {balance(books)}", **books)
        await self.server.close()
        await self.tcp.close()
        if self.task is not None:
            await self.task.release()
        await self.supervisor.close()


_METHODS = (
    "hello",
    "status",
    "stats",
    "create_task",
    "stop_task",
    "set_filter",
    "list_tasks",
    "task_status",
    "subscribe",
    "unsubscribe",
    "shutdown",
)


def _compiled() -> bool:
    from engine.shm import ring

    return purity.is_compiled(ring)


def live_task(interface: str, expression: str = "", ring_mb: int = 32, name: str = LIVE_TASK) -> TaskConfig:
    """The task of bare `otus-tui -d IF [FILTER]`."""
    node = NodeConfig()
    capture = {"driver": "af_packet_v3", "interface": interface, "config": {"ring_mb": ring_mb}}
    return config_file.task_from_values(
        {"id": name, "capture": capture, "filter": {"bpf": expression}}, node, "live"
    )


def file_task(path: str, expression: str = "", name: str = FILE_TASK) -> TaskConfig:
    """The task of `otus-tui -I FILE [FILTER]`."""
    values = {"id": name, "capture": {"driver": "pcap", "file": path}, "filter": {"bpf": expression}}
    return config_file.task_from_values(values, NodeConfig(), "file")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The daemon's own command line; people use `otus-tui --headless`."""
    parser = argparse.ArgumentParser(prog="engine.daemon", description="The otus engine.")
    parser.add_argument("--socket")
    parser.add_argument("--private", type=int, metavar="FD")
    parser.add_argument("--log", metavar="FILE", help="what standard error is appended to; kept short")
    parser.add_argument("--config")
    parser.add_argument("--task")
    parser.add_argument("--interface")
    parser.add_argument("--filter", default="")
    parser.add_argument("--file")
    parser.add_argument("--file-fd", type=int)
    parser.add_argument("--ring-mb", type=int, default=32)
    parser.add_argument("--limit", type=int)
    return parser.parse_args(arguments)


def first_task(options: argparse.Namespace, node: NodeConfig) -> TaskConfig | None:
    """The task that the command line asks for, if any."""
    if options.task:
        return config_file.load_task(options.task, node)
    if options.file:
        return file_task(options.file, options.filter)
    if options.interface:
        return live_task(options.interface, options.filter, options.ring_mb)
    if options.filter:
        raise UsageError("a filter needs an interface to capture from", "otus-tui --headless -d any FILTER")
    return None


def load_node(options: argparse.Namespace) -> NodeConfig:
    """The node file that is named, and the limits of the command line on top."""
    node = config_file.load_node(options.config) if options.config else NodeConfig()
    if options.limit is not None:
        if not 1 <= options.limit <= MAX_CALLS:
            raise UsageError(f"--limit {options.limit}: from 1 to {MAX_CALLS:,} calls can be kept")
        node = node.model_copy(update={"stores": node.stores.model_copy(update={"calls": options.limit})})
    return node


def check(arguments: list[str]) -> None:
    """Raise what is wrong with a command line: its node file, its task, what they name. Runs nothing."""
    options = parse_arguments(arguments)
    config = first_task(options, load_node(options))
    if config is not None:
        check_capture(config, options.file_fd)


async def start_metrics(controller: Controller) -> MetricsEndpoint | None:
    """The Prometheus endpoint of a daemon, where the node file does not switch it off."""
    if not controller.node.metrics.enabled:
        return None
    from engine.tcp import prometheus
    from engine.telemetry import collector
    from engine.telemetry.endpoint import MetricsEndpoint

    collectors = (collector.collect, prometheus.collect)

    async def snapshot() -> Snapshot:
        # Who collects metrics looks: an observer on demand begins with the first scrape.
        controller.tcp.want()
        return await controller.snapshot(SECTIONS)

    endpoint = MetricsEndpoint(controller.node.metrics.listen, snapshot, collectors)
    await endpoint.start()
    return endpoint


async def run(options: argparse.Namespace) -> None:
    """The whole life of an engine."""
    node = load_node(options)
    log.configure(node.log.level, node.log.format)
    controller = Controller(node)
    log.fields = {"node": node.node.name()}
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, controller.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: log.info("daemon", "SIGHUP changes nothing"))
    path = options.socket or node.control.socket or own_socket_path()
    listener = metrics = None
    guard = contextlib.ExitStack()
    try:
        if options.private is None:
            prepare_directory(path)
            listener = controller.server.bind(path, node.control.group)
            guard.enter_context(socket_guard(path))
            if options.log:
                log.keep(options.log)
        config = first_task(options, node)
        if config is not None:
            file_fd = options.file_fd
            if config.capture.file == "-" and file_fd is None:
                file_fd = os.dup(0)
            await controller.create_first(config, file_fd)
        if listener is not None:
            controller.tcp.begin()
            metrics = await start_metrics(controller)
            await controller.server.serve(listener)
        else:
            controller.server.on_empty = controller.stopping.set
            await controller.server.adopt(socket.socket(fileno=options.private))
        systemd.notify("READY=1")
        log.info("daemon", "ready", pid=os.getpid(), socket=path if listener else None)
        await controller.stopping.wait()
        log.info("daemon", "stopping")
    finally:
        if metrics is not None:
            await metrics.close()
        await controller.close()
        guard.close()


def main() -> None:
    """Run, and say in two lines what went wrong."""
    try:
        asyncio.run(run(parse_arguments(sys.argv[1:])))
    except OtusError as error:
        sys.stderr.write(f"otus: {error.message}\n{error.hint}\n")
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()

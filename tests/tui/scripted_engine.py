"""An engine with canned answers that speaks the real JSON-RPC over a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64encode
from typing import Any

from engine.capture import filters
from engine.control.methods import ERROR_INVALID, ERROR_REFUSED, MAX_LINE, PROTOCOL
from engine.errors import UsageError
from tests.tui.engine_rows import (
    INVITE,
    NOW_NS,
    OK,
    SECOND,
    call_row,
    message_row,
    stream_row,
    task,
    tcp_event,
    tcp_listener,
    tcp_row,
    tcp_section,
)


class ScriptedEngine:
    """Serves `calls`, `streams` and a snapshot that a test may change; remembers what it was asked."""

    def __init__(self, path: str, calls: int = 200, streams: int = 20) -> None:
        self.path = path
        self.calls = [call_row(i) for i in range(calls)]
        self.streams = [stream_row(i) for i in range(streams)]
        self.messages = [message_row(i) for i in range(5)]
        self.message = b""
        """The octets of every message; empty: those of an INVITE and its 200."""
        self.tasks = [task()]
        self.tcp: dict[str, Any] | None = tcp_section()
        self.connections = [tcp_row(i) for i in range(60)]
        self.version = 1
        self.sequence = 0
        self.time_ns = NOW_NS
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refuse: dict[str, tuple[int, str, str]] = {}
        self.refuse_once: dict[str, tuple[int, str, str]] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._notified: set[asyncio.StreamWriter] = set()

    def octets(self, raw: bytes) -> dict[str, Any]:
        """Octets of a message as the engine gives them."""
        text = raw.decode("utf-8", "backslashreplace")
        return {"raw": text, "raw_base64": None if text.encode() == raw else b64encode(raw).decode()}

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_LINE)

    async def stop(self) -> None:
        """Hang up on everybody and listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def __aenter__(self) -> ScriptedEngine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def asked_of(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all calls of a method."""
        return [params for name, params in self.asked if name == method]

    # --- answers

    def snapshot(self) -> dict[str, Any]:
        self.sequence += 1
        active = sum(row["state"] in ("in_call", "call_setup") for row in self.calls)
        states: dict[str, int] = {}
        for row in self.calls:
            states[row["state"]] = states.get(row["state"], 0) + 1
        return {
            "sequence": self.sequence,
            "time_ns": self.time_ns,
            "engine": {
                "version": "0.1.0", "pid": 4700, "node": "edge-bj-01", "mode": "live", "started_ns": NOW_NS,
                "uptime_s": 764.0, "compiled": True, "cpu_s": 3.0, "memory_bytes": 150 << 20, "clients": 1,
            },
            "tasks": self.tasks,
            "sip": {
                "calls": len(self.calls), "active": active, "by_state": states,
                "messages": 1_000 + 8 * self.sequence,
                "retransmissions": 12, "malformed": 0, "requests": {"INVITE": 400, "BYE": 300},
                "responses": {"200": 600, "503": 12}, "removed": 0, "lost": 0, "held_bytes": 1 << 20,
                "restarts": 0, "lost_calls": None, "restarted_ns": None, "version": self.version,
            },
            "media": {
                "streams": len(self.streams), "active": len(self.streams),
                "packets": 100_000 + 1_000 * self.sequence,
                "lost": 120, "one_way": None, "version": self.version,
            },
            "tcp": self.tcp,
        }  # fmt: skip

    def query(self, params: dict[str, Any]) -> dict[str, Any]:
        stores = {"calls": self.calls, "streams": self.streams, "tcp": self.connections}
        rows = stores[params["store"]]
        text = params.get("filter") or ""
        if "(" in text and ")" not in text:
            raise RpcError(ERROR_INVALID, "this parenthesis is not closed", position=text.index("("))
        if text.startswith("nobody"):
            raise RpcError(ERROR_INVALID, "no column 'nobody'", "did you mean method?", position=0)
        matched = [row for row in rows if _matches(row, text)]
        column = params.get("sort") or "number"
        known = [row for row in matched if row.get(column) is not None]
        known.sort(key=lambda row: row[column], reverse=bool(params.get("descending")))
        matched = known + [row for row in matched if row.get(column) is None]
        start = params.get("offset") or 0
        if params.get("anchor") is not None:
            place = next((i for i, row in enumerate(matched) if row["id"] == params["anchor"]), None)
            if place is None:
                raise RpcError(ERROR_REFUSED, "the row is gone")
            start += place
        if "ids" in params:
            found = {row["id"]: row for row in rows}
            named = [found[i] for i in params["ids"] if i in found]
            return {
                "total": len(rows),
                "matched": len(matched),
                "offset": 0,
                "version": self.version,
                "rows": named,
            }
        start = max(0, min(start, len(matched)))
        return {
            "total": len(rows),
            "matched": len(matched),
            "offset": start,
            "version": self.version,
            "rows": matched[start : start + params.get("count", 100)],
        }

    def answer(self, method: str, params: dict[str, Any]) -> Any:
        if method in self.refuse_once:
            raise RpcError(*self.refuse_once.pop(method))
        if method in self.refuse:
            raise RpcError(*self.refuse[method])
        match method:
            case "hello":
                return {
                    "protocol": PROTOCOL,
                    "version": "0.1.0",
                    "pid": 4700,
                    "node": "edge-bj-01",
                    "mode": "live",
                }
            case "subscribe":
                return {"sections": params["sections"], "hz": params["hz"]}
            case "stats":
                return self.snapshot()
            case "query":
                return self.query(params)
            case "call":
                start, count = params.get("from", 0), params.get("count", 500)
                row = next((r for r in self.calls if r["id"] == params["id"]), None)
                if row is None:
                    raise RpcError(ERROR_REFUSED, "no such call")
                part = self.messages[start : start + count]
                return {
                    "call": row,
                    "hosts": ["10.0.0.7:5060", "10.0.0.9:5060"],
                    "messages": part,
                    "more": start + len(part) < len(self.messages),
                    "streams": [s for s in self.streams if s["call_id"] == row["call_id"]],
                    "media": [],
                }
            case "message":
                raw = self.message or (INVITE if params["index"] == 0 else OK).encode()
                return {**self.octets(raw), "index": params["index"], "error": None, "gone": False}
            case "task_status":
                row = self.tasks[0]
                capture = {"interface": row["interface"], "config": {"ring_mb": 64}}
                config = {"id": row["task_id"], "capture": capture, "filter": {"bpf": row["filter"]}}
                return {**row, "config": config}
            case "create_task":
                config = params["config"]
                self.tasks = [task(interface=config["capture"]["interface"], filter=config["filter"]["bpf"])]
                return {"task_id": config["id"], "state": "running"}
            case "set_filter":
                try:
                    if params["filter"]:
                        filters.check_expression(params["filter"])
                except UsageError as error:
                    raise RpcError(ERROR_INVALID, error.message, error.hint) from error
                self.tasks[0]["filter"] = params["filter"]
                return {"task_id": params["task_id"], "filter": params["filter"]}
            case "stop_task":
                books = self.tasks[0]["books"]
                return {"task_id": params["task_id"], "state": "stopped", "already": False, "books": books}
            case "clear":
                removed = len(self.calls)
                keep = set(params.get("keep") or ())
                kept_text = params.get("keep_filter")
                self.calls = [
                    row for row in self.calls if row["id"] in keep or (kept_text and _matches(row, kept_text))
                ]
                self.version += 1
                return {"removed": removed - len(self.calls)}
            case "shutdown":
                return {}
            case _ if method.startswith("tcp_"):
                return self.answer_tcp(method, params)
        raise RpcError(-32601, f"no method {method}")

    def answer_tcp(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "tcp_retry":
                self.tcp = tcp_section()
                return {"state": "running", "error": "", "hint": ""}
            case "tcp_connections":
                return self.query({**params, "store": "tcp"})
            case "tcp_connection":
                row = next((row for row in self.connections if row["id"] == params["id"]), None)
                if row is None:
                    raise RpcError(ERROR_REFUSED, f"connection {params['id']} is gone")
                looks = range(40)
                history = {
                    "time_ns": [NOW_NS + i * SECOND for i in looks], "srtt_us": [400 + 10 * i for i in looks],
                    "rttvar_us": [90 for _ in looks], "cwnd": [10 + i % 5 for i in looks],
                    "send_bps": [1_000_000 for _ in looks], "receive_bps": [None for _ in looks],
                    "send_queue": [0 for _ in looks], "retransmits": [i // 4 for i in looks],
                }  # fmt: skip
                return {"row": row, "history": history, "events": [tcp_event()]}
            case "tcp_groups":
                rows = [row for row in self.connections if _matches(row, params.get("filter") or "")]
                groups: dict[str, int] = {}
                names = {
                    "process": lambda row: f"{row['comm']}/{row['pid']}",
                    "peer": lambda row: row["remote"],
                }
                for row in rows:
                    key = names.get(params["by"], lambda row: str(row[params["by"]]))(row)
                    groups[key] = groups.get(key, 0) + 1
                made = [
                    {"key": key, "connections": number, "send_bps": 1e6, "receive_bps": 0.0, "retransmits": 0,
                     "retransmits_new": 0, "srtt_us": 400.0, "srtt_us_max": 900}
                    for key, number in groups.items()
                ]  # fmt: skip
                return {"total": len(made), "version": self.version, "rows": made}
            case "tcp_listeners":
                return {"total": 2, "rows": [tcp_listener(443), tcp_listener(9091, drops=0, accept_drops=0)]}
            case "tcp_history":
                points = [
                    {
                        "time_ns": NOW_NS + i * SECOND,
                        "seconds": 1.0,
                        "rtt_buckets": [[8, 40 + i], [18, i % 3]],
                    }
                    for i in range(min(params["count"], 50))
                ]
                return {"interval": 1.0, "points": points}
        raise RpcError(-32601, f"no method {method}")

    # --- the wire

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                request = json.loads(line)
                self.asked.append((request["method"], request["params"]))
                answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
                try:
                    answer["result"] = self.answer(request["method"], request["params"])
                except RpcError as error:
                    answer["error"] = {
                        "code": error.code,
                        "message": error.message,
                        "data": error.data,
                    }
                if request["method"] == "subscribe":
                    self._notified.add(writer)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            self._notified.discard(writer)
            writer.close()

    async def notify(self, seconds: float = 0.5) -> None:
        """Send a snapshot to all subscribers, `seconds` after the last one by its own clock."""
        self.time_ns += int(seconds * SECOND)
        line = (
            json.dumps({"jsonrpc": "2.0", "method": "snapshot", "params": self.snapshot()}).encode() + b"\n"
        )
        for writer in self._notified:
            writer.write(line)
            await writer.drain()


class RpcError(Exception):
    def __init__(self, code: int, message: str, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, {"hint": hint, **data}


def _matches(row: dict[str, Any], text: str) -> bool:
    """Enough of the filter language for the tests: `column == value` or a word."""
    text = text.strip()
    if not text:
        return True
    if "==" in text:
        key, value = (part.strip().strip('"') for part in text.split("==", 1))
        return str(row.get(key)).lower() == value.lower()
    return any(text.lower() in str(value).lower() for value in row.values())

"""The Prometheus endpoint: GET /metrics, HTTP/1.1, in the controller's event loop.

Each scrape takes a snapshot, and each source makes metrics of it; a source that fails is left out and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from engine.log import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from engine.snapshot import Snapshot

    Source = Callable[[Snapshot], Iterable[Metric]]

MOST_HEADER = 8192
PATIENCE = 5.0
"""Seconds that a client may take for its request, and for taking the answer."""
MOST_CLIENTS = 16
"""Requests that are answered at once."""
MOST_WAITING = 64
"""Connections that are held at once: those that say nothing must not take the engine's descriptors."""
PLAIN = "text/plain; charset=utf-8"


OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header names OpenMetrics 1.0.0, or OpenMetrics of any version.

    prometheus_client would write any version that is asked for into its answer, and raises for some.
    """
    for one in accept.split(","):
        kind, *parameters = (word.strip() for word in one.split(";"))
        if kind == "application/openmetrics-text":
            versions = [word.partition("=")[2] for word in parameters if word.startswith("version=")]
            if not versions or "1.0.0" in versions:
                return True
    return False


class Page:
    """What prometheus_client renders: the metrics of one snapshot."""

    def __init__(self, snapshot: Snapshot, sources: Sequence[Source]) -> None:
        self.snapshot = snapshot
        self.sources = sources

    def collect(self) -> Iterator[Metric]:
        """The metrics of every source."""
        for source in self.sources:
            try:
                yield from list(source(self.snapshot))
            except Exception as error:
                log.error("metrics", f"{source.__module__}: {type(error).__name__}: {error}")


class MetricsEndpoint:
    """Serves `snapshot()` at `listen`, ADDRESS:PORT; `sources` make metrics of a snapshot."""

    def __init__(
        self, listen: str, snapshot: Callable[[], Awaitable[Snapshot]], sources: Sequence[Source]
    ) -> None:
        self.listen = listen
        self.snapshot = snapshot
        self.sources = sources
        self.port = 0
        """Where it listens; 0 while it does not."""
        self._server: asyncio.Server | None = None
        self._clients = 0

    async def start(self) -> bool:
        """Listen; False, and a line in the log, where that is not possible."""
        host, _, port = self.listen.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve, host.strip("[]") or None, int(port), limit=MOST_HEADER
            )
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            log.error("metrics", f"no metrics at {self.listen}: {reason}; see otus.metrics.listen")
            return False
        self.port = int(self._server.sockets[0].getsockname()[1])
        log.info("metrics", f"at http://{host or '*'}:{self.port}/metrics")
        return True

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 0.5)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= MOST_WAITING:
            writer.close()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
            status, kind, body = await self._answer(head)
            if head.startswith(b"HEAD "):
                length, body = len(body), b""
            else:
                length = len(body)
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, head: bytes) -> tuple[str, str, bytes]:
        """(status, content type, body) of a request."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "400 Bad Request", PLAIN, b"HTTP/1.1 is wanted\n"
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", PLAIN, b"only GET and HEAD\n"
        if target.partition("?")[0] not in ("/metrics", "/"):
            return "404 Not Found", PLAIN, b"metrics are at /metrics\n"
        if self._clients > MOST_CLIENTS:
            return "503 Service Unavailable", PLAIN, b"too many at once\n"
        headers = (line.partition(":") for line in lines[1:])
        accept = next((value.strip() for key, _, value in headers if key.strip().lower() == "accept"), "")
        try:
            kind, body = await self._render(accept)
        except Exception as error:
            log.error("metrics", f"{type(error).__name__}: {error}")
            return "500 Internal Server Error", PLAIN, b"see the log of the engine\n"
        return "200 OK", kind, body

    async def _render(self, accept: str) -> tuple[str, bytes]:
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(OPENMETRICS if wants_openmetrics(accept) else "")
        return kind, encode(Page(await self.snapshot(), self.sources))

"""What a client may send to the metrics endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import TYPE_CHECKING, Any

from engine.telemetry.endpoint import MOST_HEADER, MetricsEndpoint
from tests.fuzz.target import Target, must
from tests.fuzz.text_targets import _Line, _loop

if TYPE_CHECKING:
    from collections.abc import Iterable

STATUSES = {b"200", b"400", b"404", b"405"}


async def _snapshot() -> Any:
    return {}


class Scrapes(Target):
    """One connection: an answer of four lines and a body of the length that is said, or none."""

    name = "metrics"
    about = "HTTP: what a client asks of the metrics endpoint"
    patience_ms = 50.0
    cold = True
    longest = MOST_HEADER + 100
    pieces = (
        b"GET ",
        b"HEAD ",
        b"/metrics",
        b" HTTP/1.1\r\n",
        b"\r\n\r\n",
        b"Accept: ",
        b"application/openmetrics-text",
        b"text/plain",
        b";version=",
        b"1.0.0",
        b";escaping=allow-utf-8",
        b";q=0.5",
        b",",
        b"?a=1",
    )

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        first = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
        return [
            first + b"\r\n",
            first
            + b"Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*\r\n\r\n",
            first + b"Accept: text/plain;version=1.0.0;escaping=dots;q=0.4\r\n\r\n",
            b"HEAD / HTTP/1.0\r\n\r\n",
            b"POST /metrics HTTP/1.1\r\n\r\nbody",
            b"GET /x?y HTTP/1.1\r\n\r\n",
        ]

    def run(self, octets: bytes) -> Any:
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            answer = _loop().run_until_complete(self.serve(octets))
        must(not told.getvalue(), f"a line of log: {told.getvalue()}")
        if not answer:
            must(b"\r\n\r\n" not in octets[:MOST_HEADER], "no answer")
            return b""
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\n")
        must(len(lines) == 4, f"other headers: {head!r}")
        must(lines[0][9:12] in STATUSES, f"{lines[0]!r}")
        must(octets.startswith(b"HEAD ") or lines[2] == b"Content-Length: %d\r" % len(body), f"{head!r}")
        return lines[0], lines[1]

    async def serve(self, octets: bytes) -> bytes:
        """All that is answered."""
        reader, writer = asyncio.StreamReader(limit=MOST_HEADER), _Line()
        reader.feed_data(octets)
        reader.feed_eof()
        endpoint = MetricsEndpoint("127.0.0.1:0", _snapshot, ())
        await endpoint._serve(reader, writer)  # type: ignore[arg-type]
        return b"".join(writer.lines)


TARGETS: tuple[type[Target], ...] = (Scrapes,)

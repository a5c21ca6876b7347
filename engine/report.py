"""The whole analysis of one capture file as one document (`otus-tui report`).

The same reader, decoder, parsers, tables and stores as the live engine, in one process: evidence goes
straight into the table of calls instead of through a ring.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TextIO

from engine.calls.dialog_json import DialogJson
from engine.calls.store import Calls
from engine.calls.witness import Witness
from engine.capture.pcap_file import PcapFile
from engine.decode.classifier import ALL_TUNNELS, Decoder
from engine.decode.fragments import Reassembly
from engine.pipeline.loop import Pipeline
from engine.shm.counters import FACTS, NOT_DROPS, Counters, drops
from engine.shm.flows import FlowTable
from engine.shm.region import alone
from engine.shm.streams import StreamTable
from engine.stream_report import quality_fields, rounded
from engine.text import format_timestamp, unread_sip_text

if TYPE_CHECKING:
    from collections.abc import Callable

TASK = "report"
BATCH = 20_000
"""Packets between two calls of `progress`."""
MUCH = 8 * 1024**2
"""Octets of a file that is worth huge pages."""
DIALOGS = b"<dialogs>"
"""Stands for their list until it is written: no value in quotes looks like it."""
LIMITS = {
    "calls": 1_000_000,
    "messages_per_call": 1_000_000,
    "message_bytes": 0,
    "streams": 131_072,
    "flows": 262_144,
}


class Analysis:
    """One file, read to its end by `run()`; then `document()`."""

    def __init__(self, path: str) -> None:
        """Open the file; UsageError if it is no capture."""
        self.path = path
        with alone(huge=_octets(path) >= MUCH):
            self._begin()
        self.file = PcapFile(path, self.pipeline)

    def _begin(self) -> None:
        self.counters = Counters.create(TASK, 0)
        self.flows = FlowTable.create(TASK, 0, LIMITS["flows"])
        self.streams = StreamTable.create(TASK, 0, LIMITS["streams"])
        self.calls = Calls(LIMITS, "packet", self.streams)
        decoder = Decoder(self.counters.words, ALL_TUNNELS)
        self.reassembly = Reassembly(self.counters.words)
        self.pipeline = Pipeline(
            self.counters,
            self.flows,
            self.streams,
            None,
            Witness(self.calls.table),
            self.reassembly,
            decoder,
            {"frame_numbers": True},
        )

    def run(self, progress: Callable[[PcapFile], None] | None = None) -> None:
        """Read the file to its end."""
        while self.file.run(BATCH):
            if progress is not None:
                progress(self.file)
        self.pipeline.idle(self.file.last_ns or 0)
        self.reassembly.finish()

    def document(self) -> dict[str, Any]:
        """The report's JSON document; unknown is None, times are RFC 3339 UTC."""
        return self._document(self.calls.dialogs_report)

    def write_json(self, write: Callable[[bytes | memoryview], object]) -> None:
        """The document as text, with an indent of two columns; its dialogs are composed without objects."""
        import orjson

        document = self._document(lambda: orjson.Fragment(DIALOGS))
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        before, _, after = text.partition(b'"dialogs": ' + DIALOGS)
        write(before + b'"dialogs": ')
        self.calls.refresh(exact=True)
        DialogJson(self.calls.table, self.calls.rows).dialogs(write)
        write(after)

    def _document(self, dialogs: Callable[[], Any]) -> dict[str, Any]:
        counters = self.counters.as_dict()
        section = self.calls.section()["sip"]
        return {
            "file": self._file(counters),
            "decode": {name: counters[name] for name in ("malformed", "fragments", *FACTS)},
            "sip": {
                "messages": counters["sip_messages"],
                "requests": section["requests"],
                "responses": section["responses"],
                "retransmissions": section["retransmissions"],
                "malformed": counters["sip_malformed"],
                "malformed_messages": self.calls.defects_report(),
                "dialogs": dialogs(),
            },
            "rtp": {"streams": self.streams_report()},
            "books": {
                "received": counters["received"],
                "reported": sum(counters[name] for name in NOT_DROPS),
                "dropped": drops(counters),
            },
        }

    def _file(self, counters: dict[str, int]) -> dict[str, Any]:
        first, last = self.file.first_ns, self.file.last_ns
        known = counters["received"] > 0
        return {
            "path": self.path.encode("utf-8", "backslashreplace").decode(),
            "format": self.file.format,
            "packets": self.file.packets,
            "bytes": counters["wire_bytes"],
            "first": format_timestamp(first) if known else None,
            "last": format_timestamp(last) if known else None,
            "duration_s": round((last - first) / 1e9, 6) if known else None,
            "truncated": self.file.truncated or None,
        }

    def streams_report(self) -> list[dict[str, Any]]:
        """Every media stream, in the order of their first packets, then of address, port and SSRC."""
        keys = ("start_ns", "src", "sport", "dst", "dport", "ssrc")
        rows = sorted(self.streams.rows(detail=True), key=lambda row: tuple(row[key] for key in keys))
        return [
            {
                "src": row["src"],
                "sport": row["sport"],
                "dst": row["dst"],
                "dport": row["dport"],
                "ssrc": f"0x{row['ssrc']:08x}",
                "codec": row["codec"],
                "payload_types": row["payload_types"],
                "packets": row["packets"],
                "expected": row["expected"],
                "lost": row["lost"],
                "lost_pct": rounded(row["lost_pct"]),
                "out_of_order": row["out_of_order"],
                "duplicates": row["duplicates"],
                "max_delta_ms": rounded(row["max_delta_ms"]),
                "mean_jitter_ms": rounded(row["mean_jitter_ms"]),
                "max_jitter_ms": rounded(row["max_jitter_ms"]),
                "start": format_timestamp(row["start_ns"]),
                "end": format_timestamp(row["last_ns"]),
                "call_id": row["call_id"] or None,
                "found_by": row["found_by"],
                "tunnel": row["tunnel"],
                **quality_fields(row),
            }
            for row in rows
        ]


def _octets(path: str) -> int:
    """The size of a file; 0 for standard input, and for what is not there."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def write_table(document: dict[str, Any], out: TextIO) -> None:
    """The document as text that a person reads, 80 columns or a little more."""
    file, sip, books = document["file"], document["sip"], document["books"]
    print(f"{file['path']}  {file['format']}", file=out)
    duration = "·" if file["duration_s"] is None else f"{file['duration_s']:.3f} s"
    print(
        f"{file['packets']:,} packets, {file['bytes']:,} octets, {duration}, from {file['first'] or '·'}",
        file=out,
    )
    if file["truncated"]:
        print(f"warning: {file['truncated']}", file=out)
    unread = document["decode"]["tcp_sip_port"]
    if unread:
        print(f"warning: {unread_sip_text(unread)}", file=out)
    dropped = {name: count for name, count in books["dropped"].items() if count}
    print(
        f"received {books['received']:,} = reported {books['reported']:,}"
        + "".join(f" + {name} {count:,}" for name, count in dropped.items()),
        file=out,
    )
    cut = document["decode"]["sip_truncated"]
    print(
        f"\nSIP: {sip['messages']:,} messages, {sip['retransmissions']:,} retransmitted, "
        f"{sip['malformed']:,} malformed, {f'{cut:,} cut, ' if cut else ''}{len(sip['dialogs']):,} Call-IDs",
        file=out,
    )
    if sip["messages"]:
        _write_dialogs(sip["dialogs"], out)
    _write_defects(sip["malformed_messages"], sip["malformed"], out)
    _write_streams(document["rtp"]["streams"], out)


def _printable(text: str | None, width: int) -> str:
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text or "·")
    return (clean if len(clean) <= width else clean[: width - 1] + "…").ljust(width)


def _write_dialogs(dialogs: list[dict[str, Any]], out: TextIO) -> None:
    print(f"  {'state':11} {'from':24} {'to':24} {'msgs':>5} {'setup':>8} {'dur':>8}  call-id", file=out)
    for row in dialogs:
        times = [
            "·".rjust(8) if row[key] is None else f"{row[key]:7.2f}s" for key in ("setup_s", "duration_s")
        ]
        print(
            f"  {row['state']:11} {_printable(row['from'], 24)} {_printable(row['to'], 24)} "
            f"{row['messages']:>5} {times[0]} {times[1]}  {_printable(row['call_id'], 40).rstrip()}",
            file=out,
        )


def _write_defects(defects: list[dict[str, Any]], count: int, out: TextIO) -> None:
    if not defects:
        return
    first = f", the first {len(defects)}" if count > len(defects) else ""
    print(f"\nMalformed: {count:,} messages{first}", file=out)
    print(f"  {'frame':>7} {'from':>21} {'to':>21} {'message':12} what is wrong", file=out)
    for row in defects:
        message = row["method"] if row["status"] is None else f"{row['status']} {row['method']}"
        print(
            f"  {row['frame']:>7} {row['src']:>21} {row['dst']:>21} {_printable(message, 12)} {row['error']}"
            f"  ({_printable(row['call_id'], 40).rstrip() if row['call_id'] else 'no Call-ID'})",
            file=out,
        )


def _write_streams(streams: list[dict[str, Any]], out: TextIO) -> None:
    print(f"\nRTP: {len(streams):,} stream{'' if len(streams) == 1 else 's'}", file=out)
    if not streams:
        return
    head = f"  {'source':>21} {'destination':>21} {'codec':10} {'packets':>8} {'lost':>6} {'jitter':>9}"
    print(f"{head} {'MOS':>5}  found by", file=out)
    for row in streams:
        jitter = "·" if row["mean_jitter_ms"] is None else f"{row['mean_jitter_ms']:.2f} ms"
        lost = "·" if row["lost"] is None else f"{row['lost']:,}"
        mos = "·" if row["mos"] is None else f"{row['mos']:.2f}"
        print(
            f"  {row['src'] + ':' + str(row['sport']):>21} {row['dst'] + ':' + str(row['dport']):>21} "
            f"{_printable(row['codec'], 10)} {row['packets']:>8,} {lost:>6} {jitter:>9} {mos:>5}  "
            f"{row['found_by']}",
            file=out,
        )

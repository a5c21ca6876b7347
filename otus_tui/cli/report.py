"""`otus-tui report FILE`: the analysis of a capture file as a table or as JSON, or its messages as lines."""

from __future__ import annotations

import gc
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from engine.errors import NotPermittedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command(
    epilog="Example:  otus-tui report call.pcapng --json | jq '.sip.dialogs[] | {call_id, state, setup_s}'"
)
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@click.option("--messages", is_flag=True, help="Print every SIP message as a line of JSON instead.")
@click.option("--output", metavar="PATH", help="Write to PATH instead of standard output.")
def command(file: str, as_json: bool, messages: bool, output: str | None) -> None:
    """Analyse the capture FILE (pcap or pcapng, gzip too, - for standard input).

    Lists every SIP dialog and every media stream with loss and jitter, and every packet that was
    dropped with the reason. Times are RFC 3339 UTC; what is unknown is null, in the table `·`.

    With --messages: one line for each SIP message, in the order of the packets, with the fields that
    a task's file reporter writes.
    """
    if as_json and messages:
        raise UsageError("--json and --messages exclude each other", "one document, or a line a message")
    gc.disable()  # one run without cycles, then the end: collecting only costs time
    if messages:
        _messages(file, output)
    else:
        _document(file, as_json, output)


def _document(file: str, as_json: bool, output: str | None) -> None:
    from engine import report

    analysis = report.Analysis(file)
    write, close = _destination(output, file)
    analysis.run()
    if as_json:
        analysis.write_json(write)
    else:
        import io

        text = io.StringIO()
        report.write_table(analysis.document(), text)
        write(text.getvalue().encode(_encoding(output), "backslashreplace"))
    close()
    if as_json or output:
        _warn(file, analysis.counters.get("tcp_sip_port"), analysis.file.truncated)


def _messages(file: str, output: str | None) -> None:
    from engine.report_messages import MessageLines

    lines = MessageLines(file)
    write, close = _destination(output, file)
    lines.run(write)
    close()
    _warn(file, lines.counters.get("tcp_sip_port"), lines.file.truncated)


def _warn(file: str, unread: int, truncated: str) -> None:
    if unread:
        noun = "packet" if unread == 1 else "packets"
        warning = f"{unread:,} TCP {noun} on SIP ports: SIP over TCP is not read"
        click.echo(f"otus-tui: warning: {warning}", err=True)
    if truncated:
        click.echo(f"otus-tui: warning: {file}: {truncated}", err=True)


def _encoding(output: str | None) -> str:
    return "utf-8" if output else sys.stdout.encoding or "utf-8"


def _destination(output: str | None, file: str) -> tuple[Callable[[Any], object], Callable[[], object]]:
    """Where it goes, as write() and close(); UsageError for a place that cannot be written."""
    if not output:
        sys.stdout.flush()
        return sys.stdout.buffer.write, sys.stdout.buffer.flush
    try:
        if file != "-" and os.path.exists(output) and os.path.samefile(file, output):
            raise UsageError(f"--output {output}: is the capture itself", "name another file")
        target = open(output, "ab", buffering=0)
    except PermissionError as error:
        raise NotPermittedError(
            f"--output {output}: permission denied", "name a file in a folder of yours"
        ) from error
    except OSError as error:
        raise UsageError(
            f"--output {output}: {error.strerror}", "name a file in a folder that is there"
        ) from error
    if stat.S_ISREG(os.fstat(target.fileno()).st_mode):
        target.truncate(0)
    return _whole(target, output), target.close


def _whole(target: BinaryIO, output: str) -> Callable[[Any], object]:
    def write(octets: Any) -> None:
        view = memoryview(octets)
        try:
            while view:
                view = view[target.write(view) :]
        except OSError as error:
            error.filename = output
            raise

    return write

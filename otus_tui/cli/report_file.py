"""What `otus-tui report` does, without click: read the file, write a table, a document or lines."""

from __future__ import annotations

import gc
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from engine.errors import NotPermittedError, UsageError
from engine.text import unread_sip_text

if TYPE_CHECKING:
    from collections.abc import Callable


def plain_report(arguments: list[str]) -> Callable[[], None] | None:
    """The work of a line `report FILE` with its options in full; None for any other, which click reads."""
    if arguments[:1] != ["report"]:
        return None
    file = output = None
    chosen = {"--json": False, "--messages": False}
    rest = iter(arguments[1:])
    for word in rest:
        if word in chosen:
            chosen[word] = True
        elif word == "--output":
            output = next(rest, None)
            if output is None:
                return None
        elif file is None and (word == "-" or not word.startswith("-")):
            file = word
        else:
            return None
    if file is None:
        return None
    name = file
    return lambda: report(name, chosen["--json"], chosen["--messages"], output)


def report(file: str, as_json: bool, messages: bool, output: str | None) -> None:
    """Read `file`; write the table, the document or the messages to `output`, else to standard output."""
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
        print(f"otus-tui: warning: {unread_sip_text(unread)}", file=sys.stderr)
    if truncated:
        print(f"otus-tui: warning: {file}: {truncated}", file=sys.stderr)


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
        target = open(output, "ab", buffering=0)  # noqa: SIM115 -- closed by close()
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

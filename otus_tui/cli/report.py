"""`otus-tui report FILE`: the analysis of a capture file, as a table or as JSON."""

from __future__ import annotations

import sys

import click


@click.command(
    epilog="Example:  otus-tui report call.pcapng --json | jq '.sip.dialogs[] | {call_id, state, setup_s}'"
)
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def command(file: str, as_json: bool) -> None:
    """Analyse the capture FILE (pcap or pcapng, gzip too, - for standard input).

    Lists every SIP dialog and every media stream with loss and jitter, and every packet that was
    dropped with the reason. Times are RFC 3339 UTC; what is unknown is null, in the table `·`.
    """
    import gc

    gc.disable()  # one document without cycles, then the end: collecting only costs time

    from engine import report

    document = report.analyse(file)
    if as_json:
        import orjson

        sys.stdout.buffer.write(
            orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
        sys.stdout.buffer.flush()
    else:
        report.write_table(document, sys.stdout)
    unread = document["decode"]["tcp_sip_port"]
    if as_json and unread:
        noun = "packet" if unread == 1 else "packets"
        warning = f"{unread:,} TCP {noun} on SIP ports: SIP over TCP is not read"
        click.echo(f"otus-tui: warning: {warning}", err=True)
    if document["file"]["truncated"]:
        click.echo(f"otus-tui: warning: {file}: {document['file']['truncated']}", err=True)

"""`otus-tui report FILE`: the analysis of a capture file as a table or as JSON, or its messages as lines."""

from __future__ import annotations

import click

from otus_tui.cli.report_file import report


@click.command(
    epilog="Example: otus-tui report call.pcapng --json | jq '.sip.dialogs[] | {call_id, state, setup_s}'"
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
    report(file, as_json, messages, output)

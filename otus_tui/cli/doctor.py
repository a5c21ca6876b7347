"""`otus-tui doctor`: what this host can do."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap

import click

from engine import __version__, doctor

_COLOURS = {"ok": "green", "warn": "yellow", "missing": "red"}
_NAME = 17
_INDENT = 8 + _NAME


@click.command(
    epilog="Example: otus-tui doctor --json | jq -r '.findings[] | select(.level != \"ok\") | .mend'"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(as_json: bool) -> None:
    """Say what this host can do, and the one line that mends what it cannot.

    Exit code 0 whatever was found: the levels in the report (ok, warn, missing) tell.
    """
    findings = doctor.examine()
    if as_json:
        found = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"version": __version__, "findings": found}, indent=2))
        return
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
    for finding in findings:
        level = click.style(f"{finding.level:7}", fg=_COLOURS[finding.level])
        lines = textwrap.wrap(finding.text, width - _INDENT - 1, break_on_hyphens=False) or [""]
        click.echo(f"{level} {finding.name:{_NAME}} {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':{_INDENT}} {line}")
        if finding.mend:
            # Not wrapped: it is to be copied.
            click.echo(f"{'':{_INDENT}} > {finding.mend}")

"""What `otus-tui report` would say of a file, as a document."""

from __future__ import annotations

from typing import Any

from engine.report import Analysis


def analyse(path: str) -> dict[str, Any]:
    """Read a capture file and return its document."""
    analysis = Analysis(path)
    analysis.run()
    return analysis.document()

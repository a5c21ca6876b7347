"""One line for each figure of a benchmark, in a form that `python -m bench` reads back."""

from __future__ import annotations

import json
import os
from pathlib import Path


def figure(
    name: str, value: float, must: float, stretch: float, unit: str, note: str = "", *, most: bool = False
) -> bool:
    """Print a figure that must be at least `must` (`most`: at most); whether it is.

    Where BENCH_FIGURES names a file it is appended there, too, for the comparison with the baseline.
    """
    good = value <= must if most else value >= must
    far = value <= stretch if most else value >= stretch
    reached = "stretch reached" if far else f"stretch {stretch:g}"
    sign = "<=" if most else ">="
    text = (
        f"{name:58} {value:10.4g} {unit:12} must {sign} {must:g}  {'PASS' if good else 'MISS'}  ({reached})"
    )
    print(f"{text}  {note}".rstrip(), flush=True)
    keep(name, value)
    return good


def keep(name: str, value: float) -> None:
    """Append a figure to the file of this run, if there is one."""
    place = os.environ.get("BENCH_FIGURES")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            print(json.dumps({"name": name, "value": value}), file=file)

"""Find what ships with the package: data files, and which modules a full build compiles."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_OWNERS = {"bpf": "engine", "configs": "engine", "themes": "otus_tui"}


def data(folder: str, name: str = "") -> Traversable:
    """File or folder `name` of the top-level folder `folder`: `bpf`, `configs` or `themes`.

    The same in a checkout, an editable install and a wheel. Whether it exists is the caller's question.
    """
    found = files(_OWNERS[folder]) / "data" / folder
    for part in name.split("/") if name else ():
        found = found / part
    return found


@cache
def hot_modules() -> tuple[str, ...]:
    """Names of the modules that a full build compiles: those with a `.pxd` beside the `.py`."""
    root = Path(__file__).parent
    return tuple(
        sorted(
            ".".join(("engine", *pxd.with_suffix("").relative_to(root).parts))
            for pxd in root.rglob("*.pxd")
            if pxd.stem not in ("__init__", "atomics") and pxd.with_suffix(".py").exists()
        )
    )


def uncompiled() -> tuple[str, ...]:
    """The hot modules that are plain Python in this process: all with `OTUS_PURE=1`, none in a full build."""
    return tuple(name for name in hot_modules() if _origin(name).endswith(".py"))


def _origin(name: str) -> str:
    spec = find_spec(name)
    return "" if spec is None or spec.origin is None else spec.origin

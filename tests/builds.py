"""Both builds of the hot modules, in one process.

A hot module has two builds: the compiled one, which `import` finds, and its source, which
`OTUS_PURE=1` runs. `load_pure()` imports the sources beside the compiled modules, in a world of
their own: hot modules and all that import them exist twice, the cold ones of SHARED once, so that
an `engine.errors.UsageError` or a `Region` is the same class for both.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine import purity

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SHARED = (
    "engine.config",
    "engine.config_values",
    "engine.control.methods",
    "engine.errors",
    "engine.packet",
    "engine.plugin",
    "engine.plugin_options",
    "engine.purity",
    "engine.shm.counters",
    "engine.shm.records",
    "engine.shm.region",
    "engine.snapshot",
    "engine.text",
)
"""Cold modules that import no hot one: both builds use the same."""

_twins: dict[str, ModuleType] = {}


def hot_modules() -> list[str]:
    """Names of all modules that a full build compiles: a `.py` with a `.pxd` beside it."""
    return sorted(
        ".".join(pxd.with_suffix("").relative_to(ROOT).parts)
        for pxd in (ROOT / "engine").rglob("*.pxd")
        if pxd.stem not in ("__init__", "atomics") and pxd.with_suffix(".py").exists()
    )


def load_pure(*names: str) -> dict[str, ModuleType]:
    """Uncompiled twins of the named modules; what they import of `engine` is uncompiled too.

    Calls agree with each other: the same name gives the same module. `sys.modules` is as before.
    """
    shared = {name: importlib.import_module(name) for name in SHARED if _exists(name)}
    ours = {name: module for name, module in sys.modules.items() if _engine(name)}
    for name in ours:
        del sys.modules[name]
    sys.modules.update(_twins or shared)
    purity.install()
    try:
        for name in (*shared, *names):
            importlib.import_module(name)
            _bind(name)
        return {name: sys.modules[name] for name in names}
    finally:
        purity.uninstall()
        _twins.update({name: module for name, module in sys.modules.items() if _engine(name)})
        for name in _twins:
            sys.modules.pop(name, None)
        sys.modules.update(ours)


def _engine(name: str) -> bool:
    return name == "engine" or name.startswith("engine.")


def _exists(name: str) -> bool:
    return (ROOT / (name.replace(".", "/") + ".py")).exists()


def _bind(name: str) -> None:
    """Make a module that was already in `sys.modules` an attribute of its package of this world."""
    package, _, last = name.rpartition(".")
    setattr(importlib.import_module(package), last, sys.modules[name])


@dataclass(frozen=True)
class Build:
    """One of the two builds; `module()` is how a test of a hot module gets at it."""

    name: str

    def __str__(self) -> str:
        return self.name

    def module(self, name: str) -> ModuleType:
        """The module of this build; the test is skipped where the module is not compiled."""
        if self.name == "pure":
            return load_pure(name)[name]
        module = importlib.import_module(name)
        if name in hot_modules() and not purity.is_compiled(module):
            pytest.skip(f"{name} is not compiled here")
        return module


COMPILED = Build("compiled")
PURE = Build("pure")
BUILDS = (COMPILED, PURE)
both_builds = pytest.mark.parametrize("build", BUILDS, ids=str)
"""Decorator: the test takes `build` and runs once with each."""

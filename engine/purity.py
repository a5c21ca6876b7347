"""Import the sources of the engine instead of its compiled modules (`OTUS_PURE=1`)."""

from __future__ import annotations

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


class SourceFinder(PathFinder):
    """Finds only `.py` files below `engine`."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of an `engine.*` module's source; None hands the name to the next finder."""
        if not fullname.startswith("engine.") or not path:
            return None
        return FileFinder(path[0], (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)


def install() -> None:
    """From now on this process imports engine sources; what is imported already stays as it is."""
    if SourceFinder not in sys.meta_path:
        sys.meta_path.insert(0, SourceFinder)


def uninstall() -> None:
    """Undo install()."""
    if SourceFinder in sys.meta_path:
        sys.meta_path.remove(SourceFinder)


def is_compiled(module: ModuleType) -> bool:
    """Whether `module` came from a compiled file."""
    return not str(module.__file__).endswith(".py")

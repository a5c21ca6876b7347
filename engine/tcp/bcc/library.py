"""BCC's Python module, which Debian has as python3-bpfcc: found outside of a virtual environment, told from
its namesake.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from engine.errors import OtusError

FOLDERS = ("/usr/lib/python3/dist-packages", "/usr/local/lib/python3/dist-packages")
"""Where distributions put it; it is Python over libbcc.so.0, so that any Python 3 can import it."""
_INSTALL = "sudo apt-get install python3-bpfcc"
_WORDS = 1 << 20


def load(folders: tuple[str, ...] = FOLDERS) -> Any:
    """The class BPF. OtusError: it is not installed, or what answers to its name is another project."""
    if "bcc.libbcc" in sys.modules:
        return sys.modules["bcc"].BPF
    foreign = ""
    for folder in ("", *folders):
        found = PathFinder.find_spec("bcc", [folder] if folder else None)
        if found is None:
            continue
        # PyPI's bcc has no such module; it must not be imported to find out.
        places = [Path(one) for one in found.submodule_search_locations or ()]
        if any((place / "libbcc.py").exists() for place in places):
            with _searched(folder):
                return _import(folder)
        foreign = foreign or str(found.origin or next(iter(places), "?"))
    if foreign:
        raise OtusError(
            f"{foreign} is not the BPF Compiler Collection: `bcc` on PyPI is another project",
            f"pip uninstall bcc; {_INSTALL}",
        )
    raise OtusError("the BPF Compiler Collection (Python module bcc) is not installed", _INSTALL)


def _import(folder: str) -> Any:
    """With the folder searched first: the modules of the package import each other by name."""
    sys.modules.pop("bcc", None)
    try:
        return importlib.import_module("bcc").BPF
    except (ImportError, OSError, AttributeError) as error:
        raise OtusError(
            f"the Python module bcc in {folder or 'the search path'} cannot be imported: {error}",
            f"{_INSTALL} libbpfcc",
        ) from error


@contextlib.contextmanager
def _searched(folder: str) -> Iterator[None]:
    """Only for one import: other packages in that folder must not shadow ours."""
    if not folder:
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """What the compiler and the verifier print to descriptor 2 meanwhile: lines, complete at the end."""
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _WORDS))
            lines += file.read().decode("utf-8", "replace").splitlines()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals wait meanwhile: what BCC was interrupted in freeing it frees again at the exit."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

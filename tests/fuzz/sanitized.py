"""A copy of the engine compiled with gcc's sanitizers (addresses, undefined behaviour), for blind runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz.finding import FOLDER

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "sanitized"
FOLDERS = ("engine", "otus_tui", "tests", "bench", "configs", "bpf", "themes")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
CHECKS = "-fsanitize=address,undefined"
# Octets are shifted into signed int and words are read where they lie, on purpose and masked.
FLAGS = f"{CHECKS} -fno-omit-frame-pointer -fno-sanitize=alignment,shift -fno-sanitize-recover=undefined"


def libraries() -> str:
    """What must be loaded first: gcc's runtime; empty where it is not there."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        asked = subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=False
        )
        path = asked.stdout.strip()
        if not os.path.isabs(path):
            return ""
        found.append(path)
    return ":".join(found)


def environment() -> dict[str, str]:
    """For a process that imports the copy."""
    return {
        **os.environ,
        "OTUS_FUZZ_FINDINGS": str(FOLDER),
        "OTUS_FUZZ_PLAIN_SHARE": "0.1",
        "OTUS_FUZZ_PATIENCE": "50",
        "LD_PRELOAD": libraries(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # each object by itself, so that an overrun is seen
    }


def build() -> Path:
    """Bring the copy up to date (minutes the first time); where it is."""
    for name in FOLDERS:
        _copy(ROOT / name, PLACE / name)
    for name in FILES:
        _newer(str(ROOT / name), str(PLACE / name))
    environment = {**os.environ, "CFLAGS": FLAGS, "LDFLAGS": CHECKS, "CC": "gcc"}
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"],
        cwd=PLACE, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode or "not compiled" in made.stderr:
        raise SystemExit(f"the copy cannot be compiled:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
    return PLACE


def _copy(source: Path, target: Path) -> None:
    """A folder, links as links, without what was built or found in it."""
    target.mkdir(parents=True, exist_ok=True)
    for one in source.iterdir():
        if one.is_symlink():
            if not (target / one.name).is_symlink():
                (target / one.name).symlink_to(one.readlink())
        elif one.is_dir():
            if one.name not in ("__pycache__", "findings"):
                _copy(one, target / one.name)
        elif one.suffix != ".so":
            _newer(str(one), str(target / one.name))


def _newer(source: str, target: str) -> str:
    if not os.path.exists(target) or os.stat(source).st_mtime > os.stat(target).st_mtime:
        shutil.copy2(source, target)
    return target

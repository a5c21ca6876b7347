"""What a checkout, a build and an install are made of."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from importlib import import_module
from typing import Any

import pytest

from engine import __version__, purity, resources
from tests.builds import ROOT, hot_modules, load_pure

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="only CI promises a compiler")
@pytest.mark.parametrize("name", hot_modules())
def test_hot_module_is_compiled_in_ci(name: str) -> None:
    assert purity.is_compiled(import_module(name))


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="only CI promises clang")
def test_ebpf_objects_are_built_in_ci() -> None:
    for source in (ROOT / "bpf").glob("*.bpf.c"):
        assert resources.data("bpf", source.with_suffix(".o").name).is_file()


def test_resources_and_tests_agree_on_hot_modules() -> None:
    assert list(resources.hot_modules()) == hot_modules()


@pytest.mark.parametrize("name", hot_modules())
def test_hot_module_is_never_newer_than_what_runs(name: str) -> None:
    """A compiled module of an older source would be tested in its place."""
    module = import_module(name)
    if not purity.is_compiled(module):
        pytest.skip(f"{name} is not compiled here")
    source = ROOT / (name.replace(".", "/") + ".py")
    assert module.__file__ is not None
    assert os.stat(module.__file__).st_mtime >= source.stat().st_mtime, "run ./dev setup"


@pytest.mark.parametrize("name", hot_modules())
def test_hot_module_does_not_import_cython(name: str) -> None:
    """The source runs where there is no Cython."""
    source = (ROOT / (name.replace(".", "/") + ".py")).read_text()
    assert not re.search(r"^\s*(import|from) [Cc]ython", source, re.MULTILINE)


def test_pure_twins_are_uncompiled_and_leave_no_trace() -> None:
    before = {name: module for name, module in sys.modules.items() if name.startswith("engine")}
    twin = load_pure("engine.shm.ring")["engine.shm.ring"]
    assert not purity.is_compiled(twin)
    assert twin is load_pure("engine.shm.ring")["engine.shm.ring"]
    assert {name: sys.modules[name] for name in before} == before
    assert purity.SourceFinder not in sys.meta_path


def test_otus_pure_runs_sources() -> None:
    code = "from engine import resources; print(resources.uncompiled() == resources.hot_modules())"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OTUS_PURE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "True\n"


@pytest.mark.parametrize(("folder", "name"), [("bpf", "probe.bpf.c"), ("themes", "otus.tcss")])
def test_data_files_are_found(folder: str, name: str) -> None:
    assert resources.data(folder, name).is_file()


def test_a_data_folder_is_found() -> None:
    assert resources.data("configs").is_dir()


def test_lock_has_hashes_and_no_host_names() -> None:
    assert "http" not in LOCK
    assert "index-url" not in LOCK
    for pinned in re.split(r"\n(?=\S)", LOCK.strip()):
        assert "==" in pinned.splitlines()[0]
        assert "--hash=sha256:" in pinned


def test_lock_covers_what_is_declared() -> None:
    locked = {line.split("==")[0] for line in LOCK.splitlines() if "==" in line}
    groups = PROJECT["dependency-groups"]
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    wanted += [one for group in groups.values() for one in group if isinstance(one, str)]
    for requirement in wanted:
        name = re.split(r"[<>=~\[ ]", requirement)[0].lower()
        assert name in locked, f"{name}: run ./dev lock"


def test_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "engine.__version__"}


def test_readme_names_the_two_commands() -> None:
    """CI runs the second one as the README says it."""
    readme = (ROOT / "README.md").read_text()
    assert "\n    ./dev run\n" in readme
    assert "\n    ./dev test\n" in readme


def test_no_kernel_or_libbpf_header_is_copied() -> None:
    names = {path.name for path in (ROOT / "bpf").rglob("*.h")}
    assert not names & {"vmlinux.h", "bpf_helpers.h", "bpf_helper_defs.h", "bpf_tracing.h", "bpf_core_read.h"}


@pytest.mark.parametrize("verb", ["help", "-h"])
def test_dev_help(verb: str) -> None:
    ran = subprocess.run([ROOT / "dev", verb], capture_output=True, text=True, check=True)
    for name in ("run", "test", "check", "bench", "build", "setup", "lock", "help"):
        assert f"./dev {name} " in ran.stdout


def test_dev_refuses_an_unknown_verb() -> None:
    ran = subprocess.run([ROOT / "dev", "frobnicate"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "no such verb: frobnicate" in ran.stderr


def test_dev_run_asks_the_kernel_whether_it_may_capture() -> None:
    """A question that fails by itself would show root a demonstration."""
    asks = re.search(r"^may_capture\(\) \{$.*?^\}$", (ROOT / "dev").read_text(), re.MULTILINE | re.DOTALL)
    assert asks
    script = f"VENV={sys.prefix}; {asks[0]}; may_capture"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        may = 0
    except OSError:
        may = 1
    assert (ran.returncode, ran.stderr) == (may, "")

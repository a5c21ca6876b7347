"""Build what setuptools cannot say in TOML: the compiled hot path and the eBPF objects."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# A hot module is a .py with a .pxd beside it; atomics.pxd alone is a header, its .py the uncompiled twin.
HOT = sorted(
    str(p.with_suffix(".py").relative_to(ROOT))
    for p in ROOT.glob("engine/**/*.pxd")
    if p.stem not in ("__init__", "atomics") and p.with_suffix(".py").exists()
)


def note(text: str) -> None:
    """Tell the person who builds; pip shows it with -v, `otus-tui doctor` says the same later."""
    print(f"otus-tui build: {text}", file=sys.stderr, flush=True)


def bpf_headers() -> str | None:
    """The folder that holds libbpf's `bpf/bpf_helpers.h`: OTUS_BPF_INCLUDE, else the system's."""
    folders = (os.environ.get("OTUS_BPF_INCLUDE"), "/usr/include", "/usr/local/include")
    return next((f for f in folders if f and Path(f, "bpf", "bpf_helpers.h").exists()), None)


def build_bpf() -> None:
    """Compile bpf/*.bpf.c beside their sources; leave them out, and say so, where the means are missing.

    By way of engine/data/bpf: a link to bpf in a checkout, the files themselves in a source distribution.
    """
    arch = {"x86_64": "x86", "aarch64": "arm64"}.get(platform.machine(), "x86")
    clang, headers = shutil.which(os.environ.get("OTUS_CLANG", "clang")), bpf_headers()
    for source in sorted((ROOT / "engine" / "data" / "bpf").resolve().glob("*.bpf.c")):
        target = source.with_suffix(".o")
        newest = max(p.stat().st_mtime for p in (source, *source.parent.glob("*.h")))
        if target.exists() and target.stat().st_mtime >= newest:
            continue
        if clang is None or headers is None:
            lacks = "no clang" if clang is None else "no libbpf headers"
            note(f"{lacks}: {target.name} is left out; it needs: sudo apt-get install clang libbpf-dev")
            continue
        # -nostdinc: nothing of this machine's kernel gets in. The prefix map keeps its paths out, too.
        command = [clang, "-target", "bpf", "-mcpu=v3", "-g", "-O2", "-Wall", "-Werror", "-nostdinc"]
        command += [
            f"-D__TARGET_ARCH_{arch}",
            "-idirafter",
            headers,
            f"-ffile-prefix-map={source.parent}=bpf",
        ]
        made = subprocess.run(
            [*command, "-c", source.name, "-o", target.name], cwd=source.parent, check=False
        )
        if made.returncode:
            note(f"clang failed: {target.name} is left out")
            target.unlink(missing_ok=True)


class BuildBpf(Command):
    """Only the eBPF objects."""

    user_options: ClassVar[list[tuple[str, str | None, str]]] = []

    def initialize_options(self) -> None:
        """Nothing to set."""

    def finalize_options(self) -> None:
        """Nothing to set."""

    def run(self) -> None:
        """Build what is stale."""
        build_bpf()


class BuildPy(build_py):
    """The eBPF objects are package data: they have to be there before it is collected."""

    def run(self) -> None:
        build_bpf()
        super().run()


class BuildExt(build_ext):
    """A missing C compiler costs speed, not the install."""

    extensions: list[Extension]

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            note(f"no module is compiled, everything runs much slower: {error}")

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            note(f"{ext.name} is not compiled and runs much slower: {error}")
            # What an earlier source was compiled to would win over this one.
            self.built(ext).unlink(missing_ok=True)
            if self.inplace:
                (ROOT / self.get_ext_filename(ext.name)).unlink(missing_ok=True)

    def copy_extensions_to_source(self) -> None:
        """Copy what was built: an editable install must not fail over what was not."""
        whole = self.extensions
        self.extensions = [ext for ext in whole if self.built(ext).exists()]
        try:
            super().copy_extensions_to_source()
        finally:
            self.extensions = whole

    def built(self, ext: Extension) -> Path:
        """Where the build put the module, before it is copied beside its source."""
        return Path(self.build_lib, self.get_ext_filename(ext.name))


def no_compiler() -> str:
    """What a build of C modules lacks here, empty if nothing."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no Python.h"
    return ""


def translators() -> int:
    """Processes that translate to C side by side: 0, none of their own, where there are no semaphores."""
    try:
        multiprocessing.Lock()
    except OSError:
        return 0
    return os.cpu_count() or 1


def extensions() -> list[Extension]:
    """One extension a hot module; none with OTUS_PURE=1 or without Cython."""
    if os.environ.get("OTUS_PURE", "") not in ("", "0"):
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        note("no Cython: no module is compiled, everything runs much slower")
        return []
    if lacks := no_compiler():
        note(f"{lacks}: no module is compiled, everything runs much slower")
        return []

    def extension(module: str, source: str) -> Extension:
        return Extension(
            module,
            [source],
            include_dirs=["engine/shm"],
            depends=["engine/shm/atomics.h"],
            extra_compile_args=["-O3", "-g0"],
            extra_link_args=["-Wl,-s"],
        )

    # Cython's own helpers (memoryviews ...) in one module: half the build time, half the size.
    modules = [extension(path[:-3].replace("/", "."), path) for path in HOT]
    modules.append(extension("engine._cyutility", "engine/_cyutility.c"))
    return cythonize(
        modules,
        nthreads=translators(),
        build_dir="build/cython",
        shared_utility_qualified_name="engine._cyutility",
        compiler_directives={
            "language_level": 3,
            "annotation_typing": False,
            "boundscheck": True,
            "wraparound": False,
            "initializedcheck": False,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    )


setup(ext_modules=extensions(), cmdclass={"build_bpf": BuildBpf, "build_py": BuildPy, "build_ext": BuildExt})

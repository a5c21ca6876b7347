"""Build what setuptools cannot say in TOML: the compiled hot path and the eBPF objects."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
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
    print(f"otus-tui build: {text}", file=sys.stderr, flush=True)


def bpf_compiler() -> list[str] | None:
    """The command that compiles C to BPF: clang, else the `ziglang` wheel."""
    if os.environ.get("OTUS_BPF_CC"):
        return os.environ["OTUS_BPF_CC"].split()
    if clang := shutil.which("clang"):
        return [clang, "-target", "bpf"]
    try:
        import ziglang  # noqa: F401
    except ImportError:
        return None
    return [sys.executable, "-m", "ziglang", "cc", "-target", "bpfel-freestanding"]


def build_bpf() -> None:
    """Compile bpf/*.bpf.c beside their sources; leave them out, and say so, without a compiler."""
    arch = {"x86_64": "x86", "aarch64": "arm64"}.get(platform.machine(), "x86")
    for source in sorted((ROOT / "bpf").glob("*.bpf.c")):
        target = source.with_suffix(".o")
        inputs = [source, *source.parent.glob("**/*.h")]
        if target.exists() and target.stat().st_mtime >= max(p.stat().st_mtime for p in inputs):
            continue
        compiler = bpf_compiler()
        if compiler is None:
            note(f"no clang: {source.name} is left out, TCP metrics come from netlink (apt install clang)")
            continue
        command = [
            *compiler,
            "-g",
            "-O2",
            "-Wall",
            "-Werror",
            "-nostdinc",
            "-mcpu=v3",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
            f"-D__TARGET_ARCH_{arch}",
            "-Ivendor",
            f"-ffile-prefix-map={source.parent}=bpf",
            "-c",
            source.name,
            "-o",
            target.name,
        ]
        subprocess.run(command, cwd=source.parent, check=True)


class BuildPy(build_py):
    def run(self) -> None:
        build_bpf()
        super().run()


class BuildExt(build_ext):
    """A missing C compiler costs speed, not the install."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # no compiler at all
            note(f"hot path stays uncompiled: {error}")

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            note(f"{ext.name} stays uncompiled: {error}")


def extensions() -> list[Extension]:
    if os.environ.get("OTUS_PURE"):
        return []
    from Cython.Build import cythonize

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
        nthreads=os.cpu_count() or 1,
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


setup(ext_modules=extensions(), cmdclass={"build_py": BuildPy, "build_ext": BuildExt})

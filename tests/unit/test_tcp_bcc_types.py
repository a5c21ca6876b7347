"""Types that the bcc backend makes from BTF: as bpftool reads this kernel, and of one made up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import OtusError
from engine.tcp.bcc import source, types
from engine.tcp.libbpf import btf
from engine.tcp.libbpf.library import library

needs_btf = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="this kernel has no BTF")
PROGRAM = source.programs()
PLACE = re.compile(r"^(\w+) = .*constant \[\d+ x i64\] \[(.*)\]", re.MULTILINE)


def wanted() -> list[tuple[str, str]]:
    """Every (structure, member) of the programs that this kernel has."""
    found = {pair for pattern in types._READS for pair in pattern.findall(PROGRAM)}
    return sorted(found - {("sock", "__sk_flags_offset")})


def places(folder: Path, declarations: str) -> list[int]:
    """Offset and size of each, as a compiler sees them."""
    rows = [
        f"__builtin_offsetof(struct {name}, {path}), sizeof(((struct {name} *)0)->{path}),"
        for name, path in wanted()
    ]
    text = f"{declarations}\nunsigned long found[] = {{\n" + "\n".join(rows) + "\n};\n"
    (folder / "places.c").write_text(text)
    done = subprocess.run(
        ["clang", "-target", "bpf", "-S", "-o", "-", "-w", str(folder / "places.c")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [int(one) for one in re.findall(r"^\s*\.(?:quad|xword)\s+(\d+)", done.stdout, re.MULTILINE)]


@needs_btf
@pytest.mark.skipif(not (shutil.which("bpftool") and shutil.which("clang")), reason="wants bpftool and clang")
def test_members_stand_where_bpftool_has_them(tmp_path: Path) -> None:
    dump = subprocess.run(
        ["bpftool", "btf", "dump", "file", btf.VMLINUX, "format", "c"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    kernel = types.OfBtf.of_kernel()
    own = places(tmp_path, types._INTEGERS + kernel.declarations(PROGRAM))
    kernel.close()
    other = places(tmp_path, dump)
    assert len(own) == 2 * len(wanted()) > 100
    assert own[::2] == other[::2]
    differ = {pair for pair, a, b in zip(wanted(), own[1::2], other[1::2], strict=True) if a != b}
    # Read by their place alone, with a length of their own.
    assert {path for _, path in differ} <= {
        "cb", "comm", "__sk_common.skc_cookie", "__sk_common.skc_v6_daddr", "__sk_common.skc_v6_rcv_saddr",
        "sk_uid",
    }  # fmt: skip


@needs_btf
def test_btf_is_asked_before_headers_unless_sources_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(types.SOURCES, raising=False)
    kernel = types.of_kernel()
    assert isinstance(kernel, types.OfBtf)
    with kernel.compiling():
        folder = Path(os.environ[types.SOURCES])
        assert (folder / "include/linux/types.h").is_file()
    assert types.SOURCES not in os.environ
    assert not folder.exists()
    kernel.close()
    monkeypatch.setenv(types.SOURCES, str(tmp_path))
    with pytest.raises(OtusError, match=re.escape(str(tmp_path))):
        types.of_kernel()


def test_with_neither_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(types.SOURCES, raising=False)
    monkeypatch.setattr(btf, "VMLINUX", "/nothing/vmlinux")
    monkeypatch.setattr("platform.release", lambda: "4.19.0-nothing")
    with pytest.raises(OtusError, match=r"no BTF .*; .*4\.19\.0-nothing") as caught:
        types.of_kernel()
    assert "linux-headers" in caught.value.hint


@contextlib.contextmanager
def made_up(split: bool) -> Iterator[types.OfBtf]:
    """BTF of one structure: a word, and a nameless union of ca_state (6 bits after one) and a number.

    split: bit fields stand in the member, as since Linux 5.0; else in their integer type.
    """
    names = b"\0u8\0u32\0inet_connection_sock\0first\0icsk_ca_state\0number\0word\0sock_common\0"

    def at(name: bytes) -> int:
        return names.index(b"\0" + name + b"\0") + 1 if name else 0

    def record(name: bytes, kind: int, count: int, size: int, *more: int, flag: bool = False) -> bytes:
        info = kind << 24 | count | int(flag) << 31
        return struct.pack(f"<{3 + len(more)}I", at(name), info, size, *more)

    field = 6 << 24 | 1 if split else 0
    kinds = b"".join((
        record(b"u8", 1, 0, 1, 8),  # 1
        record(b"u32", 1, 0, 4, 32),  # 2
        record(b"u8", 1, 0, 1, 1 << 16 | 6),  # 3: six bits after one
        record(b"word", 8, 0, 2),  # 4: typedef of 2
        record(b"", 5, 2, 4, at(b"icsk_ca_state"), 1 if split else 3, field, at(b"number"), 4, 0, flag=split),
        record(b"inet_connection_sock", 4, 2, 8, at(b"first"), 4, 0, 0, 5, 32),  # 6
    ))  # fmt: skip
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(kinds), len(kinds), len(names))
    load = library().btf__new
    load.restype, load.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_uint32)
    data = head + kinds + names
    handle = load(data, len(data))
    assert handle
    kernel = types.OfBtf(handle, owned=True)
    try:
        yield kernel
    finally:
        kernel.close()


@pytest.mark.parametrize("split", [True, False])
def test_a_bit_field_is_found_within_nameless_members(split: bool) -> None:
    with made_up(split) as kernel:
        assert kernel.ca_state() == types.BitField("4", 1, 6)


def test_what_a_kernel_lacks_is_left_to_the_compiler_to_name() -> None:
    program = (
        "READ(struct inet_connection_sock, sk, number) READ(struct inet_connection_sock, sk, nothing) "
        "READ(struct inet_connection_sock, sk, icsk_ca_state) READ(struct nowhere, sk, member)"
    )
    with made_up(True) as kernel:
        text = kernel.declarations(program)
    assert "char filling_number[4]; u32 number;" in text
    assert "nothing" not in text
    assert "icsk_ca_state" not in text
    assert "struct nowhere;" in text
    assert "HAVE_IPV6" not in text

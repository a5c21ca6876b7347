"""Shared regions: the header, and refusing what is not ours."""

from __future__ import annotations

import os

import pytest

from engine.shm.region import HEADER, MAGIC, Region


def test_header_and_size() -> None:
    region = Region.create("counters", 1, 100, "t" * 80, 7)
    try:
        assert len(region.memory) == 4096
        assert region.words[0] == MAGIC
        assert (region.task, region.writer, region.generation) == ("t" * 64, 7, 0)
        assert region.words[6] == os.getpid()
    finally:
        region.close()
        os.close(region.fd)


def test_two_mappings_share_and_nothing_is_inherited() -> None:
    region = Region.create("flows", 1, 4096, "live", 0)
    other = Region(region.fd, "flows", 1)
    other.memory[HEADER] = 42
    assert region.memory[HEADER] == 42
    assert not os.get_inheritable(region.fd)
    other.close()
    region.close()
    os.close(region.fd)


@pytest.mark.parametrize(("kind", "version"), [("ring", 1), ("counters", 2)])
def test_other_kind_or_version_is_refused(kind: str, version: int) -> None:
    region = Region.create("counters", 1, 100, "live", 0)
    with pytest.raises(ValueError, match=f"no {kind} region of version {version}"):
        Region(region.fd, kind, version)
    region.close()
    os.close(region.fd)


@pytest.mark.parametrize("size", [0, 64, 4096])
def test_memory_without_the_header_is_refused(size: int) -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, size)
    with pytest.raises(ValueError, match="no ring region"):
        Region(fd, "ring", 1)
    os.close(fd)


def test_a_truncated_region_is_refused() -> None:
    region = Region.create("ring", 1, 8192, "live", 0)
    fd = os.memfd_create("test")
    os.write(fd, region.memory[:4096])
    region.close()
    with pytest.raises(ValueError, match="no ring region"):
        Region(fd, "ring", 1)
    os.close(fd)
    os.close(region.fd)


@pytest.mark.parametrize("size", [0, 4096, 16384])
def test_nobody_who_inherits_a_region_changes_its_size(size: int) -> None:
    region = Region.create("ring", 1, 8192, "live", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(region.fd, size)
    region.memory[8191] = 1
    region.close()
    os.close(region.fd)


def test_a_long_task_name_in_several_octets_is_cut_to_whole_characters() -> None:
    region = Region.create("ring", 1, 100, "é" * 31 + "xé", 0)
    assert region.task == "é" * 31 + "x"
    region.close()
    os.close(region.fd)

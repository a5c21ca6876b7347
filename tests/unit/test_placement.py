"""Which CPU each worker gets, on hosts that a test writes as sysfs shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.capture.placement import cpu_list, numa_node, place_workers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Two nodes of two cores with two threads each; eth0 hangs on node 1, eth1 on none, veth0 is virtual."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    write("devices/system/node/node0/cpulist", "0-1,4-5")
    write("devices/system/node/node1/cpulist", "2-3,6-7")
    for cpu in range(8):
        write(f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}")
    write("class/net/eth0/device/numa_node", "1")
    write("class/net/eth1/device/numa_node", "-1")
    (tmp_path / "class/net/veth0").mkdir(parents=True)
    return tmp_path


def test_cpu_lists() -> None:
    assert cpu_list("0-3,8\n") == [0, 1, 2, 3, 8]
    assert cpu_list("\n") == []
    with pytest.raises(ValueError, match="x"):
        cpu_list("x")


@pytest.mark.parametrize(
    ("interface", "node"),
    [("eth0", 1), ("eth1", None), ("veth0", None), ("nope", None), ("any", None), ("veth0,eth0", 1)],
)
def test_node_of_an_interface(host: Path, interface: str, node: int | None) -> None:
    assert numa_node(interface, host) == node


def test_cores_of_the_interfaces_node_come_first(host: Path) -> None:
    assert place_workers("eth0", 8, range(8), host) == [2, 3, 6, 7, 0, 1, 4, 5]


def test_one_thread_of_each_core_comes_first(host: Path) -> None:
    assert place_workers("eth1", 8, range(8), host) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert place_workers("eth1", 3, [0, 4, 5], host) == [0, 5, 4]


def test_only_allowed_ones_and_more_workers_than_cpus(host: Path) -> None:
    assert place_workers("eth0", 5, [0, 6], host) == [6, 0, 6, 0, 6]
    assert place_workers("eth0", 2, [1], host) == [1, 1]


def test_without_sysfs(tmp_path: Path) -> None:
    assert place_workers("eth0", 3, [0, 1], tmp_path) == [0, 1, 0]

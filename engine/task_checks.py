"""What a task asks for, held against what this host and this node allow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine.capture.sink import PacketSink
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.config import NodeConfig, TaskConfig

STANDARD_INPUT = "-"


def effective_workers(config: TaskConfig, node: NodeConfig) -> int:
    """How many workers a task gets; UsageError if it wants more than the node allows."""
    cpus = len(os.sched_getaffinity(0))
    limit = node.resources.max_workers or cpus
    if config.capture.driver == "pcap" or os.environ.get("OTUS_PURE", "") not in ("", "0"):
        return 1
    if node.resources.max_workers and config.capture.workers > limit:
        raise UsageError(
            f"task {config.id}: capture.workers is {config.capture.workers}, this node allows {limit}",
            f"ask for at most {limit}, or 0 for one per CPU; see resources.max_workers in the node file",
        )
    return config.capture.workers or min(limit, cpus)


def check_file(path: str, descriptor: int | None) -> None:
    """Open a capture file and read its header; OtusError says what is wrong with it."""
    if path == STANDARD_INPUT or descriptor is not None:
        if descriptor is None:
            raise UsageError("standard input can only be read with otus-tui -I -", "name a file")
        return
    from engine.capture.pcap_file import PcapFile

    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return  # a pipe: what is read here would be missing later
    PcapFile(path, PacketSink()).close()

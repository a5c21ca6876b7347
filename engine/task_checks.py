"""What a task asks for, held against what this host and this node allow."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.capture.sink import PacketSink
from engine.errors import UsageError
from engine.task_config import file_filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.config import NodeConfig, TaskConfig

_FILTER_KEY = re.compile(r"filter(?:\.(\w+))?: ")
STANDARD_INPUT = "-"
LINKTYPE_ETHERNET = 1


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


def check_capture(config: TaskConfig, descriptor: int | None) -> tuple[str, Any]:
    """What can be wrong with the capture and the filter of a task; needs no privileges.

    Returns the filter in tcpdump syntax, and the program of a live task (None for a file).
    """
    from engine.capture import filters, interfaces

    capture = config.capture
    rules = config.filter.model_dump()
    with _placed(config, "filter.bpf" if config.filter.bpf else "filter"):
        text = filters.expression_of(rules)
    if capture.driver == "pcap":
        if file_filter(config) is not None:
            with _placed(config, "filter.bpf" if config.filter.bpf else "filter"):
                filters.build_program(rules, LINKTYPE_ETHERNET)
        with _placed(config, "capture.file"):
            check_file(capture.file, descriptor)
        return text, None
    with _placed(config, "capture.interface"):
        interfaces.require(capture.interface)
    with _placed(config, "filter.bpf" if config.filter.bpf else "filter"):
        return text, filters.live_program(rules, capture.config.snaplen)


@contextmanager
def _placed(config: TaskConfig, key: str) -> Iterator[None]:
    """A UsageError out of this says where `key`, or the key of the filter that it names, stands."""
    try:
        yield
    except UsageError as error:
        named = _FILTER_KEY.match(error.message)
        problem = error.message[named.end() :] if named else error.message
        if named and named[1]:
            key = f"filter.{named[1]}"
        place = config.place(key)
        if not place:
            raise
        raise UsageError(f"{place}: task.{key}: {problem}", error.hint) from error

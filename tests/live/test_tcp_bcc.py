"""The backend of BCC, where it does not do what the others do."""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from engine.errors import OtusError
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.bcc import BccBackend
from engine.tcp.namespaces import call_inside
from tests.live.tcp_path import CLIENT, path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live.tcp_path import Path

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def between() -> Iterator[Path]:
    with path() as made:
        yield made


def refused(between: Path, cpu: int, times: int) -> None:
    """Connections to a port where nobody listens, all of it on one CPU."""

    def run() -> None:
        os.sched_setaffinity(0, {cpu})
        for _ in range(times):
            with socket.socket() as made, suppress(ConnectionRefusedError):
                made.connect((CLIENT, 9))

    call_inside(between.client, run)


def test_events_of_all_cpus_arrive_though_their_descriptor_is_polled(between: Path) -> None:
    """The kernel tells a wake-up of a perf buffer to one poll alone."""
    where = between.client
    filters = Filters(netns=where.inode, namespaces=(where,))
    made = BccBackend(filters, Triggers(resets=True), Limits(per_second=1000), Sizes())
    try:
        made.start()
    except OtusError as error:
        pytest.skip(error.message)
    try:
        poll = select.poll()
        poll.register(made.event_fd(), select.POLLIN)
        told: list[str] = []
        cpus = sorted(os.sched_getaffinity(0))
        for cpu in cpus:
            refused(between, cpu, 5)
            poll.poll(200)
            told += [event.direction for event in made.events() if event.trigger == "reset"]
            assert len(told) == 10 * (cpus.index(cpu) + 1)
        refused(between, cpus[0], 5)
        poll.poll(200)
        time.sleep(0.05)
        made.stop()
        told += [event.direction for event in made.events()]
        assert told.count("sent") == told.count("received") == 5 * (len(cpus) + 1)
    finally:
        made.stop()

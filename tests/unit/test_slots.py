"""Two processes write the same tables, and one of them is killed again and again."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from engine import purity
from engine.shm import slots
from engine.shm.flows import FlowTable
from engine.shm.streams import StreamTable

NOW = 1_700_000_000_000_000_000
HOSTS, SSRCS = 30, 4
CHILD = """
import os, random, sys
from engine.shm.flows import FlowTable
from engine.shm.streams import StreamTable
flows, streams, writer = map(int, sys.argv[1:])
flows, streams = FlowTable.open(flows, writer), StreamTable.open(streams, writer)
dice = random.Random(os.urandom(8))
print("ready", flush=True)
for number in range(1 << 40):
    host, now = dice.randrange(1, 31), 1_700_000_000_000_000_000 + number * 1_000_000
    call = b"call%d" % (host % 7)
    flows.stage_call(call, 0, len(call))
    flows.stage_codec(dice.randrange(128), 8000, 1, 2)
    flows.register(0, host, 4000, 0, 0, 17, 0, now, 1_000_000_000)
    flows.find(0, host + 1, 0, host, 5000, 4000, 17, 0, now)
    key = 0, host + 1, 0, host, 5000 | 4000 << 16 | dice.randrange(4) << 32, 0
    tag = flows.tag_of(0, host + 1, 0, host, 5000, 4000, 17, 0)
    slot = streams.find(tag, *key)
    if slot < 0:
        slot = streams.add(tag, *key, now)
    streams.count(streams.place(slot), now, number & 0xFFFF, number & 0xFFFFFFFF, 0, 100)
    if not number & 63:
        flows.sweep(now, 64)
"""


@pytest.mark.skipif(not purity.is_compiled(slots), reason="uncompiled modules have no atomics: one worker")
def test_no_key_stands_twice_and_no_lock_stays() -> None:
    flows, streams = FlowTable.create("test", 0, 256), StreamTable.create("test", 0, 1024)
    fds = flows.region.fd, streams.region.fd

    def start(writer: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILD, *map(str, fds), str(writer)]
        child = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, env={**os.environ})
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child

    def kill(child: subprocess.Popen[bytes], writer: int) -> None:
        child.kill()
        child.communicate()
        FlowTable.open(fds[0], writer).break_locks(writer)
        StreamTable.open(fds[1], writer).break_locks(writer)

    steady = start(1)
    try:
        for _ in range(5):
            other = start(2)
            time.sleep(0.15)
            kill(other, 2)
    finally:
        kill(steady, 1)
    found = [(row["kind"], row["src"], row["sport"], row.get("dst")) for row in flows.rows()]
    assert len(found) == len(set(found)) <= 3 * HOSTS
    found_streams = [(row["src"], row["dst"], row["ssrc"]) for row in streams.rows()]
    assert len(found_streams) == len(set(found_streams)) == HOSTS * SSRCS
    for table in (flows, streams):
        words = table.region.words
        assert not any(words[table.first + 64 * entry] & 0xFFFF for entry in range(table.slots))
        tags = [words[table.tags + 2 * slot] for slot in range(table.slots)]
        assert not any(slots.REMOVED_TAG < tag < 1 << 63 for tag in tags)
        assert len(table.taken()) == len(table.rows())


def test_entries_are_given_out_in_order_and_stay_with_their_slot() -> None:
    """So a table takes memory for what it held at most, however its slots are scattered."""
    table = FlowTable.create("test", 0, 4096)
    words = table.region.words
    for round_ in range(3):
        slots = [table.add(1, 2, 3, round_, port, 5000, 17, 0, 1000, 1) for port in range(200)]
        places = [words[table.tags + 2 * slot + 1] for slot in slots]
        if round_ == 0:
            assert places == [table.first + 64 * number for number in range(200)]
        assert len(set(places)) == 200
        assert table.sweep(10_000_000_000, table.slots) == 200
    unused = next(slot for slot in range(table.slots) if not words[table.tags + 2 * slot + 1])
    assert table.read(unused) is None


def test_a_writer_killed_with_an_entry_in_its_hands() -> None:
    table = FlowTable.create("test", 0, 64)
    words = table.region.words
    # Claimed, and no entry yet; another one had taken the last entries with it.
    words[table.tags] = 0x10000 + 3
    words[28] = 64
    assert table.add(1, 2, 3, 4, 5, 6, 17, 0, 1000, 1) == -1
    assert words[28] == 64
    assert FlowTable.open(table.region.fd, 3).break_locks(3) == 1
    assert words[table.tags] == 1

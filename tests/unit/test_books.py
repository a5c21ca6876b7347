"""The ledger: even when everything adds up, and off by exactly what does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine import config_file
from engine.books import balance, dropped_total, make_books, ring_drops
from engine.config import NodeConfig
from engine.reporters.figures import SenderFigures
from engine.shm import ring
from engine.shm.counters import Counters
from engine.supervisor import Supervisor
from engine.task import Task

if TYPE_CHECKING:
    from engine.snapshot import Books


def filled(**counts: int) -> Counters:
    counters = Counters.create("t", 0)
    for name, count in counts.items():
        counters.add(name, count)
    return counters


def send_ring(written: int, read: int = 0) -> Any:
    region = ring.create("t", 0, 1 << 20, 64)
    writer = ring.RingWriter(region)
    for number in range(written):
        writer.write(1, 0, number, b"x")
    ring.RingReader(region).read(read)
    return region


def test_file_without_reporter() -> None:
    books = make_books([filled(received=10, handled=7, unmatched=2, malformed=1)], [], None, None)
    assert books["even"]
    assert books["captured"] is None
    assert dropped_total(books) == 3
    assert balance(books) == 0


def test_packet_in_work_is_in_flight() -> None:
    books = make_books([filled(received=10, handled=9)], [], None, {"kernel_ring": 5})
    assert books["even"]
    assert books["in_flight"] == 1
    assert books["captured"] == 15
    assert balance(books) == 0


def test_missing_packets_are_named() -> None:
    books = make_books([filled(received=10, handled=7)], [], None, None)
    assert not books["even"]
    assert books["difference"] == 3
    books = make_books([filled(received=10, handled=12)], [], None, None)
    assert books["difference"] == -2


def test_every_stage() -> None:
    figures = SenderFigures.create("t")
    region = send_ring(100, 30)
    lost = ring.figures(region)["lost"]
    figures.add("reported", 20)
    figures.add("queue_full", 4)
    workers = [filled(received=120, output=100, filtered=20)]
    books = make_books(workers, [region], figures, {"kernel_ring": 1})
    assert books["even"], books
    assert books["dropped"]["buffer"] == {"send_ring": lost, "unsent": 0}
    assert books["in_flight"] == 100 - lost - 24
    assert balance(books) == 0
    # At the end what is left in a ring was not sent, and what a sender took and did not settle is a fault.
    ended = make_books(workers, [region], figures, {"kernel_ring": 1}, ended=True)
    assert ended["dropped"]["buffer"]["unsent"] == ring.figures(region)["unread"] > 0
    assert ended["in_flight"] == 6
    figures.add("lost_with_sender", 6)
    ended = make_books(workers, [region], figures, {"kernel_ring": 1}, ended=True)
    assert ended["even"]
    assert ended["in_flight"] == 0
    assert balance(ended) == 0


def test_output_that_never_came_into_a_ring() -> None:
    figures = SenderFigures.create("t")
    ended = make_books([filled(received=5, output=5)], [send_ring(3)], figures, None, ended=True)
    assert not ended["even"]
    assert ended["difference"] == 2


def test_what_stays_in_the_ring_is_named_at_the_end() -> None:
    totals = [{"packets": 10, "drops": 3, "freezes": 1}, {"packets": 5, "drops": 0, "freezes": 0}]
    workers = [filled(received=6, handled=6), filled(received=4, handled=4)]
    assert ring_drops(totals, workers, False) == {"kernel_ring": 3}
    assert ring_drops(totals, workers, True) == {"kernel_ring": 3, "unread": 2}


def test_what_one_of_several_reporters_lost() -> None:
    figures = SenderFigures.create("t")
    region = send_ring(10, 10)
    lost = ring.figures(region)["lost"]
    assert not lost
    # Seven were taken by both or by the second alone, one by none, two wait for the second.
    figures.add("reported", 7)
    figures.add("report_timeout", 1)
    figures.add_reporter(0, "accepted", 3)
    figures.add_reporter(0, "report_error", 7)
    figures.add_reporter(1, "accepted", 7)
    figures.add_reporter(1, "report_timeout", 1)
    workers = [filled(received=10, output=10)]
    names = ["file", "file"]
    books = make_books(workers, [region], figures, None, reporters=names)
    assert books["even"], books
    assert books["reported"] == 7
    assert books["in_flight"] == 2
    assert books["partly"] == {"file": 6, "file 2": 0}
    assert balance(books) == 0
    assert make_books(workers, [region], figures, None, reporters=["file"])["partly"] == {}
    assert make_books([filled()], [], None, None)["partly"] == {}


def test_fragments_are_merged_lost_or_on_their_way() -> None:
    """Each is booked once at every moment, and what is left out never gets less."""
    counters = Counters.create("test", 0)
    for name, amount in (("received", 10), ("fragments", 10), ("fragments_held", 4)):
        counters.add(name, amount)
    counters.add("fragments_timed_out", 3)
    books = make_books([counters], [], None, None)
    assert (books["even"], balance(books), books["in_flight"]) == (True, 0, 4)
    assert books["dropped"]["worker"]["fragments_timed_out"] == 3
    assert books["dropped"]["left_out"]["fragments"] == 3
    # The task has ended, and its worker with it: what it held is lost.
    books = make_books([counters], [], None, None, ended=True)
    assert (books["even"], balance(books), books["in_flight"]) == (True, 0, 0)
    assert books["dropped"]["worker"]["fragments_unfinished"] == 4
    assert books["dropped"]["left_out"]["fragments"] == 3
    # A fragment that is lost already, its packet still in work.
    counters.add("fragments_oversize", 8)
    books = make_books([counters], [], None, None)
    assert (books["even"], balance(books)) == (True, 0)
    assert books["dropped"]["left_out"]["fragments"] == 0


def test_a_worker_that_is_killed_at_the_end_leaves_even_books() -> None:
    """Its last record is in the ring, its packet has no outcome, and no successor comes any more."""
    node = NodeConfig()
    values = {"id": "t", "capture": {"driver": "pcap", "file": "t.pcap"}, "reporters": [{"type": "console"}]}

    async def life() -> Books:
        task = Task(config_file.task_from_values(values, node, "t"), node, Supervisor())
        task._build_memory(1)
        ring.RingWriter(task._send[0]).write(1, 0, 0, b"x" * 200)
        task._counters[0].add("received")
        await task._stop_children()
        task._close_capture()
        books = task.books()
        await task.release()
        return books

    books = asyncio.run(life())
    assert books["even"], books
    assert (books["output"], books["dropped"]["buffer"]["unsent"]) == (1, 1)
    assert books["dropped"]["worker"]["worker_lost"] == 0

"""Queues of reporters: bounded, their heads dropped and counted, whatever a reporter does."""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from engine.packet import OutputPacket
from engine.plugin import Reporter
from engine.reporters.figures import SenderFigures
from engine.reporters.queue import Item, ReporterQueue
from tests.output_records import packet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Fake(Reporter):
    name = "fake"

    def __init__(self) -> None:
        self.got: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.trouble: BaseException | None = None
        self.most = 1 << 30

    def report(self, batch: Sequence[OutputPacket]) -> int:
        self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        taken = batch[: self.most]
        self.got += [one.timestamp_ns for one in taken]
        return len(taken)


def make_queue(
    reporter: Fake,
    figures: SenderFigures,
    number: int = 0,
    lock: threading.Lock | None = None,
    **options: Any,
) -> ReporterQueue:
    options = {"capacity": 100, "timeout": 0.2, "retries": 1, **options}
    queue = ReporterQueue(number, reporter, figures, lock or threading.Lock(), **options)
    queue.start()
    return queue


def test_a_reporter_that_raises_at_its_stop_is_told() -> None:
    class Stubborn(Fake):
        def stop(self) -> None:
            raise ValueError("no")

    queue = make_queue(Stubborn(), SenderFigures.create("t"))
    finish(queue)
    assert queue.problem == "does not stop: ValueError: no"


def test_a_reporter_whose_last_batch_fails_is_stopped_all_the_same() -> None:
    class Broken(Fake):
        stopped = False

        def flush(self) -> None:
            raise OSError("no")

        def stop(self) -> None:
            self.stopped = True

    reporter = Broken()
    queue = make_queue(reporter, SenderFigures.create("t"))
    finish(queue)
    assert reporter.stopped
    assert queue.problem == "does not stop: OSError: no"


def test_a_reporter_that_gathers_gives_all_of_it_at_the_end() -> None:
    class Gathering(Fake):
        left: Sequence[int] = ()

        def flush(self) -> None:
            self.left = [*self.got]

        def stop(self) -> None:
            self.got.clear()

    reporter, figures = Gathering(), SenderFigures.create("t")
    queue = make_queue(reporter, figures)
    queue.put(items(3))
    finish(queue)
    assert (reporter.left, reporter.got) == ([0, 1, 2], [])


def finish(*queues: ReporterQueue) -> None:
    for queue in queues:
        queue.reporter.gate.set()  # type: ignore[attr-defined]
        queue.finish(time.monotonic() + 30)
    for queue in queues:
        queue.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def items(count: int, waiting: int = 1) -> list[Item]:
    return [Item(packet(number), waiting) for number in range(count)]


def test_queue_drops_its_head() -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    queue = make_queue(reporter, figures, capacity=10)
    reporter.gate.clear()
    queue.put(items(1))
    until(lambda: len(queue._work) == 1)
    queue.put(items(25))
    finish(queue)
    assert reporter.got == [0, *range(15, 25)]
    assert figures.as_dict() == {
        "reported": 11, "queue_full": 15, "report_error": 0, "report_timeout": 0, "unreadable": 0,
        "lost_with_sender": 0,
    }  # fmt: skip
    assert figures.reporter(0)["queued"] == 0


@pytest.mark.parametrize(
    ("trouble", "name"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "report_error"),
        (TimeoutError("slow"), "report_timeout"),
        (RuntimeError("a plugin's own fault"), "report_error"),
        (SystemExit("a plugin that gives up"), "report_error"),
    ],
)
def test_queue_counts_what_a_reporter_loses(trouble: BaseException, name: str) -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    reporter.trouble = trouble
    problems: list[str] = []
    queue = make_queue(reporter, figures)
    queue.on_problem = problems.append
    queue.put(items(30))
    until(lambda: figures.as_dict()[name] == 30)
    reporter.trouble = None
    queue.put(items(5))
    finish(queue)
    assert figures.as_dict()[name] == 30
    assert figures.as_dict()["reported"] == 5
    assert figures.settled() == 35
    assert len(problems) == 2
    assert problems[1] == ""


def test_reporter_that_takes_a_part() -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    reporter.most = 4
    queue = make_queue(reporter, figures, retries=2)
    queue.put(items(20))
    finish(queue)
    assert figures.as_dict()["reported"] == 12
    assert figures.as_dict()["report_error"] == 8


def test_reporter_that_hangs_at_the_end() -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    queue = make_queue(reporter, figures, capacity=1000)
    reporter.gate.clear()
    queue.put(items(20))
    until(lambda: len(queue._work) == 20)
    queue.put(items(30))
    queue.finish(time.monotonic() + 0.1)
    queue.join()
    assert figures.as_dict()["report_timeout"] == figures.settled() == 50
    reporter.gate.set()
    time.sleep(0.05)
    assert figures.settled() == 50, "what comes back too late is not counted twice"


def test_reporter_that_hangs_loses_what_it_has_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.reporters.queue.GRACE", 0.0)
    figures, reporter = SenderFigures.create("t"), Fake()
    problems: list[str] = []
    queue = make_queue(reporter, figures, capacity=10, timeout=0.1)
    queue.on_problem = problems.append
    reporter.gate.clear()
    begun = time.monotonic()
    queue.put(items(7))
    until(lambda: len(queue._work) == 7)
    queue.watch(begun + 0.1)
    assert not figures.settled(), "not yet"
    queue.watch(time.monotonic() + 0.15)
    queue.watch(time.monotonic() + 0.15)
    assert figures.as_dict()["report_timeout"] == figures.settled() == 7
    assert problems == ["hangs: no answer for 0.1 s"]
    queue.put(items(25))
    assert (figures.as_dict()["queue_full"], queue.room()) == (15, 10), "nobody waits for one that hangs"
    reporter.gate.set()
    finish(queue)
    assert figures.as_dict()["reported"] == 10
    assert figures.settled() == 32
    assert problems[-1] == ""
    assert reporter.got[7:] == list(range(15, 25))


def test_packet_is_reported_when_one_of_two_took_it() -> None:
    figures, good, bad = SenderFigures.create("t"), Fake(), Fake()
    bad.trouble = OSError(errno.EIO, "Input/output error")
    lock = threading.Lock()
    queues = [make_queue(good, figures, 0, lock), make_queue(bad, figures, 1, lock)]
    batch = items(40, 2)
    for queue in queues:
        queue.put(batch)
    finish(*queues)
    assert figures.as_dict()["reported"] == 40
    assert figures.settled() == 40
    assert figures.reporter(0)["accepted"] == 40
    assert figures.reporter(1)["report_error"] == 40

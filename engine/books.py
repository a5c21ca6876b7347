"""The ledger of a task: from the counters of its workers, rings, sender and sockets to `Books`.

    captured = received + lost in the ring
    received = output + handled + dropped by a worker
    output   = reported + in flight + lost in the buffer + dropped by the reporters

Counters are read while they rise, downstream first, so nothing seems to come out that did not go
in. A worker's words are copied at once and held against `received` before and after the copy: what
does not fit between those two is a real difference.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from engine.shm import counters as layout
from engine.shm import ring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.reporters.figures import SenderFigures
    from engine.shm.counters import Counters
    from engine.shm.region import Region
    from engine.snapshot import Books

OWN_DROPS = ("queue_full", "report_error", "report_timeout")
"""Drops that each reporter counts for itself."""
_LEDGER = struct.Struct(f"={1 + len(layout.OUTCOMES)}Q")
_FIRST_OCTET = 8 * layout.FIRST_COUNTER
REPORT_DROPS = ("queue_full", "report_error", "report_timeout", "unreadable", "lost_with_sender")
"""Names of layer `report`; those of `worker` are LOSSES and FRAGMENT_LOSSES, those of `left_out` LEFT_OUT of
the counters."""


class WorkerPage:
    """One worker's ledger, read at one moment; `difference` is 0 when it adds up."""

    def __init__(self, counters: Counters) -> None:
        # Before the outcomes, which rise after them; a fragment that is held becomes lost or merged later.
        held = counters.get("fragments_held")
        reasons = {name: counters.get(name) for name in layout.FRAGMENT_LOSSES}
        before = int(counters.words[layout.RECEIVED])
        values = _LEDGER.unpack_from(counters.region.memory, _FIRST_OCTET)
        after = int(counters.words[layout.RECEIVED])
        self.outcomes = dict(zip(layout.OUTCOMES, values[1:], strict=True))
        self.fragment_losses = layout.fragment_losses(reasons, self.outcomes["fragments"])
        self.outcomes["fragments"] -= sum(self.fragment_losses.values())
        self.held = min(held, self.outcomes["fragments"])
        self.outcomes["fragments"] -= self.held
        ended = sum(values[1:])
        # One packet may be in work: it is received and has not ended yet.
        self.difference = 0 if before - 1 <= ended <= after else before - ended
        self.received = max(before, ended) if not self.difference else before
        self.in_work = 0 if self.difference else self.received - ended


def ring_page(region: Region) -> tuple[int, int, int]:
    """(taken by the reader, lost before it was read, unread) of a send ring; sums to what was written."""
    figures = ring.figures(region)
    return figures["written"] - figures["unread"] - figures["lost"], figures["lost"], figures["unread"]


def ring_drops(
    totals: Sequence[Mapping[str, int]], workers: Sequence[Counters], ended: bool
) -> dict[str, int]:
    """What the kernel's rings lost, by name; `totals` as of RingSocket.statistics().

    `unread`, when the task has `ended`: packets that the kernel put into a ring and no worker came to.
    """
    lost = sum(one["drops"] for one in totals)
    if not ended:
        return {"kernel_ring": lost}
    taken = lost + sum(counters.get("received") for counters in workers)
    return {"kernel_ring": lost, "unread": max(0, sum(one["packets"] for one in totals) - taken)}


def make_books(
    workers: Sequence[Counters],
    send_rings: Sequence[Region],
    sender: SenderFigures | None,
    lost_in_rings: Mapping[str, int] | None,
    ended: bool = False,
    reporters: Sequence[str] = (),
) -> Books:
    """The books of one task. `lost_in_rings`: as of ring_drops(); None in files. `reporters`: their types.

    `ended`: nobody writes any more, so what was not sent will not be, and everything must agree exactly.
    """
    report = sender.as_dict() if sender is not None else {}
    pages = [ring_page(region) for region in send_rings]
    ledgers = [WorkerPage(counters) for counters in workers]
    received = sum(page.received for page in ledgers)
    output = sum(page.outcomes["output"] for page in ledgers)
    reported = report.get("reported", 0)
    dropped = {"ring": dict(lost_in_rings or {}), **_dropped(ledgers, pages, report, ended)}
    in_work = sum(page.in_work for page in ledgers)
    held = sum(page.held for page in ledgers)
    if ended:
        dropped["worker"]["fragments_unfinished"] += held
        held = 0
    waiting = output - reported - sum(dropped["buffer"].values()) - sum(dropped["report"].values())
    # What waits must be in a ring or in a queue: taken and not settled, or written and unread.
    seen = sum(taken + (0 if ended else unread) for taken, _, unread in pages) - sum(report.values())
    difference = sum(page.difference for page in ledgers)
    if waiting < seen - len(ledgers) or seen < 0 or (ended and waiting != seen):
        difference += waiting - seen
    return {
        "received": received,
        "captured": None if lost_in_rings is None else received + sum(lost_in_rings.values()),
        "output": output,
        "reported": reported,
        "handled": sum(page.outcomes["handled"] for page in ledgers),
        "in_flight": max(0, waiting) + in_work + held,
        "dropped": dropped,
        "partly": partly_lost(sender, report, reporters) if sender is not None else {},
        "even": difference == 0,
        "difference": difference,
    }


def _dropped(
    ledgers: Sequence[WorkerPage],
    pages: Sequence[tuple[int, int, int]],
    report: Mapping[str, int],
    ended: bool,
) -> dict[str, dict[str, int]]:
    """What each layer behind the rings dropped, by name: pages of the workers, then of the send rings."""
    worker = {name: sum(page.outcomes[name] for page in ledgers) for name in layout.LOSSES}
    for name in layout.FRAGMENT_LOSSES:
        worker[name] = sum(page.fragment_losses[name] for page in ledgers)
    return {
        "worker": worker,
        "buffer": {
            "send_ring": sum(lost for _, lost, _ in pages),
            "unsent": sum(unread for _, _, unread in pages) if ended else 0,
        },
        "report": {name: report.get(name, 0) for name in REPORT_DROPS},
        "left_out": {name: sum(page.outcomes[name] for page in ledgers) for name in layout.LEFT_OUT},
    }


def partly_lost(sender: SenderFigures, report: Mapping[str, int], reporters: Sequence[str]) -> dict[str, int]:
    """Reporter -> packets that it lost and not every reporter did. `report`: read before this is called.

    What all of them lost stands in every reporter's drops and once in those of the task. A name that
    several reporters have gets a number: file, file 2.
    """
    if len(reporters) < 2:
        return {}
    lost_by_all = sum(report[name] for name in OWN_DROPS)
    found: dict[str, int] = {}
    for number, kind in enumerate(reporters):
        same = sum(other == kind for other in reporters[: number + 1])
        figures = sender.reporter(number)
        own = sum(figures[name] for name in OWN_DROPS)
        found[kind if same == 1 else f"{kind} {same}"] = max(0, own - lost_by_all)
    return found


def dropped_total(books: Books) -> int:
    """All drops of all layers."""
    return sum(sum(layer.values()) for layer in books["dropped"].values())


def balance(books: Books) -> int:
    """Received minus everything that it became: 0 when the books are even."""
    ring = sum(books["dropped"]["ring"].values())
    ends = books["reported"] + books["handled"] + books["in_flight"] + dropped_total(books) - ring
    return books["received"] - ends

"""What the sender of a task has done with the records it took, in shared memory.

Written by the sender, read by the controller; a successor of a killed sender books what that one
had taken and not settled as `lost_with_sender`, so `taken = settled` holds across a kill.

Words behind the region header (index of the 64-bit word):

    16 heartbeat, CLOCK_MONOTONIC ns    17 state (engine.shm.counters.STATES)    18 pid    19 CPU time, ns
    32 counters of the task, in the order of NAMES      48 more of them, in the order of FACTS
    64 + 16 * n counters of reporter n, in the order of REPORTER_NAMES
"""

from __future__ import annotations

from engine.shm.region import Region

VERSION = 2
HEARTBEAT, STATE, PID, CPU_TIME = 16, 17, 18, 19
MAX_REPORTERS = 16
_FIRST, _FIRST_FACT, _FIRST_REPORTER, _WIDTH = 32, 48, 64, 16

NAMES = {
    "reported": "taken by at least one reporter",
    "queue_full": "the oldest in a reporter's full queue",
    "report_error": "no reporter could write it",
    "report_timeout": "no reporter took it in time",
    "unreadable": "a record that is no packet",
    "lost_with_sender": "taken by a sender that was killed",
}
"""Where a taken record ends; all but `reported` are drops."""

FACTS = ("plugin_errors", "labels_refused")
"""Processors that raised, and labels of theirs that are none; beside NAMES."""
REPORTER_NAMES = (
    "accepted",
    "queue_full",
    "report_error",
    "report_timeout",
    "batches",
    "failures",
    "queued",
    "capacity",
)
"""Per reporter: packets by outcome, batches, failed attempts, packets that wait now and that may wait."""
_SET = ("queued", "capacity")


class SenderFigures:
    """The figures of one task's sender."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.words = region.words

    @classmethod
    def create(cls, task: str) -> SenderFigures:
        """A new region with every counter at 0."""
        return cls(Region.create("sender", VERSION, 8 * (_FIRST_REPORTER + _WIDTH * MAX_REPORTERS), task, 0))

    @classmethod
    def open(cls, fd: int) -> SenderFigures:
        """Map the region behind an inherited descriptor."""
        return cls(Region(fd, "sender", VERSION))

    def add(self, name: str, amount: int = 1) -> None:
        """Count; by the sender only."""
        self.words[_FIRST + _POSITION[name]] += amount

    def as_dict(self) -> dict[str, int]:
        """The task's counters by name."""
        return {name: int(self.words[_FIRST + position]) for name, position in _POSITION.items()}

    def add_fact(self, name: str, amount: int) -> None:
        """Count what is beside the ledger; by the sender only."""
        self.words[_FIRST_FACT + FACTS.index(name)] += amount

    def facts(self) -> dict[str, int]:
        """The counters beside the ledger."""
        return {name: int(self.words[_FIRST_FACT + position]) for position, name in enumerate(FACTS)}

    def settled(self) -> int:
        """Records whose end is known."""
        return sum(self.as_dict().values())

    def add_reporter(self, number: int, name: str, amount: int) -> None:
        """Count for one reporter; `queued` and `capacity` are set, the others rise."""
        word = _FIRST_REPORTER + _WIDTH * number + _REPORTER_POSITION[name]
        self.words[word] = amount if name in _SET else self.words[word] + amount

    def reporter(self, number: int) -> dict[str, int]:
        """The counters of one reporter by name."""
        first = _FIRST_REPORTER + _WIDTH * number
        return {name: int(self.words[first + position]) for name, position in _REPORTER_POSITION.items()}


_POSITION = {name: position for position, name in enumerate(NAMES)}
_REPORTER_POSITION = {name: position for position, name in enumerate(REPORTER_NAMES)}

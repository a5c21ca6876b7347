"""The table of Call-IDs: fed with evidence records, bounded in every direction.

A message costs one hash lookup, one pass over its octets (which copies them into the arena and
makes the signature that a retransmission is known by) and a handful of figures. Nothing is
decoded here: rows turn octets into text when somebody looks at them.

How often each method and each status was seen stands in `tallies`, (key, count, next) linked per
Call-ID; the key is the method's number, or 1000 + status.
"""

from __future__ import annotations

import re
from collections import deque

from engine.calls.arena import Arena
from engine.calls.record_view import RecordView
from engine.calls.states import STATES, Dialog
from engine.shm.records import METHODS
from engine.shm.region import pool
from engine.shm.ring import RingReader

SIP = 1
ICMP = 5
P_DUPLICATE = 8
MESSAGE = 400
SLOT_METHOD = 0
SLOT_CALL_ID = 4
SLOT_FROM = 5
SLOT_FROM_URI = 6
SLOT_TO = 8
SLOT_TO_URI = 9
SLOT_CSEQ_METHOD = 11
SLOT_X_CALL_ID = 22

KNOWN_METHODS = 14
OTHER_METHOD = 63
"""Number of all methods behind the first 62; METHODS have 1 to 14, others the next as they come."""
MOST_DEFECTS = 100
"""Malformed messages that are listed, the first ones."""
MOST_TALLIES = 96
"""Different methods and codes counted of one Call-ID."""
CELLS_PER_CALL = 50
"""Messages for which there is room, on average."""
FIRST_CODE = 1000
CALL_SETUP, REGISTERING, PENDING = map(STATES.index, ("call_setup", "registering", "pending"))
"""States of what nobody has answered: in a flood these make room before what is established."""

CALL_ID_LINE = re.compile(rb"(?:^|\n)(?:call-id|i)[ \t]*:[ \t]*([^\s]{1,512})", re.IGNORECASE)
UNREACHABLE = {
    (3, 0): b"network unreachable",
    (3, 1): b"host unreachable",
    (3, 2): b"protocol unreachable",
    (3, 3): b"port unreachable",
    (3, 4): b"fragmentation needed",
    (3, 13): b"administratively prohibited",
    (11, 0): b"time to live exceeded",
    (1, 0): b"no route",
    (1, 1): b"administratively prohibited",
    (1, 3): b"address unreachable",
    (1, 4): b"port unreachable",
    (2, 0): b"packet too big",
}
"""By type and code; ICMPv6 has types 1 and 2 (RFC 792, RFC 4443)."""


class DialogTable:
    """Dialogs by Call-ID: in by `drain()` or `add()`, out by `dialogs` and the methods for readers."""

    def __init__(
        self,
        calls: int,
        messages_per_call: int,
        message_bytes: int,
        store_messages: bool = True,
        buckets: int = 0,
    ) -> None:
        """At most `calls` Call-IDs, of each `messages_per_call` messages, of all `message_bytes` octets."""
        self.limit = max(1, calls)
        self.messages_per_call = messages_per_call if store_messages else 0
        self.dialogs: dict[bytes, Dialog] = {}
        self.arrivals: deque[Dialog] = deque()
        self.settled: deque[Dialog] = deque()
        """Those of `arrivals` that somebody had answered when room was looked for."""
        self.finished: deque[Dialog] = deque()
        self.view = RecordView()
        cells = min(self.limit * min(self.messages_per_call, CELLS_PER_CALL), 16_000_000) + 64
        self.arena = Arena(self.view, message_bytes if store_messages else 0, cells, buckets)
        self.most_tallies = min(self.limit * 16 + 4096, 64_000_000)
        self.tallies = pool(12 * (self.most_tallies + 1)).cast("I")
        self.used_tallies = 0
        self.free_tally = 0
        self.totals = pool(8 * 2048).cast("Q")
        self.by_state = pool(8 * 32).cast("Q")
        self.names: dict[bytes, int] = {}
        self.method_names = [*METHODS[1:]]

        self.number = 0
        self.version = 0
        self.newest = 0
        self.records = 0
        self.foreign = 0
        self.messages = 0
        self.retransmissions = 0
        self.malformed = 0
        self.defects: list[tuple[bytes, int, int, int, int, bytes]] = []
        """(Call-ID, time, error, method, status, packet header) of malformed messages."""
        self.copies = 0
        self.removed = 0
        self.unkept = 0
        self.untallied = 0
        self.quotes = 0

    def drain(self, reader: RingReader, most: int) -> int:
        """Take up to `most` records out of a ring; returns how many."""
        count = 0
        if self.view.record is not reader.record:
            self.view.attach(reader.record)
        while count < most and reader.next():
            self.take(reader.kind, reader.timestamp, reader.length)
            count += 1
        return count

    def add(self, kind: int, timestamp: int, body: bytes) -> None:
        """Take one record from its octets."""
        self.take(kind, timestamp, self.view.load(body))

    def take(self, kind: int, timestamp: int, length: int) -> int:
        """The record in front of the view's buffer."""
        self.records += 1
        if timestamp > self.newest:
            self.newest = timestamp
        if kind == ICMP:
            return self.quoted(length)
        if kind != SIP or length < MESSAGE:
            self.foreign += 1
            return 0
        self.view.begin(length)
        return self.message(timestamp)

    def message(self, timestamp: int) -> int:
        """One SIP message: its Call-ID, figures, state, cell."""
        view = self.view
        arena = self.arena
        if view.method == 0 or view.method > KNOWN_METHODS:
            view.method = self.other_method(SLOT_CSEQ_METHOD if view.status else SLOT_METHOD)
        call_id = view.cut() if view.span(SLOT_CALL_ID) else b""
        dialog = self.dialogs.get(call_id)
        if dialog is None:
            dialog = self.open(call_id, timestamp)
        elif (view.ints[9] >> 8) & P_DUPLICATE:
            # The same packet from another interface: its message is marked, and not counted once more.
            self.copies += 1
            dialog.copies += 1
            self.version += 1
            return arena.mark_copied(dialog, arena.sign(-1))

        kept = dialog.kept < self.messages_per_call
        position = arena.place() if kept else -1
        signature = arena.sign(position)
        repeated = arena.repeated(signature, timestamp)
        old = dialog.state
        if not repeated or dialog.messages == 0:
            view.read_facts(dialog, timestamp)
            view.give_reason(dialog, dialog.take(view.facts))
        self.moved(dialog, old)
        self.count(dialog, timestamp, repeated)
        self.tally(dialog, FIRST_CODE + view.status if view.status else view.method)
        if kept and arena.full():
            self.evict(dialog)
        if not kept or not arena.keep(dialog, timestamp, position, signature, repeated):
            self.unkept += 1
        return 0

    def open(self, call_id: bytes, timestamp: int) -> Dialog:
        """A new entry, in the place of an old one when the table is full."""
        if len(self.dialogs) >= self.limit:
            self.evict(None)
        view = self.view
        self.number += 1
        dialog = Dialog(self.number, call_id)
        dialog.first_ns = timestamp
        dialog.method = view.method
        ports = view.ints[8]
        # A response that comes first still tells the request's direction.
        if view.status:
            dialog.src0, dialog.src1, dialog.dst0, dialog.dst1 = (
                view.words[2], view.words[3], view.words[0], view.words[1],
            )  # fmt: skip
            dialog.ports = ((ports & 0xFFFF) << 16) | (ports >> 16)
        else:
            dialog.src0, dialog.src1, dialog.dst0, dialog.dst1 = (
                view.words[0], view.words[1], view.words[2], view.words[3],
            )  # fmt: skip
            dialog.ports = ports
        dialog.protocol = view.ints[9] & 0xFF
        if view.span(SLOT_FROM_URI) or view.span(SLOT_FROM):
            dialog.sender = view.cut()
        if view.span(SLOT_TO_URI) or view.span(SLOT_TO):
            dialog.receiver = view.cut()
        self.dialogs[call_id] = dialog
        self.arrivals.append(dialog)
        if len(self.arrivals) + len(self.settled) + len(self.finished) > 3 * len(self.dialogs) + 1024:
            self.tidy()
        return dialog

    def tidy(self) -> int:
        """Take those that were removed out of the queues."""
        self.arrivals = deque(d for d in self.arrivals if not d.removed)
        self.settled = deque(d for d in self.settled if not d.removed)
        self.finished = deque(d for d in self.finished if not d.removed)
        return 0

    def count(self, dialog: Dialog, timestamp: int, repeated: bool) -> int:
        """Figures of the Call-ID and of the whole table."""
        self.version += 1
        self.messages += 1
        dialog.messages += 1
        if timestamp > dialog.last_ns:
            dialog.last_ns = timestamp
        if timestamp < dialog.first_ns:
            dialog.first_ns = timestamp
        if repeated:
            self.retransmissions += 1
            dialog.retransmissions += 1
        if self.view.error:
            self.malformed += 1
            dialog.malformed += 1
            if len(self.defects) < MOST_DEFECTS:
                self.defects.append(self.view.defect(dialog.call_id, timestamp))
        if dialog.x_call_id is None and self.view.span(SLOT_X_CALL_ID):
            dialog.x_call_id = self.view.cut()
        return 0

    def tally(self, dialog: Dialog, key: int) -> int:
        """Count a method or a code of the Call-ID and of the whole table."""
        self.totals[key] += 1
        cell = dialog.tally
        while cell:
            if self.tallies[3 * cell] == key:
                self.tallies[3 * cell + 1] += 1
                return 0
            cell = self.tallies[3 * cell + 2]
        cell = self.free_tally
        if dialog.tallies >= MOST_TALLIES:
            self.untallied += 1
            return 0
        if cell:
            self.free_tally = self.tallies[3 * cell + 2]
        elif self.used_tallies < self.most_tallies:
            self.used_tallies += 1
            cell = self.used_tallies
        else:
            self.untallied += 1
            return 0
        self.tallies[3 * cell] = key
        self.tallies[3 * cell + 1] = 1
        self.tallies[3 * cell + 2] = dialog.tally
        dialog.tally = cell
        dialog.tallies += 1
        return 0

    def moved(self, dialog: Dialog, old: int) -> int:
        """The state was `old`."""
        if dialog.state != old:
            if old:
                self.by_state[old] -= 1
            self.by_state[dialog.state] += 1
        if dialog.ended and not dialog.queued:
            dialog.queued = True
            self.finished.append(dialog)
        return 0

    def evict(self, spare: Dialog | None) -> bool:
        """Forget one Call-ID, never `spare`: the first ended, the oldest without an answer, the oldest."""
        while self.finished:
            dialog = self.finished.popleft()
            dialog.queued = False
            if not dialog.removed and dialog.ended and dialog is not spare:
                return self.give_up(dialog)
        while self.arrivals:
            dialog = self.arrivals.popleft()
            if dialog.removed:
                continue
            if dialog is not spare and dialog.state in (CALL_SETUP, REGISTERING, PENDING):
                return self.give_up(dialog)
            self.settled.append(dialog)
        while self.settled:
            dialog = self.settled.popleft()
            if dialog is spare:
                self.settled.append(dialog)
                if len(self.dialogs) < 2:
                    return False
            elif not dialog.removed:
                return self.give_up(dialog)
        return False

    def give_up(self, dialog: Dialog) -> bool:
        """Forget it to make room."""
        self.remove(dialog)
        self.removed += 1
        return True

    def remove(self, dialog: Dialog) -> int:
        """Take an entry out and give its cells back."""
        del self.dialogs[dialog.call_id]
        dialog.removed = True
        self.version += 1
        if dialog.state:
            self.by_state[dialog.state] -= 1
        self.arena.release(dialog)
        cell = dialog.tally
        while cell:
            after = self.tallies[3 * cell + 2]
            self.tallies[3 * cell + 2] = self.free_tally
            self.free_tally = cell
            cell = after
        return 0

    def stepped(self, by: int) -> int:
        """The wall clock was stepped `by` ns: what is due stays due in as many seconds as before."""
        for dialog in self.dialogs.values():
            if dialog.deadline_ns:
                dialog.deadline_ns += by
        return 0

    def sweep(self, now: int) -> int:
        """Take every step that time alone brings until `now`: no answer, expiry."""
        count = 0
        for dialog in self.dialogs.values():
            if dialog.deadline_ns and now >= dialog.deadline_ns:
                old = dialog.state
                dialog.expire(now)
                self.moved(dialog, old)
                count += 1
        if count:
            self.version += 1
        return count

    def other_method(self, slot: int) -> int:
        """The number of a method that METHODS does not name."""
        name = self.view.cut() if self.view.span(slot) else b""
        number = self.names.get(name[:32])
        if number is None:
            if len(self.method_names) < OTHER_METHOD - 1:
                self.method_names.append(name[:32].decode("utf-8", "replace"))
                number = len(self.method_names)
                self.names[name[:32]] = number
            else:
                return OTHER_METHOD
        return number

    def quoted(self, length: int) -> int:
        """An ICMP error that quotes SIP: evidence of the Call-ID that it names, where it reaches that far."""
        self.quotes += 1
        match = CALL_ID_LINE.search(bytes(self.view.record[128 : min(length, 4096)]))
        dialog = None if match is None else self.dialogs.get(match[1])
        if dialog is None:
            return 0
        dialog.evidence += 1
        self.version += 1
        if dialog.reason is None and not dialog.ended:
            dialog.reason = b"ICMP " + UNREACHABLE.get(
                (self.view.octets[128], self.view.octets[129]), b"error"
            )
        return 0

    # ------------------------------------------------------------------ for readers

    def method_name(self, number: int) -> str:
        """The name of a method's number."""
        return self.method_names[number - 1] if 0 < number <= len(self.method_names) else "other"

    def counts(self, dialog: Dialog) -> tuple[dict[str, int], dict[str, int]]:
        """Requests by method and responses by code, retransmissions included."""
        found = {}
        cell = dialog.tally
        while cell:
            found[int(self.tallies[3 * cell])] = int(self.tallies[3 * cell + 1])
            cell = self.tallies[3 * cell + 2]
        methods = {self.method_name(key): found[key] for key in sorted(found) if key < FIRST_CODE}
        codes = {f"{key - FIRST_CODE:03}": found[key] for key in sorted(found) if key >= FIRST_CODE}
        return methods, codes

    def all_counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """The same over all messages, of removed Call-IDs too."""
        methods = {
            self.method_name(key): int(self.totals[key]) for key in range(1, FIRST_CODE) if self.totals[key]
        }
        codes = {
            f"{key - FIRST_CODE:03}": int(self.totals[key])
            for key in range(FIRST_CODE, 2048)
            if self.totals[key]
        }
        return methods, codes

    def find(self, number: int) -> Dialog | None:
        """The entry with this number."""
        for dialog in self.dialogs.values():
            if dialog.number == number:
                return dialog
        return None

    def active(self, kind: int) -> int:
        """How many of a class (states.CLASSES) have not ended."""
        count = 0
        for dialog in self.dialogs.values():
            if dialog.kind == kind and not dialog.ended:
                count += 1
        return count

    def state_counts(self) -> list[int]:
        """Entries by state (states.STATES)."""
        return [int(self.by_state[state]) for state in range(len(STATES))]

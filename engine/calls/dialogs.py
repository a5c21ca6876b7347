"""The table of Call-IDs: fed with evidence records, bounded in every direction.

A message costs one hash lookup, one pass over its octets (which copies them into the arena and
makes the signature that a retransmission is known by) and a handful of figures. Nothing is
decoded here: rows turn octets into text when somebody looks at them.

Pools, all private mappings that take memory only where they are used:

    arena    octets of the messages, a ring: the newest overwrite the oldest, which are then `gone`
    cells    one of CELL words for each kept message, linked per Call-ID
    tallies  (key, count, next), linked per Call-ID: how often each method and each status was seen;
             the key is the method's number, or 1000 + status
    seen     (signature, time) of recent messages, two to a bucket: what is known again within
             REPEAT_NS is a retransmission (same octets, same path: RFC 3261 section 17.1)

Words of a cell: 0 time; 1 arena position + 1, 0 where never kept; 2 signature; 3-6 addresses;
7 ports and length; 8 status, error and CSeq number; 9 method, flags (C_*), protocol and next cell; 10 frame.
"""

from __future__ import annotations

import mmap
import os
import re
from collections import deque
from typing import TYPE_CHECKING

from engine.calls.states import STATES, Dialog, Facts
from engine.shm.records import METHODS
from engine.shm.ring import RingReader

if TYPE_CHECKING:
    from collections.abc import Iterable

SIP = 1
ICMP = 5
P_DUPLICATE = 8
MESSAGE = 400
"""Where the message begins in a record."""
FIRST_SLOT = 36
"""Word of 32 bits where the slots begin."""
ABSENT = 0x80000000
SLOT_STATUS = 2
SLOT_METHOD = 0
SLOT_CALL_ID = 4
SLOT_FROM = 5
SLOT_FROM_URI = 6
SLOT_FROM_TAG = 7
SLOT_TO = 8
SLOT_TO_URI = 9
SLOT_TO_TAG = 10
SLOT_CSEQ_METHOD = 11
SLOT_VIA = 12
SLOT_BRANCH = 13
SLOT_CONTACT = 14
SLOT_REASON_PHRASE = 3
SLOT_REASON = 18
SLOT_EXPIRES = 19
SLOT_SUBSCRIPTION_STATE = 21
SLOT_X_CALL_ID = 22

INVITE = 1
BYE = 3
REGISTER = 6
SUBSCRIBE = 8
NOTIFY = 9

CELL = 11
C_RETRANSMISSION = 1
C_COPIED = 2
FLAG_RETRANSMISSION = 1
FLAG_COPIED = 2
"""C_*, for readers of a cell's flags."""
MOST_TEXT = 512
"""Octets kept of a Call-ID, a URI or a reason."""
MOST_METHODS = 64
"""Numbers for methods, those of METHODS included; what comes later is counted as OTHER_METHOD."""
OTHER_METHOD = 63
MOST_TALLIES = 96
"""Different methods and codes counted of one Call-ID."""
FIRST_CODE = 1000
REPEAT_NS = 40_000_000_000
SEEN_BUCKETS = 131_072
SCRATCH = 400 + 262_144
FIRST_WORD = 50
"""Word of 64 bits where the message begins."""
MIX = 0x9E3779B97F4A7C15
MASK_EIGHT = -8
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF


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


def seconds(value: bytes) -> int:
    """A number of seconds below 2**31 at the front of `value`; -1 where there is none."""
    match = re.match(rb"\s*(\d{1,10})", value)
    return -1 if match is None else min(int(match[1]), 0x7FFFFFFF)


def parameter(value: bytes) -> int:
    """The largest `expires` parameter of a header value in lower case; -1 where there is none."""
    found = re.findall(rb"[;,\s]expires\s*=\s*\"?(\d{1,10})", value)
    return min(max(map(int, found)), 0x7FFFFFFF) if found else -1


def pool(octets: int) -> memoryview:
    """Zeroed private memory that is taken page by page when it is written."""
    size = max(mmap.PAGESIZE, octets)
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class DialogTable:
    """Dialogs by Call-ID. Feed it with `drain()` or `add()`; read it through `dialogs` and the methods below."""

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
        self.finished: deque[Dialog] = deque()
        self.facts = Facts()
        self.seed = int.from_bytes(os.urandom(8), "little")

        self.capacity = max(8192, message_bytes & ~7)
        self.arena = pool(self.capacity if store_messages else 8192).cast("Q")
        self.head = 0
        self.placed = 0
        self.most_cells = (
            min(self.limit * min(messages_per_call, 50), 16_000_000) + 64 if store_messages else 1
        )
        self.cells = pool(8 * CELL * (self.most_cells + 1)).cast("Q")
        self.used_cells = 0
        self.free_cell = 0
        self.most_tallies = min(self.limit * 16 + 4096, 64_000_000)
        self.tallies = pool(12 * (self.most_tallies + 1)).cast("I")
        self.used_tallies = 0
        self.free_tally = 0
        self.buckets = buckets or SEEN_BUCKETS
        self.seen = pool(32 * self.buckets).cast("Q")
        self.totals = pool(8 * 2048).cast("Q")
        self.by_state = pool(8 * 32).cast("Q")

        self.names: dict[bytes, int] = {}
        self.method_names = [*METHODS[1:]]
        self.own = bytearray(SCRATCH)
        self.attach(self.own)
        self.size = 0
        self.first = 0
        self.last = 0

        self.number = 0
        self.version = 0
        self.newest = 0
        self.records = 0
        self.foreign = 0
        self.messages = 0
        self.retransmissions = 0
        self.malformed = 0
        self.copies = 0
        self.removed = 0
        self.unkept = 0
        self.untallied = 0
        self.quotes = 0

    def attach(self, record: bytearray) -> None:
        """All following offsets are into `record`, whose size is a multiple of 8."""
        self.record = record
        view = memoryview(record)
        self.octets = view
        self.ints = view.cast("I")
        self.words = view.cast("Q")

    def drain(self, reader: RingReader, most: int) -> int:
        """Take up to `most` records out of a ring; returns how many."""
        count = 0
        if self.record is not reader.record:
            self.attach(reader.record)
        while count < most and reader.next():
            self.take(reader.kind, reader.timestamp, reader.length)
            count += 1
        return count

    def add(self, kind: int, timestamp: int, body: bytes) -> None:
        """Take one record from its octets; what is longer than a record can be is cut."""
        if self.record is not self.own:
            self.attach(self.own)
        length = min(len(body), SCRATCH)
        self.own[:length] = body[:length]
        self.take(kind, timestamp, length)

    def take(self, kind: int, timestamp: int, length: int) -> int:
        """The record in front of the attached buffer."""
        self.records += 1
        if timestamp > self.newest:
            self.newest = timestamp
        if kind == ICMP:
            return self.quoted(length)
        if kind != SIP or length < MESSAGE:
            self.foreign += 1
            return 0
        size = self.ints[35]
        if size > length - MESSAGE:
            size = length - MESSAGE
        self.size = size
        return self.message(timestamp)

    def message(self, timestamp: int) -> int:
        """One SIP message: its Call-ID, figures, state, cell."""
        facts = self.facts
        status = self.ints[32] & 0xFFFF
        if status > 999:
            status = 999
        error = self.ints[32] >> 16
        method = (self.ints[33] >> 16) & 0xFF
        if method == 0 or method > 14:
            method = self.other_method(SLOT_CSEQ_METHOD if status else SLOT_METHOD)
        call_id = self.cut() if self.span(SLOT_CALL_ID) else b""
        dialog = self.dialogs.get(call_id)
        if dialog is None:
            dialog = self.open(call_id, timestamp, method)
        elif (self.ints[9] >> 8) & P_DUPLICATE:
            return self.copied(dialog)

        position = self.place() if dialog.kept < self.messages_per_call else -1
        signature = self.sign(position)
        repeated = self.repeated(signature, timestamp)
        old = dialog.state
        if not repeated or dialog.messages == 0:
            facts.now = timestamp
            facts.method = method
            facts.status = status
            facts.cseq = self.ints[34]
            self.read_facts(dialog)
            self.give_reason(dialog, dialog.take(facts))
        self.moved(dialog, old)
        self.count(dialog, timestamp, method, status, error, repeated)
        if dialog.kept < self.messages_per_call:
            self.keep(dialog, timestamp, position, signature, method, status, error, repeated)
        else:
            self.unkept += 1
        return 0

    def open(self, call_id: bytes, timestamp: int, method: int) -> Dialog:
        """A new entry, in the place of an old one when the table is full."""
        if len(self.dialogs) >= self.limit:
            self.evict(None)
        self.number += 1
        dialog = Dialog(self.number, call_id)
        dialog.first_ns = timestamp
        dialog.method = method
        response = self.ints[32] & 0xFFFF
        ports = self.ints[8]
        # A response that comes first still tells the request's direction.
        if response:
            dialog.src0, dialog.src1, dialog.dst0, dialog.dst1 = (
                self.words[2], self.words[3], self.words[0], self.words[1],
            )  # fmt: skip
            dialog.ports = ((ports & 0xFFFF) << 16) | (ports >> 16)
        else:
            dialog.src0, dialog.src1, dialog.dst0, dialog.dst1 = (
                self.words[0], self.words[1], self.words[2], self.words[3],
            )  # fmt: skip
            dialog.ports = ports
        dialog.protocol = self.ints[9] & 0xFF
        if self.span(SLOT_FROM_URI) or self.span(SLOT_FROM):
            dialog.sender = self.cut()
        if self.span(SLOT_TO_URI) or self.span(SLOT_TO):
            dialog.receiver = self.cut()
        self.dialogs[call_id] = dialog
        self.arrivals.append(dialog)
        if len(self.arrivals) > 2 * len(self.dialogs) + 1024:
            self.arrivals = deque(d for d in self.arrivals if not d.removed)
        return dialog

    def copied(self, dialog: Dialog) -> int:
        """The same packet from another interface: marked, not counted as a message."""
        self.copies += 1
        dialog.copies += 1
        self.version += 1
        if dialog.last_cell:
            self.cells[dialog.last_cell * CELL + 9] |= C_COPIED << 8
        return 0

    def count(
        self, dialog: Dialog, timestamp: int, method: int, status: int, error: int, repeated: bool
    ) -> int:
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
        if error:
            self.malformed += 1
            dialog.malformed += 1
        if dialog.x_call_id is None and self.span(SLOT_X_CALL_ID):
            dialog.x_call_id = self.cut()
        key = FIRST_CODE + status if status else method
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

    def place(self) -> int:
        """Word in the arena for the message's octets; -1 where they are not kept."""
        need = (self.size + 7) & MASK_EIGHT
        if need > self.capacity >> 2:
            return -1
        offset = self.head % self.capacity
        if offset + need > self.capacity:
            self.head += self.capacity - offset
            offset = 0
        self.placed = self.head
        self.head += need
        return offset >> 3

    def sign(self, position: int) -> int:
        """Hash of path and octets; the octets go to word `position` of the arena on the way."""
        h = self.seed
        for word in range(5):
            h = ((h ^ (self.words[word] if word < 4 else self.ints[8])) * MIX) & MASK64
            h ^= h >> 32
        whole = self.size >> 3
        rest = self.size & 7
        word = 0
        while word < whole:
            value = self.words[FIRST_WORD + word]
            if position >= 0:
                self.arena[position + word] = value
            h = ((h ^ value) * MIX) & MASK64
            h ^= h >> 32
            word += 1
        if rest:
            one = 1
            value = self.words[FIRST_WORD + whole] & ((one << (8 * rest)) - 1)
            if position >= 0:
                self.arena[position + whole] = value
            h = ((h ^ value) * MIX) & MASK64
            h ^= h >> 32
        return h

    def repeated(self, signature: int, timestamp: int) -> bool:
        """Whether the same octets took the same way within REPEAT_NS."""
        bucket = 4 * (signature % self.buckets)
        older = bucket
        if self.seen[bucket + 3] < self.seen[bucket + 1]:
            older = bucket + 2
        for place in (bucket, bucket + 2):
            if self.seen[place] == signature and self.seen[place + 1]:
                last = self.seen[place + 1]
                self.seen[place + 1] = timestamp
                return timestamp < last + REPEAT_NS
        self.seen[older] = signature
        self.seen[older + 1] = timestamp
        return False

    def keep(
        self, dialog: Dialog, timestamp: int, position: int, signature: int, method: int, status: int, error: int,
        repeated: bool,
    ) -> int:  # fmt: skip
        """A cell for the message; Call-IDs make room when there is none left."""
        cell = self.free_cell
        if cell == 0 and self.used_cells >= self.most_cells:
            self.evict(dialog)
            cell = self.free_cell
        if cell:
            self.free_cell = self.cells[cell * CELL + 9] >> 32
        elif self.used_cells < self.most_cells:
            self.used_cells += 1
            cell = self.used_cells
        else:
            self.unkept += 1
            return 0
        base = cell * CELL
        self.cells[base] = timestamp
        self.cells[base + 1] = self.placed + 1 if position >= 0 else 0
        self.cells[base + 2] = signature
        for word in range(4):
            self.cells[base + 3 + word] = self.words[word]
        wide = self.size
        self.cells[base + 7] = self.ints[8] | (wide << 32)
        wide = self.ints[34]
        self.cells[base + 8] = status | (error << 16) | (wide << 32)
        self.cells[base + 9] = (
            method | ((C_RETRANSMISSION if repeated else 0) << 8) | ((self.ints[9] & 0xFF) << 16)
        )
        self.cells[base + 10] = self.words[14]
        if dialog.last_cell:
            wide = cell
            self.cells[dialog.last_cell * CELL + 9] = self.cells[dialog.last_cell * CELL + 9] & MASK32 | (
                wide << 32
            )
        else:
            dialog.first_cell = cell
        dialog.last_cell = cell
        dialog.kept += 1
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
        """Forget one Call-ID: the one that ended first, else the oldest; never `spare`."""
        while self.finished:
            dialog = self.finished.popleft()
            dialog.queued = False
            if not dialog.removed and dialog.ended and dialog is not spare:
                self.remove(dialog)
                self.removed += 1
                return True
        while self.arrivals:
            dialog = self.arrivals.popleft()
            if dialog is spare:
                self.arrivals.append(dialog)
                if len(self.dialogs) < 2:
                    return False
            elif not dialog.removed:
                self.remove(dialog)
                self.removed += 1
                return True
        return False

    def remove(self, dialog: Dialog) -> int:
        """Take an entry out and give its cells back."""
        del self.dialogs[dialog.call_id]
        dialog.removed = True
        self.version += 1
        if dialog.state:
            self.by_state[dialog.state] -= 1
        if dialog.last_cell:
            wide = self.free_cell
            place = dialog.last_cell * CELL + 9
            self.cells[place] = self.cells[place] & MASK32 | (wide << 32)
            self.free_cell = dialog.first_cell
        cell = dialog.tally
        while cell:
            after = self.tallies[3 * cell + 2]
            self.tallies[3 * cell + 2] = self.free_tally
            self.free_tally = cell
            cell = after
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

    # ------------------------------------------------------------------ what a message says

    def span(self, slot: int) -> bool:
        """Whether the message has this slot; it is first..last of the message then."""
        start = self.ints[FIRST_SLOT + 2 * slot]
        end = self.ints[FIRST_SLOT + 2 * slot + 1]
        if start >= ABSENT or end < start or end > self.size:
            return False
        self.first = start
        self.last = end
        return True

    def cut(self) -> bytes:
        """The octets of the span; a long one as its front and a hash of the whole."""
        if self.last - self.first <= MOST_TEXT:
            return bytes(self.record[MESSAGE + self.first : MESSAGE + self.last])
        whole = self.digest()
        return (
            bytes(self.record[MESSAGE + self.first : MESSAGE + self.first + MOST_TEXT - 20])
            + b"...%016x" % whole
        )

    def digest(self) -> int:
        """Hash of the octets of the span."""
        h = self.seed
        for place in range(MESSAGE + self.first, MESSAGE + self.last):
            h = ((h ^ self.octets[place]) * MIX) & MASK64
            h ^= h >> 29
        return h

    def hashed(self, slot: int) -> int:
        """Hash of a slot, 0 where absent."""
        return self.digest() if self.span(slot) else 0

    def read_facts(self, dialog: Dialog) -> int:
        """What else the state machine wants to know."""
        facts = self.facts
        facts.tagged = self.span(SLOT_TO_TAG)
        if self.span(SLOT_BRANCH) or self.span(SLOT_VIA):
            facts.branch = self.digest()
        else:
            facts.branch = 0
        ports = self.ints[8]
        if facts.status:
            facts.near = (
                (ports >> 16) | ((ports & 0xFFFF) << 16) == dialog.ports
                and self.words[0] == dialog.dst0 and self.words[1] == dialog.dst1
                and self.words[2] == dialog.src0 and self.words[3] == dialog.src1
            )  # fmt: skip
        else:
            facts.near = (
                ports == dialog.ports
                and self.words[0] == dialog.src0 and self.words[1] == dialog.src1
                and self.words[2] == dialog.dst0 and self.words[3] == dialog.dst1
            )  # fmt: skip
        if facts.method == BYE or (facts.method == INVITE and 200 <= facts.status < 300):
            facts.to_tag = self.hashed(SLOT_TO_TAG)
            facts.from_tag = self.hashed(SLOT_FROM_TAG)
        facts.expires = -1
        facts.substate = 0
        if facts.method == REGISTER or facts.method == SUBSCRIBE or facts.method == NOTIFY:
            self.read_expires()
        return 0

    def read_expires(self) -> int:
        """Expiry of a binding or a subscription, and a subscription's state."""
        facts = self.facts
        if facts.method == NOTIFY and self.span(SLOT_SUBSCRIPTION_STATE):
            value = self.cut().lower()
            for number, name in ((1, b"active"), (2, b"pending"), (3, b"terminated")):
                if value.startswith(name):
                    facts.substate = number
            facts.substate = facts.substate or 1
            facts.expires = parameter(value)
        elif facts.method == REGISTER and self.span(SLOT_CONTACT):
            facts.expires = parameter(self.cut().lower())
        if facts.expires < 0 and self.span(SLOT_EXPIRES):
            facts.expires = seconds(self.cut())
        return 0

    def give_reason(self, dialog: Dialog, action: int) -> int:
        """Why a Call-ID is in its state: the Reason header, else the reason phrase of the response."""
        if action == 2:
            dialog.reason = None
        elif action == 1:
            dialog.reason = None
            if self.span(SLOT_REASON) or (self.facts.status and self.span(SLOT_REASON_PHRASE)) or (self.facts.substate and self.span(SLOT_SUBSCRIPTION_STATE)):
                dialog.reason = self.cut()
        return 0

    def other_method(self, slot: int) -> int:
        """The number of a method that METHODS does not name."""
        name = self.cut() if self.span(slot) else b""
        number = self.names.get(name[:32])
        if number is None:
            if len(self.method_names) < OTHER_METHOD - 1:
                self.method_names.append(name[:32].decode("utf-8", "replace"))
                number = len(self.method_names)
            else:
                number = OTHER_METHOD
                return number
            self.names[name[:32]] = number
        return number

    def quoted(self, length: int) -> int:
        """An ICMP error that quotes SIP: evidence of the Call-ID that it names, where it reaches that far."""
        self.quotes += 1
        match = CALL_ID_LINE.search(bytes(self.record[128 : min(length, 4096)]))
        dialog = None if match is None else self.dialogs.get(match[1])
        if dialog is None:
            return 0
        dialog.evidence += 1
        self.version += 1
        if dialog.reason is None and not dialog.ended:
            dialog.reason = b"ICMP " + UNREACHABLE.get((self.octets[128], self.octets[129]), b"error")
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

    def cells_of(self, dialog: Dialog, start: int, count: int) -> list[tuple[int, ...]]:
        """Messages `start` to `start + count` as the words of their cells."""
        found: list[tuple[int, ...]] = []
        cell = dialog.first_cell
        position = 0
        while position < dialog.kept and len(found) < count:
            base = cell * CELL
            if position >= start:
                found.append(tuple([int(self.cells[base + word]) for word in range(CELL)]))
            cell = self.cells[base + 9] >> 32
            position += 1
        return found

    def octets_of(self, words: Iterable[int]) -> bytes | None:
        """The octets of a cell; None when they had to make room."""
        values = [*words]
        position = values[1] - 1
        length = values[7] >> 32
        if position < 0 or position + self.capacity < self.head:
            return None
        start = (position % self.capacity) >> 3
        return bytes(self.arena[start : start + ((length + 7) >> 3)])[:length]

    def held_octets(self) -> int:
        """Octets of messages in the arena."""
        return int(min(self.head, self.capacity))

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

"""One SIP record as the dialog table reads it: spans of slots, hashes, and the facts for the state machine.

Nothing is trusted: a span outside the message is absent, a length outside the record is cut.
"""

from __future__ import annotations

import os
import re

from engine.calls.states import Dialog, Facts
from engine.parsers import octets

HEADER = 128
MESSAGE = 400
"""Where the message begins in a record."""
FIRST_SLOT = 36
"""Word of 32 bits where the slots begin."""
ABSENT = 0x80000000
REASON_PHRASE = 3
TO_TAG = 10
FROM_TAG = 7
VIA = 12
BRANCH = 13
CONTACT = 14
REASON = 18
EXPIRES = 19
SUBSCRIPTION_STATE = 21

INVITE = 1
ACK = 2
BYE = 3
REGISTER = 6
SUBSCRIBE = 8
NOTIFY = 9

TAKE_REASON = 1
CLEAR_REASON = 2

MOST_TEXT = 512
"""Octets kept of a Call-ID, a URI or a reason."""
COOKIE = b"z9hG4bK"
"""What a branch begins with that is of one transaction alone (RFC 3261 section 8.1.1.7)."""
SCRATCH = 400 + 262_144
MIX = 0x9E3779B97F4A7C15
MASK64 = 0xFFFFFFFFFFFFFFFF


def seconds(value: bytes) -> int:
    """A number of seconds below 2**31 at the front of `value`; -1 where there is none."""
    match = re.match(rb"\s*(\d{1,10})", value)
    return -1 if match is None else min(int(match[1]), 0x7FFFFFFF)


def parameter(value: bytes) -> int:
    """The largest `expires` parameter of a header value in lower case; -1 where there is none."""
    found = re.findall(rb"[;,\s]expires\s*=\s*\"?(\d{1,10})", value)
    return min(max(map(int, found)), 0x7FFFFFFF) if found else -1


class RecordView:
    """The record at the front of an attached buffer. `span()` first, then what is made of it."""

    def __init__(self) -> None:
        self.facts = Facts()
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.own = bytearray(SCRATCH)
        self.attach(self.own)
        self.size = 0
        self.first = 0
        self.last = 0
        self.method = 0
        self.status = 0
        self.error = 0

    def attach(self, record: bytearray) -> None:
        """Read from `record` from now on; its size is a multiple of 8."""
        self.record = record
        view = memoryview(record)
        self.octets = view
        self.ints = view.cast("I")
        self.words = view.cast("Q")

    def load(self, body: bytes) -> int:
        """Take octets into its own buffer, cut to the length of the longest record; returns the length."""
        if self.record is not self.own:
            self.attach(self.own)
        length = min(len(body), SCRATCH)
        self.own[:length] = body[:length]
        return length

    def begin(self, length: int) -> int:
        """A record of `length` octets, at least MESSAGE, is in front of the buffer."""
        self.size = self.ints[35]
        if self.size > length - MESSAGE:
            self.size = length - MESSAGE
        self.status = self.ints[32] & 0xFFFF
        if self.status > 999:
            self.status = 999
        self.error = self.ints[32] >> 16
        self.method = (self.ints[33] >> 16) & 0xFF
        return 0

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
            return octets.cut(self.octets, MESSAGE + self.first, MESSAGE + self.last)
        whole = self.digest()
        return (
            octets.cut(self.octets, MESSAGE + self.first, MESSAGE + self.first + MOST_TEXT - 20)
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

    def defect(self, call_id: bytes, timestamp: int) -> tuple[bytes, int, int, int, int, bytes]:
        """What is listed of a malformed message: Call-ID, time, error, method, status, packet header."""
        return call_id, timestamp, self.error, self.method, self.status, bytes(self.record[:HEADER])

    def read_facts(self, dialog: Dialog, timestamp: int) -> int:
        """What the state machine wants to know."""
        facts = self.facts
        facts.now = timestamp
        facts.method = self.method
        facts.status = self.status
        facts.cseq = self.ints[34]
        facts.tagged = self.span(TO_TAG)
        if self.span(BRANCH) or self.span(VIA):
            facts.branch = self.digest()
        else:
            facts.branch = 0
        if facts.method == ACK and not (self.span(BRANCH) and self.cut().startswith(COOKIE)):
            # Older ends have the same one, or none, in all of their requests.
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
            facts.to_tag = self.hashed(TO_TAG)
            facts.from_tag = self.hashed(FROM_TAG)
        facts.expires = -1
        facts.substate = 0
        if facts.method in (REGISTER, SUBSCRIBE, NOTIFY):
            self.read_expires()
        return 0

    def read_expires(self) -> int:
        """Expiry of a binding or a subscription, and a subscription's state."""
        facts = self.facts
        if facts.method == NOTIFY and self.span(SUBSCRIPTION_STATE):
            value = self.cut().lower()
            for number, name in ((1, b"active"), (2, b"pending"), (3, b"terminated")):
                if value.startswith(name):
                    facts.substate = number
            facts.substate = facts.substate or 1
            facts.expires = parameter(value)
        elif facts.method == REGISTER and self.span(CONTACT):
            facts.expires = parameter(self.cut().lower())
        if facts.expires < 0 and self.span(EXPIRES):
            facts.expires = seconds(self.cut())
        return 0

    def give_reason(self, dialog: Dialog, action: int) -> int:
        """Why a Call-ID is in its state: the Reason header, else the reason phrase of the response."""
        if action == CLEAR_REASON:
            dialog.reason = None
        elif action == TAKE_REASON:
            dialog.reason = None
            if (
                self.span(REASON)
                or (self.facts.status and self.span(REASON_PHRASE))
                or (self.facts.substate and self.span(SUBSCRIPTION_STATE))
            ):
                dialog.reason = self.cut()
        return 0

"""The dialogs of a report as JSON text: what Calls.dialogs_report() and orjson with an indent of 2 make.

100,000 Call-IDs are written in the time in which Python objects of some 5,000 are made.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import orjson

from engine.calls.dialogs import DialogTable
from engine.calls.states import CLASSES, STATES, Dialog
from engine.json_text import JsonText, quoted
from engine.parsers import octets

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.calls.rows import CallRows

CALL = CLASSES.index("call")
IN_CALL = STATES.index("in_call")
FIRST_CODE = 1000
MOST_TALLIES = 96
MOST_TEXT = 1024
FULL = 1 << 17
"""Octets that are written at once."""
LT, GT, COLON, AT, SEMICOLON, QUESTION, SPACE, DELETE = 60, 62, 58, 64, 59, 63, 32, 127
MICROSECOND, MILLION = 1000, 1_000_000
SMALLEST_PLAIN = 100
"""Microseconds; below them the shortest text has an exponent."""
LONGEST_EXACT = 1_000_000_000_000_000
"""Microseconds that a double has exactly, with all digits of its shortest text."""
SCHEMES = (b"sip:", b"sips:", b"tel:", b"im:", b"pres:", b"mailto:", b"h323:")


class DialogJson(JsonText):
    """`dialogs()` of one table as a list within the member `sip` of the report."""

    def __init__(self, table: DialogTable, rows: CallRows) -> None:
        super().__init__()
        self.table = table
        self.rows = rows
        self.scratch = memoryview(bytearray(MOST_TEXT))
        self.source = self.scratch
        self.keys = memoryview(array("I", bytes(4 * MOST_TALLIES)))
        self.counts = memoryview(array("I", bytes(4 * MOST_TALLIES)))
        self.states = [b'",\n        "state": "%s",\n        "messages": ' % name.encode() for name in STATES]
        self.names: dict[int, bytes] = {}
        self.now = 0

    def dialogs(self, write: Callable[[memoryview], object]) -> int:
        """The list, in pieces; its entries stand six columns in. `rows` knows what time it is."""
        self.now = self.rows.now
        first = True
        for dialog in self.table.dialogs.values():
            if dialog.call_id:
                self.put(b"[\n      {" if first else b",\n      {")
                first = False
                self.dialog(dialog)
                self.put(b"\n      }")
                if self.end >= FULL:
                    self.give(write)
        self.put(b"[]" if first else b"\n    ]")
        return self.give(write)

    def dialog(self, d: Dialog) -> int:
        """The members of one entry."""
        self.put(b'\n        "call_id": ')
        self.string(0, self.stage(d.call_id))
        count = self.tallies(d)
        self.put(b',\n        "methods": {')
        self.counted(0, count, True)
        self.put(b',\n        "codes": {')
        self.counted(0, count, False)
        self.put(b',\n        "from": ')
        self.uri(d, d.sender, True)
        self.put(b',\n        "to": ')
        self.uri(d, d.receiver, False)
        self.put(b',\n        "src": "')
        self.endpoint(d, d.src0, d.src1, d.ports & 0xFFFF, True)
        self.put(b'",\n        "dst": "')
        self.endpoint(d, d.dst0, d.dst1, d.ports >> 16, False)
        self.put(self.states[d.state])
        self.number(d.messages)
        self.put(b',\n        "start": ')
        self.timestamp(d.first_ns)
        self.put(b',\n        "setup_s": ')
        self.setup(d)
        self.put(b',\n        "duration_s": ')
        self.duration(d)
        self.put(b',\n        "reason": ')
        if d.reason is None:
            self.put(b"null")
        else:
            self.line(0, self.stage(d.reason))
        return 0

    def stage(self, value: bytes) -> int:
        """Octets to take a string from; how many."""
        length = min(len(value), MOST_TEXT)
        octets.put(self.scratch, 0, value if length == len(value) else value[:length])
        return length

    def tallies(self, d: Dialog) -> int:
        """Methods and codes of a Call-ID in the order of their numbers; how many."""
        count = 0
        cell = d.tally
        while cell and count < MOST_TALLIES:
            key = self.table.tallies[3 * cell]
            place = count
            while place > 0 and self.keys[place - 1] > key:
                self.keys[place] = self.keys[place - 1]
                self.counts[place] = self.counts[place - 1]
                place -= 1
            self.keys[place] = key
            self.counts[place] = self.table.tallies[3 * cell + 1]
            count += 1
            cell = self.table.tallies[3 * cell + 2]
        return count

    def counted(self, place: int, count: int, methods: bool) -> int:
        """The methods, or the codes, as an object."""
        some = False
        for index in range(place, count):
            key = self.keys[index]
            if (key < FIRST_CODE) != methods:
                continue
            self.put(b',\n          "' if some else b'\n          "')
            some = True
            if methods:
                self.put(self.method_text(key))
            else:
                self.digits(key - FIRST_CODE, 3)
            self.put(b'": ')
            self.number(self.counts[index])
        self.put(b"\n        }" if some else b"}")
        return 0

    def method_text(self, number: int) -> bytes:
        """A method's name inside quotes."""
        text = self.names.get(number)
        if text is None:
            whole = quoted(self.table.method_name(number))
            text = self.names[number] = whole[1 : len(whole) - 1]
        return text

    def endpoint(self, d: Dialog, low: int, high: int, port: int, source: bool) -> int:
        """address:port, without quotes."""
        if not self.is_ipv4(low, high):
            return self.put((self.rows.src(d) if source else self.rows.dst(d)).encode())
        self.ipv4(high)
        self.put(b":")
        return self.number(port)

    def uri(self, d: Dialog, value: bytes | None, sender: bool) -> int:
        """user@host:port of a URI or a From value (engine.calls.rows.uri_text)."""
        if not value:
            return self.put(b"null")
        stop = self.stage(value)
        for place in range(stop):
            octet = self.source[place]
            if octet <= SPACE or octet >= DELETE:
                return self.odd_uri(d, sender)
        begin = octets.find(self.source, 0, stop, LT) + 1
        if begin > stop:
            begin = 0
        else:
            stop = octets.find(self.source, begin, stop, GT)
        begin = self.behind_scheme(begin, stop)
        host = stop
        while host > begin and self.source[host - 1] != AT:
            host -= 1
        place = host
        while place < stop:
            octet = self.source[place]
            if octet in (SEMICOLON, QUESTION, GT):
                break
            place += 1
        if octets.find(self.source, begin, host, COLON) < host:
            return self.odd_uri(d, sender)
        if place == begin:
            return self.put(b"null")
        return self.string(begin, place)

    def odd_uri(self, d: Dialog, sender: bool) -> int:
        """One with a password, with white space, or with more than ASCII."""
        text = self.rows.sender(d) if sender else self.rows.receiver(d)
        return self.put(b"null" if text is None else quoted(text))

    def behind_scheme(self, begin: int, stop: int) -> int:
        """Where a URI goes on behind its scheme, in any case."""
        for scheme in SCHEMES:
            length = len(scheme)
            if length > stop - begin:
                continue
            index = 0
            while index < length:
                octet = self.source[begin + index]
                if octet | 32 != scheme[index]:
                    break
                index += 1
            if index == length:
                return begin + length
        return begin

    def setup(self, d: Dialog) -> int:
        """INVITE until 200."""
        if d.kind != CALL or not d.answer_ns or not d.invite_ns:
            return self.put(b"null")
        return self.seconds(d.answer_ns - d.invite_ns if d.answer_ns > d.invite_ns else 0)

    def duration(self, d: Dialog) -> int:
        """Answered until ended, or now."""
        if d.kind != CALL or not d.answer_ns:
            return self.put(b"null")
        end = d.end_ns
        if not end:
            end = d.last_ns
            if d.state == IN_CALL and self.now > end:
                end = self.now
        return self.seconds(end - d.answer_ns if end > d.answer_ns else 0)

    def seconds(self, nanoseconds: int) -> int:
        """Seconds with at most six decimals, as the shortest text of a double."""
        whole = nanoseconds // MICROSECOND
        rest = whole % MILLION
        if nanoseconds % MICROSECOND or whole >= LONGEST_EXACT or 0 < whole < SMALLEST_PLAIN:
            return self.put(orjson.dumps(round(nanoseconds / 1e9, 6)))
        self.number(whole // MILLION)
        self.put(b".")
        count = 6
        while count > 1 and rest % 10 == 0:
            rest //= 10
            count -= 1
        return self.digits(rest, count)

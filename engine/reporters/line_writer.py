"""JSON Lines of SIP records, composed from the record: octet for octet what OutputMaker and orjson make.

One object for the sender's reporters and for `otus-tui report --messages`. What is rare (tunnels, SDP with
other characters than ASCII) is composed by the cold code and put in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from engine.packet import PROTOCOL_NAMES
from engine.reporters.output import sdp_media
from engine.reporters.sdp_lines import SdpLines
from engine.shm import records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIP_MESSAGE = records.SIP_MESSAGE
FIRST_SLOT = 36
"""Word of 32 bits where the slots begin."""
ABSENT = 0x80000000
ETHERNET, REASSEMBLED = records.P_ETHERNET, records.P_REASSEMBLED
SDP, TRUNCATED = records.S_SDP, records.S_TRUNCATED
COLON, QUOTE = 58, 34
HEX = b"0123456789abcdef"

(
    METHOD, URI, REASON_PHRASE, CALL_ID, FROM, FROM_URI, FROM_TAG, TO, TO_URI, TO_TAG, CSEQ_METHOD, BODY,
) = (
    records.SLOTS.index(name)
    for name in (
        "method", "uri", "reason_phrase", "call_id", "from", "from_uri", "from_tag", "to", "to_uri", "to_tag",
        "cseq_method", "body",
    )
)  # fmt: skip
FIELDS = (
    ("call_id", "call_id"), ("from", "from"), ("to", "to"), ("via", "via"), ("via_branch", "via_branch"),
    ("contact", "contact"), ("content_type", "content_type"), ("user_agent", "user_agent"),
    ("expires", "expires"), ("event", "event"), ("subscription_state", "subscription_state"),
    ("x_call_id", "x_call_id"), ("reason_header", "reason"),
)  # fmt: skip
"""Keys of the payload that are one header's value on one line, and their slots."""


def inner(text: bytes) -> bytes:
    """JSON without the bracket at each end."""
    return text[1 : len(text) - 1]


class LineWriter(SdpLines):
    """Writes lines of one task; `attach()` the buffer of the records first, then `write()` for each."""

    def __init__(
        self, task: str, labels: Mapping[str, str], interface: Callable[[int], str] | None = None
    ) -> None:
        """`labels`: the static ones of the label processor; `interface`: the name of an index, live."""
        super().__init__()
        self.task = b',"task":' + orjson.dumps(task) + b',"protocol":"sip","src_ip":"'
        static = {name: value for name, value in labels.items() if not name.startswith("sip.")}
        self.labels = b"" if not static else inner(orjson.dumps(static)) + b","
        self.plain_labels = len(static) == len(labels)
        self.interface = interface
        self.interfaces: dict[int, bytes] = {0: b"null"}
        self.methods = [orjson.dumps(name) for name in records.METHODS]
        self.protocols = [orjson.dumps(PROTOCOL_NAMES.get(number, str(number))) for number in range(256)]
        self.keys = [b',"%s":' % key.encode() for key, _ in FIELDS]
        self.places = memoryview(bytes(records.SLOTS.index(slot) for _, slot in FIELDS))
        self.first = self.last = 0
        self.status = self.method = self.limit = 0
        self.attach(bytearray(SIP_MESSAGE))

    def attach(self, record: bytearray) -> None:
        """Read records from the front of `record`, whose size is a multiple of 8."""
        self.record = record
        view = memoryview(record)
        self.source = view
        self.ints = view.cast("I")
        self.words = view.cast("Q")

    def write(self, timestamp: int, length: int) -> bool:
        """Append the line of a SIP record of `length` octets; False, and nothing, where OutputMaker must."""
        if length < SIP_MESSAGE or not self.plain_labels or self.words[4] >> 56:
            return False
        if not (self.is_ipv4(self.words[0], self.words[1]) and self.is_ipv4(self.words[2], self.words[3])):
            return False
        self.limit = self.ints[35]
        if self.limit > length - SIP_MESSAGE:
            self.limit = length - SIP_MESSAGE
        self.status = self.ints[32] & 0xFFFF
        self.method = (self.ints[33] >> 16) & 0xFF
        if self.method >= len(self.methods):
            return False
        self.put(b'{"timestamp":')
        self.timestamp(timestamp)
        self.envelope()
        self.network()
        self.sip_labels()
        self.payload()
        return True

    # ---- envelope ----

    def envelope(self) -> int:
        """Task, protocol and five-tuple."""
        ports = self.words[4]
        self.put(self.task)
        self.ipv4(self.words[1])
        self.put(b'","src_port":')
        self.number(ports & 0xFFFF)
        self.put(b',"dest_ip":"')
        self.ipv4(self.words[3])
        self.put(b'","dest_port":')
        self.number((ports >> 16) & 0xFFFF)
        self.put(b',"proto":')
        self.put(self.protocols[(ports >> 32) & 0xFF])
        return 0

    def network(self) -> int:
        """Link layer."""
        facts = self.words[4] >> 40
        self.put(b',"network":{"src_mac":')
        if facts & ETHERNET:
            self.mac(48)
            self.put(b',"dst_mac":')
            self.mac(54)
        else:
            self.put(b'null,"dst_mac":null')
        self.put(b',"vlans":[')
        count = (facts >> 8) & 0xFF
        if count:
            self.number(self.words[5] & 0xFFFF)
        if count > 1:
            self.put(b",")
            self.number((self.words[5] >> 16) & 0xFFFF)
        self.put(b'],"interface":')
        self.put(self.interface_text(self.ints[15]) if self.ints[15] else b"null")
        self.put(b',"fragmented":true' if facts & REASSEMBLED else b',"fragmented":false')
        self.put(b',"tunnel":null}')
        return 0

    def interface_text(self, number: int) -> bytes:
        """The interface's name, or its number, as JSON."""
        known = self.interfaces.get(number)
        if known is None:
            name = "" if self.interface is None else self.interface(number)
            known = orjson.dumps(name or number)
            if len(self.interfaces) > 4096:
                self.interfaces.clear()
            if name or self.interface is None:
                self.interfaces[number] = known
        return known

    def mac(self, place: int) -> int:
        """Six octets of the record as xx:xx:xx:xx:xx:xx in quotes."""
        if self.end + 19 > self.size:
            self.grow(19)
        at = self.end
        self.out[at] = QUOTE
        for index in range(6):
            octet = self.source[place + index]
            self.out[at + 1] = HEX[octet >> 4]
            self.out[at + 2] = HEX[octet & 15]
            self.out[at + 3] = COLON
            at += 3
        self.out[at] = QUOTE
        self.end = at + 1
        return 0

    # ---- the message ----

    def span(self, slot: int) -> bool:
        """Whether the message has a slot; first..last of the record then."""
        self.first = SIP_MESSAGE
        self.last = SIP_MESSAGE
        start = self.ints[FIRST_SLOT + 2 * slot]
        stop = self.ints[FIRST_SLOT + 2 * slot + 1]
        if start >= ABSENT:
            return False
        if stop >= ABSENT or stop > self.limit:
            stop = self.limit
        if start < stop:
            self.first = SIP_MESSAGE + start
            self.last = SIP_MESSAGE + stop
        return True

    def one(self, slot: int) -> int:
        """A slot as a string on one line, empty where absent."""
        self.span(slot)
        return self.line(self.first, self.last)

    def filled(self, slot: int) -> int:
        """A slot as a string on one line, null where absent or empty."""
        self.span(slot)
        if self.is_blank(self.first, self.last):
            return self.put(b"null")
        return self.line(self.first, self.last)

    def either(self, slot: int, other: int) -> int:
        """A slot as a string on one line; another one where it is empty."""
        self.span(slot)
        if self.is_blank(self.first, self.last):
            self.span(other)
        return self.line(self.first, self.last)

    def method_name(self) -> int:
        """The method, of a response the one in its CSeq."""
        if self.method:
            return self.put(self.methods[self.method])
        return self.one(CSEQ_METHOD if self.status else METHOD)

    def sip_labels(self) -> int:
        """Labels of a message (engine.reporters.output.sip_labels)."""
        self.put(b',"labels":{')
        self.put(self.labels)
        self.put(b'"sip.method":')
        self.method_name()
        self.put(b',"sip.call-id":')
        self.one(CALL_ID)
        self.put(b',"sip.from":')
        self.either(FROM_URI, FROM)
        self.put(b',"sip.to":')
        self.either(TO_URI, TO)
        if self.status:
            self.put(b',"sip.status-code":"')
            self.number(self.status)
            self.put(b'"')
        return 0

    def payload(self) -> int:
        """The message as plain values (engine.reporters.output.sip_payload), and the end of the line."""
        self.put(b'},"payload":{"method":')
        self.start_line()
        self.put(b'},"from_tag":')
        self.filled(FROM_TAG)
        self.put(b',"to_tag":')
        self.filled(TO_TAG)
        for index in range(len(self.keys)):
            self.put(self.keys[index])
            if self.span(self.places[index]):
                self.line(self.first, self.last)
            else:
                self.put(b"null")
        flags = self.ints[33] >> 24
        self.put(b',"media":[')
        if flags & SDP and self.span(BODY) and self.first < self.last:  # noqa: SIM102 -- compiled
            if not self.media(self.first, self.last):
                self.put(inner(orjson.dumps(sdp_media(bytes(self.source[self.first : self.last])))))
        self.put(b'],"truncated":true,"error":' if flags & TRUNCATED else b'],"truncated":false,"error":')
        error = self.ints[32] >> 16
        if error:
            self.number(error)
        else:
            self.put(b"null")
        self.put(b',"message":')
        self.string(SIP_MESSAGE, SIP_MESSAGE + self.limit)
        self.put(b"}}\n")
        return 0

    def start_line(self) -> int:
        """Method, URI or status, and the CSeq, whose object stays open."""
        self.method_name()
        self.put(b',"request_uri":')
        self.filled(URI)
        if self.status:
            self.put(b',"status":')
            self.number(self.status)
            self.put(b',"reason_phrase":')
            self.one(REASON_PHRASE)
        else:
            self.put(b',"status":null,"reason_phrase":null')
        self.put(b',"cseq":{"number":')
        self.number(self.ints[34])
        self.put(b',"method":')
        self.span(CSEQ_METHOD)
        if self.is_blank(self.first, self.last):
            self.method_name()
        else:
            self.line(self.first, self.last)
        return 0

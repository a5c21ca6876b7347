"""What the SIP scanner looks up: octet classes, header names, methods, and the sentences for defects.

The tables are octet strings, so that the compiled scanner reads them as memory. A name is found by
its length and first letter, then compared whole.
"""

from __future__ import annotations

from engine.shm.records import METHODS, SLOTS

TOKEN, LWS, DIGIT = 1, 2, 4
"""Bits of KIND: may stand in a token; SP, HT, CR or LF (folded lines are white space); 0 to 9."""
_TOKENS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.!%*_+`'~"
KIND = bytes(
    (TOKEN if octet in _TOKENS else 0)
    | (LWS if octet in b" \t\r\n" else 0)
    | (DIGIT if 48 <= octet <= 57 else 0)
    for octet in range(256)
)
"""RFC 3261 section 25.1."""
LOWER = bytes(octet + 32 if 65 <= octet <= 90 else octet for octet in range(256))

(
    METHOD, URI, STATUS, REASON_PHRASE, CALL_ID, FROM, _, _, TO, _, _, CSEQ_METHOD, VIA, VIA_BRANCH, CONTACT,
    CONTENT_TYPE, CONTENT_LENGTH, _, _, _, _, _, _, _, _, _, _, _, _, _, BODY, _,
) = range(len(SLOTS))  # fmt: skip
DATE, MAX_FORWARDS, NO_SLOT = 32, 33, 255
"""Headers that are checked but have no slot; a header of no interest."""

HEADERS = {
    "call-id": CALL_ID,
    "from": FROM,
    "to": TO,
    "cseq": CSEQ_METHOD,
    "via": VIA,
    "contact": CONTACT,
    "content-type": CONTENT_TYPE,
    "content-length": CONTENT_LENGTH,
    "date": DATE,
    "max-forwards": MAX_FORWARDS,
    "user-agent": SLOTS.index("user_agent"),
    "server": SLOTS.index("user_agent"),
    "x-call-id": SLOTS.index("x_call_id"),
    "x-cid": SLOTS.index("x_call_id"),
    **{
        name.replace("_", "-"): SLOTS.index(name)
        for name in (
            "reason",
            "expires",
            "event",
            "subscription_state",
            "replaces",
            "session_id",
            "p_charging_vector",
            "warning",
            "retry_after",
            "diversion",
            "rack",
            "content_encoding",
        )
    },
}
"""Header name in lower case to slot."""
COMPACT_NAMES = {
    "i": CALL_ID,
    "f": FROM,
    "t": TO,
    "v": VIA,
    "m": CONTACT,
    "c": CONTENT_TYPE,
    "l": CONTENT_LENGTH,
    "o": SLOTS.index("event"),
    "e": SLOTS.index("content_encoding"),
}
"""Of the compact names in the IANA registry, those whose long form is wanted."""
COMPACT = bytes(COMPACT_NAMES.get(chr(octet).lower(), NO_SLOT) for octet in range(256))

STRIDE = 32
"""Octets a name has in SPELLINGS; longer names are unknown."""


def _index(names: tuple[str, ...]) -> tuple[bytes, bytes, bytes, bytes]:
    """Buckets by (length, first letter), next entry of a bucket, lengths, spellings; entry 0 is none."""
    buckets, following, spellings = bytearray(STRIDE * 32), bytearray(len(names)), bytearray()
    for entry, name in enumerate(names):
        spellings += name.encode().ljust(STRIDE, b"\0")
        if name:
            bucket = len(name) * 32 + (ord(name[0].lower()) & 31)
            following[entry], buckets[bucket] = buckets[bucket], entry
    return bytes(buckets), bytes(following), bytes(map(len, names)), bytes(spellings)


BUCKETS, NEXT, LENGTHS, SPELLINGS = _index(("", *HEADERS))
TARGETS = bytes((NO_SLOT, *HEADERS.values()))
METHOD_BUCKETS, METHOD_NEXT, METHOD_LENGTHS, METHOD_SPELLINGS = _index(METHODS)

_SENTENCES = {
    "VERSION": "the version is not SIP/2.0",
    "LINE_SPACES": "more than one space between the parts of the first line",
    "LINE_END": "white space behind the version of the request line",
    "URI_SPACES": "white space in the Request-URI",
    "URI_BRACKETS": "the Request-URI stands in angle brackets",
    "URI_HEADERS": "the Request-URI carries header fields",
    "URI_SCHEME": "the Request-URI has no scheme",
    "STATUS": "the status code is no number from 100 to 699",
    "NAME": "a header line without a name and a colon",
    "TOO_MANY": "more headers than are read",
    "NO_END": "no empty line behind the headers",
    "NO_VIA": "no Via",
    "NO_FROM": "no From",
    "NO_TO": "no To",
    "NO_CALL_ID": "no Call-ID",
    "NO_CSEQ": "no CSeq",
    "TWO_FROM": "more than one From",
    "TWO_TO": "more than one To",
    "TWO_CALL_ID": "more than one Call-ID",
    "TWO_CSEQ": "more than one CSeq",
    "TWO_LENGTHS": "more than one Content-Length",
    "CSEQ_FORM": "CSeq is not a number and a method",
    "CSEQ_NUMBER": "the CSeq number is not below 2**31",
    "CSEQ_METHOD": "CSeq method differs from the request's method",
    "LENGTH_NEGATIVE": "negative Content-Length",
    "LENGTH_FORM": "Content-Length is no number",
    "LENGTH_LARGE": "Content-Length is larger than the message",
    "BRANCH": "the branch of Via has nothing behind its magic cookie",
    "VIA_FORM": "Via does not begin with SIP/",
    "DATE": "Date is not in GMT",
    "MAX_FORWARDS": "Max-Forwards is no number from 0 to 255",
}
(
    E_VERSION, E_LINE_SPACES, E_LINE_END, E_URI_SPACES, E_URI_BRACKETS, E_URI_HEADERS, E_URI_SCHEME, E_STATUS,
    E_NAME, E_TOO_MANY, E_NO_END, E_NO_VIA, E_NO_FROM, E_NO_TO, E_NO_CALL_ID, E_NO_CSEQ, E_TWO_FROM, E_TWO_TO,
    E_TWO_CALL_ID, E_TWO_CSEQ, E_TWO_LENGTHS, E_CSEQ_FORM, E_CSEQ_NUMBER, E_CSEQ_METHOD, E_LENGTH_NEGATIVE,
    E_LENGTH_FORM, E_LENGTH_LARGE, E_BRANCH, E_VIA_FORM, E_DATE, E_MAX_FORWARDS,
) = range(1, len(_SENTENCES) + 1)  # fmt: skip

_IN_HEADER = (
    "unterminated quoted string in {}",
    "no closing angle bracket in {}",
    "white space inside the angle brackets of {}",
    "the display name in {} needs quotes",
    "an empty parameter in {}",
    "the URI in {} needs angle brackets",
    "no URI in {}",
    "text that is no parameter in {}",
)
K_QUOTE, K_CLOSE, K_SPACE, K_NAME, K_EMPTY, K_BRACKETS, K_URI, K_TEXT = range(len(_IN_HEADER))
"""Defects of a value with parameters, added to one of IN_*."""
IN_FROM, IN_TO, IN_CONTACT, IN_VIA = range(
    len(_SENTENCES) + 1, len(_SENTENCES) + 1 + 4 * len(_IN_HEADER), len(_IN_HEADER)
)

ERRORS: tuple[str, ...] = (
    "",
    *_SENTENCES.values(),
    *(sentence.format(header) for header in ("From", "To", "Contact", "Via") for sentence in _IN_HEADER),
)
"""A sentence for every error number; 0 is a message without a defect."""

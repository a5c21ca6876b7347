"""The SIP scanner: what is SIP, what stands in which slot, which defect has which sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.parsers import sip_grammar
from engine.shm.records import METHODS, S_COMPACT, S_SDP, S_TRUNCATED, SLOTS
from tests.messages import INVITE, MULTIPART, NOTIFY, OFFER, OK, REGISTER, with_body

if TYPE_CHECKING:
    from tests.builds import Build


def parsed(build: Build, message: bytes, expected: int = 1) -> Any:
    """A scanner that has read the message, which does not begin at the buffer's front."""
    parser = build.module("engine.parsers.sip").SipParser()
    parser.attach(b"xyz" + message + b"\r\n\r\n")
    assert parser.parse(3, 3 + len(message)) == expected
    assert parser.start == 3
    return parser


def sentence(build: Build, message: bytes) -> str:
    """The defect of a message that is SIP."""
    return str(parsed(build, message, 2 if message.startswith(b"SIP/") else 1).error_text)


def request(**changes: bytes | None) -> bytes:
    """An OPTIONS without a defect; a keyword replaces a header's value, None leaves the header out."""
    headers: dict[str, bytes | None] = {
        "Via": b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa",
        "From": b"<sip:a@example.com>;tag=1",
        "To": b"<sip:b@example.com>",
        "Call-ID": b"c@192.0.2.1",
        "CSeq": b"5 OPTIONS",
        "Content-Length": b"0",
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [name.encode() + b": " + value for name, value in headers.items() if value is not None]
    return b"\r\n".join([b"OPTIONS sip:b@example.com SIP/2.0", *lines, b"", b""])


def test_the_numbers_are_those_of_the_records(build: Build) -> None:
    for name in (
        "METHOD",
        "URI",
        "STATUS",
        "CALL_ID",
        "FROM",
        "TO",
        "VIA",
        "CONTACT",
        "CONTENT_TYPE",
        "BODY",
    ):
        assert SLOTS[getattr(sip_grammar, name)] == name.lower()
    assert (SLOTS.index("from_uri"), SLOTS.index("from_tag")) == (sip_grammar.FROM + 1, sip_grammar.FROM + 2)
    assert (SLOTS.index("to_uri"), SLOTS.index("to_tag")) == (sip_grammar.TO + 1, sip_grammar.TO + 2)
    assert build.module("engine.parsers.sip").ERRORS == sip_grammar.ERRORS
    assert len(sip_grammar.ERRORS) == len(set(sip_grammar.ERRORS)) == sip_grammar.IN_VIA + 8


def test_an_invite(build: Build) -> None:
    parser = parsed(build, INVITE)
    assert (parser.status, parser.method_name, parser.cseq, parser.error_text) == (0, "INVITE", 314159, "")
    assert (parser.flags, parser.headers, parser.end) == (S_SDP, 13, 3 + len(INVITE))
    assert {name: parser.slot(name) for name in SLOTS if parser.slot(name) is not None} == {
        "method": b"INVITE",
        "uri": b"sip:bob@example.com:5070;user=phone",
        "call_id": b"a84b4c76e66710@192.0.2.1",
        "from": b'"Alice \\"<sip:x@y>\\"" <sip:alice@example.com>;tag=1928301774',
        "from_uri": b"sip:alice@example.com",
        "from_tag": b"1928301774",
        "to": b"Bob <sip:bob@example.com>",
        "to_uri": b"sip:bob@example.com",
        "cseq_method": b"INVITE",
        "via": b"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds;rport",
        "via_branch": b"z9hG4bK776asdhds",
        "contact": b"<sip:alice@192.0.2.1:5060;transport=udp>",
        "content_type": b"application/sdp",
        "content_length": b"%d" % len(OFFER),
        "user_agent": b"a phone/1.0 (of ours)",
        "x_call_id": b"other@192.0.2.9",
        "session_id": b"ab30317f1a784dc48ff824d0d3715d86",
        "body": OFFER,
    }
    assert INVITE[parser.sdp_start : parser.sdp_end] == OFFER


def test_compact_folded_and_listed(build: Build) -> None:
    parser = parsed(build, OK, 2)
    assert (parser.status, parser.method_name, parser.cseq, parser.error_text) == (200, "INVITE", 314159, "")
    assert parser.flags == S_SDP | S_COMPACT
    assert parser.slot("status") == b"200"
    assert parser.slot("reason_phrase") == b"OK"
    assert parser.slot("via") == b"SIP/2.0/UDP 192.0.2.1:5060;received=192.0.2.1 ;branch = z9hG4bK776asdhds"
    assert parser.slot("via_branch") == b"z9hG4bK776asdhds"
    assert parser.slot("from_uri") == b"sip:alice@example.com"
    assert parser.slot("from_tag") == b"1928301774"
    assert parser.slot("to") == b"<sip:bob@example.com>\r\n ;tag=a6c85cf"
    assert parser.slot("to_tag") == b"a6c85cf"
    assert parser.slot("user_agent") == b"something"


def test_multipart_nested(build: Build) -> None:
    parser = parsed(build, MULTIPART)
    assert parser.flags & S_SDP
    assert MULTIPART[parser.sdp_start : parser.sdp_end] == OFFER
    assert parser.slot("body").startswith(b"preamble")


def test_lines_that_end_in_lf_only(build: Build) -> None:
    parser = parsed(build, REGISTER)
    assert parser.error_text == ""
    assert (parser.slot("contact"), parser.slot("expires"), parser.slot("body")) == (b"*", b"0", None)


def test_the_other_slots(build: Build) -> None:
    parser = parsed(build, NOTIFY)
    assert parser.error_text == ""
    assert [
        parser.slot(name)
        for name in (
            "event",
            "subscription_state",
            "reason",
            "warning",
            "retry_after",
            "replaces",
            "diversion",
            "rack",
        )
    ] == [
        b"refer",
        b"terminated;reason=noresource",
        b"Q.850;cause=16",
        b'399 x "y"',
        b"5",
        b"a;to-tag=b;from-tag=c",
        b"<sip:d@example.com>",
        b"1 2 INVITE",
    ]
    assert parser.slot("p_charging_vector") == b"icid-value=1"
    assert not parser.flags & S_SDP


@pytest.mark.parametrize("name", METHODS[1:])
def test_every_method_has_its_number(build: Build, name: str) -> None:
    octets = name.encode()
    assert parsed(build, b"%s sip:a@b SIP/2.0\r\n\r\n" % octets).method == METHODS.index(name)
    assert parsed(build, b"SIP/2.0 200 OK\r\nCSeq: 1 %s\r\n\r\n" % octets, 2).method == METHODS.index(name)
    for other in (octets.lower(), octets + b"S", octets[:-1] + b"~"):
        parser = parsed(build, b"%s sip:a@b SIP/2.0\r\n\r\n" % other)
        assert (parser.method, parser.method_name) == (0, other.decode())


@pytest.mark.parametrize(
    "line",
    [
        b"INVITE sip:a@b SIP/2.0\r\n",
        b"\r\n\r\ninvite tel:+1 sip/2.0\r\n",
        b"x * SIP/2.0\n",
        b"KDMQ sip:a SIP/2.0",
        b"OPTIONS  sip:a@b  SIP/7.0  \r\n",
        b"INVITE SIP/2.0\r\n",
        b"SIP/2.0 200 OK\r\n",
        b"SIP/2.0 100\r\n",
        b"SIP/2.0 4294967301 x\r\n",
    ],
)
def test_first_lines_of_sip(build: Build, line: bytes) -> None:
    parser = build.module("engine.parsers.sip").SipParser()
    parser.attach(line)
    assert parser.looks_like(0, len(line))
    assert parser.parse(0, len(line))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x80\x00\x12\x34" + b"\xd5" * 160,
        b"\x00\x01\x00\x08!\x12\xa4B",
        b"\x16\xfe\xfd",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"OPTIONS rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"NOTIFY * HTTP/1.1\r\n\r\n",
        b"INVITE sip:a@b\r\n\r\n",
        b"INVITE sip:a@bSIP/2.0\r\n\r\n",
        b"INVITESIP/2.0\r\n\r\n",
        b"SIP/2.0\r\n",
        b"SIP/2.0 \r\n",
        b"SIP/2.0 OK\r\n",
        b"SIP/2 200 OK\r\n",
        b"\r\n\r\n",
        b" INVITE sip:a@b SIP/2.0\r\n",
        b"A" * 200 + b" sip:a@b SIP/2.0\r\n",
        b"IN\xffVITE sip:a@b SIP/2.0\r\n",
        b"SIP/2.0/UDP 192.0.2.1",
    ],
)
def test_what_is_not_sip(build: Build, octets: bytes) -> None:
    parser = build.module("engine.parsers.sip").SipParser()
    parser.attach(octets)
    assert not parser.looks_like(0, len(octets))
    assert parser.parse(0, len(octets)) == 0
    assert parser.slot("call_id") is None


@pytest.mark.parametrize(
    ("octets", "keepalive"),
    [
        (b"", True),
        (b"\r\n\r\n", True),
        (b"\r\n", True),
        (b"\0", True),
        (b"\0\0\0\0", True),
        (b"jaK", True),
        (b"hello", False),
        (b"\x80\0\0\0", False),
        (b"\0" * 65, False),
        (INVITE, False),
    ],
)
def test_keepalives(build: Build, octets: bytes, keepalive: bool) -> None:
    parser = build.module("engine.parsers.sip").SipParser()
    parser.attach(octets)
    assert parser.is_keepalive(0, len(octets)) == keepalive


def test_names_are_compared_whole(build: Build) -> None:
    parser = parsed(
        build,
        request(
            Call_IX=b"wrong",
            Contacts=b"wrong",
            Contenu_Type=b"application/sdp",
            Frog=b"wrong",
            Vias=b"wrong",
            Xcid=b"x",
        ),
    )
    assert parser.error_text == ""
    assert (parser.slot("contact"), parser.slot("content_type"), parser.slot("x_call_id")) == (
        None,
        None,
        None,
    )
    parser = parsed(build, request().replace(b"Call-ID", b"cAlL-iD").replace(b"CSeq", b"cSEQ"))
    assert (parser.slot("call_id"), parser.cseq) == (b"c@192.0.2.1", 5)


@pytest.mark.parametrize(
    ("value", "uri", "tag"),
    [
        (b"<sip:a@b>;tag=1", b"sip:a@b", b"1"),
        (b"sip:a@b;tag=1", b"sip:a@b", b"1"),
        (b"sip:a@b ; x=y ; TAG = 1 ;z", b"sip:a@b", b"1"),
        (b'A B C <sip:a@b;tag=no>;x=";tag=no";tag=1', b"sip:a@b;tag=no", b"1"),
        (b'"<sip:no@no>;tag=no" <sip:a@b>;tag=1', b"sip:a@b", b"1"),
        (b'"a \\" b"<sip:a@b>;tag=1', b"sip:a@b", b"1"),
        (b"<sip:a@b>", b"sip:a@b", None),
        (b"<sip:a@b>;tagg=2;xtag=3", b"sip:a@b", None),
        (b"<sip:a@b;tag=1", b"sip:a@b", b"1"),
        (b"<sip:[2001:db8::1]:5060>;tag=1", b"sip:[2001:db8::1]:5060", b"1"),
        ("Jürgen <sip:a@b>;tag=ü".encode(), b"sip:a@b", "ü".encode()),
        (b"<tel:+1;ext=2>;tag=1;tag=2", b"tel:+1;ext=2", b"1"),
    ],
)
def test_addresses(build: Build, value: bytes, uri: bytes, tag: bytes | None) -> None:
    for name in ("From", "To"):
        parser = parsed(build, request(**{name: value}))
        assert parser.slot(name.lower()) == value
        assert parser.slot(f"{name.lower()}_uri") == uri
        assert parser.slot(f"{name.lower()}_tag") == tag


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (request(), ""),
        (request(From=b"caller<sip:a@b>;tag=1"), ""),
        (request(Contact=b"*"), ""),
        (request(Contact=b"<sip:a@b>;expires=3, <sip:c@d>"), ""),
        (request(Contact=b"sip:a@b, sip:c@d"), ""),
        (request(Via=None), "no Via"),
        (request(From=None), "no From"),
        (request(To=None), "no To"),
        (request(Call_ID=None), "no Call-ID"),
        (request(CSeq=None), "no CSeq"),
        (request(CSeq=b"5"), "CSeq is not a number and a method"),
        (request(CSeq=b"OPTIONS"), "CSeq is not a number and a method"),
        (request(CSeq=b"5 OPTIONS x"), "CSeq is not a number and a method"),
        (request(CSeq=b"5 options"), "CSeq method differs from the request's method"),
        (request(CSeq=b"2147483647 OPTIONS"), ""),
        (request(CSeq=b"2147483648 OPTIONS"), "the CSeq number is not below 2**31"),
        (request(CSeq=b"18446744073709551617 OPTIONS"), "the CSeq number is not below 2**31"),
        (request(Content_Length=b"-1"), "negative Content-Length"),
        (request(Content_Length=b"4294967296"), "Content-Length is larger than the message"),
        (request(Content_Length=b"1x"), "Content-Length is no number"),
        (request(Content_Length=b""), "Content-Length is no number"),
        (request(l=b"0"), "more than one Content-Length"),
        (request(f=b"<sip:a@b>"), "more than one From"),
        (request(t=b"<sip:a@b>"), "more than one To"),
        (request(i=b"x"), "more than one Call-ID"),
        (request(Max_Forwards=b"256"), "Max-Forwards is no number from 0 to 255"),
        (request(Date=b"Sat, 13 Nov 2010 23:29:00 GMT"), ""),
        (request(Date=b"Sat, 13 Nov 2010 23:29:00 CET"), "Date is not in GMT"),
        (request(Via=b"UDP 192.0.2.1"), "Via does not begin with SIP/"),
        (request(Via=b'SIP/2.0/UDP a;x="'), "unterminated quoted string in Via"),
        (request(From=b'"a <sip:a@b>;tag=1'), "unterminated quoted string in From"),
        (request(To=b"<sip:a@b;tag=1"), "no closing angle bracket in To"),
        (request(To=b""), "no URI in To"),
        (request(To=b"<>"), "no URI in To"),
        (request(To=b"bob"), "no URI in To"),
        (request(To=b"<sip:a@b> x"), "text that is no parameter in To"),
        (request(To=b"<sip:a@b>;"), "an empty parameter in To"),
        (request(To=b"sip:a@b, sip:c@d"), "the URI in To needs angle brackets"),
        (request(Contact=b"a, b <sip:a@b>"), "the display name in Contact needs quotes"),
        (request(**{"no colon\r\nx": b"y"}), "a header line without a name and a colon"),
        (request()[:-2], "no empty line behind the headers"),
        (b"INVITE sip:a@b SIP/2.0", "no Via"),
        (b"INVITE SIP/2.0\r\n\r\n", "the Request-URI has no scheme"),
        (b"SIP/3.0 200 OK\r\n\r\n", "the version is not SIP/2.0"),
        (b"SIP/2.0 099 OK\r\n\r\n", "the status code is no number from 100 to 699"),
        (b"SIP/2.0 700 OK\r\n\r\n", "the status code is no number from 100 to 699"),
    ],
)
def test_defects(build: Build, message: bytes, expected: str) -> None:
    assert sentence(build, message) == expected


def test_a_status_is_never_zero(build: Build) -> None:
    for code in (b"0", b"000", b"65536", b"99999999999"):
        assert parsed(build, b"SIP/2.0 " + code + b" x\r\n\r\n", 2).status == 999


def test_content_length_bounds_the_body(build: Build) -> None:
    message = request(Content_Length=b"4") + b"abcdefgh"
    parser = parsed(build, message)
    assert (parser.slot("body"), parser.end, parser.error_text) == (b"abcd", 3 + len(message) - 4, "")
    parser = parsed(build, request(Content_Length=b"9") + b"abcdefgh")
    assert (parser.slot("body"), parser.flags) == (b"abcdefgh", S_TRUNCATED)
    parser = parsed(build, request(Content_Length=None) + b"abcdefgh")
    assert (parser.slot("body"), parser.error_text) == (b"abcdefgh", "")


def test_an_sdp_without_content_type(build: Build) -> None:
    parser = parsed(build, with_body(request(Content_Length=None)[:-2], OFFER))
    assert (parser.flags, parser.sdp_end - parser.sdp_start) == (S_SDP, len(OFFER))
    parser = parsed(build, with_body(request(Content_Length=None, c=b"application/sdpx")[:-2], OFFER))
    assert (parser.flags, parser.sdp_start) == (S_COMPACT, -1)


def test_headers_are_bounded(build: Build) -> None:
    many = b"".join(b"X%d: y\r\n" % number for number in range(5000))
    parser = parsed(build, request()[:-2] + many + b"\r\n")
    assert (parser.headers, parser.error_text) == (512, "more headers than are read")
    assert parser.slot("call_id") == b"c@192.0.2.1"


def test_a_message_before_leaves_nothing_behind(build: Build) -> None:
    module = build.module("engine.parsers.sip")
    used, fresh = module.SipParser(), module.SipParser()
    short = b"BYE sip:a@b SIP/2.0\r\n\r\n"
    used.attach(OK + short)
    used.parse(0, len(OK))
    used.parse(len(OK), len(OK + short))
    fresh.attach(short)
    fresh.parse(0, len(short))
    assert list(used.slots) == list(fresh.slots)
    assert (used.flags, used.cseq, used.sdp_start, used.status) == (0, 0, -1, 0)

"""Filters, sorting and windows of the stores: equal to sorted(filter()), and what an error says."""

from __future__ import annotations

import json
from base64 import b64decode
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.calls.filter import Column, FilterError, compile_filter
from engine.calls.query import Query, Windows, order, parse_query, time_limit
from engine.calls.rows import uri_text
from engine.calls.states import STATES
from engine.calls.store import Calls
from engine.control.methods import CALL_ROW, MAX_LINE, MESSAGE_ROW
from engine.errors import OtusError, UsageError
from engine.shm.records import SIP
from tests.pace import within
from tests.sip_records import SDP, SECOND, START, record, sip

A, B = "10.0.0.7:5060", "10.0.0.9:5060"
NAMES = ("method", "state", "user", "count", "loss", "delay_ms")
KINDS = {"state": "state", "count": "number", "loss": "number", "delay_ms": "number"}


def columns() -> dict[str, Column]:
    def get(name: str) -> Any:
        return lambda row: getattr(row, name)

    return {name: Column(KINDS.get(name, "text"), get(name)) for name in NAMES}


def search(row: Any) -> str:
    return f"{row.method} {row.user or ''} {row.state}".lower()


ALICE = SimpleNamespace(
    method="INVITE", state="busy", user="alice@a.example", count=7, loss=None, delay_ms=500.0
)
BOB = SimpleNamespace(method="REGISTER", state="registered", user="bob", count=2, loss=1.5, delay_ms=None)
NOBODY = SimpleNamespace(method="OPTIONS", state="failed", user=None, count=0, loss=0.0, delay_ms=1.0)
ROWS = {"alice": ALICE, "bob": BOB, "nobody": NOBODY}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "alice bob nobody"),
        ("   ", "alice bob nobody"),
        ("alice", "alice"),
        ("ALICE", "alice"),
        ("a\\.example$|bob", "bob"),
        ("^(invite|register) ", "alice bob"),
        ("method == INVITE", "alice"),
        ("method = invite", "alice"),
        ("method != INVITE", "bob nobody"),
        ("user ~ bo?b", "bob"),
        ('user ~ "A\\.EX"', "alice"),
        ("user !~ alice", "bob nobody"),
        ("user != bob", "alice nobody"),
        ("state == failed", "alice nobody"),
        ("state != failed", "bob"),
        ("state == busy", "alice"),
        ('state == "Registered"', "bob"),
        ("count > 2", "alice"),
        ("count >= 2", "alice bob"),
        ("count<2", "nobody"),
        ("count <= 2 and not bob", "nobody"),
        ("count == 7", "alice"),
        ("loss > 1%", "bob"),
        ("loss < 100", "bob nobody"),
        ("loss != 0", "alice bob"),
        ("delay_ms >= 0.5s", "alice"),
        ("delay_ms < 2ms", "nobody"),
        ("delay_ms < 2", "nobody"),
        ("state == failed and user ~ alice", "alice"),
        ("state == failed user ~ alice", "alice"),
        ("alice or bob", "alice bob"),
        ("alice || bob && register", "alice bob"),
        ("(alice or bob) and register", "bob"),
        ("not (alice or bob)", "nobody"),
        ("!alice !bob", "nobody"),
        ("not not alice", "alice"),
        ("'alice@a.example busy'", "alice"),
        ("alice@a", "alice"),
        ("count ~ ^[27]$", "alice bob"),
        ("AND_MORE or bob", "bob"),
    ],
)
def test_filter(text: str, expected: str) -> None:
    test = compile_filter(text, columns(), search)
    assert " ".join(name for name, row in ROWS.items() if test is None or test(row)) == expected


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("methox == INVITE", 0, "no column 'methox'"),
        ("bob and xyz > 1", 8, "no column 'xyz'"),
        ("count > many", 8, "is none"),
        ("count >", 7, "needs a value"),
        ("state == ringix", 9, "no state 'ringix'"),
        ("user < 5", 5, "cannot compare"),
        ("(bob", 0, "not closed"),
        ("bob)", 3, "does not belong here"),
        ("bob and", 7, "missing at the end"),
        ("or bob", 0, "does not belong here"),
        ("== 5", 0, "does not belong here"),
        ('user ~ "bob', 7, "quote is not closed"),
        ("user ~ [a", 7, "not a regular expression"),
        ("bob *x", 4, "not a regular expression"),
        ("a" * 1001, 1000, "too long"),
        ('"' + "a" * 300 + '"', 0, "too long"),
        ("(" * 50 + "a" + ")" * 50, 40, "nested too deeply"),
    ],
)
def test_filter_error_names_the_place(text: str, position: int, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, columns(), search)
    assert caught.value.position == position
    assert says in caught.value.message
    assert f"column {position + 1}:" in caught.value.message


def test_filter_error_knows_what_is_near() -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter("methox == x", columns(), search)
    assert caught.value.hint == "did you mean method?"


@given(st.text("alice()=!<>~&|\"'\\ 10.*+[]{}state countorandnot", max_size=60) | st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    try:
        test = compile_filter(text, columns(), search)
    except FilterError as error:
        place = error.position
    else:
        place = 0
        for row in ROWS.values():
            assert test is None or test(row) in (True, False)
    assert 0 <= place <= max(len(text), 1000)


NUMBERS = st.none() | st.integers(-3, 3)
TEXTS = st.none() | st.sampled_from(["a", "A", "b", "", "ä"])


@given(st.lists(st.tuples(NUMBERS, TEXTS), max_size=30), st.booleans(), st.booleans())
def test_order_is_stable_and_unknown_is_last(
    rows: list[tuple[Any, Any]], text: bool, descending: bool
) -> None:
    place = int(text)
    column = Column("text" if text else "number", lambda row: row[place])
    items = [(*row, number) for number, row in enumerate(rows)]

    def key(row: tuple[Any, Any, int]) -> Any:
        return str(row[place]).lower() if text else row[place]

    known = [row for row in items if row[place] is not None]
    expected = sorted(known, key=key, reverse=descending) + [row for row in items if row[place] is None]
    assert order(items, column, descending) == expected


@given(
    st.lists(st.tuples(NUMBERS, TEXTS), max_size=30),
    st.sampled_from(["", "n > 0", "t == a", "not n < 0"]),
    st.sampled_from(["i", "n", "t"]),
    st.booleans(),
    st.integers(-5, 35),
    st.integers(0, 10),
    st.none() | st.integers(0, 29),
)
def test_window_is_that_of_the_whole(
    rows: list[Any], text: str, sort: str, descending: bool, offset: int, most: int, anchor: int | None
) -> None:
    names = {
        "i": Column("number", lambda row: row[0]),
        "n": Column("number", lambda row: row[1]),
        "t": Column("text", lambda row: row[2]),
    }
    items = [(i, *row) for i, row in enumerate(rows)]
    tests = {
        "": lambda row: True,
        "n > 0": lambda row: row[1] is not None and row[1] > 0,
        "t == a": lambda row: row[2] in ("a", "A"),
        "not n < 0": lambda row: row[1] is None or row[1] >= 0,
    }
    whole = order([row for row in items if tests[text](row)], names[sort], descending)
    windows = Windows(names, lambda row: "", "i")
    query = Query(text, sort, descending, anchor, offset, most)
    for _ in range(2):
        if anchor is not None and anchor not in [row[0] for row in whole]:
            with pytest.raises(OtusError):
                windows.window(query, 1, lambda: items, lambda row: row[0])
            continue
        found, start, window = windows.window(query, 1, lambda: items, lambda row: row[0])
        base = 0 if anchor is None else [row[0] for row in whole].index(anchor)
        assert found.rows == whole
        assert start == max(0, min(base + offset, len(whole)))
        assert window == whole[start : start + most]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"sort": "nothing"}, "sort: no column"),
        ({"sort": ["number"]}, "sort: no column"),
        ({"offset": "1"}, "offset"),
        ({"count": True}, "count"),
        ({"count": -1}, "count"),
        ({"filter": 3}, "filter"),
    ],
)
def test_parameters_are_checked(params: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_query(params, columns(), "count")


def test_a_slow_filter_shows_life_and_is_not_tried_again_at_once() -> None:
    rows = [SimpleNamespace(**{**vars(ALICE), "user": "a" * 40 + "!"})]
    beats: list[int] = []
    windows = Windows(columns(), search, "count", guard=lambda: time_limit(0.2, lambda: beats.append(1)))
    query = Query('user ~ "(a+)+$"', "count", False, None, 0, 10)
    with pytest.raises(UsageError, match="takes longer"):
        windows.find(query, 1, lambda: rows)
    assert len(beats) >= 3

    def again() -> None:
        with pytest.raises(UsageError, match="takes longer"):
            windows.find(query, 2, lambda: rows)

    assert within(60, again)
    assert windows.find(query._replace(filter="aaaa"), 2, lambda: rows).rows == rows


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"sip:alice@example.com", "alice@example.com"),
        (b"sip:alice@example.com:5070;transport=tcp?x=y", "alice@example.com:5070"),
        (b"sips:alice:secret@example.com", "alice@example.com"),
        (b'"A" <sip:alice@example.com;lr>;tag=1', "alice@example.com"),
        (b"tel:+4930123;phone-context=x", "+4930123"),
        (b"sip:+1;phone-context=y@example.com", "+1;phone-context=y@example.com"),
        (b"sip:[2001:db8::1]:5060", "[2001:db8::1]:5060"),
        (b"urn:service:sos", "urn:service:sos"),
        (b"<sip:broken", "broken"),
        (b"\xff\x1b[0m", "\ufffd\x1b[0m"),
        (b"", None),
        (None, None),
    ],
)
def test_uri_text(value: bytes | None, expected: str | None) -> None:
    assert uri_text(value) == expected


# ---------------------------------------------------------------------- the stores


class Streams:
    """A stream table of plain rows; the real one has its own tests."""

    def __init__(self) -> None:
        self.slots: list[dict[str, Any]] = []

    def changed(self, since: int) -> tuple[int, list[int]]:
        return since + 1, [*range(len(self.slots))]

    def read(self, slot: int, detail: bool = False) -> dict[str, Any] | None:
        if slot >= len(self.slots):
            return None
        return {**self.slots[slot], **({"dtmf": [], "intervals": []} if detail else {})}

    def read_entry(self, slot: int) -> dict[str, Any] | None:
        return self.read(slot)

    def put(
        self, name: str, call_id: str, packets: int, lost_pct: float | None, at: float = 0, **more: Any
    ) -> None:
        last = START + round(at * SECOND)
        row = dict.fromkeys(("src", "dst"), "10.0.0.1") | dict.fromkeys(("sport", "dport", "ssrc", "lost"), 1)
        row |= {"id": name, "call_id": call_id, "packets": packets, "lost_pct": lost_pct, "start_ns": START}
        row |= {"last_ns": last, "codec": "PCMA", "found_by": "sdp", "payload_types": [8], "active": None}
        row |= {"mos": None, "changes": packets, "far": None, **more}
        self.slots = [old for old in self.slots if old["id"] != name] + [row]


def filled(count: int, streams: Any = None, **limits: int) -> Calls:
    """`count` OPTIONS, some answered; every third is an INVITE."""
    calls = Calls({"message_bytes": 1 << 20, **limits}, "packet", streams, patience=0)
    for n in range(count):
        method = "INVITE" if n % 3 == 0 else "OPTIONS"
        user = f"sip:user{n * 7919 % count}@example.com"
        text = sip(method, f"1 {method}", f"c{n}@test", f"z9hG4bK{n}").replace("sip:alice@example.com", user)
        calls.add(SIP, START + n, record(text, A, B))
        if n % 5 == 0:
            text = sip("486 Busy Here", f"1 {method}", f"c{n}@test", f"z9hG4bK{n}", to_tag="t")
            calls.add(SIP, START + n + 1, record(text, B, A))
    return calls


def numbers(answer: dict[str, Any]) -> list[int]:
    return [row["number"] for row in answer["rows"]]


def test_query_of_calls() -> None:
    calls = filled(60)
    answer = calls.answer("query", {"store": "calls", "count": 3})
    assert (answer["total"], answer["matched"], answer["offset"], numbers(answer)) == (60, 60, 0, [1, 2, 3])
    assert tuple(answer["rows"][0]) == CALL_ROW
    answer = calls.answer("query", {"sort": "number", "descending": True, "count": 2, "offset": 1})
    assert numbers(answer) == [59, 58]
    answer = calls.answer("query", {"filter": "state == failed", "count": 100})
    assert numbers(answer) == [n + 1 for n in range(0, 60, 5)]
    answer = calls.answer("query", {"filter": "method == INVITE and not state == failed", "count": 100})
    assert numbers(answer) == [n + 1 for n in range(0, 60, 3) if n % 5]
    answer = calls.answer("query", {"sort": "from", "count": 100})
    users = [row["from"] for row in answer["rows"]]
    assert users == sorted(users)
    assert len(users) == 60


def test_anchor_holds_while_rows_come() -> None:
    calls = filled(30)
    row = calls.answer("query", {"offset": 10, "count": 1})["rows"][0]
    params = {"anchor": row["id"], "offset": -2, "count": 5, "sort": "number", "descending": True}
    before = calls.answer("query", params)
    calls.add(SIP, START + 99, record(sip("OPTIONS", "1 OPTIONS", "new@test"), A, B))
    after = calls.answer("query", params)
    assert numbers(before) == numbers(after) == [13, 12, 11, 10, 9]
    assert after["offset"] == before["offset"] + 1
    with pytest.raises(OtusError, match="gone"):
        calls.answer("query", {"anchor": 5, "count": 1})


def test_rows_by_their_ids() -> None:
    calls = filled(60)
    ids = [row["id"] for row in calls.answer("query", {"count": 9, "offset": 20})["rows"]]
    wanted = [ids[4], ids[0], 7, ids[8]]
    answer = calls.answer("query", {"ids": wanted, "filter": "state == failed", "count": 0})
    assert [row["id"] for row in answer["rows"]] == [ids[4], ids[0], ids[8]]
    assert (answer["total"], answer["matched"]) == (60, 12)
    for wrong in ("x", [1.5], [None], list(range(1001))):
        with pytest.raises(UsageError, match="ids"):
            calls.answer("query", {"ids": wrong})


def test_ladder_of_a_call() -> None:
    calls = Calls({"message_bytes": 1 << 20}, "packet")
    proxy = "10.0.0.8:5060"
    flow = [
        (sip("INVITE", "1 INVITE", body=SDP), A, proxy),
        (sip("INVITE", "1 INVITE", branch="z9hG4bKp", body=SDP), proxy, B),
        (sip("INVITE", "1 INVITE", branch="z9hG4bKp", body=SDP), proxy, B),
        (sip("180 Ringing \u00e4\x1b", "1 INVITE", branch="z9hG4bKp", to_tag="t"), B, proxy),
    ]
    for n, (text, src, dst) in enumerate(flow):
        calls.add(SIP, START + n * SECOND, record(text, src, dst, frame=n + 1))
    name = calls.answer("query", {})["rows"][0]["id"]
    answer = calls.answer("call", {"id": name})
    assert answer["hosts"] == [A, proxy, B]
    assert [tuple(row) for row in answer["messages"]] == [MESSAGE_ROW] * 4
    assert [row["retransmission"] for row in answer["messages"]] == [False, False, True, False]
    assert answer["messages"][0]["sdp"] == "audio 40012 PCMA PCMU sendrecv"
    assert [row["frame"] for row in answer["messages"]] == [1, 2, 3, 4]
    last = answer["messages"][3]
    assert (last["status"], last["method"], last["reason"]) == (180, "INVITE", "Ringing \u00e4\x1b")
    assert (answer["more"], [item["index"] for item in answer["media"]]) == (False, [0, 1, 2])
    part = calls.answer("call", {"id": name, "from": 1, "count": 2})
    assert ([row["index"] for row in part["messages"]], part["more"], part["hosts"]) == (
        [1, 2],
        True,
        [A, proxy, B],
    )
    raw = calls.answer("message", {"id": name, "index": 0})
    assert raw["raw"].startswith("INVITE sip:bob@example.com SIP/2.0\r\n")
    assert raw["raw_base64"] is None
    with pytest.raises(OtusError, match="no message 9"):
        calls.answer("message", {"id": name, "index": 9})
    with pytest.raises(OtusError, match="no such call"):
        calls.answer("call", {"id": name + 1})
    with pytest.raises(OtusError, match="no such call"):
        calls.answer("call", {"id": 1 << 70})
    with pytest.raises(UsageError, match="no id"):
        calls.answer("call", {"id": "c1@test"})
    with pytest.raises(UsageError, match="index: "):
        calls.answer("message", {"id": name, "index": 1 << 70})
    with pytest.raises(UsageError, match="query: no parameter 'screen'"):
        calls.answer("query", {"screen": "alice"})


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (b"\xff\xfe\\xff", "\\xff\\xfe\\xff"),
        ("\U0001f600".encode() * 15_000, None),
        (b"\x00" * 60_000, None),
    ],
)
def test_octets_of_a_message_come_whole(end: bytes, shown: str | None) -> None:
    place = "x" * len(end)
    octets = sip("INVITE", "1 INVITE", body=place).replace("\n", "\r\n").encode()
    octets = octets.replace(place.encode(), end)
    calls = Calls({"message_bytes": 1 << 20}, "packet")
    calls.add(SIP, START, record(octets, A, B))
    name = calls.answer("query", {})["rows"][0]["id"]
    answer = calls.answer("message", {"id": name, "index": 0})
    if shown is not None:
        assert answer["raw"].endswith(shown)
    whole = answer["raw"].encode() if answer["raw_base64"] is None else b64decode(answer["raw_base64"])
    assert whole == octets
    assert len(json.dumps(answer)) < MAX_LINE - 256


def test_gone_octets_are_said_to_be_gone() -> None:
    calls = filled(100, message_bytes=8192)
    name = calls.answer("query", {"count": 1})["rows"][0]["id"]
    assert calls.answer("message", {"id": name, "index": 0}) == {
        "index": 0, "raw": None, "raw_base64": None, "error": None, "gone": True,
    }  # fmt: skip
    row = calls.answer("call", {"id": name})["messages"][0]
    assert (row["method"], row["gone"], row["sdp"], row["reason"]) == ("INVITE", True, None, None)


def test_streams_belong_to_their_calls() -> None:
    streams = Streams()
    calls = filled(3, streams)
    streams.put("1.1", "c0@test", 10, 0.5)
    streams.put("2.1", "c0@test", 10, 9.5, at=3)
    streams.put("3.1", "", 10, None, at=-10)
    calls.refresh(exact=True)
    row = calls.answer("query", {"count": 1})["rows"][0]
    assert (row["streams"], row["lost_pct"], row["mos"]) == (2, 9.5, None)
    assert numbers(calls.answer("query", {"filter": "loss > 9"})) == [1]
    assert [s["id"] for s in calls.answer("call", {"id": row["id"]})["streams"]] == ["1.1", "2.1"]
    answer = calls.answer("query", {"store": "streams", "sort": "lost_pct", "descending": True})
    assert [s["id"] for s in answer["rows"]] == ["2.1", "1.1", "3.1"]
    assert [s["active"] for s in answer["rows"]] == [True, True, False]
    section = calls.section()["media"]
    assert (section["streams"], section["active"], section["packets"]) == (3, 2, 30)


def test_unknown_quality_matches_no_threshold() -> None:
    streams = Streams()
    calls = filled(3, streams)
    streams.put("0.1", "c0@test", 10, 0.5, mos=3.1)
    streams.put("1.1", "c0@test", 10, 0.5, mos=None)
    streams.put("2.1", "c1@test", 10, 0.5, mos=None, far={"lost_pct": 2.0, "jitter_ms": None})
    streams.put("3.1", "c2@test", 10, 0.5, mos=4.4, rtcp=3)
    calls.refresh(exact=True)

    def found(text: str, store: str = "streams") -> list[Any]:
        rows = calls.answer("query", {"store": store, "filter": text})["rows"]
        return [row["id" if store == "streams" else "number"] for row in rows]

    assert [row["mos"] for row in calls.answer("query", {})["rows"]] == [3.1, None, 4.4]
    assert found("mos < 3.6", "calls") == [1]
    assert found("mos >= 0 or mos < 5", "calls") == [1, 3]
    assert found("mos < 3.6") == ["0.1"]
    assert found("mos > 0") == ["0.1", "3.1"]
    assert found("far.lost_pct > 1 and far.loss < 3") == ["2.1"]
    assert found("far.jitter_ms >= 0") == found("far.rtt_min_ms < 9999") == []
    with pytest.raises(FilterError, match=r"no column 'far\.los'"):
        found("far.los > 1")


def test_the_streams_of_a_call_come_in_full() -> None:
    streams = Streams()
    calls = filled(1, streams)
    streams.put("0.1", "c0@test", 10, 0.5, at=2)
    calls.refresh(exact=True)
    row = calls.answer("query", {})["rows"][0]
    (stream,) = calls.answer("call", {"id": row["id"]})["streams"]
    assert (stream["dtmf"], stream["intervals"], stream["loss_runs"]) == ([], [], None)
    assert stream["silent_for_s"] == 0
    (stream,) = calls.answer("query", {"store": "streams"})["rows"]
    assert "dtmf" not in stream
    (stream,) = calls.answer("query", {"store": "streams", "ids": ["0.1"]})["rows"]
    assert stream["dtmf"] == []


def test_streams_are_bounded_and_cleared() -> None:
    streams = Streams()
    calls = Calls({"streams": 10, "message_bytes": 8192}, "packet", streams, patience=0)
    for n in range(30):
        streams.put(f"{n}.1", f"c{n}@test", 5, 0, at=n)
    calls.refresh(exact=True)
    assert calls.answer("query", {"store": "streams", "count": 0})["total"] == 9
    assert calls.answer("clear", {"store": "streams", "keep": ["29.1"]}) == {"removed": 8}
    streams.slots = streams.slots[-3:]
    calls.refresh(exact=True)
    assert [row["id"] for row in calls.answer("query", {"store": "streams"})["rows"]] == ["29.1"]
    streams.put("28.1", "c28@test", 6, 0, at=40)
    calls.refresh(exact=True)
    assert [row["id"] for row in calls.answer("query", {"store": "streams"})["rows"]] == ["28.1", "29.1"]


def test_clear_keeps_what_it_is_told() -> None:
    calls = filled(10)
    rows = calls.answer("query", {})["rows"]
    assert calls.answer("clear", {"store": "calls", "keep": [rows[2]["id"], rows[4]["id"]]}) == {"removed": 8}
    assert numbers(calls.answer("query", {})) == [3, 5]
    calls.add(SIP, START, record(sip("OPTIONS", "1 OPTIONS", "new@test"), A, B))
    assert calls.answer("clear", {"store": "calls", "keep_filter": "new@test"}) == {"removed": 2}
    assert numbers(calls.answer("query", {})) == [11]
    assert calls.answer("clear", {"store": "calls"}) == {"removed": 1}
    assert calls.section()["sip"]["calls"] == 0


def test_section_has_the_figures_of_the_snapshot() -> None:
    section = filled(10).section()["sip"]
    assert section["requests"] == {"INVITE": 4, "OPTIONS": 6}
    assert section["responses"] == {"486": 2}
    assert section["by_state"] == {"call_setup": 3, "busy": 1, "pending": 5, "failed": 1}
    assert (section["calls"], section["active"], section["messages"]) == (10, 3, 12)
    assert set(section["by_state"]) <= set(STATES)


def test_twenty_thousand_calls_answer_in_time() -> None:
    """A quadratic road would take far longer."""
    calls = Calls({"message_bytes": 1 << 20}, "packet", patience=0)
    body = record(sip("INVITE", "1 INVITE", "c000000@test"), A, B)
    place = body.index(b"c000000@")
    for n in range(20_000):
        calls.add(SIP, START + n, body[:place] + b"%07d" % n + body[place + 7 :])
    for params in ({"filter": "alice and state == call_setup"}, {"sort": "from"}, {"sort": "last_ns"}, {}):
        calls.answer("query", {**params, "count": 50})

        def ask(params: dict[str, Any] = params) -> None:
            calls.table.version += 1
            answer = calls.answer("query", {**params, "count": 50, "descending": True})
            assert answer["matched"] == 20_000

        assert within(400, ask)

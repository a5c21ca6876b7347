"""What a Call-ID's messages make of it: one flow a test, in both builds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builds import Build, both_builds
from tests.sip_records import SDP, SECOND, START, record, sip

A, B, P = "10.0.0.7:5060", "10.0.0.9:5060", "10.0.0.8:5060"
Step = tuple[float, str, str, str]


def up(at: float, text: str, src: str = A, dst: str = B) -> Step:
    """From the caller."""
    return at, text, src, dst


def down(at: float, text: str, src: str = B, dst: str = A) -> Step:
    """To the caller."""
    return at, text, src, dst


def invite(at: float, cseq: int = 1, branch: str = "z9hG4bKa", **more: str) -> Step:
    return up(at, sip("INVITE", f"{cseq} INVITE", branch=branch, body=SDP, **more))


def answer(at: float, line: str, cseq: int = 1, branch: str = "z9hG4bKa", **more: str) -> Step:
    return down(at, sip(line, f"{cseq} INVITE", branch=branch, to_tag="t1", **more))


def ack(at: float, cseq: int = 1, branch: str = "z9hG4bKack") -> Step:
    return up(at, sip("ACK", f"{cseq} ACK", branch=branch, to_tag="t1"))


def bye(at: float, **more: str) -> Step:
    return up(at, sip("BYE", "9 BYE", branch="z9hG4bKbye", **{"to_tag": "t1", **more}))


def register(at: float, cseq: int, extra: str = "Contact: <sip:alice@10.0.0.7>\nExpires: 600\n") -> Step:
    return up(at, sip("REGISTER", f"{cseq} REGISTER", branch=f"z9hG4bKr{cseq}", extra=extra))


def registered(at: float, line: str, cseq: int, extra: str = "") -> Step:
    return down(at, sip(line, f"{cseq} REGISTER", branch=f"z9hG4bKr{cseq}", to_tag="r", extra=extra))


def subscribe(at: float, cseq: int = 1) -> Step:
    return up(at, sip("SUBSCRIBE", f"{cseq} SUBSCRIBE", branch=f"z9hG4bKs{cseq}", extra="Expires: 300\n"))


def notify(at: float, cseq: int, state: str) -> Step:
    return down(
        at, sip("NOTIFY", f"{cseq} NOTIFY", branch=f"z9hG4bKn{cseq}", extra=f"Subscription-State: {state}\n")
    )


def good_bye(at: float, line: str = "200 OK", **more: str) -> Step:
    return down(at, sip(line, "9 BYE", branch="z9hG4bKbye", **{"to_tag": "t1", **more}))


def option(at: float, cseq: int = 1) -> Step:
    return up(at, sip("OPTIONS", f"{cseq} OPTIONS", branch=f"z9hG4bKo{cseq}"))


def option_answer(at: float, line: str, cseq: int = 1) -> Step:
    return down(at, sip(line, f"{cseq} OPTIONS", branch=f"z9hG4bKo{cseq}", to_tag="o"))


CALL = [invite(0), answer(0.1, "100 Trying"), answer(0.4, "180 Ringing"), answer(1.3, "200 OK"), ack(1.31)]
"""Flows: name -> (messages, seconds at which it is looked at, what is expected)."""
FLOWS: dict[str, tuple[list[Step], float, dict[str, Any]]] = {
    "invite": ([invite(0)], 1, {"state": "call_setup", "code": None, "duration_s": None}),
    "trying": ([*CALL[:2]], 40, {"state": "call_setup"}),
    "ringing": (CALL[:3], 1, {"state": "ringing", "pdd_s": 0.4, "setup_s": None}),
    "early media": (
        [invite(0), answer(0.2, "183 Session Progress", body=SDP)],
        1,
        {"state": "ringing", "pdd_s": 0.2},
    ),
    "answered": (
        CALL,
        11.3,
        {"state": "in_call", "setup_s": 1.3, "pdd_s": 0.4, "duration_s": 10, "code": 200},
    ),
    "the ACK was missed": (CALL[:4], 2, {"state": "in_call"}),
    "the 200 was missed": ([*CALL[:3], ack(1.31)], 2, {"state": "in_call", "setup_s": 1.31}),
    "hung up": (
        [*CALL, bye(11.3, extra='Reason: Q.850;cause=16;text="Normal"\n')],
        99,
        {"state": "completed", "duration_s": 10, "reason": 'Q.850;cause=16;text="Normal"'},
    ),
    "hung up by the callee": (
        [*CALL, down(11.3, sip("BYE", "1 BYE", branch="z9hG4bKx", from_tag="t1", to_tag="f1"))],
        99,
        {"state": "completed", "duration_s": 10, "reason": None},
    ),
    "challenged": (
        [invite(0), answer(0.1, "401 Unauthorized"), ack(0.2, branch="z9hG4bKa")],
        1,
        {"state": "call_setup"},
    ),
    "challenged for good": (
        [invite(0), answer(0.1, "407 Proxy Authentication Required"), ack(0.2, branch="z9hG4bKa")],
        40,
        {"state": "rejected", "code": 407, "reason": "Proxy Authentication Required"},
    ),
    "challenged, then answered": (
        [
            invite(0),
            answer(0.1, "401 Unauthorized"),
            ack(0.2, branch="z9hG4bKa"),
            invite(0.3, 2, "z9hG4bKb"),
            answer(0.5, "180 Ringing", 2, "z9hG4bKb"),
            answer(1, "200 OK", 2, "z9hG4bKb"),
            ack(1, 2),
        ],
        2,
        {"state": "in_call", "setup_s": 1, "pdd_s": 0.5, "reason": None},
    ),
    "bad request": ([invite(0), answer(0.1, "400 Bad Request")], 1, {"state": "rejected", "code": 400}),
    "not here": ([invite(0), answer(0.1, "404 Not Found")], 1, {"state": "rejected", "reason": "Not Found"}),
    "server": ([invite(0), answer(0.1, "503 Service Unavailable")], 1, {"state": "rejected", "code": 503}),
    "declined": ([invite(0), answer(0.1, "603 Decline")], 1, {"state": "rejected"}),
    "busy": (
        [*CALL[:3], answer(3, "486 Busy Here")],
        4,
        {"state": "busy", "code": 486, "reason": "Busy Here"},
    ),
    "unavailable": ([invite(0), answer(3, "480 Temporarily Unavailable")], 4, {"state": "busy"}),
    "busy everywhere": ([invite(0), answer(3, "600 Busy Everywhere")], 4, {"state": "busy"}),
    "reason header of a response": (
        [invite(0), answer(3, "486 Busy Here", extra="Reason: Q.850;cause=17\n")],
        4,
        {"state": "busy", "reason": "Q.850;cause=17"},
    ),
    "redirected": ([invite(0), answer(0.1, "302 Moved Temporarily")], 1, {"state": "diverted", "code": 302}),
    "redirected, then tried there": (
        [invite(0), answer(0.1, "302 Moved Temporarily"), invite(0.2, 2, "z9hG4bKb")],
        1,
        {"state": "call_setup", "reason": None, "code": None},
    ),
    "forwarded": ([invite(0), answer(0.1, "181 Call Is Being Forwarded")], 1, {"state": "diverted"}),
    "forwarded, then ringing": (
        [invite(0), answer(0.1, "181 Call Is Being Forwarded"), answer(0.2, "180 Ringing")],
        1,
        {"state": "ringing", "pdd_s": 0.2},
    ),
    "cancelled": (
        [
            *CALL[:3],
            up(5, sip("CANCEL", "1 CANCEL")),
            down(5, sip("200 OK", "1 CANCEL")),
            answer(5.1, "487 Request Terminated"),
        ],
        6,
        {"state": "cancelled", "code": 487, "reason": "Request Terminated"},
    ),
    "cancelled with a reason": (
        [
            *CALL[:3],
            up(5, sip("CANCEL", "1 CANCEL", extra='Reason: SIP;cause=200;text="elsewhere"\n')),
            answer(5.1, "487 Request Terminated"),
        ],
        6,
        {"state": "cancelled", "reason": 'SIP;cause=200;text="elsewhere"'},
    ),
    "cancelled too late": (
        [*CALL[:3], up(5, sip("CANCEL", "1 CANCEL")), answer(5.1, "200 OK"), ack(5.2)],
        6,
        {"state": "in_call", "setup_s": 5.1},
    ),
    "a late 180 revives nothing": (
        [*CALL[:3], up(5, sip("CANCEL", "1 CANCEL")), answer(5.1, "180 Ringing")],
        6,
        {"state": "cancelled"},
    ),
    "request timeout": ([invite(0), answer(9, "408 Request Timeout")], 10, {"state": "timeout", "code": 408}),
    "no answer": ([invite(0), invite(0.5), invite(1.5)], 33, {"state": "timeout", "reason": "no answer"}),
    "an answer after the timeout": ([invite(0), answer(40, "200 OK")], 41, {"state": "in_call"}),
    "held and resumed": (
        [
            *CALL,
            up(5, sip("INVITE", "2 INVITE", branch="z9hG4bKh", to_tag="t1", body=SDP)),
            answer(5.1, "200 OK", 2, "z9hG4bKh"),
            ack(5.2, 2),
        ],
        11.3,
        {"state": "in_call", "duration_s": 10, "setup_s": 1.3},
    ),
    "re-INVITE refused": (
        [
            *CALL,
            up(5, sip("INVITE", "2 INVITE", branch="z9hG4bKh", to_tag="t1")),
            answer(5.1, "488 Not Acceptable Here", 2, "z9hG4bKh"),
        ],
        6,
        {"state": "in_call", "code": 200, "reason": None},
    ),
    "re-INVITE of the callee with the same number": (
        [
            *CALL,
            down(5, sip("INVITE", "1 INVITE", branch="z9hG4bKh", from_tag="t1", to_tag="f1")),
            up(5.1, sip("491 Request Pending", "1 INVITE", branch="z9hG4bKh", from_tag="t1", to_tag="f1")),
        ],
        6,
        {"state": "in_call"},
    ),
    "UPDATE and PRACK change nothing": (
        [
            *CALL[:3],
            up(0.5, sip("PRACK", "2 PRACK", branch="z9hG4bKp", to_tag="t1")),
            down(0.6, sip("200 OK", "2 PRACK", branch="z9hG4bKp", to_tag="t1")),
            up(0.7, sip("UPDATE", "3 UPDATE", branch="z9hG4bKu", to_tag="t1")),
            down(0.8, sip("200 OK", "3 UPDATE", branch="z9hG4bKu", to_tag="t1")),
        ],
        1,
        {"state": "ringing"},
    ),
    "two forks answer": (
        [
            *CALL,
            down(1.4, sip("200 OK", "1 INVITE", to_tag="t2")),
            ack(1.5),
            up(1.6, sip("BYE", "2 BYE", branch="z9hG4bKbye2", to_tag="t2")),
        ],
        11.3,
        {"state": "in_call", "duration_s": 10, "setup_s": 1.3},
    ),
    "a fork's BYE is answered": (
        [
            *CALL,
            down(1.4, sip("200 OK", "1 INVITE", to_tag="t2")),
            ack(1.5),
            up(1.6, sip("BYE", "9 BYE", branch="z9hG4bKbye2", to_tag="t2")),
            good_bye(1.7, to_tag="t2"),
        ],
        11.3,
        {"state": "in_call", "duration_s": 10},
    ),
    "a fork's BYE is answered, then that of the call": (
        [
            *CALL,
            down(1.4, sip("200 OK", "1 INVITE", to_tag="t2")),
            good_bye(1.7, to_tag="t2"),
            bye(11.3),
            good_bye(11.4),
        ],
        99,
        {"state": "completed", "duration_s": 10},
    ),
    "BYE without a tag": (
        [*CALL, bye(11.2, to_tag=""), good_bye(11.3, to_tag="")],
        99,
        {"state": "completed", "duration_s": 10},
    ),
    "BYE with odd tags": (
        [*CALL, bye(11.2, to_tag="?", from_tag="!"), good_bye(11.3, to_tag="?", from_tag="!")],
        99,
        {"state": "completed", "duration_s": 10},
    ),
    "BYE with odd tags in a call with forks": (
        [
            *CALL,
            down(1.4, sip("200 OK", "1 INVITE", to_tag="t2")),
            bye(11.2, to_tag="?"),
            good_bye(11.3, to_tag="?"),
        ],
        99,
        {"state": "completed", "duration_s": 10},
    ),
    "BYE with odd tags is refused": (
        [*CALL, bye(10, to_tag="?"), good_bye(10.1, "481 Call Does Not Exist", to_tag="?")],
        11.3,
        {"state": "in_call", "duration_s": 10},
    ),
    "only the answer to BYE was captured": (
        [*CALL, good_bye(11.3)],
        99,
        {"state": "completed", "duration_s": 10},
    ),
    "one fork is busy": (
        [
            invite(0),
            up(0.01, sip("INVITE", "1 INVITE", branch="z9hG4bKh1"), P, B),
            up(0.02, sip("INVITE", "1 INVITE", branch="z9hG4bKh2"), P, "10.0.0.10:5060"),
            down(0.5, sip("486 Busy Here", "1 INVITE", branch="z9hG4bKh1", to_tag="t1"), B, P),
        ],
        1,
        {"state": "call_setup", "code": None},
    ),
    "one fork answers, the other is cancelled": (
        [
            invite(0),
            up(0.01, sip("INVITE", "1 INVITE", branch="z9hG4bKh1"), P, B),
            up(0.02, sip("INVITE", "1 INVITE", branch="z9hG4bKh2"), P, "10.0.0.10:5060"),
            down(2, sip("200 OK", "1 INVITE", branch="z9hG4bKh1", to_tag="t1"), B, P),
            up(2.1, sip("CANCEL", "1 CANCEL", branch="z9hG4bKh2"), P, "10.0.0.10:5060"),
            down(
                2.2,
                sip("487 Request Terminated", "1 INVITE", branch="z9hG4bKh2", to_tag="t2"),
                "10.0.0.10:5060",
                P,
            ),
            answer(2.3, "200 OK"),
        ],
        4,
        {"state": "in_call", "duration_s": 2},
    ),
    "one after the other": (
        [
            invite(0),
            up(0.01, sip("INVITE", "1 INVITE", branch="z9hG4bKh1"), P, B),
            up(9, sip("CANCEL", "1 CANCEL", branch="z9hG4bKh1"), P, B),
            down(9.1, sip("487 Request Terminated", "1 INVITE", branch="z9hG4bKh1", to_tag="t1"), B, P),
            up(9.2, sip("INVITE", "1 INVITE", branch="z9hG4bKh2"), P, "10.0.0.10:5060"),
            down(9.5, sip("180 Ringing", "1 INVITE", branch="z9hG4bKh2", to_tag="t2"), "10.0.0.10:5060", P),
        ],
        10,
        {"state": "ringing"},
    ),
    "a proxy acknowledges a refusal before it passes it on": (
        [
            invite(0),
            up(0.01, sip("INVITE", "1 INVITE", branch="z9hG4bKh1"), P, B),
            down(0.5, sip("180 Ringing", "1 INVITE", branch="z9hG4bKh1", to_tag="t1"), B, P),
            answer(0.51, "180 Ringing"),
            down(2, sip("486 Busy Here", "1 INVITE", branch="z9hG4bKh1", to_tag="t1"), B, P),
            up(2.001, sip("ACK", "1 ACK", branch="z9hG4bKh1", to_tag="t1"), P, B),
            answer(2.002, "486 Busy Here"),
            ack(2.1, branch="z9hG4bKa"),
        ],
        99,
        {"state": "busy", "code": 486, "setup_s": None, "duration_s": None},
    ),
    "a fork refuses, is acknowledged, and another one answers": (
        [
            invite(0),
            up(0.01, sip("INVITE", "1 INVITE", branch="z9hG4bKh1"), P, B),
            down(1, sip("486 Busy Here", "1 INVITE", branch="z9hG4bKh1", to_tag="t1"), B, P),
            up(1.001, sip("ACK", "1 ACK", branch="z9hG4bKh1", to_tag="t1"), P, B),
            up(1.1, sip("INVITE", "1 INVITE", branch="z9hG4bKh2"), P, "10.0.0.10:5060"),
            answer(4, "200 OK"),
        ],
        6,
        {"state": "in_call", "setup_s": 4, "duration_s": 2},
    ),
    "only requests, refused": (
        [invite(0), ack(0.6, branch="z9hG4bKa")],
        40,
        {"state": "rejected", "code": None, "reason": "refused, the answer is not in the capture"},
    ),
    "only requests, challenged and answered": (
        [invite(0), ack(0.1, branch="z9hG4bKa"), invite(0.2, 2, "z9hG4bKb"), ack(3, 2), bye(9)],
        40,
        {"state": "completed", "setup_s": 2.8, "duration_s": 6, "reason": None},
    ),
    "only requests of an end that has one branch for all": (
        [invite(0, branch="1"), ack(1, branch="1"), bye(5)],
        6,
        {"state": "completed", "setup_s": 1, "duration_s": 4},
    ),
    "only requests, and the ACK of an answer with the branch of the INVITE": (
        [invite(0), ack(1, branch="z9hG4bKa"), bye(5)],
        6,
        {"state": "completed", "duration_s": None},
    ),
    "captured from the middle": (
        [ack(0), bye(5)],
        6,
        {"state": "completed", "duration_s": None, "setup_s": None},
    ),
    "captured from a re-INVITE": (
        [up(0, sip("INVITE", "5 INVITE", to_tag="t1")), answer(0.1, "488 Not Acceptable Here", 5)],
        6,
        {"state": "in_call"},
    ),
    "captured from the answer": (
        [answer(0, "200 OK"), ack(0.1), bye(5)],
        6,
        {"state": "completed", "duration_s": 5, "setup_s": None, "src": A, "dst": B},
    ),
    "called again": (
        [*CALL, bye(5), invite(9, 20, "z9hG4bKagain"), answer(9.5, "180 Ringing", 20, "z9hG4bKagain")],
        10,
        {"state": "ringing", "pdd_s": 0.5, "setup_s": None, "duration_s": None},
    ),
    "options before the call": (
        [option(0), option_answer(0.1, "200 OK"), invite(1, 2, "z9hG4bKb")],
        2,
        {"state": "call_setup", "method": "OPTIONS"},
    ),
    "registered before the call": (
        [
            register(0, 1),
            registered(0.1, "200 OK", 1),
            invite(1, 2, "z9hG4bKb"),
            answer(2, "200 OK", 2, "z9hG4bKb"),
        ],
        4,
        {"state": "in_call", "method": "REGISTER", "setup_s": 1, "duration_s": 2},
    ),
    "asked again and again": (
        [register(0, 1), register(20, 2), register(31, 3)],
        33,
        {"state": "failed", "reason": "no answer"},
    ),
    "pinged in vain": ([option(0, 1), option(20, 2), option(31, 3)], 33, {"state": "failed"}),
    "pinged well": (
        [option(0, 1), option_answer(0.1, "200 OK"), option(30, 2)],
        61,
        {"state": "done"},
    ),
    "registering": ([register(0, 1), registered(0.1, "401 Unauthorized", 1)], 1, {"state": "registering"}),
    "never registered": (
        [register(0, 1), registered(0.1, "401 Unauthorized", 1)],
        40,
        {"state": "failed", "code": 401, "reason": "Unauthorized"},
    ),
    "registered": (
        [
            register(0, 1),
            registered(0.1, "401 Unauthorized", 1),
            register(0.2, 2),
            registered(0.3, "200 OK", 2, "Contact: <sip:alice@10.0.0.7>;expires=60\n"),
        ],
        60,
        {"state": "registered", "code": 200, "reason": None},
    ),
    "expired": (
        [register(0, 2), registered(0.3, "200 OK", 2, "Contact: <sip:alice@10.0.0.7>;expires=60\n")],
        61,
        {"state": "expired"},
    ),
    "several contacts, the last to expire counts": (
        [
            register(0, 2),
            registered(
                0.3, "200 OK", 2, "Contact: <sip:a@10.0.0.1>;expires=5, <sip:a@10.0.0.7>;Expires=90\n"
            ),
        ],
        61,
        {"state": "registered"},
    ),
    "as long as was asked for": (
        [register(0, 2), registered(0.3, "200 OK", 2)],
        500,
        {"state": "registered"},
    ),
    "no longer than was asked for": (
        [register(0, 2), registered(0.3, "200 OK", 2)],
        601,
        {"state": "expired"},
    ),
    "refreshed": (
        [register(0, 2), registered(0.3, "200 OK", 2), register(400, 3), registered(401, "200 OK", 3)],
        900,
        {"state": "registered"},
    ),
    "challenged at a refresh": (
        [
            register(0, 2),
            registered(0.3, "200 OK", 2),
            register(400, 3),
            registered(401, "401 Unauthorized", 3),
        ],
        450,
        {"state": "registered"},
    ),
    "unregistered": (
        [
            register(0, 2),
            registered(0.3, "200 OK", 2),
            register(4, 3, "Contact: *\nExpires: 0\n"),
            registered(5, "200 OK", 3),
        ],
        6,
        {"state": "expired", "reason": None},
    ),
    "forbidden": (
        [register(0, 1), registered(0.1, "403 Forbidden", 1)],
        1,
        {"state": "failed", "reason": "Forbidden"},
    ),
    "too brief": (
        [register(0, 1), registered(0.1, "423 Interval Too Brief", 1)],
        1,
        {"state": "registering"},
    ),
    "registrar is silent": ([register(0, 1)], 33, {"state": "failed", "reason": "no answer"}),
    "subscribing": (
        [subscribe(0), down(0.1, sip("202 Accepted", "1 SUBSCRIBE", branch="z9hG4bKs1"))],
        1,
        {"state": "pending"},
    ),
    "subscribed": ([subscribe(0), notify(0.2, 1, "active;expires=100")], 99, {"state": "active"}),
    "waits for consent": ([subscribe(0), notify(0.2, 1, "pending;expires=100")], 99, {"state": "pending"}),
    "subscription over": (
        [subscribe(0), notify(0.2, 1, "active;expires=100"), notify(5, 2, "terminated;reason=noresource")],
        6,
        {"state": "terminated", "reason": "terminated;reason=noresource"},
    ),
    "subscription expired": (
        [subscribe(0), notify(0.2, 1, "active;expires=100")],
        101,
        {"state": "terminated"},
    ),
    "subscription refused": (
        [subscribe(0), down(0.1, sip("489 Bad Event", "1 SUBSCRIBE", branch="z9hG4bKs1"))],
        1,
        {"state": "terminated", "code": 489, "reason": "Bad Event"},
    ),
    "a NOTIFY nobody asked for": (
        [
            down(0, sip("NOTIFY", "1 NOTIFY", branch="z9hG4bKn")),
            up(0.1, sip("200 OK", "1 NOTIFY", branch="z9hG4bKn", to_tag="n")),
        ],
        1,
        {"state": "done"},
    ),
    "options": ([option(0), option_answer(0.1, "200 OK")], 1, {"state": "done", "code": 200}),
    "options waits": ([option(0)], 1, {"state": "pending"}),
    "options in vain": ([option(0)], 33, {"state": "failed", "reason": "no answer"}),
    "options refused": ([option(0), option_answer(0.1, "405 Method Not Allowed")], 1, {"state": "failed"}),
    "the last of several counts": (
        [option(0), option_answer(0.1, "404 Not Found"), option(9, 2), option_answer(9.1, "200 OK", 2)],
        10,
        {"state": "done", "reason": None},
    ),
}


def look(build: Build, messages: list[Step], at: float) -> dict[str, Any]:
    """The row of the only call after these messages, at `at` seconds."""
    calls = build.module("engine.calls.store").Calls({"calls": 10, "message_bytes": 65536}, "packet")
    for when, text, src, dst in messages:
        calls.add(1, START + round(when * SECOND), record(text, src, dst))
    calls.streams.newest = START + round(at * SECOND)
    calls.refresh(exact=True)
    rows = calls.answer("query", {"store": "calls"})["rows"]
    assert len(rows) == 1
    row: dict[str, Any] = rows[0]
    return row


@both_builds
@pytest.mark.parametrize("name", FLOWS)
def test_flow(build: Build, name: str) -> None:
    messages, at, expected = FLOWS[name]
    row = look(build, messages, at)
    assert {key: row[key] for key in expected} == pytest.approx(expected)


@both_builds
def test_time_steps_do_not_depend_on_when_somebody_looks(build: Build) -> None:
    """The answer comes after the timeout, and nobody looked in between: it was a timeout all the same."""
    row = look(build, [invite(0), answer(33, "486 Busy Here")], 34)
    assert row["state"] == "timeout"


@both_builds
def test_every_state_has_its_number_in_both_builds(build: Build) -> None:
    states = build.module("engine.calls.states")
    seen = {look(build, messages, at)["state"] for messages, at, _ in FLOWS.values()}
    assert seen == set(states.STATES[1:])

"""Every capture of the collection against what tshark sees in it."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from engine.calls.states import STATES
from tests.analysis import analyse

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("OTUS_CAPTURES") or ROOT.parent / "shared" / "captures")
TRUTH = json.loads((FOLDER / "truth.json").read_text()) if (FOLDER / "truth.json").is_file() else {}
MISSING = json.loads(Path(__file__).with_name("missing.json").read_text())

CALL_STATES = set(STATES[1 : STATES.index("registering")])

pytestmark = pytest.mark.skipif(
    not TRUTH, reason=f"no captures: {FOLDER}/truth.json is not there (OTUS_CAPTURES names another folder)"
)


@cache
def report(name: str) -> dict:
    return analyse(str(FOLDER / name))


def differences(name: str) -> list[str]:
    """What the report of a capture says otherwise than tshark; empty when they agree."""
    truth, found = TRUTH[name], report(name)
    return [
        *sip_differences(truth["sip"], found["sip"]),
        *rtp_differences(truth["rtp"], found["rtp"]["streams"]),
    ]


def sip_differences(truth: dict, found: dict) -> list[str]:
    wrong = []
    if truth["messages"] != found["messages"]:
        wrong.append(f"{found['messages']} SIP messages, not {truth['messages']}")
    dialogs = {row["call_id"]: row for row in found["dialogs"]}
    for call_id in truth["dialogs"].keys() | dialogs.keys():
        expected = truth["dialogs"].get(call_id, {})
        row = dialogs.get(call_id, {})
        wrong += [
            f"{call_id}: {key} {row.get(key)}, not {expected.get(key)}"
            for key in ("methods", "codes")
            if expected.get(key, {}) != row.get(key, {})
        ]
    return wrong


def stream_key(row: dict) -> tuple:
    return row["src"], row["sport"], row["dst"], row["dport"], int(row["ssrc"], 16)


def rtp_differences(truth: list[dict], found: list[dict]) -> list[str]:
    """Streams that tshark found through SDP must be there, with the same figures."""
    wrong = []
    rows = {stream_key(row): row for row in found}
    for expected in truth:
        row = rows.get(stream_key(expected))
        if row is None:
            wrong.append(f"no stream {stream_key(expected)}")
            continue
        if row["packets"] != expected["packets"]:
            wrong.append(f"{stream_key(expected)}: {row['packets']} packets, not {expected['packets']}")
        if abs(row["lost"] - expected["lost"]) > 1:
            wrong.append(f"{stream_key(expected)}: {row['lost']} lost, not {expected['lost']}")
        if abs((row["mean_jitter_ms"] or 0) - expected["mean_jitter_ms"]) > 0.2:
            wrong.append(
                f"{stream_key(expected)}: jitter {row['mean_jitter_ms']}, not {expected['mean_jitter_ms']}"
            )
    return wrong


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_no_packet_is_missed_and_the_books_balance(name: str) -> None:
    found = report(name)
    assert found["file"]["packets"] == TRUTH[name]["packets"]
    books = found["books"]
    assert books["received"] == TRUTH[name]["packets"]
    assert books["received"] == books["reported"] + sum(books["dropped"].values())


@pytest.mark.parametrize("name", sorted(set(TRUTH) - set(MISSING)))
def test_calls_and_streams_equal_tshark(name: str) -> None:
    assert differences(name) == []


@pytest.mark.parametrize("name", sorted(MISSING))
def test_what_is_missing_is_still_missing(name: str) -> None:
    assert differences(name), f"{name} is right now: take it out of missing.json ({MISSING[name]})"


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_media_belongs_to_calls(name: str) -> None:
    """SDP outside an INVITE's transactions, as in an answer to OPTIONS, opens no media."""
    found = report(name)
    calls = {
        row["call_id"]
        for row in found["sip"]["dialogs"]
        if not {"INVITE", "ACK", "PRACK", "UPDATE"}.isdisjoint(row["methods"]) or row["state"] in CALL_STATES
    }
    assert {row["call_id"] for row in found["rtp"]["streams"] if row["found_by"] == "sdp"} <= calls


def test_an_answer_to_options_takes_no_media() -> None:
    name = "goffinet+sip_captures/test_voip.pcap.pcapng"
    if name not in TRUTH:
        pytest.skip(f"{name} is not in the collection")
    owners = {stream_key(row)[:4]: row["call_id"] for row in report(name)["rtp"]["streams"]}
    call = "770bce9a5d8f30ad750802dc77cf030f@192.168.87.86:5060"
    assert owners["192.168.87.86", 15886, "192.168.87.49", 4000] == call
    assert owners["192.168.87.49", 4000, "192.168.87.86", 15886] == call


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_streams_add_up(name: str) -> None:
    streams = report(name)["rtp"]["streams"]
    assert max(Counter(map(stream_key, streams)).values(), default=1) == 1
    for row in streams:
        assert row["packets"] > 0
        assert row["found_by"] in ("sdp", "heuristic")
        if row["expected"] is not None:
            assert row["lost"] == row["expected"] - row["packets"] or row["duplicates"] or row["out_of_order"]


def test_tunnels_of_the_collection() -> None:
    """Every tunnel that tshark takes off is taken off, and nothing else."""
    name = "arkime+arkime/arkime_synthetic.pcap"
    if name not in TRUTH:
        pytest.skip(f"{name} is not in the collection")
    decode = report(name)["decode"]
    taken = {key.removeprefix("tunnels_"): n for key, n in decode.items() if key.startswith("tunnels_") and n}
    # tshark -T fields -e frame.protocols; plain UDP here are one datagram of Geneve to another port
    # and one that comes from the port of VXLAN-GPE.
    assert taken == {"vxlan": 3, "gre": 2, "erspan": 1, "geneve": 3, "ipip": 3, "gtp_u": 1}
    assert decode["malformed_tunnel"] == decode["tunnel_depth_exceeded"] == 0


def test_ppp_in_gre() -> None:
    name = "ntop+nDPI/gre.pcapng"
    if name not in TRUTH:
        pytest.skip(f"{name} is not in the collection")
    found = report(name)
    assert (found["decode"]["tunnels_ppp_gre"], found["decode"]["vlan_tagged"]) == (1, 1)
    assert found["sip"]["messages"] == 1

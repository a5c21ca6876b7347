"""The line of health that `status` begins with."""

from __future__ import annotations

from typing import Any

from otus_tui.cli.health import counted, health


def task(**changes: Any) -> dict[str, Any]:
    books = {
        "received": 12_400,
        "dropped": {"ring": {"ring_full": 0}, "left_out": {"unmatched": 7}},
        "even": True,
        "difference": 0,
    }
    whole = {"task_id": "live", "state": "running", "error": "", "books": books}
    return {**whole, "workers": [], "capture": [], "reporters": [], **changes}


def test_well() -> None:
    found = health({"tasks": [task()]})
    assert found["ok"]
    assert found["text"] == "ok: 1 task running, 12,400 packets, nothing lost, books even"
    assert health({"tasks": []})["text"] == "ok: no task"


def test_unwell() -> None:
    unwell = task(
        state="failed",
        error="no such interface",
        workers=[{"restarts": 2}],
        capture=[{"interface": "eth0", "link": "down"}] * 2,
    )
    unwell["books"] = {
        "received": 9,
        "dropped": {"ring": {"ring_full": 1}},
        "even": False,
        "difference": 3,
    }
    found = health({"tasks": [unwell], "sip": {"lost": 0, "restarts": 1}})
    assert not found["ok"]
    assert found["text"] == "▲ " + "; ".join(found["problems"])
    assert found["problems"] == [
        "task live failed: no such interface",
        "1 packet lost in ring",
        "books off by 3",
        "2 restarts of workers",
        "link eth0 down",
        "the calls process was restarted 1 time",
    ]


def test_plurals() -> None:
    assert [counted(n, "call") for n in (0, 1, 2000)] == ["0 calls", "1 call", "2,000 calls"]


def test_reporters_say_what_is_wrong() -> None:
    full = {"type": "file", "problem": "No space left on device", "restarts": 1}
    well = {"type": "console", "problem": "", "restarts": 1}
    assert health({"tasks": [task(reporters=[full, well])]})["problems"] == [
        "1 restart of the sender",
        "reporter file: No space left on device",
    ]

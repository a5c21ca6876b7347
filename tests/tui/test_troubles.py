"""What went wrong in the engine is seen where a person looks: header, books line, overview, calls, drops."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tui.conftest import SIZES, SMALL, Size, Start
from tests.tui.engine_rows import NOW_NS, task
from tests.tui.scripted_engine import ScriptedEngine


def reporter(kind: str, lost: int, problem: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "accepted": 480,
        "queue_full": 0,
        "report_error": lost,
        "report_timeout": 0,
        "queued": 0,
        "problem": problem,
        "restarts": 0,
    }


@SIZES
async def test_a_reporter_that_loses_what_another_takes(start: Start, size: Size) -> None:
    lossy = task(reporters=[reporter("file", 138, "No space left on device"), reporter("console", 0)])
    lossy["books"].update(reported=618, partly={"file": 138, "console": 0})

    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [lossy]

    async with start(size=size, prepare=prepare) as desk:
        await desk.tick()
        assert "▲ report 138" in desk.lines[-2]
        assert "books even" in desk.lines[-2]
        assert "lost          ▲ 138" in desk.text
        await desk.press("5")
        await desk.tick()
        line = next(line for line in desk.lines if "not by all" in line)
        assert line.split() == ["▲", "not", "by", "all", "138", *line.split()[5:]]
        if size == SMALL:
            return
        assert "taken by at least one reporter" in desk.text
        assert "every reporter" not in desk.text
        line = next(line for line in desk.lines if "by file alone" in line)
        assert line.strip().startswith("▲")
        assert "138" in line
        assert "▲ No space left on device" in desk.text


@SIZES
async def test_lost_calls_are_told_on_overview_and_calls(start: Start, size: Size) -> None:
    class Restarted(ScriptedEngine):
        def snapshot(self) -> dict[str, Any]:
            found = super().snapshot()
            found["sip"].update(restarts=2, lost_calls=30, restarted_ns=NOW_NS - 7_000_000_000)
            return found

    def prepare(engine: ScriptedEngine) -> None:
        engine.__class__ = Restarted
        engine.tasks[0]["workers"][0]["restarts"] = 1
        engine.tasks[0]["reporters"] = [{**reporter("file", 0), "restarts": 4}] * 2

    words = "▲ 30 calls were lost in 2 restarts of the calls process, last at 08:41:00"
    async with start(size=size, prepare=prepare) as desk:
        await desk.tick()
        assert words in desk.text
        assert "restarts      ▲ 7" in desk.text
        await desk.press("2")
        await desk.tick()
        assert words in desk.text
        assert "alice" in desk.text


async def test_nothing_lost_takes_no_line(start: Start) -> None:
    async with start() as desk:
        await desk.press("2")
        await desk.tick()
        assert "were lost" not in desk.text


@SIZES
@pytest.mark.parametrize("link", ["down", "gone"])
async def test_an_interface_that_is_away(start: Start, size: Size, link: str) -> None:
    away = task()
    away["capture"][0]["link"] = link

    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [away]

    async with start(size=size, prepare=prepare) as desk:
        await desk.tick()
        assert f"▲ eth0 {link}" in desk.lines[0]
        assert "LIVE" not in desk.lines[0]
        assert f"interface     ▲ {link}" in desk.text
        for key in "235":
            await desk.press(key)
            assert f"▲ eth0 {link}" in desk.lines[0]
        away["capture"][0]["link"] = "up"
        await desk.tick()
        assert "eth0" in desk.lines[0]
        assert "LIVE" in desk.lines[0]

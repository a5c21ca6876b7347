"""The engine behind the screens: stopped, left or lost and found again; files that load; tasks that end."""

from __future__ import annotations

import pytest

from otus_tui.screens.flow import FlowScreen
from tests.tui.conftest import LARGE, Start
from tests.tui.engine_rows import file_task
from tests.tui.scripted_engine import ScriptedEngine


async def test_stopping_a_task_asks_first(start: Start) -> None:
    async with start(size=LARGE, screen="tasks") as desk:
        assert "af_packet_v3" in desk.text
        assert "pid 4711" in desk.text
        await desk.press("x")
        assert "Stop task live?" in desk.text
        await desk.press("down", "enter")
        assert not desk.engine.asked_of("stop_task")
        await desk.press("x", "enter")
        assert desk.engine.asked_of("stop_task") == [{"task_id": "live"}]


async def test_a_file_is_named_where_its_packets_are_counted(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [{**file_task(1.0), "interface": ""}]

    async with start(screen="overview", prepare=prepare) as desk:
        await desk.tick()
        assert any("from" in line and "call.p" in line.split("from")[1] for line in desk.lines)
        await desk.press("5")
        assert "file  call.pcapng  " in desk.lines[1]
        await desk.press("8")
        assert "call.pcapng" in desk.lines[2]


async def test_a_loading_file_has_a_bar_and_escape_stops_it(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [file_task(0.5)]

    async with start(screen="calls", prepare=prepare, private=True) as desk:
        await desk.tick()
        assert "LOADING" in desk.text
        assert "2,000 packets" in desk.text
        assert "50 %" in desk.text
        await desk.press("escape")
        assert desk.engine.asked_of("stop_task") == [{"task_id": "file"}]
        assert "50 %" not in desk.text
        # Where it was stopped, for good and on every screen.
        desk.engine.tasks[0]["state"] = "stopped"
        await desk.tick()
        assert "STOPPED" in desk.lines[0]
        await desk.press("1")
        assert "50 %" not in desk.text
        desk.engine.tasks = [file_task(1.0)]
        desk.engine.tasks[0]["progress"]["warning"] = "cut in the middle of packet 4,000"
        await desk.tick()
        assert "FILE" in desk.lines[0]
        assert "▲ cut in the middle of packet 4,000" in desk.text


async def test_what_comes_late_finds_no_screen_and_that_is_no_error(start: Start) -> None:
    async with start(screen="calls") as desk:
        before = FlowScreen(1)
        before.second_passed()
        before.snapshot_arrived()
        await desk.press("end", "enter")
        flow = desk.app.screen
        assert isinstance(flow, FlowScreen)
        assert flow.ready
        await desk.press("escape")
        assert not flow.ready
        flow.second_passed()
        flow.snapshot_arrived()


async def test_q_at_the_root_asks_what_shall_become_of_the_engine(start: Start) -> None:
    async with start(screen="calls", started=True) as desk:
        await desk.press("enter", "q")
        assert desk.app.is_running
        await desk.press("q")
        assert "Stop the engine" in desk.text
        await desk.press("escape")
        assert "Stop the engine" not in desk.text
        await desk.press("q", "down", "enter")
        assert desk.app.return_value == "detach"


@pytest.mark.parametrize(("started", "answer"), [(True, "stop"), (False, "detach")])
async def test_enter_stops_no_engine_of_others(start: Start, started: bool, answer: str) -> None:
    async with start(started=started) as desk:
        await desk.press("q", "enter")
        assert desk.app.return_value == answer


async def test_d_detaches_but_not_in_the_flow(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("enter", "d")
        assert desk.app.is_running
        assert desk.app.return_value is None
        await desk.press("escape", "d")
        assert desk.app.return_value == "detach"


async def test_a_private_engine_ends_without_a_question(start: Start) -> None:
    async with start(screen="calls", private=True) as desk:
        await desk.press("d")
        assert desk.app.return_value is None
        await desk.press("q")
        assert desk.app.return_value == "stop"


async def test_a_lost_engine_is_named_and_found_again(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.engine.stop()
        await desk.until(lambda: "engine lost" in desk.text)
        assert "ENGINE LOST" in desk.lines[0]
        await desk.engine.start()
        await desk.until(lambda: desk.app.model.lost is None)
        await desk.settle()
        assert "engine lost" not in desk.text
        await desk.tick()
        assert "200 calls" in desk.text


async def test_an_engine_that_refuses_is_shown(start: Start) -> None:
    async with start(screen="tasks", notifications=True) as desk:
        desk.engine.refuse["stop_task"] = (-32001, "this user may only read", "ask root")
        await desk.press("x", "enter")
        await desk.until(lambda: "this user may only read" in desk.text)


async def test_a_screen_that_is_not_shown_asks_for_nothing(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("5")
        before = len(desk.engine.asked_of("query"))
        for _ in range(3):
            await desk.tick()
        assert len(desk.engine.asked_of("query")) == before

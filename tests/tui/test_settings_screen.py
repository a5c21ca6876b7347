"""What is set while the program runs: the live task's filter and interface, theme, signs, names."""

from __future__ import annotations

from typing import Any

from textual.widgets import OptionList

from otus_tui.screens.settings import anew
from otus_tui.settings import Settings
from otus_tui.widgets.ladder import Ladder
from tests.tui.conftest import LARGE, Start
from tests.tui.engine_rows import task
from tests.tui.scripted_engine import ScriptedEngine


async def pick(desk: Any, value: str) -> None:
    """Take a line of the settings."""
    await desk.press("f8")
    await pick_option(desk, value)


async def pick_option(desk: Any, value: str) -> None:
    choices = desk.app.screen.query_one(OptionList)
    choices.highlighted = choices.get_option_index(value)
    await desk.press("enter")


async def test_the_filter_of_the_live_task_is_changed_while_it_runs(start: Start) -> None:
    async with start(size=(120, 30)) as desk:
        await desk.tick()
        await pick(desk, "filter")
        await desk.type("udp and prot 5")
        await desk.press("enter")
        assert "'prot' is a name or no keyword" in desk.text
        *_, expression = (line for line in desk.lines if "udp and prot 5" in line)
        caret = next(line for line in desk.lines if line.strip() == "^")
        assert caret.index("^") == expression.index("prot")
        assert desk.engine.tasks[0]["filter"] == ""
        await desk.type("udp port 5060")
        await desk.press("enter")
        assert desk.engine.asked_of("set_filter")[-1] == {"task_id": "live", "filter": "udp port 5060"}
        assert not desk.engine.asked_of("stop_task")
        await desk.tick()
        await desk.press("f8")
        assert "Filter: udp port 5060" in desk.text
        await desk.press("escape")


async def test_another_interface_takes_a_question_and_another_start(start: Start) -> None:
    async with start(size=(120, 30)) as desk:
        await desk.tick()
        await pick(desk, "interface")
        await desk.type("otus9")
        await desk.press("enter")
        assert "no interface 'otus9' on this host" in desk.text
        await desk.type("lo")
        await desk.press("enter")
        assert "Capture from lo?" in desk.text
        assert not desk.engine.asked_of("stop_task")
        await desk.press("enter")
        assert desk.engine.asked_of("stop_task") == [{"task_id": "live"}]
        made = desk.engine.asked_of("create_task")[-1]["config"]
        assert made["capture"] == {"interface": "lo", "config": {"ring_mb": 64}}


async def test_a_task_that_does_not_start_gives_place_to_the_one_before(start: Start) -> None:
    async with start(size=(120, 30), notifications=True) as desk:
        await desk.tick()
        desk.engine.refuse_once["create_task"] = (-32000, "no room for it", "less of it")
        await anew(desk.app, "lo")
        await desk.settle()
        made = [params["config"]["capture"]["interface"] for params in desk.engine.asked_of("create_task")]
        assert made == ["lo", "eth0"]
        assert "no room for it" in desk.text


async def test_the_task_of_somebody_else_is_not_changed(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [task(task_id="edge")]

    async with start(prepare=prepare) as desk:
        await desk.tick()
        await desk.press("f8")
        assert "Signs: Unicode" in desk.text
        assert "Interface:" not in desk.text


async def test_signs_colours_and_names_are_kept(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        assert desk.app.settings.path is not None
        await desk.press("end", "enter")
        await pick(desk, "ascii")
        await pick_option(desk, "colours")
        await desk.press("escape")
        assert desk.text.isascii()
        assert desk.app.screen.query_one(Ladder).flow.options.colours == "cseq"
        await desk.press("escape")
        assert desk.text.isascii()
        desk.app.settings.aliases = {"10.0.0.7": "proxy"}
        await pick(desk, "aliases")
        assert "by their aliases" in desk.text
        await desk.press("escape")
        assert "proxy:5060" in desk.text
        kept = Settings.load(desk.app.settings.path)
        assert (kept.ascii, kept.colours, kept.show_aliases) == (True, "cseq", True)
        await pick(desk, "ascii")
        await desk.press("escape")
        assert "● IN CALL" in desk.text


async def test_themes_change_at_once_and_are_kept(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("f8")
        assert "High contrast" in desk.text
        desk.app.screen.dismiss("otus-light")
        await desk.settle()
        assert desk.app.theme == "otus-light"
        assert desk.app.settings.path is not None
        assert "otus-light" in desk.app.settings.path.read_text()

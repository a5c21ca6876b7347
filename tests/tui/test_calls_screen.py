"""The calls screen: columns that fit, rows in sight, order, filters, marks; what it says without calls."""

from __future__ import annotations

from typing import Any

import pytest
from textual.widgets import Input

from otus_tui.settings import Settings
from otus_tui.widgets.live_table import LiveTable
from tests.tui.conftest import LARGE, SIZES, Size, Start
from tests.tui.engine_rows import call_row, file_task, task
from tests.tui.scripted_engine import ScriptedEngine


@SIZES
async def test_calls_show_the_columns_that_fit(start: Start, size: Size) -> None:
    async with start(size=size, screen="calls") as desk:
        head = next(line for line in desk.lines if "method" in line)
        for word in ("#", "from", "to", "state", "dur"):
            assert word in head
        assert ("PDD s" in head) is (size == LARGE)
        assert ("src" in head) is (size == LARGE)
        assert "alice199" in desk.text
        assert "× REJECTED 503" in desk.text  # noqa: RUF001
        assert "● IN CALL" in desk.text


@pytest.mark.parametrize("width", [80, 100, 120, 130, 140, 160, 180, 200])
@pytest.mark.parametrize("screen", ["calls", "media"])
async def test_columns_fit_the_width_and_leave_a_blank_at_the_edge(
    start: Start, width: int, screen: str
) -> None:
    async with start(size=(width, 24), screen=screen) as desk:
        table = desk.app.screen.query_one(LiveTable)
        shown = [column.key for column, _ in table.columns()]
        assert table.row_width() < table.size.width
        if screen == "calls":
            assert shown[:4] == ["number", "method", "from", "to"]
            assert ("src" in shown and "dst" in shown and "messages" in shown) is (width >= 120)
            assert (len(shown) == 6) is (width == 80)
            assert {"start_ns", "pdd_s", "setup_s", "transport"} <= set(shown) or width < 160


async def test_a_short_delay_is_no_zero(start: Start) -> None:
    delays = (0.000104, 0.00234, 0.0412, 1.31, 0.0, None)

    def prepare(engine: ScriptedEngine) -> None:
        engine.calls = [call_row(i, pdd_s=delay) for i, delay in enumerate(delays)]

    async with start(size=LARGE, screen="calls", prepare=prepare) as desk:
        head = next(line for line in desk.lines if "PDD s" in line)
        end = head.index("PDD s") + 5
        cells = [line[end - 8 : end].strip() for line in desk.lines if "alice" in line]
        assert cells[::-1] == ["104 µs", "2.34 ms", "0.041", "1.31", "0", "·"]


async def test_only_rows_in_sight_are_asked_for(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.calls = [call_row(i) for i in range(12_000)]

    async with start(screen="calls", prepare=prepare) as desk:
        assert "12,000 calls" in desk.text
        assert all(params["count"] < 400 for params in desk.engine.asked_of("query"))
        await desk.press("end")
        assert "alice0@" in desk.text
        await desk.press("home")
        assert "alice11999" in desk.text
        assert len(desk.engine.asked_of("query")) < 12


async def test_a_row_does_not_move_under_the_cursor(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("down", "down", "down")
        table = desk.app.screen.query_one(LiveTable)
        chosen = table.current()
        line = table.cursor - table.scroll_offset.y
        assert chosen is not None
        desk.engine.calls += [call_row(i) for i in range(200, 238)]
        desk.engine.version += 1
        await desk.tick()
        now = table.current()
        assert now is not None
        assert now["id"] == chosen["id"] == table.selected
        assert table.cursor - table.scroll_offset.y == line
        assert "▲ 38 new" in desk.text
        await desk.press("home")
        assert "alice237@" in desk.text
        assert "following" in desk.text


async def test_order_stands_still_while_the_cursor_is_inside(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        table = desk.app.screen.query_one(LiveTable)
        table.set_sort("messages", True)
        await desk.settle()
        await desk.press("down", "down")
        before = [table.rows[i]["id"] for i in range(20)]
        for row in desk.engine.calls[:50]:
            row["messages"] = 77
        desk.engine.calls.remove(next(row for row in desk.engine.calls if row["id"] == before[5]))
        desk.engine.version += 1
        await desk.tick()
        assert [table.rows[i]["id"] for i in range(20)] == before
        assert desk.engine.asked_of("query")[-1]["ids"][:20] == before
        assert any(row["messages"] == 77 for row in table.rows.values())
        await desk.press("home")
        assert [table.rows[i]["messages"] for i in range(3)] == [77, 77, 77]


async def test_following_shows_each_new_call(start: Start) -> None:
    async with start(screen="calls") as desk:
        desk.engine.calls.append(call_row(200))
        desk.engine.version += 1
        await desk.tick()
        assert "alice200@" in desk.text
        await desk.press("p")
        desk.engine.calls.append(call_row(201))
        desk.engine.version += 1
        await desk.tick()
        assert "alice201@" not in desk.text
        assert "paused" in desk.text
        await desk.press("p", "A")
        assert "alice201@" in desk.text


async def test_the_filter_goes_to_the_engine(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("slash")
        await desk.type("alice7@")
        assert "1 of 200 calls" in desk.text
        await desk.press("enter")
        assert desk.engine.asked_of("query")[-1]["filter"] == "alice7@"
        await desk.press("escape")
        assert "200 calls" in desk.text


async def test_an_error_in_a_filter_names_its_place(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("slash")
        await desk.type("a(")
        assert "this parenthesis is not closed" in desk.text
        typed = next(line for line in desk.lines if "filter: a(" in line)
        caret = next(line for line in desk.lines if "^ " in line)
        assert caret.index("^") == typed.index("(")
        await desk.press("escape")
        assert "not closed" not in desk.text
        assert "200 calls" in desk.text


async def test_rows_under_a_wrong_filter_go_on(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("slash")
        await desk.type("nobody ==")
        assert "no column 'nobody': did you mean method?" in desk.text
        await desk.press("enter")
        desk.engine.calls.append(call_row(200))
        desk.engine.version += 1
        await desk.tick()
        assert "still shown: 201 calls" in desk.text
        assert "alice200@" in desk.text


async def test_a_wrong_filter_leaves_what_is_shown(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("slash")
        await desk.type("alice7@")
        await desk.type("alice7@ (")
        assert "1 of 200 calls   filter alice7@ " in desk.text
        assert "bob7@" in desk.text
        assert "this parenthesis is not closed" in desk.text
        await desk.press("enter")
        await desk.tick()
        status = next(line for line in desk.lines if "still shown" in line)
        assert "▲ this parenthesis is not closed" in status
        assert "bob7@" in desk.text
        await desk.press("escape")
        assert "still shown" not in desk.text
        assert "alice199@" in desk.text


async def test_sorting_by_key_and_by_head(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        await desk.press("z")
        assert desk.engine.asked_of("query")[-1]["descending"] is False
        assert "#▲" in desk.text
        await desk.press("greater_than_sign")
        assert desk.engine.asked_of("query")[-1]["sort"] == "method"
        head = next(y for y, line in enumerate(desk.lines) if "method" in line)
        await desk.pilot.click(offset=(desk.lines[head].index("state"), head))
        await desk.settle()
        assert desk.engine.asked_of("query")[-1]["sort"] == "state"


async def test_marks_save_and_columns(start: Start, tmp_path: Any) -> None:
    target = tmp_path / "rows.csv"
    async with start(size=LARGE, screen="calls") as desk:
        await desk.press("space", "space")
        assert "2 marked" in desk.text
        await desk.press("f2")
        field = desk.app.screen.query_one("Input")
        field.value = str(target)
        await desk.press("enter")
        written = target.read_text()
        assert "call-199@10.0.0.7" in written
        assert len(written.splitlines()) == 3
        await desk.press("f10", "down", "space", "enter")
        head = next(line for line in desk.lines if "from" in line and "state" in line)
        assert "method" not in head
        assert "method" not in desk.app.settings.columns["calls"]


async def test_clear_asks_first(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("f5")
        assert "Forget all calls?" in desk.text
        await desk.press("escape")
        assert not desk.engine.asked_of("clear")
        await desk.press("f5", "enter")
        assert desk.engine.asked_of("clear") == [{"store": "calls"}]
        assert "no SIP seen on eth0" in desk.text


async def test_no_calls_says_what_is_waited_for(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.calls, engine.streams = [], []

    async with start(size=(120, 30), screen="calls", prepare=prepare) as desk:
        await desk.tick()
        assert "no SIP seen on eth0 yet" in desk.text
        assert "F8 changes interface and filter" in desk.text
        await desk.press("1")
        assert "no SIP seen on eth0 yet" in desk.text


async def test_what_is_waited_for_of_a_task_that_is_not_ours_or_over(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [task(task_id="sip")]
        engine.calls, engine.streams = [], []

    async with start(screen="calls", prepare=prepare) as desk:
        await desk.tick()
        assert "no SIP seen on eth0 yet; filter: none" in desk.text
        assert "F8" not in desk.text
        desk.engine.tasks = [task(task_id="sip", state="stopped")]
        await desk.tick()
        assert "task sip is stopped; it saw no SIP on eth0" in desk.text


async def test_a_file_without_sip_says_so_and_where_its_media_is(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [{**file_task(), "interface": ""}]
        engine.calls, engine.streams = [], engine.streams[:3]

    async with start(screen="calls", prepare=prepare) as desk:
        await desk.tick()
        assert "no SIP in call.pcapng; 3 media streams: press 3" in desk.text
        desk.engine.streams = []
        await desk.tick()
        assert "no SIP in call.pcapng; filter: none" in desk.text


async def test_statistics(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("i")
        assert "INVITE" in desk.text
        assert "57.1 %" in desk.text


async def test_sip_over_tcp_is_said(start: Start) -> None:
    def unread(engine: ScriptedEngine) -> None:
        engine.tasks[0]["workers"][0]["counters"]["tcp_sip_port"] = 7

    async with start(screen="calls", prepare=unread) as desk:
        await desk.tick()
        assert "14 TCP packets on SIP ports: SIP over TCP is not read" in desk.text


async def test_aliases_stand_for_addresses(start: Start, tmp_path: Any) -> None:
    settings = Settings(
        aliases={"10.0.0.7": "proxy"}, borrowed={"10.0.0.9:5060": "gateway"}, path=tmp_path / "s"
    )
    async with start(size=LARGE, screen="calls", settings=settings) as desk:
        assert "proxy:5060" in desk.text
        assert "gateway" in desk.text
        await desk.press("end", "enter")
        assert "proxy" in desk.lines[3]
        await desk.press("escape", "a")
        assert "proxy" not in desk.text
        assert "10.0.0.7:5060" in desk.text


@SIZES
async def test_dialogs_show_all_fields_and_what_to_press(start: Start, size: Size) -> None:
    async with start(size=size, screen="calls") as desk:
        await desk.press("f7")
        for words in ("From holds", "Call-ID holds", "methods", "states", "Tab to the next field"):
            assert words in desk.text
        await desk.press("escape", "t")
        assert "Enter takes it" in desk.text
        await desk.press("escape", "f8")
        assert "kept in" in desk.text


async def test_the_filter_form_makes_an_expression(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("f7", "tab", "tab", "tab", "tab", "tab", "tab")
        desk.app.screen.query_one("#field-state", Input).value = "completed"
        await desk.press("enter")
        assert desk.engine.asked_of("query")[-1]["filter"] == "state == completed"
        assert "40 of 200 calls" in desk.text

"""The screens over a scripted engine, at the smallest terminal and at a large one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.widgets import Input, OptionList

from otus_tui import format as fmt
from otus_tui.screens.flow import FlowScreen
from otus_tui.screens.message import CompareScreen, MessageScreen, RawCallScreen, StreamScreen
from otus_tui.screens.settings import anew
from otus_tui.settings import Settings
from otus_tui.widgets.frame import FrameHead, too_small_lines
from otus_tui.widgets.ink import plain
from otus_tui.widgets.ladder import Ladder
from otus_tui.widgets.live_table import LiveTable
from otus_tui.widgets.text_view import TextView
from tests.tui.conftest import Size, Start
from tests.tui.engine_rows import NOW_NS, SECOND, call_row, file_task, message_row, stream_row, task
from tests.tui.scripted_engine import ScriptedEngine

SMALL, LARGE = (80, 24), (160, 50)
SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])


@SIZES
async def test_the_frame_is_on_every_screen(start: Start, size: Size) -> None:
    async with start(size=size) as desk:
        await desk.tick()
        for key in "123458":
            await desk.press(key)
            await desk.tick()
            lines = desk.lines
            assert len(lines) == size[1]
            assert lines[0].startswith(" otus")
            assert "eth0" in lines[0]
            assert "LIVE 12:44" in lines[0]
            # The zone goes where the screens' names leave no room for it.
            assert ("08:41:07 UTC" if size == LARGE else "08:41:07") in lines[0]
            for word in ("1 Overview", "2 Calls", "3 Media", "4 TCP", "5 Drops", "8 Tasks"):
                assert word in lines[0] + lines[1]
            books = lines[-2]
            for word in ("in ", "sip 8.0/s", "ring 0", "worker 0", "buffer 0", "report 0", "books even"):
                assert word in books
            for word in ("F1 keys", "d detach", "q quit"):
                assert word in lines[-1]


async def test_drops_show_beside_the_traffic_with_a_sign(start: Start) -> None:
    lossy = task()
    lossy["books"]["dropped"]["ring"] = {"drops": 12_345}
    lossy["books"].update(even=False, difference=-3)

    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [lossy]

    async with start(size=LARGE, prepare=prepare) as desk:
        await desk.tick()
        assert "▲ ring 12.3k" in desk.lines[-2]
        assert "▲ books off by 3" in desk.lines[-2]
        await desk.press("5")
        assert "12,345" in desk.text
        assert "the books are off by -3 packets" in desk.text


async def test_send_buffer_sampling_and_rules_show_with_the_drops(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        buffer = {
            "usage": 0.93,
            "high_watermark": 0.8,
            "low_watermark": 0.3,
            "sampling": True,
            "sample_rate": 0.25,
        }
        rules = [{"rule": "pings", "packets": 12_345}]
        engine.tasks = [task(send_buffer=buffer, rules=rules)]

    async with start(size=LARGE, prepare=prepare, screen="drops") as desk:
        await desk.tick()
        full = next(line for line in desk.lines if "the fullest of the send rings" in line)
        assert "▲full" in full.replace(" ", "")[:8]
        assert "93%" in full
        media = next(line for line in desk.lines if "of all conversations is reported" in line)
        assert "25%" in media
        assert "less above 80%, all again below 30%" in media
        assert any("pings" in line and "12,345" in line for line in desk.lines)


async def test_what_interface_and_host_lost_is_told_apart(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        before = {"rx_dropped": 40, "rx_missed": 2, "rx_fifo": None, "softnet": 7}
        engine.tasks = [task(lost_before=before)]

    async with start(size=LARGE, prepare=prepare, screen="drops") as desk:
        await desk.tick()
        assert "▲ nic 42  ▲ softnet 7  ring 0  worker 0  buffer 0  report 0" in desk.lines[-2]
        assert "lost before the rings (not in the books)" in desk.text
        assert any("rx dropped" in line and " 40 " in line for line in desk.lines)
        fifo = next(line for line in desk.lines if "rx fifo" in line)
        assert fmt.UNKNOWN in fifo
        assert "fanout hash, group 4711" in desk.text
        bound = next(line for line in desk.lines if "bound to CPU" in line)
        assert bound.split()[-2:] == ["0", "1"]


async def test_nothing_lost_before_the_rings_takes_no_room_in_the_line(start: Start) -> None:
    async with start(size=LARGE) as desk:
        await desk.tick()
        assert "nic" not in desk.lines[-2]
        assert "ring 0  worker 0  buffer 0  report 0" in desk.lines[-2]


async def test_unknown_is_a_dot_and_never_zero(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = []

    async with start(prepare=prepare) as desk:
        assert "ring ·" in desk.lines[-2]
        assert "books ·" in desk.lines[-2]


@pytest.mark.parametrize("size", [(50, 12), (30, 6), (12, 4), (8, 2), (5, 1), (3, 1)])
def test_a_terminal_that_is_too_small_is_told_what_it_has_room_for(size: Size) -> None:
    lines = too_small_lines(*size)
    assert 0 < len(lines) <= size[1]
    assert all(len(line) <= size[0] for line in lines)
    if size[0] >= 5:
        assert "60x15" in " ".join(lines)
    if size[0] >= 12:
        assert " ".join(lines).endswith("60x15 at least")


async def test_a_small_terminal_shows_the_whole_sentence(start: Start) -> None:
    async with start(size=(30, 6)) as desk:
        words = " ".join(line.strip() for line in desk.lines).strip()
        assert words == "terminal 30x6 is too small: 60x15 at least"


async def test_a_terminal_that_is_too_small_says_so(start: Start) -> None:
    async with start(size=(50, 12)) as desk:
        assert "terminal 50x12 is too small" in desk.lines[0]
        assert "otus " not in desk.text
        await desk.pilot.resize_terminal(80, 24)
        await desk.settle()
        assert desk.lines[0].startswith(" otus")


# --- calls


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
        assert "sipp" in desk.text
        await desk.press("1")
        assert "no SIP seen on eth0 yet" in desk.text


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


async def test_a_screen_has_its_form_before_it_is_painted(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        head = next(part for part in FlowScreen(1000).compose() if isinstance(part, FrameHead))
        assert head.has_class("-two")
        await desk.press("end", "enter")
        assert desk.lines[0].startswith(" otus  edge-bj-01")


async def test_the_help_breaks_no_word(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("f1")
        view = desk.app.screen.query_one(TextView)
        words = {word for line in view.source for word in plain(line).split()}
        for number in range(view.row_total()):
            assert set(plain(view.row(number)).split()) <= words
        assert view.row_total() > len(view.source)


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


async def test_statistics(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("i")
        assert "INVITE" in desk.text
        assert "57.1 %" in desk.text


# --- flow and message


@SIZES
async def test_the_ladder(start: Start, size: Size) -> None:
    async with start(size=size, screen="calls") as desk:
        await desk.press("end", "enter")
        assert isinstance(desk.app.screen, FlowScreen)
        text = desk.text
        for word in ("10.0.0.7", "10.0.0.9", "INVITE SDP", "100 Trying", "200 OK SDP", "ACK", "+411 ms"):
            assert word in text
        assert "RTP PCMA 3,612  loss 0.06 %" in text
        assert ("Via: SIP/2.0/UDP" in text) is (size == LARGE)
        await desk.press("m")
        assert "RTP PCMA" not in desk.text
        await desk.press("w")
        assert "+1.31 s" in desk.text
        await desk.press("d")
        assert "audio 40012 PCMA" in desk.text
        await desk.press("D")
        assert "100 Trying" not in desk.text


async def test_the_ladder_grows_while_the_call_goes_on(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("end", "enter")
        assert "BYE" not in desk.text
        desk.engine.messages.append(message_row(5, method="BYE", status=None, reason=None, sdp=None))
        await desk.tick()
        assert "BYE" in desk.text
        assert desk.engine.asked_of("call")[-1]["from"] == 5


async def test_enter_on_an_arrow_shows_the_message_as_text(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("end", "enter", "enter")
        assert isinstance(desk.app.screen, MessageScreen)
        text = desk.text
        assert '"Alice [bold red]x[/]"' in text
        assert "X-Evil: \\x1b[31mred\\x07 \\u202eabc" in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "m=audio 40012 RTP/AVP 8" in text
        await desk.press("right_square_bracket")
        assert "message 2 of 5" in desk.text
        await desk.press("escape")
        assert isinstance(desk.app.screen, FlowScreen)
        assert desk.app.screen.ladder.cursor == 1
        await desk.press("escape")
        table = desk.app.screen.query_one(LiveTable)
        assert table.cursor == 199


async def test_find_in_ladder_and_message(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("end", "enter", "slash")
        await desk.type("200 ok")
        await desk.press("enter")
        flow = desk.app.screen
        assert isinstance(flow, FlowScreen)
        item = flow.ladder.current()
        assert item is not None
        assert item.label == "200 OK SDP"
        # Not on the ladder, but in a message.
        await desk.press("slash", "ctrl+u")
        await desk.type("pcma/8000")
        await desk.press("enter")
        item = flow.ladder.current()
        assert item is not None
        assert item.label == "INVITE SDP"
        await desk.press("enter", "slash")
        await desk.type("rtpmap")
        await desk.press("enter")
        strips = desk.app.screen._compositor.render_strips()
        found = [s for strip in strips for s in strip if s.text == "rtpmap"]
        assert found
        assert found[0].style is not None
        assert found[0].style.bgcolor is not None


async def test_marking_two_messages_compares_them(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("end", "enter", "space", "down", "space")
        assert isinstance(desk.app.screen, CompareScreen)
        assert "- INVITE sip:bob@10.0.0.9 SIP/2.0" in desk.text
        assert "+ SIP/2.0 200 OK" in desk.text


async def test_octets_that_are_no_utf8_are_shown_and_saved_as_they_are(start: Start, tmp_path: Path) -> None:
    async with start(screen="calls") as desk:
        desk.engine.message = b"INVITE sip:bob@10.0.0.9 SIP/2.0\r\nSubject: \xff\x1b[2J \\xfe\r\n\r\n"
        await desk.press("end", "enter", "enter")
        assert "Subject: \\xff\\x1b[2J \\xfe" in desk.text
        await desk.press("y", "s")
        await desk.type(str(tmp_path / "message"))
        await desk.press("enter")
        assert (tmp_path / "message").read_bytes() == desk.engine.message


async def test_a_file_that_is_there_is_not_overwritten(start: Start, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    async with start(screen="calls") as desk:
        await desk.press("end", "enter", "enter", "s")
        await desk.type(str(tmp_path / "notes"))
        await desk.press("enter")
        await desk.tick()
        assert any("not saved: File exists" in note.message for note in desk.app._notifications)
        assert (tmp_path / "notes").read_text() == "mine"


async def test_raw_call_and_stream_figures(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        await desk.press("end", "r")
        assert isinstance(desk.app.screen, RawCallScreen)
        assert "5 messages" in desk.text
        await desk.press("escape", "enter", "down", "down", "down", "enter")
        assert isinstance(desk.app.screen, StreamScreen)
        assert "0x1a2b3c00" in desk.text
        assert "guess" in desk.text


async def test_a_call_over_loopback_has_a_column_per_port(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        a, b = "127.0.0.1:5061", "127.0.0.1:5060"
        engine.messages = [
            message_row(i, src=a if i in (0, 4) else b, dst=b if i in (0, 4) else a) for i in range(5)
        ]
        engine.streams = [
            stream_row(
                0, src="127.0.0.1", dst="127.0.0.1", sport=40012, dport=6000, call_id="call-0@10.0.0.7"
            )
        ]

    async with start(screen="calls", prepare=prepare) as desk:
        await desk.press("end", "enter")
        assert "127.0.0.1:5061" in desk.text
        assert "127.0.0.1:5060" in desk.text
        flow = desk.app.screen
        assert isinstance(flow, FlowScreen)
        assert len(flow.ladder.flow.hosts) == 2


# --- media, tasks, overview


@SIZES
async def test_media_leads_to_the_call(start: Start, size: Size) -> None:
    async with start(size=size, screen="media") as desk:
        assert "20 streams" in desk.text
        assert "PCMA" in desk.text
        assert ("▲ guess" in desk.text) is (size == LARGE)
        await desk.press("enter")
        assert isinstance(desk.app.screen, FlowScreen)
        assert "call-0@10.0.0.7" in desk.text
        assert desk.app.screen.ladder.current().kind == "stream"
        await desk.press("escape")
        assert "20 streams" in desk.text


async def test_a_stream_without_a_call_shows_its_figures(start: Start) -> None:
    def guessed(engine: ScriptedEngine) -> None:
        for row in engine.streams:
            row["call_id"] = ""

    async with start(size=LARGE, screen="media", prepare=guessed) as desk:
        await desk.press("enter")
        assert "mean jitter" in desk.text
        assert "no longer" not in desk.text


async def test_the_number_of_a_screen_leads_down_to_it(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        await desk.press("enter")
        assert isinstance(desk.app.screen, FlowScreen)
        assert "q quit" not in desk.lines[-1]
        await desk.press("enter", "2")
        assert "200 dialogs" in desk.text or "200 calls" in desk.text
        assert "q quit" in desk.lines[-1]


async def test_the_tasks_screen_fits_its_titles_and_figures(start: Start) -> None:
    def workers(engine: ScriptedEngine) -> None:
        engine.tasks[0]["capture"] *= 3

    async with start(screen="tasks", prepare=workers) as desk:
        title = next(line for line in desk.lines if "driver" in line and "packets" in line)
        row = next(line for line in desk.lines if "af_packet_v3" in line)
        assert title.index("driver") == row.index("af_packet_v3")
        assert title.rstrip().endswith("packets")
        assert row.rstrip().endswith(f" {desk.engine.tasks[0]['books']['received']:,}")
        assert title.index("from") == row.index(desk.engine.tasks[0]["interface"])
        assert len(row.rstrip()) == len(title.rstrip())
        assert sum("interface" in line for line in desk.lines) == 1


async def test_sip_over_tcp_is_said(start: Start) -> None:
    def unread(engine: ScriptedEngine) -> None:
        engine.tasks[0]["workers"][0]["counters"]["tcp_sip_port"] = 7

    async with start(screen="calls", prepare=unread) as desk:
        await desk.tick()
        assert "14 TCP packets on SIP ports: SIP over TCP is not read" in desk.text


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


@SIZES
async def test_overview_figures_lead_to_what_explains_them(start: Start, size: Size) -> None:
    async with start(size=size) as desk:
        await desk.tick()
        await desk.tick()
        text = desk.text
        for word in ("Calls", "Media", "Capture", "in call", "loss", "0.12 %", "books", "new calls/s"):
            assert word in text
        await desk.press("down", "down", "down", "down", "enter")
        assert desk.app.current_mode == "calls"
        assert desk.engine.asked_of("query")[-1]["filter"] == "state == in_call"
        assert "40 of 200 calls" in desk.text


# --- files


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


async def test_a_note_obeys_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = []
    monkeypatch.setattr(App, "notify", lambda _, text, **how: notes.append((text, how["markup"])))
    async with start(screen="calls") as desk:
        desk.app.screen.notify("[bold]x[/bold] \x1b[2J")
        assert notes == [("[bold]x[/bold] \\x1b[2J", False)]


# --- leaving, losing, coming back


async def test_q_at_the_root_asks_what_shall_become_of_the_engine(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("enter", "q")
        assert desk.app.is_running
        await desk.press("q")
        assert "Stop the engine" in desk.text
        await desk.press("escape")
        assert "Stop the engine" not in desk.text
        await desk.press("q", "down", "enter")
        assert desk.app.return_value == "detach"


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
        await desk.pilot.pause(0.1)
        assert "engine lost" in desk.text
        await desk.engine.start()
        for _ in range(40):
            await desk.pilot.pause(0.05)
            if desk.app.model.lost is None:
                break
        await desk.settle()
        assert "engine lost" not in desk.text
        await desk.tick()
        assert "200 calls" in desk.text


async def test_an_engine_that_refuses_is_shown(start: Start) -> None:
    async with start(screen="tasks", notifications=True) as desk:
        desk.engine.refuse["stop_task"] = (-32001, "this user may only read", "ask root")
        await desk.press("x", "enter")
        await desk.pilot.pause(0.1)
        assert "this user may only read" in desk.text


# --- work that is not done


async def test_a_screen_that_is_not_shown_asks_for_nothing(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("5")
        before = len(desk.engine.asked_of("query"))
        for _ in range(3):
            await desk.tick()
        assert len(desk.engine.asked_of("query")) == before


async def test_help_and_palette_come_from_the_registry(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        await desk.press("f1")
        assert "Show only the rows that an expression keeps." in desk.text
        await desk.press("escape", "ctrl+p")
        await desk.pilot.pause(0.3)
        await desk.type("revers")
        await desk.pilot.pause(0.3)
        assert "reverse (z)" in desk.text
        await desk.press("enter")
        await desk.pilot.pause(0.3)
        await desk.settle()
        assert desk.engine.asked_of("query")[-1]["descending"] is False


async def test_themes_change_at_once_and_are_kept(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("f8")
        assert "High contrast" in desk.text
        desk.app.screen.dismiss("otus-light")
        await desk.settle()
        assert desk.app.theme == "otus-light"
        assert desk.app.settings.path is not None
        assert "otus-light" in desk.app.settings.path.read_text()


async def test_ascii_only(start: Start) -> None:
    async with start(size=LARGE, screen="calls", ascii_only=True) as desk:
        for keys in (
            (),
            ("end", "enter"),
            ("enter",),
            ("escape", "escape", "1"),
            ("3",),
            ("5",),
            ("8",),
            ("f1",),
        ):
            await desk.press(*keys)
            await desk.tick()
            strange = {c for c in desk.text if c != "\n" and not " " <= c <= "~"}
            assert not strange, (keys, strange)


async def test_no_color_marks_the_cursor_by_reverse(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with start(screen="calls") as desk:
        assert desk.app.theme == "otus-terminal"
        strips = desk.app.screen._compositor.render_strips()
        for segment in (segment for strip in strips for segment in strip if segment.style is not None):
            for colour in (segment.style.color, segment.style.bgcolor):
                assert colour is None or colour.is_default or colour.type.name == "STANDARD"
        row = next(strip for strip in strips if "alice199" in strip.text)
        assert all(
            segment.style is not None and segment.style.reverse for segment in row if "alice" in segment.text
        )


def test_the_clock_of_the_tests_is_frozen() -> None:
    assert NOW_NS // SECOND == 1_763_800_867


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


async def test_the_filter_form_makes_an_expression(start: Start) -> None:
    async with start(screen="calls") as desk:
        await desk.press("f7", "tab", "tab", "tab", "tab", "tab", "tab")
        desk.app.screen.query_one("#field-state", Input).value = "completed"
        await desk.press("enter")
        assert desk.engine.asked_of("query")[-1]["filter"] == "state == completed"
        assert "40 of 200 calls" in desk.text

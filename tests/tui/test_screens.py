"""What screens have in common: head, books line and keys at any size, help, palette, signs and colours."""

from __future__ import annotations

import re

import pytest
from textual.app import App
from textual.command import CommandList, CommandPalette

from otus_tui import format as fmt
from otus_tui.screens.flow import FlowScreen
from otus_tui.widgets.frame import FrameHead, too_small_lines
from otus_tui.widgets.ink import plain
from otus_tui.widgets.text_view import TextView
from tests.tui.conftest import LARGE, SIZES, Size, Start
from tests.tui.engine_rows import NOW_NS, SECOND, task
from tests.tui.scripted_engine import ScriptedEngine


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


@pytest.mark.parametrize(
    ("interface", "hours", "end"),
    [("eth0", 0.2, "08:41:07"), ("eth0", 30, "08:41:07"), ("enp94s0f1", 30, "08:41")],
)
async def test_the_names_of_the_screens_stay_in_80_columns(
    start: Start, interface: str, hours: float, end: str
) -> None:
    row = task(interface=interface, started_ns=NOW_NS - int(hours * 3600) * SECOND)

    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [row]

    async with start(prepare=prepare) as desk:
        head = desk.lines[0]
        assert f" {interface} LIVE " in head
        assert "1 Overview 2 Calls 3 Media 4 TCP 5 Drops 8 Tasks " in head
        assert head.rstrip().endswith(f" {end}")


async def test_a_note_hides_neither_the_books_nor_the_keys(start: Start) -> None:
    async with start(notifications=True) as desk:
        desk.app.notify("a note")
        await desk.until(lambda: "a note" in desk.text)
        assert "books even" in desk.lines[-2]
        assert "q quit" in desk.lines[-1]


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
        assert re.search(r"▼ \d+ more lines", desk.text)
        await desk.press("end")
        assert "more line" not in desk.text


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


async def test_a_note_obeys_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = []
    monkeypatch.setattr(App, "notify", lambda _, text, **how: notes.append((text, how["markup"])))
    async with start(screen="calls") as desk:
        desk.app.screen.notify("[bold]x[/bold] \x1b[2J")
        assert notes == [("[bold]x[/bold] \\x1b[2J", False)]


async def test_help_and_palette_come_from_the_registry(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        await desk.press("f1")
        assert "Show only the rows that an expression keeps." in desk.text
        await desk.press("escape", "ctrl+p")
        await desk.until(lambda: isinstance(desk.app.screen, CommandPalette))
        await desk.type("revers")
        found = desk.app.screen.query_one(CommandList)
        await desk.until(lambda: found.option_count == 1 and "reverse (z)" in desk.text)
        await desk.press("enter")
        await desk.until(lambda: desk.engine.asked_of("query")[-1]["descending"] is False)


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

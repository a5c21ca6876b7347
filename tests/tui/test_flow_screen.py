"""A call's ladder, its messages as text, compared and saved, and its media."""

from __future__ import annotations

from pathlib import Path

from otus_tui.screens.flow import FlowScreen
from otus_tui.screens.message import CompareScreen, MessageScreen, RawCallScreen, StreamScreen
from otus_tui.widgets.live_table import LiveTable
from tests.tui.conftest import LARGE, SIZES, Size, Start
from tests.tui.engine_rows import message_row, stream_row
from tests.tui.scripted_engine import ScriptedEngine


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


async def test_the_panel_keeps_its_width_while_it_is_hidden(start: Start) -> None:
    async with start(size=LARGE, screen="calls") as desk:
        await desk.press("end", "enter")
        screen = desk.app.screen
        assert isinstance(screen, FlowScreen)
        own = screen.panel.size.width
        await desk.press("t", "9")
        assert screen.panel.size.width == own + 4
        await desk.press("t", "0")
        assert screen.panel.size.width == own
        await desk.press(*["9"] * 40, "0")
        widest = screen.panel.size.width
        await desk.press("0")
        assert screen.panel.size.width == widest - 4


async def test_the_hosts_stand_over_their_lifelines_after_a_change_of_width(start: Start) -> None:
    async with start(size=(120, 40), screen="calls") as desk:
        await desk.press("end", "enter")
        for key in ("t", "t", "9", "T"):
            await desk.press(key)
            head = next(line for line in desk.lines if "10.0.0.9" in line)
            row = next(line for line in desk.lines if "INVITE SDP" in line)
            begins = head.index("10.0.0.9")
            assert begins <= row.index("│", row.index("INVITE SDP")) < begins + len("10.0.0.9")


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

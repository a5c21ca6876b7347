"""The ladder of one call, with the message under the cursor beside it where there is room."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

from textual.containers import Horizontal, Vertical

from otus_tui import format as fmt
from otus_tui.client import ClientError
from otus_tui.screens.cells import state_cell
from otus_tui.screens.dialogs import AskText
from otus_tui.screens.frame import FrameScreen
from otus_tui.screens.stream_text import mos, mos_role, stream_lines
from otus_tui.settings import COLOUR_MODES
from otus_tui.widgets.frame import StatusLine
from otus_tui.widgets.ink import Line, plain, width_of
from otus_tui.widgets.ladder import (
    HOST_MODES,
    SDP_MODES,
    TIME_MODES,
    Item,
    Ladder,
    LadderHead,
    Options,
    split_endpoint,
)
from otus_tui.widgets.prompt import Prompt
from otus_tui.widgets.text_view import TextView, message_lines

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.geometry import Size

    from engine.snapshot import Snapshot
    from otus_tui.glyphs import Glyphs
    from otus_tui.widgets.rows_view import RowsView

PANEL_FROM = 120
"""Width of the terminal from which the panel is shown by itself."""
PANEL_STEP = 4
PANEL_MIN = 24
PAGE = 400
"""Messages asked for at once."""
CACHE = 256


def _next(values: tuple[str, ...], value: str) -> str:
    return values[(values.index(value) + 1) % len(values)]


class FlowScreen(FrameScreen):
    """One call: hosts, arrows, media; grows while the call goes on."""

    SCOPES = ("flow", "text")

    def __init__(self, call: Any, stream: Any = None) -> None:
        """`stream`: the id of the media stream that the cursor shall begin on."""
        super().__init__()
        self.call_key = call
        self._wanted_stream = stream
        self.call_row: dict[str, Any] = {}
        self.gone = ""
        self._raw: dict[int, dict[str, Any]] = {}
        self._busy = False
        self._panel_wish: bool | None = None
        self._panel_width = 0
        self._panel_for: tuple[str, Any] | None = None
        self._found = ""

    def compose_body(self) -> ComposeResult:
        ladder = Ladder(id="main")
        yield StatusLine(id="status")
        yield Prompt("find:", id="prompt")
        with Horizontal(id="flow-body"):
            with Vertical():
                yield LadderHead(ladder)
                yield ladder
            yield TextView(id="flow-panel")

    @property
    def ladder(self) -> Ladder:
        """The ladder."""
        return self.query_one(Ladder)

    @property
    def panel(self) -> TextView:
        """The message beside it."""
        return self.query_one("#flow-panel", TextView)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(LadderHead).named = self.otus.named
        self.ladder.flow.options.colours = self.otus.settings.colours
        self._load()

    def _fit(self, size: Size) -> None:
        super()._fit(size)
        self._place_panel()

    # --- loading

    def update_body(self, snapshot: Snapshot) -> None:
        if not self.gone and not (self.model.file and self._complete()):
            self._load()

    def _complete(self) -> bool:
        task = self.model.task
        return bool(self.call_row) and bool(task and task["state"] in ("finished", "stopped"))

    def _load(self) -> None:
        if not self._busy:
            self._busy = True
            self.run_worker(self._fetch(), exit_on_error=False)

    async def _fetch(self) -> None:
        try:
            ladder = self.ladder
            flow = ladder.flow
            while True:
                answer = await self.ask(
                    "call", id=self.call_key, **{"from": len(flow.messages), "count": PAGE}
                )
                self.call_row = answer["call"]
                known = {message["index"] for message in flow.messages}
                flow.messages += [m for m in answer["messages"] if m["index"] not in known]
                flow.streams = answer["streams"]
                if not answer["more"] or not answer["messages"]:
                    break
            # The ladder is in time order whatever order the evidence came in.
            ladder.rebuild()
            self._go_to_stream()
            self.query_one(LadderHead).refresh()
            self._title()
            self._show_current()
        except ClientError as error:
            if self.model.lost is None:
                self.gone = error.message
                self._title()
        finally:
            self._busy = False

    def _go_to_stream(self) -> None:
        """Once, to the stream that the ladder was opened for."""
        wanted, self._wanted_stream = self._wanted_stream, None
        if wanted is None:
            return
        for place, item in enumerate(self.ladder.flow.items):
            if item.kind == "stream" and item.data.get("id") == wanted:
                self.ladder.move_to(place)

    def _title(self) -> None:
        row, g = self.call_row, self.glyphs
        status = self.query_one(StatusLine)
        if self.gone:
            status.set([(f"{g.warning} {fmt.clean(self.gone)}", "warning")])
            return
        if row:
            line = title_line(row, g, self.app.size.width - 2, self.ladder.flow.streams)
            right: Line = [(options_words(self.ladder.flow.options), "dim")]
            status.set(line, right)

    # --- the panel

    def _place_panel(self) -> None:
        width = self.app.size.width
        shown = self._panel_wish if self._panel_wish is not None else width >= PANEL_FROM
        self.set_class(shown, "-panel")
        self.panel.styles.width = self._panel_cells()
        self._panel_for = None
        self._show_current()

    def _panel_cells(self, step: int = 0) -> int:
        """Width of the panel, shown or not, or of one that is `step` wider."""
        width = self.app.size.width
        own = max(PANEL_MIN, min(72, width * 2 // 5))
        return max(PANEL_MIN, min(width - PANEL_MIN, (self._panel_width or own) + step))

    def on_rows_view_moved(self, event: RowsView.Moved) -> None:
        event.stop()
        if event.view is self.ladder:
            self._show_current()

    def _show_current(self) -> None:
        if not self.has_class("-panel"):
            return
        item = self.ladder.current()
        if item is None:
            return
        if item.kind == "stream":
            self._panel_for = None
            self.panel.set_lines(stream_lines(item.data, self.glyphs))
            return
        key = ("message", item.data["index"])
        if key != self._panel_for:
            self._panel_for = key
            self.run_worker(self._fill_panel(item), group="panel", exclusive=True, exit_on_error=False)

    async def _fill_panel(self, item: Item) -> None:
        answer = await self.raw_message(item.data["index"])
        if answer is not None:
            self.panel.set_lines(answer_lines(answer, item.data, self.glyphs))
            self.panel.scroll_rows(0)

    async def raw_message(self, index: int) -> dict[str, Any] | None:
        """The octets of a message; kept, because they do not change."""
        known = self._raw.get(index)
        if known is not None:
            return known
        try:
            answer: dict[str, Any] = await self.ask("message", id=self.call_key, index=index)
        except ClientError as error:
            return {"index": index, "raw": None, "raw_base64": None, "error": error.message, "gone": False}
        if len(self._raw) >= CACHE:
            del self._raw[next(iter(self._raw))]
        self._raw[index] = answer
        return answer

    # --- actions

    def on_rows_view_opened(self, event: RowsView.Opened) -> None:
        event.stop()
        if event.view is self.ladder:
            self._open_item()

    def action_open(self) -> None:
        self._open_item()

    def _open_item(self) -> None:
        item = self.ladder.current()
        if item is None:
            return
        from otus_tui.screens.message import MessageScreen, StreamScreen

        if item.kind == "stream":
            self.app.push_screen(StreamScreen(item.data))
        else:
            self.app.push_screen(MessageScreen(self, item.data["index"]))

    def _rebuilt(self) -> None:
        self.ladder.rebuild()
        self.query_one(LadderHead).refresh()
        self._title()
        self._show_current()

    def action_compress(self) -> None:
        options = self.ladder.flow.options
        options.hosts = _next(HOST_MODES, options.hosts)
        self.notify(
            {
                "auto": "a column per address; with its port where a host calls itself",
                "port": "a column per address and port",
                "address": "a column per address",
            }[options.hosts]
        )
        self._rebuilt()

    def action_sdp_mode(self) -> None:
        options = self.ladder.flow.options
        options.sdp = _next(SDP_MODES, options.sdp)
        self._rebuilt()

    def action_only_sdp(self) -> None:
        options = self.ladder.flow.options
        options.only_sdp = not options.only_sdp
        self._rebuilt()

    def action_media(self) -> None:
        options = self.ladder.flow.options
        options.media = not options.media
        options.only_media = False
        self._rebuilt()

    def action_only_media(self) -> None:
        options = self.ladder.flow.options
        options.only_media = not options.only_media
        self._rebuilt()

    def action_times(self) -> None:
        options = self.ladder.flow.options
        options.times = _next(TIME_MODES, options.times)
        self._rebuilt()

    def action_colours(self) -> None:
        options = self.ladder.flow.options
        options.colours = self.otus.settings.colours = _next(COLOUR_MODES, options.colours)
        self.otus.settings.save()
        self._rebuilt()

    def settings_changed(self) -> None:
        super().settings_changed()
        self.ladder.flow.options.colours = self.otus.settings.colours
        self._panel_for = None
        self._rebuilt()

    def action_panel(self) -> None:
        self._panel_wish = not self.has_class("-panel")
        self._place_panel()

    def action_panel_wider(self) -> None:
        self._panel_width = self._panel_cells(PANEL_STEP)
        self._panel_wish = True
        self._place_panel()

    def action_panel_narrower(self) -> None:
        self._panel_width = self._panel_cells(-PANEL_STEP)
        self._panel_wish = True
        self._place_panel()

    def action_panel_reset(self) -> None:
        self._panel_width = 0
        self._panel_wish = None
        self._place_panel()

    def action_raw(self) -> None:
        self.otus.open_raw(self.call_key)

    def action_mark(self) -> None:
        ladder = self.ladder
        item = ladder.current()
        if item is None or item.kind != "message":
            return
        index = item.data["index"]
        if ladder.diff_mark is None or ladder.diff_mark == index:
            ladder.diff_mark = index if ladder.diff_mark is None else None
            ladder.refresh()
            return
        from otus_tui.screens.message import CompareScreen

        self.app.push_screen(CompareScreen(self, ladder.diff_mark, index))

    def back(self) -> bool:
        if super().back():
            return True
        if self.ladder.diff_mark is not None:
            self.ladder.diff_mark = None
            self.ladder.refresh()
            return True
        return False

    # --- find

    def action_find(self) -> None:
        self.query_one(Prompt).show(self._found)

    def on_prompt_changed(self, event: Prompt.Changed) -> None:
        event.stop()

    def on_prompt_done(self, event: Prompt.Done) -> None:
        event.stop()
        event.prompt.close()
        self.ladder.focus()
        if event.kept:
            self._found = event.text
            self._find(1, True)

    def action_find_next(self) -> None:
        self._find(1)

    def action_find_previous(self) -> None:
        self._find(-1)

    def _find(self, step: int, here: bool = False) -> None:
        self.panel.look_for(self._found)
        if self._found and not self.ladder.find(self._found, step, here):
            self.run_worker(self._find_in_messages(step), group="find", exclusive=True, exit_on_error=False)

    async def _find_in_messages(self, step: int) -> None:
        """The text is not on the ladder: look into the messages themselves."""
        ladder = self.ladder
        items = ladder.flow.items
        wanted = self._found.casefold()
        for distance in range(1, len(items) + 1):
            place = (ladder.cursor + step * distance) % len(items)
            if items[place].kind != "message":
                continue
            answer = await self.raw_message(items[place].data["index"])
            if answer and wanted in (answer["raw"] or "").casefold():
                ladder.move_to(place, step)
                return
        self.notify(f"not found: {self._found}", severity="warning", markup=False)

    # --- save

    def action_save(self) -> None:
        name = os.path.join(os.getcwd(), "otus-flow.txt")
        self.app.push_screen(AskText("Save the ladder as text to", name), self._save)

    def _save(self, path: str | None) -> None:
        ladder = self.ladder
        lines = [plain(ladder.row(i)).rstrip() for i in range(ladder.row_total())]
        hosts = "  ".join(ladder.flow.hosts)
        call = fmt.clean(str(self.call_row.get("call_id") or ""))
        self.save_text(path, "\n".join([call, hosts, *lines, ""]))


def mos_both_ways(row: dict[str, Any], streams: list[dict[str, Any]], glyphs: Glyphs) -> Line:
    """`MOS 4.31 > < 2.10`: of what the first side sends, and of what it hears; empty: none is known."""
    first = split_endpoint(str(row["src"]))[0]
    if all(first not in (stream["src"], stream["dst"]) for stream in streams):
        # Behind a NAT, or by way of a media server.
        first = streams[0]["src"] if streams else ""
    scores: list[float | None] = []
    for own in (True, False):
        known = [s["mos"] for s in streams if (s["src"] == first) is own and s.get("mos") is not None]
        scores.append(min(known, default=None))
    if scores == [None, None]:
        return []
    return [
        ("MOS ", "dim"),
        (mos(scores[0]), mos_role(scores[0]) or "dim"),
        (f" {glyphs.right} {glyphs.left} ", "dim"),
        (mos(scores[1]), mos_role(scores[1]) or "dim"),
    ]


def title_line(
    row: dict[str, Any], glyphs: Glyphs, width: int, streams: list[dict[str, Any]] | None = None
) -> Line:
    """The call in one line: who, in which state, how long, how good; whole words as far as there is room."""

    def clean(value: object) -> str:
        return fmt.clean(str(value if value is not None else ""), glyphs.ascii_only) or fmt.UNKNOWN

    state, role = state_cell(row, glyphs)
    length = f" {fmt.duration(row['duration_s'])}" if row["duration_s"] is not None else ""
    pieces: list[Line] = [
        [(fmt.fit(clean(row["call_id"]), min(36, len(clean(row["call_id"])))), "title")],
        [(state.strip(), role), (length, "")],
    ]
    if row["evidence"]:
        pieces.append([(f"{glyphs.warning} {row['evidence']} sent back by ICMP errors", "warning")])
    if row["malformed"]:
        pieces.append([(f"{glyphs.warning} {row['malformed']} malformed", "warning")])
    pieces.append([(f"{clean(row['from'])} {glyphs.arrow} {clean(row['to'])}", "")])
    if row["pdd_s"] is not None:
        pieces.append([(f"PDD {fmt.seconds(row['pdd_s'])}", "dim")])
    if row["lost_pct"] is not None:
        pieces.append([(f"loss {fmt.percent(row['lost_pct'])} %", "dim")])
    if streams and (both := mos_both_ways(row, streams, glyphs)):
        pieces.append(both)
    if row["reason"]:
        pieces.append([(clean(row["reason"]), "dim")])
    line: Line = []
    for piece in pieces:
        if line and width_of(line) + 2 + width_of(piece) > width:
            continue
        line += [*([("  ", "")] if line else []), *piece]
    return line


def options_words(options: Options) -> str:
    """How the ladder is drawn, for the end of the title."""
    shown = [f"times {options.times}", f"SDP {options.sdp}"]
    if options.only_sdp:
        shown.append("only SDP")
    if options.only_media:
        shown.append("only media")
    elif not options.media:
        shown.append("no media")
    return "  ".join(shown)


def answer_lines(
    answer: dict[str, Any], message: dict[str, Any], glyphs: Glyphs, colours: bool = True
) -> list[Line]:
    """A message with a line of its facts above, and what is wrong with it."""
    ends = f"{message['src']} {glyphs.arrow} {message['dst']}"
    extra = [fmt.clock(message["time_ns"], 6)]
    if message.get("frame") is not None:
        extra.append(f"frame {message['frame']:,}")
    if message.get("length") is not None:
        extra.append(f"{message['length']:,} octets")
    if message.get("retransmission"):
        extra.append("retransmission")
    if message.get("copies"):
        extra.append(f"{message['copies'] + 1} interfaces")
    extra += fmt.tunnel(message.get("tunnel"), glyphs.arrow)
    lines: list[Line] = [[(fmt.clean(ends), "dim")], [("  ".join(extra), "dim")]]
    wrong = answer.get("error") or message.get("error")
    if wrong:
        lines.append([(f"{glyphs.warning} {fmt.clean(str(wrong), glyphs.ascii_only)}", "warning")])
    lines.append([("", "")])
    if answer["gone"]:
        lines.append([("its octets had to make room for newer messages", "warning")])
    return lines + message_lines(raw_text(answer), glyphs, colours)


def raw_text(answer: dict[str, Any]) -> str:
    """The octets of a message as text, losslessly: those that are no UTF-8 as surrogates (PEP 383)."""
    if answer["raw_base64"] is None:
        return answer["raw"] or ""
    return base64.b64decode(answer["raw_base64"]).decode("utf-8", "surrogateescape")

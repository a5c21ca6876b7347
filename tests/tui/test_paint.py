"""Ladders, tables, charts and texts as lines of cells, without an application."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from otus_tui.glyphs import ASCII, UNICODE
from otus_tui.model import History, Model
from otus_tui.screens.cells import call_columns, stream_columns
from otus_tui.screens.drops import worker_lines
from otus_tui.screens.filter_form import expression
from otus_tui.screens.message import compare_lines
from otus_tui.screens.table import rows_as_text
from otus_tui.screens.tasks import wrapped
from otus_tui.settings import Settings
from otus_tui.themes import load_themes, parse_theme
from otus_tui.widgets.chart import nice_ceiling, plot
from otus_tui.widgets.columns import lay_out
from otus_tui.widgets.frame import books_spans
from otus_tui.widgets.ink import ROLES, plain, shorten, width_of
from otus_tui.widgets.ladder import Flow, Ladder, Options, fitting, split_endpoint
from otus_tui.widgets.text_view import TextView, fold, highlight, message_lines
from tests.pace import within
from tests.tui.conftest import Start
from tests.tui.engine_rows import NOW_NS, SECOND, call_row, message_row, stream_row, task

TEXT = st.text(st.characters(exclude_categories=()), max_size=40)


# --- ladder


def flow(messages: list[dict[str, Any]], streams: list[dict[str, Any]] | None = None, **options: Any) -> Flow:
    built = Flow(messages, streams or [], Options(**options))
    built.build(UNICODE)
    return built


def test_a_column_per_address_and_arrows_in_order() -> None:
    built = flow([message_row(i) for i in range(5)], [stream_row(0), stream_row(1)])
    assert built.hosts == ["10.0.0.7", "10.0.0.9"]
    assert [(i.label, i.source, i.target) for i in built.items if i.kind == "message"] == [
        ("INVITE SDP", 0, 1),
        ("100 Trying", 1, 0),
        ("180 Ringing", 1, 0),
        ("200 OK SDP", 1, 0),
        ("ACK", 0, 1),
    ]
    assert [(i.source, i.target) for i in built.items if i.kind == "stream"] == [(0, 1), (1, 0)]
    assert [built.time_text(i) for i in range(3)] == ["08:39:54.000", "+2.0 ms", "+411 ms"]


def test_a_host_that_calls_itself_has_a_column_per_port() -> None:
    a, b = "127.0.0.1:5061", "127.0.0.1:5060"
    messages = [message_row(0, src=a, dst=b), message_row(1, src=b, dst=a)]
    assert flow(messages).hosts == [a, b]
    assert flow(messages, hosts="address").hosts == ["127.0.0.1"]
    assert flow([message_row(0)], hosts="port").hosts == ["10.0.0.7:5060", "10.0.0.9:5060"]


def test_media_is_drawn_between_those_who_offered_the_ports() -> None:
    a, b = "127.0.0.1:5061", "127.0.0.1:5060"
    messages = [
        message_row(0, src=a, dst=b, sdp="audio 40012 PCMA"),
        message_row(3, src=b, dst=a, sdp="audio 6000 PCMA"),
    ]
    stream = stream_row(0, src="127.0.0.1", dst="127.0.0.1", sport=6000, dport=40012)
    item = next(i for i in flow(messages, [stream]).items if i.kind == "stream")
    assert (item.source, item.target) == (1, 0)
    # A media server of its own gets its own column.
    other = stream_row(0, src="10.0.0.50", dst="127.0.0.1", sport=50000, dport=40012)
    assert flow(messages, [other]).hosts[-1] == "10.0.0.50"


def test_modes_of_sdp_and_media() -> None:
    messages = [message_row(i) for i in range(5)]
    messages[0]["sdp"] = "audio 40012 PCMA; video 40014 H264"
    full = flow(messages, sdp="full")
    assert [i.label for i in full.items[:3]] == ["INVITE", "audio 40012 PCMA", "video 40014 H264"]
    assert [i.kind for i in flow(messages, sdp="first").items[:3]] == ["message", "note", "message"]
    assert flow(messages, sdp="off").items[0].label == "INVITE"
    assert len(flow(messages, only_sdp=True).items) == 2
    assert [i.kind for i in flow(messages, [stream_row(0)], only_media=True).items] == ["stream"]
    assert all(i.kind != "stream" for i in flow(messages, [stream_row(0)], media=False).items)


def test_loss_and_defects_have_signs() -> None:
    built = flow(
        [message_row(0, error="no Via", retransmission=True)],
        [stream_row(0, lost_pct=9.8, found_by="heuristic")],
    )
    assert built.items[0].label == "▲ INVITE SDP ↻" or built.items[1].label == "▲ INVITE SDP ↻"
    stream = next(i for i in built.items if i.kind == "stream")
    assert stream.label == "RTP PCMA 3,612  ▲ loss 9.80 % ?"
    assert stream.role == "warning"


@pytest.mark.parametrize(
    ("endpoint", "parts"),
    [
        ("10.0.0.1:5060", ("10.0.0.1", "5060")),
        ("[2001:db8::1]:5060", ("2001:db8::1", "5060")),
        ("2001:db8::1", ("2001:db8::1", "")),
        ("10.0.0.1", ("10.0.0.1", "")),
        ("", ("", "")),
    ],
)
def test_split_endpoint(endpoint: str, parts: tuple[str, str]) -> None:
    assert split_endpoint(endpoint) == parts


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), TEXT, TEXT), max_size=12))
@settings(deadline=None)
def test_a_ladder_of_anything_is_built(parts: list[tuple[int, int, str, str]]) -> None:
    messages = [
        message_row(
            i, src=f"10.0.0.{a}:5060", dst=f"10.0.0.{b}:5060", method=method, sdp=sdp or None, cseq=sdp
        )
        for i, (a, b, method, sdp) in enumerate(parts)
    ]
    for colours in ("class", "cseq"):
        built = flow(messages, sdp="full", colours=colours)
        for index, item in enumerate(built.items):
            assert item.source < len(built.hosts)
            assert item.target < len(built.hosts)
            assert "\x1b" not in item.label
            built.time_text(index)


# --- tables


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200, 300])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_the_columns_fill_the_width(width: int, glyphs: Any) -> None:
    for columns, row in ((call_columns(glyphs), call_row(3)), (stream_columns(glyphs), stream_row(3))):
        shown = lay_out(columns, None, width - 2, width)
        total = sum(w for _, w in shown) + len(shown) - 1
        if width >= 80:
            assert total <= width - 2
        for column, _ in shown:
            text, role = column.cell(row)
            assert "\n" not in text
            assert role in ("", *ROLES)


def test_the_six_columns_that_matter_stand_at_80() -> None:
    keys = [column.key for column, _ in lay_out(call_columns(UNICODE), None, 78, 80)]
    assert keys == ["number", "method", "from", "to", "state", "duration_s"]


def test_what_is_unknown_is_a_dot() -> None:
    empty = dict.fromkeys(call_row(0))
    for column in call_columns(UNICODE):
        text, _ = column.cell(empty)
        assert text.strip() in ("·", "", "None") or column.key == "state", column.key
        assert text.strip() != "0"


@given(TEXT, TEXT)
def test_a_cell_shows_hostile_text_as_escapes(sender: str, state: str) -> None:
    row = call_row(0, **{"from": sender, "state": state, "method": sender, "call_id": sender})
    for column in call_columns(UNICODE):
        text, _ = column.cell(row)
        assert all(ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0 and c not in "\u202e\u2066" for c in text)


def test_saved_rows() -> None:
    rows = [call_row(0, **{"from": '=cmd|"x"'}), call_row(1)]
    columns = lay_out(call_columns(UNICODE), None, 78, 80)
    assert rows_as_text(rows, columns, "a.json").count("\n") == 2
    assert "'=cmd" in rows_as_text(rows, columns, "a.csv")
    assert "bob1@exampl" in rows_as_text(rows, columns, "a.txt")
    assert rows_as_text([], columns, "a.csv") == ""


def test_a_filter_from_the_form() -> None:
    assert expression({}) == ""
    assert expression({"from": 'a"b', "state": "busy, rejected"}) == (
        'from ~ "a\\"b" and (state == busy or state == rejected)'
    )
    assert expression({"method": "invite"}) == "method == INVITE"


# --- texts


def test_a_message_in_roles() -> None:
    lines = message_lines("INVITE sip:b@x SIP/2.0\r\nFrom: a\r\n b\r\n\r\nv=0\r\n", UNICODE)
    assert lines[0] == [("INVITE", "title"), (" sip:b@x", ""), (" SIP/2.0", "dim")]
    assert lines[1] == [("From", "header"), (":", "dim"), (" a", "")]
    assert lines[2] == [(" b", "")]
    assert lines[4] == [("v=", "sdp"), ("0", "")]
    assert message_lines("SIP/2.0 503 No", UNICODE)[0][1] == ("503 No", "failure")


@given(TEXT, st.booleans())
def test_a_message_of_anything_is_text(raw: str, colours: bool) -> None:
    for line in message_lines(raw, UNICODE, colours):
        text = plain(line)
        assert all(ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0 for c in text)


@given(
    st.lists(st.tuples(st.text("ab日é ", max_size=30), st.sampled_from(["", "dim"])), max_size=5),
    st.integers(8, 30),
)
def test_fold_keeps_the_text_and_the_width(line: list[tuple[str, str]], room: int) -> None:
    pieces = fold(line, room)
    assert all(width_of(piece) <= room for piece in pieces)
    joined = plain(pieces[0]) + "".join(plain(piece[1:]) for piece in pieces[1:])
    assert joined == plain(line)


@pytest.mark.parametrize("text", ["a" * 262_144, "\u00e9" * 131_072, "a\u754c" * 65_536])
def test_a_line_from_the_wire_is_folded_in_a_moment(text: str) -> None:
    def folded() -> None:
        pieces = fold([(text, "")], 80)
        assert "".join(plain(piece[1:] if number else piece) for number, piece in enumerate(pieces)) == text

    assert within(1200, folded)


def test_messages_from_the_wire_are_compared_in_a_moment() -> None:
    first = [f"X-Header-{number}: value" for number in range(1000)]
    second = [f"X-Haeder-{number * 7}: values" for number in range(1000)]
    assert within(1200, lambda: compare_lines(first, second))
    assert len(compare_lines(first, second)) == 2000


async def test_a_ladder_of_a_thousand_hosts_is_painted_in_a_moment(start: Start) -> None:
    async with start(screen="calls") as desk:
        desk.engine.messages = [
            message_row(n, src=f"10.0.{n // 250}.{n % 250}:5060", dst=f"10.1.{n // 250}.{n % 250}:5060")
            for n in range(500)
        ]
        await desk.press("end", "enter")
        ladder = desk.app.screen.query_one(Ladder)
        assert len(ladder.flow.hosts) >= 1000
        assert within(1200, lambda: [ladder.row(index) for index in range(40)])


async def test_find_reaches_every_place_on_the_last_page(start: Start) -> None:
    async with start(screen="drops") as desk:
        view = desk.app.screen.query_one(TextView)
        view.set_lines([[(f"line {number} {'x' * (number > 90)}", "")] for number in range(95)])
        found = []
        for _ in range(5):
            assert view.find("x")
            found.append(view.cursor)
        assert found == [91, 92, 93, 94, 91]


def test_highlight() -> None:
    assert highlight([("Via: a", "header"), ("Bc", "")], "AB") == [
        ("Via: ", "header"),
        ("a", "find"),
        ("B", "find"),
        ("c", ""),
    ]
    assert highlight([("abc", "x")], "z") == [("abc", "x")]


def test_compare() -> None:
    assert compare_lines(["a", "b"], ["a", "c"]) == [
        [("  a", "dim")],
        [("- b", "failure")],
        [("+ c", "success")],
    ]


# --- charts and the model


@given(
    st.lists(st.none() | st.floats(0, 1e9), max_size=200),
    st.integers(1, 60),
    st.integers(1, 8),
    st.booleans(),
)
def test_a_chart_has_its_size(values: list[float | None], width: int, height: int, ascii_only: bool) -> None:
    top = nice_ceiling(max((v for v in values if v is not None), default=0.0))
    lines = plot(values, width, height, top, ascii_only)
    assert len(lines) == height
    assert all(cell_len(line) == width for line in lines)


def test_a_chart_fills_from_below_and_shows_the_least() -> None:
    assert plot([0, 8, 4, 1], 2, 1, 8.0) == ["⢸⣄"]
    assert plot([0, 0, 0, 0.001], 2, 1, 8.0)[0] == " ⢀"
    assert plot([None, None], 1, 1, 1.0) == [" "]


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.7, 1), (1.2, 2), (2, 2), (37, 50), (51, 100), (1e6, 1e6)]
)
def test_nice_ceiling(value: float, top: float) -> None:
    assert nice_ceiling(value) == pytest.approx(top)


def snapshot(at: float, received: int = 0, calls: int = 0, lost: int = 0, rtp: int = 0) -> dict[str, Any]:
    books = {**task()["books"], "received": received}
    return {
        "time_ns": NOW_NS + int(at * SECOND),
        "tasks": [task(books=books)],
        "sip": {"messages": received, "calls": calls, "removed": 0},
        "media": {"packets": rtp, "lost": lost},
    }


def test_rates_are_differences() -> None:
    history = History()
    assert history.rate("received") is None
    for i in range(10):
        history.add(snapshot(i, received=i * 100, rtp=i * 90, lost=i * 10))  # type: ignore[arg-type]
    assert history.rate("received") == pytest.approx(100)
    # A counter that starts anew is not a negative rate.
    history.add(snapshot(11, received=3))  # type: ignore[arg-type]
    assert history.rate("received") is None
    assert history.series("received", 10, 10)[0] == pytest.approx(100)
    assert history.loss_series(10, 10)[0] == pytest.approx(10.0)
    assert history.series("received", 5, 1000)[0] is None


def test_the_history_begins_again_when_the_clock_steps_back() -> None:
    history = History()
    for at in (NOW_NS, NOW_NS - 3600 * SECOND, NOW_NS - 3599 * SECOND):
        history.add({"time_ns": at})
    assert [sample.time_ns for sample in history.samples] == [
        NOW_NS - 3600 * SECOND,
        NOW_NS - 3599 * SECOND,
    ]


def test_the_history_is_bounded() -> None:
    history = History()
    for i in range(5000):
        history.add(snapshot(i / 4))  # type: ignore[arg-type]
    assert len(history.samples) < 1000


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_the_books_line_fits(width: int) -> None:
    model = Model(lambda: NOW_NS)
    for i in range(3):
        model.take(snapshot(i, received=123_456 * i, rtp=99_999 * i))  # type: ignore[arg-type]
    line = books_spans(model, width, UNICODE)
    assert width_of(line) <= width
    assert "books even" in plain(line)


# --- themes and settings


def test_themes_name_every_role() -> None:
    themes, problems = load_themes()
    assert not problems
    assert [theme.name for theme, _ in themes] == [
        "otus-dark",
        "otus-contrast",
        "otus-light",
        "otus-terminal",
    ]
    for theme, _ in themes:
        for role in ROLES:
            assert f"ink-{role}" in theme.variables


def test_a_theme_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a name and a primary colour"):
        parse_theme("dark = true")


def test_settings_survive_damage(tmp_path: Any) -> None:
    path = tmp_path / "screens.json"
    path.write_text("{")
    damaged = Settings.load(path)
    assert damaged.problem
    damaged.set_columns("calls", ["number"])
    assert path.read_text() == "{"
    path.write_text('{"theme": 3, "columns": {"calls": ["number"], "x": 1}, "keys": {"table.mark": "m"}}')
    settings_ = Settings.load(path)
    assert (settings_.theme, settings_.columns, settings_.keys) == (
        "otus-dark",
        {"calls": ["number"]},
        {"table.mark": "m"},
    )
    settings_.set_columns("calls", None)
    assert Settings.load(path).columns == {}


def test_figures_of_workers_never_touch() -> None:
    workers: list[Any] = [
        {
            "index": index, "state": "running", "pid": 1, "cpu": index, "restarts": 0, "cpu_s": 1.0,
            "counters": {"bytes": 123_290_759_492},
        }
        for index in range(2)
    ]  # fmt: skip
    octets = next(line for line in worker_lines(workers, 80, UNICODE) if "bytes" in plain(line))
    assert plain(octets).split() == ["bytes", "123,290,759,492", "123,290,759,492"]


def test_figures_of_a_reporter_go_on_in_the_next_line() -> None:
    text = "file  target /var/log/otus/sip.jsonl  accepted 1,200,000  queue_full 0  report_error 0"
    assert wrapped(text, 64) == [
        "file  target /var/log/otus/sip.jsonl  accepted 1,200,000",
        "queue_full 0  report_error 0",
    ]
    assert wrapped("", 10) == [""]
    assert wrapped("cannot write the file  now", 12) == ["cannot write", "the file", "now"]


def test_a_narrow_arrow_of_media_keeps_what_is_wrong() -> None:
    label = "RTP PCMA 230  ▲ loss 2.54 %  MOS 4.18"
    assert fitting(label, 40, "▲") == label
    assert fitting(label, 30, "▲") == "RTP PCMA 230  ▲ loss 2.54 %"
    assert fitting(label, 15, "▲") == "▲ loss 2.54 %"
    assert fitting("RTP PCMA 230  loss 0.0 %  MOS 4.41", 15, "▲") == "RTP PCMA 230"
    assert fitting(label, 5, "▲") == label


def test_a_line_without_room_loses_whole_words() -> None:
    line = [
        ("4 TCP", "key"),
        ("  zero window ", "dim"),
        ("12", "warning"),
        ("  listen drops ", ""),
        ("31", ""),
    ]
    found = {plain(shorten(line, width)) for width in range(12, width_of(line) + 1)}
    assert found == {
        "4 TCP …",
        "4 TCP  zero …",
        "4 TCP  zero window …",
        "4 TCP  zero window 12 …",
        "4 TCP  zero window 12  listen …",
        "4 TCP  zero window 12  listen drops …",
        plain(line),
    }
    assert plain(shorten([(" ", ""), ("/a/very/long/path", "")], 10)) == " /a/very …"
    assert all(width_of(shorten(line, width)) <= width for width in range(3, 50))

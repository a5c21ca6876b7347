"""The TCP screens and the kernel's drops over a scripted engine."""

from __future__ import annotations

from typing import Any

import pytest

from engine.control.methods import ERROR_REFUSED
from engine.tcp import drop_reasons
from otus_tui.glyphs import ASCII, UNICODE
from otus_tui.screens.kernel_drops import kernel_lines
from otus_tui.screens.tcp import ListenerScreen, TcpGroupScreen, TcpScreen, local_window
from otus_tui.screens.tcp_columns import connection_columns, endpoint, group_filter
from otus_tui.screens.tcp_connection import ConnectionScreen, spread_out
from otus_tui.widgets.columns import lay_out
from otus_tui.widgets.ink import plain, width_of
from otus_tui.widgets.live_table import LiveTable
from otus_tui.widgets.tcp_figures import figure_lines, grouped, heat_lines
from otus_tui.widgets.text_view import TextView
from tests.tui.conftest import LARGE, SIZES, SMALL, Size, Start
from tests.tui.engine_rows import file_task, tcp_event, tcp_row, tcp_section, tcp_window
from tests.tui.scripted_engine import ScriptedEngine

EVIL = "e\x1b[31m[red]\u202e"


@SIZES
async def test_figures_and_connections_stand_on_one_screen(start: Start, size: Size) -> None:
    async with start(size=size, screen="tcp") as desk:
        await desk.tick()
        text = desk.text
        assert "RTT, 10 s, 6.11k samples" in text
        assert any("rto" in line and "2.1 ▲" in line for line in desk.lines)
        assert any("CLOSE_WAIT" in line and "31 ▲  6:52" in line for line in desk.lines)
        assert "60 connections" in text
        assert "RTTVAR" in text
        assert "▲ 3 dropped" in text
        assert "send 81.2Mb/s  recv 1.20Mb/s" in text
        slow = next(line for line in desk.lines if "203.0.113.4:50003" in line)
        assert "212 ms" in slow
        assert "▲ 31" in slow
        assert all(len(line) == size[0] for line in desk.lines)
        if size == LARGE:
            assert "p50" in text
            assert any("443" in line and "12/128" in line for line in desk.lines)
            assert "nginx/813" in slow


async def test_sections_of_the_subscription_name_tcp(start: Start) -> None:
    async with start() as desk:
        assert "tcp" in desk.engine.asked_of("subscribe")[0]["sections"]


async def test_sort_filter_and_enter_lead_to_the_connection_and_back(start: Start) -> None:
    async with start(size=SMALL, screen="tcp") as desk:
        await desk.tick()
        await desk.press("z")
        assert desk.engine.asked_of("tcp_connections")[-1]["descending"] is False
        await desk.press("<")
        assert desk.engine.asked_of("tcp_connections")[-1]["sort"] == "retransmits"
        await desk.press("slash")
        await desk.type("203.0.113.4")
        await desk.press("enter")
        assert "of 60 connections" in desk.text
        await desk.press("enter")
        assert isinstance(desk.app.screen, ConnectionScreen)
        await desk.tick()
        assert "10.0.0.7:443 → 203.0.113.4:50003  ESTABLISHED" in desk.text
        assert "─ RTT ─" in desk.text
        assert "790 µs" in desk.text
        view = desk.app.screen.query_one(TextView)
        assert "found from the socket in /proc" in view.text()
        assert "rto" in view.text()
        assert "3 timeouts" in view.text()
        await desk.press("escape")
        assert isinstance(desk.app.screen, TcpScreen)
        row = desk.app.screen.table.current()
        assert row is not None
        assert row["id"] == "9003"


async def test_a_connection_that_is_gone_keeps_what_was_seen(start: Start) -> None:
    async with start(size=LARGE, screen="tcp") as desk:
        await desk.tick()
        await desk.press("enter")
        desk.engine.connections.clear()
        desk.engine.tcp = tcp_section(version=2)
        await desk.tick()
        assert "▲ gone: what was seen last" in desk.text
        assert "10.0.0.7:443" in desk.text


async def test_groups_lead_to_their_connections_and_back_to_the_row(start: Start) -> None:
    async with start(size=SMALL, screen="tcp") as desk:
        await desk.tick()
        await desk.press("g")
        assert isinstance(desk.app.screen, TcpGroupScreen)
        assert "2 by process" in desk.text
        await desk.press("down", "enter")
        assert isinstance(desk.app.screen, TcpScreen)
        assert "filter pid == 81" in desk.text
        await desk.press("escape")
        assert isinstance(desk.app.screen, TcpGroupScreen)
        assert desk.app.screen.table.cursor == 1
        await desk.press("g")
        assert "60 by peer" in desk.text
        await desk.press("g")
        assert "1 by local port" in desk.text
        await desk.press("g", "g")
        assert "2 by process" in desk.text


async def test_listeners_show_what_they_dropped(start: Start) -> None:
    async with start(size=SMALL, screen="tcp") as desk:
        await desk.tick()
        await desk.press("L")
        assert isinstance(desk.app.screen, ListenerScreen)
        line = next(line for line in desk.lines if "0.0.0.0:443" in line)
        assert "▲ 3" in line
        await desk.press("slash")
        await desk.type("port == 1")
        assert "take words to look for" in desk.text
        await desk.type("9091")
        await desk.press("enter")
        assert "1 of 2 listening sockets" in desk.text


async def test_a_listening_socket_that_was_closed_is_shown_as_that(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        one, *more = tcp_window(10.0)["listen"]
        window = tcp_window(10.0, listen=[{**one, "open": False}, *more])
        engine.tcp = tcp_section(windows=dict.fromkeys(("1", "10", "60", "run"), window))

    async with start(size=LARGE, screen="tcp", prepare=prepare) as desk:
        await desk.tick()
        assert "closed ▲ 3 dropped" in desk.text
        assert "12/128" not in desk.text


@SIZES
async def test_the_heat_map_takes_the_place_of_the_figures(start: Start, size: Size) -> None:
    async with start(size=size, screen="tcp") as desk:
        await desk.tick()
        await desk.press("m")
        await desk.tick()
        assert "RTT over time" in desk.text
        assert "now" in desk.text
        assert "131 ms" in desk.text
        assert any("█" in line for line in desk.lines)
        await desk.press("m")
        assert "RTT, 10 s" in desk.text


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            tcp_section(
                state="failed",
                error="not permitted: CAP_BPF is missing",
                hint="sudo otus-tui tcp ...; --backend netlink",
            ),
            (
                "▲ not permitted: CAP_BPF is missing",
                "sudo otus-tui -d any",
                "otus.tcp.options: {backend: netlink} in the node file",
                "otus-tui doctor",
            ),
        ),
        (
            {"state": "off", "error": "", "hint": "otus.tcp.start in the node file: demand", "restarts": 0},
            ("the TCP observer is switched off", "otus.tcp.start in the node file: demand"),
        ),
        ({"state": "starting", "error": "", "hint": "", "restarts": 0}, ("the TCP observer is starting",)),
        (None, ("waiting for the engine",)),
    ],
)
@SIZES
async def test_without_the_observer_it_is_said_what_mends_it(
    start: Start, size: Size, section: Any, words: tuple[str, ...]
) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tcp = section

    async with start(size=size, screen="tcp", prepare=prepare) as desk:
        await desk.tick()
        for key in "45":
            await desk.press(key)
            if key == "5":
                await desk.press("K")
            for word in words:
                assert word in desk.text
        assert not desk.engine.asked_of("tcp_connections")
        await desk.press("2")
        assert "200 calls" in desk.text


@pytest.mark.parametrize("key", ["4", "5"])
async def test_r_tries_again_when_the_cause_is_mended(start: Start, key: str) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tcp = tcp_section(state="failed", error="no BTF here", hint="mount it")

    async with start(screen="tcp", prepare=prepare) as desk:
        await desk.tick()
        await desk.press(key)
        await desk.press("r")
        assert len(desk.engine.asked_of("tcp_retry")) == 1
        await desk.tick()
        await desk.press("4")
        assert "60 connections" in desk.text
        assert "no BTF here" not in desk.text


async def test_a_capture_file_says_so(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.tasks = [file_task()]
        engine.tcp = {"state": "off", "error": "", "hint": "", "restarts": 0}

    async with start(screen="tcp", prepare=prepare) as desk:
        assert "a capture file says nothing of this host's TCP" in desk.text
        assert "live: sudo otus-tui -d any" in desk.text


async def test_what_is_not_measured_is_no_zero_and_has_its_reason(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        again = tcp_window(10.0)["retransmits"]
        again = {
            "events": None, "segments": None, "tlp_new_data": None,
            "by_class": {name: {"events": None, "segments": None} for name in again["by_class"]},
        }  # fmt: skip
        window = tcp_window(10.0, rtt_us=None, rttvar_us=None, retransmits=again, listen=None)
        drops = {"total": None, "by_reason": None, "by_function": None, "benign": None}
        run = {**window, "drops": drops}
        off = {"rtt": "no tracepoint tcp_probe", "retransmits": "an old kernel", "drops": "no kfree_skb"}
        engine.tcp = tcp_section(
            windows={"1": window, "10": window, "60": run, "run": run}, off=off, backend="netlink",
            notes=["libbpf: no BTF"],
        )  # fmt: skip

    async with start(size=LARGE, screen="tcp", prepare=prepare) as desk:
        await desk.tick()
        assert "not measured: no tracepoint" in desk.text
        assert "tcp_probe" in desk.text
        assert "not measured: an" in desk.text
        assert "▲ libbpf: no BTF" in desk.text
        await desk.press("5", "K")
        assert "not measured: no kfree_skb" in desk.text


@SIZES
async def test_the_kernels_drops_have_function_and_sentence(start: Start, size: Size) -> None:
    async with start(size=size, screen="drops") as desk:
        await desk.tick()
        assert "▲ kernel drops /s  NO_SOCKET 0.5" in desk.text
        await desk.press("K")
        text = desk.text
        assert "dropped by the kernel, TCP" in text
        assert "no socket for it: nobody listens on the port" in text
        assert "in tcp_v4_rcv" in text
        assert "no loss: what a healthy host drops, too" in text
        unknown = next(line for line in desk.lines if "SUBSYSTEM_9_1" in line)
        assert unknown.split() == ["▲SUBSYSTEM_9_1", "1", "1"]
        if size == SMALL:
            await desk.press("K")
            assert "captured" in desk.text


async def test_overview_has_tcp_and_leads_there(start: Start) -> None:
    async with start(size=LARGE) as desk:
        await desk.tick()
        assert "─ TCP ─" in desk.text
        assert any("timeouts" in line and "▲ 2.1/s" in line for line in desk.lines)
        await desk.press("right", "right", "enter")
        assert isinstance(desk.app.screen, TcpScreen)
    async with start(size=SMALL) as desk:
        await desk.tick()
        line = next(line for line in desk.lines if line.startswith(" 4 TCP  ")).rstrip()
        # What is wrong comes first; what has no room is left out whole.
        assert line == " 4 TCP  timeouts ▲ 2.1/s  zero window ▲ 1  listen drops ▲ 3  connections 1,237"


async def test_text_of_others_is_no_markup_and_obeys_nobody(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.connections = [tcp_row(1, comm=EVIL, state=EVIL), tcp_row(2, local=None, local_port=None)]
        engine.tcp = tcp_section(off={EVIL: EVIL}, drop_places={"60": [], "run": [["NO_SOCKET", EVIL, 1]]})

    async with start(size=LARGE, screen="tcp", prepare=prepare) as desk:
        await desk.tick()
        assert "e\\x1b[31m[r" in desk.text
        assert "·:·" in desk.text
        await desk.press("5", "K")
        assert "\x1b" not in desk.text


async def test_a_refused_filter_is_said(start: Start) -> None:
    def prepare(engine: ScriptedEngine) -> None:
        engine.refuse["tcp_groups"] = (ERROR_REFUSED, "by: peer may be masked", "")

    async with start(size=SMALL, screen="tcp", prepare=prepare) as desk:
        await desk.tick()
        await desk.press("g")
        assert "▲ by: peer may be masked" in desk.text


async def test_the_list_of_the_kernel_is_not_cleared(start: Start) -> None:
    async with start(size=SMALL, screen="tcp") as desk:
        await desk.tick()
        await desk.press("f5")
        assert not desk.engine.asked_of("clear")
        assert desk.app.screen.query_one(LiveTable).matched == 60


# --- without a terminal


def test_steps_of_powers_have_no_gaps() -> None:
    assert grouped({7: 3, 10: 1}, 9) == [(7, 3), (8, 0), (9, 0), (10, 1)]
    assert grouped({7: 3, 10: 1}, 2) == [(7, 3), (9, 1)]
    assert grouped({}, 5) == []
    assert grouped({3: 1}, 1) == [(3, 1)]


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("width", range(60, 220, 9))
def test_figures_are_as_wide_as_the_terminal(width: int, glyphs: Any) -> None:
    section: Any = tcp_section()
    lines = figure_lines(section, width, 9, glyphs)
    assert len(lines) == 9
    assert all(width_of(line) <= width for line in lines)
    points = [{"rtt_buckets": [[8, 40], [18, 1]]} for _ in range(600)]
    heat = heat_lines(points, width, 12, glyphs)
    assert len(heat) <= 12
    assert all(width_of(line) <= width for line in heat)
    assert plain(heat[-1]).endswith("now")


@pytest.mark.parametrize("width", range(80, 260))
def test_columns_have_room_in_every_terminal(width: int) -> None:
    shown = lay_out(connection_columns(UNICODE, str), None, width - 3, width)
    assert sum(cell for _, cell in shown) + len(shown) - 1 <= width - 3
    keys = {column.key for column, _ in shown}
    assert {"local", "remote", "state", "srtt_us", "retransmits", "send_bps"} <= keys
    assert "comm" in keys or width < 98


def test_a_window_of_local_rows_answers_as_the_engine() -> None:
    rows = [{"id": i, "value": value} for i, value in enumerate((3, None, 1, 2))]
    answer = local_window(rows, {"sort": "value", "descending": True, "count": 2}, 4, 1)
    assert [row["id"] for row in answer["rows"]] == [0, 3]
    answer = local_window(rows, {"sort": "value", "anchor": 2, "offset": -1, "count": 9}, 4, 1)
    assert [row["id"] for row in answer["rows"]] == [2, 3, 0, 1]
    answer = local_window(rows, {"sort": "value", "ids": [1, 9, 0], "count": 0}, 4, 1)
    assert [row["id"] for row in answer["rows"]] == [1, 0]


def test_names_of_ends_and_filters_of_groups() -> None:
    assert endpoint("2001:db8::1", 443) == "[2001:db8::1]:443"
    assert endpoint(None, None) == "·:·"
    assert group_filter("process", "nginx/812") == "pid == 812"
    assert group_filter("process", "unknown") == "not (pid > 0)"
    assert group_filter("peer", 'a"b') == 'remote == "a\\"b"'
    assert group_filter("local_port", "443") == "local_port == 443"


def test_charts_of_few_looks_stand_at_the_right() -> None:
    assert spread_out([1.0, 2.0], 4) == [None, None, 1.0, 2.0]
    assert spread_out([1.0] * 40, 100) == [None] * 20 + [1.0] * 80
    assert len(spread_out([1.0] * 120, 80)) == 80


def test_sentences_are_one_line_each() -> None:
    assert len(drop_reasons.SENTENCES) >= 60
    for name, words in drop_reasons.SENTENCES.items():
        assert name.isupper()
        assert 10 < len(words) < 90
    assert drop_reasons.sentence("NEVER_HEARD_OF") == ""


def test_drops_without_reasons_name_functions() -> None:
    from otus_tui.model import Model

    drops = {"total": 5, "by_reason": None, "by_function": {"tcp_v4_rcv": 5}, "benign": None}
    window = tcp_window(60.0, drops=drops)
    section: Any = tcp_section(
        windows={"10": window, "60": window, "run": window}, off={"drop_reasons": "since Linux 5.17"}
    )
    text = "\n".join(plain(line) for line in kernel_lines(section, Model(), 78, UNICODE))
    assert "not measured: since Linux 5.17" in text
    assert "in tcp_v4_rcv" in text


def test_events_of_a_connection_read_well() -> None:
    from otus_tui.screens.tcp_connection import event_lines

    one = tcp_event(trigger={"name": "rtt_above", "value": 212_000, "threshold": 200_000, "unit": "us"})
    line = plain(event_lines([one], 100, UNICODE)[-1])
    assert line.split()[:8] == ["08:41:02.125", "rtt", "above", "212", "ms", "200", "ms", "212"]
    assert plain(event_lines([tcp_event(timestamp="?")], 100, UNICODE)[-1]).split()[0] == "·"


def test_full_tables_and_short_windows_are_told() -> None:
    tables = {"sockets_evicted": 1200, "closed_lost": 34, "runs_missed": 3}
    lengths = {"1": 1.0, "10": 4.0, "60": 4.0, "run": 764.0}
    windows = {name: tcp_window(length, tables=tables) for name, length in lengths.items()}
    text = "\n".join(plain(line) for line in figure_lines(tcp_section(windows=windows), 180, 12, UNICODE))
    assert "1,200 evicted" in text
    assert "3 runs of programs left out" in text
    assert "34 ends lost" in text
    assert "RTT, 4 s" in text
    assert "RTT, 10 s" not in text

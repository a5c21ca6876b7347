"""Rows, groups and history of connections; throughput from one look to the next; the text for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.calls.query import Windows, parse_query
from engine.errors import UsageError
from engine.tcp import histogram, history, inet_diag, prometheus, snmp, summary, text
from engine.tcp.backend import (
    METRICS,
    Closed,
    Connection,
    Cost,
    Filters,
    Histogram,
    Limits,
    Listener,
    Reading,
    Sizes,
    Triggers,
)
from engine.tcp.events_file import EventsFile
from engine.tcp.mask import Mask
from engine.tcp.netlink import NetlinkBackend
from engine.tcp.rows import CONNECTION_ROW, LISTENER_ROW, Table, listener
from engine.tcp.throughput import Throughput
from engine.tcp.windows import difference

SECOND = 1_000_000_000


def connection(cookie: int = 1, **changes: Any) -> Connection:
    one = Connection(cookie, "ESTABLISHED", "10.0.0.1", 40_000 + cookie, "10.0.0.2", 443, netns=7)
    one.bytes_acked = one.bytes_received = one.retransmits = 0
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def test_a_row_has_its_keys_and_rates_are_bits() -> None:
    table = Table()
    table.take([connection(pacing_bps=100, retransmits=1)], {1: (8.0, 16.0)})
    table.take([connection(pacing_bps=100, retransmits=4)], {1: (8.0, 16.0)})
    row = table.row(table.rows[0], Mask("none"))
    assert tuple(row) == CONNECTION_ROW
    assert (row["pacing_bps"], row["send_bps"], row["receive_bps"]) == (800, 8.0, 16.0)
    assert row["retransmits_new"] == 3
    assert row["srtt_us"] is None
    hidden = table.row(table.rows[0], Mask("all"))
    assert hidden["local"].startswith("addr-")
    assert hidden["remote_port"].startswith("port-")


@pytest.mark.parametrize("kind", ["addresses", "ports", "all"])
@pytest.mark.parametrize("column", ["local", "remote", "local_port", "remote_port"])
def test_what_is_masked_cannot_be_tried_out(kind: Any, column: str) -> None:
    """By a filter, a word or the order: a pseudonym finds its row, the thing itself does not."""
    mask = Mask(kind, bytes(32))
    table = Table(mask)
    for cookie in (3, 1, 2):
        one = connection(cookie, local=f"10.0.0.{cookie}", remote=f"203.0.113.{cookie}")
        one.remote_port = 400 + cookie
        table.rows.append(one)
    orders = Windows(table.columns, table.search, "srtt_us")

    def matches(text: str) -> int:
        query = parse_query({"filter": text}, table.columns, "srtt_us")
        return len(orders.find(query, 1, lambda: table.rows).rows)

    shown = table.row(table.rows[0], mask)[column]
    value = getattr(table.rows[0], column)
    hidden = shown != value
    assert hidden == (kind in ("all", "ports" if column.endswith("port") else "addresses"))
    for guess in (f'{column} == "{value}"', f'{column} ~ "^{value}$"', f'"{value}"'):
        assert matches(guess) == (0 if hidden else 1), guess
    assert matches(f'{column} == "{shown}"') == 1
    assert matches(f'"{shown}"') == 1
    if hidden:
        with pytest.raises(UsageError, match="is text"):
            matches(f"{column} > 0")
    query = parse_query({"sort": column}, table.columns, "srtt_us")
    order = [table.row(one, mask)[column] for one in orders.find(query, 1, lambda: table.rows).rows]
    assert order == sorted(order)


def test_groups_are_sums() -> None:
    table = Table()
    rows = [
        connection(1, srtt_us=100, comm="a", pid=5),
        connection(2, srtt_us=300, comm="a", pid=5),
        connection(3),
    ]
    table.take(rows, {1: (1.0, 2.0), 2: (10.0, 20.0)})
    first, second = table.groups(rows, "process")
    assert (first["key"], first["connections"], first["send_bps"]) == ("a/5", 2, 11.0)
    assert (first["srtt_us"], first["srtt_us_max"]) == (200.0, 300)
    assert (second["key"], second["srtt_us"]) == ("unknown", None)


def test_the_row_of_a_listening_socket() -> None:
    one = Listener("::", 80, 3, 128, 9, netns=7)
    row = listener(one, {(7, "::", 80): (5, 2, 3)}, Mask("none"))
    assert tuple(row) == LISTENER_ROW
    assert (row["drops"], row["syn_drops"], row["accept_drops"]) == (5, 2, 3)


@given(st.lists(st.lists(st.integers(1, 40), max_size=30, unique=True), max_size=12))
def test_history_is_bounded_and_stays_with_its_connection(looks: list[list[int]]) -> None:
    kept = history.Connections()
    for at, cookies in enumerate(looks):
        kept.take([connection(cookie, srtt_us=cookie) for cookie in cookies], {}, at)
    for cookie in looks[-1] if looks else ():
        found = kept.of(cookie)
        assert set(found["srtt_us"]) == {cookie}
        assert found["time_ns"][-1] == len(looks) - 1
        assert found["send_bps"][-1] is None
    assert kept.of(999) == {name: [] for name in history.FIELDS}


def test_history_forgets_what_is_old() -> None:
    kept = history.Connections()
    for at in range(history.LOOKS * 3):
        kept.take([connection(1)], {}, at)
    assert kept.of(1)["time_ns"] == list(range(history.LOOKS * 2, history.LOOKS * 3))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), min_size=1, max_size=30))
def test_throughput_adds_up(steps: list[tuple[int, bool]]) -> None:
    """Bytes of connections that come, grow, and end between looks are all counted, those before the first
    not."""
    throughput = Throughput(3)
    total, cookie, expected, time_ns = 5000, 1, 0, SECOND
    throughput.look([connection(1, bytes_acked=total)], [], time_ns)
    for grown, ends in steps:
        time_ns += SECOND
        total += grown
        expected += grown
        if ends:
            throughput.look([], [Closed(cookie, total, 0)], time_ns)
            cookie, total = cookie + 1, 0
        else:
            throughput.look([connection(cookie, bytes_acked=total)], [], time_ns)
    assert throughput.send_bytes == expected
    assert throughput.covered_ns == len(steps) * SECOND


def test_what_ends_between_two_looks_counts_in_full_with_the_next() -> None:
    one = Throughput(3)
    one.end([Closed(9, 700, 70)], SECOND)
    one.look([connection(1, bytes_acked=100)], [], SECOND)
    one.end([Closed(1, 150, 0), Closed(2, 1000, 10)], SECOND * 3 // 2)
    assert (one.send_bytes, one.receive_bytes) == (0, 0), "no time is covered yet"
    one.look([], [Closed(3, 5, 0)], SECOND * 2)
    assert (one.send_bytes, one.receive_bytes, one.covered_ns) == (1055, 10, SECOND)
    assert sum(one.send.buckets) == 3


def test_a_burst_in_a_short_last_look_is_no_rate() -> None:
    one = Throughput(3)
    one.look([connection(1, bytes_acked=0)], [], SECOND, 0.5)
    one.look([connection(1, bytes_acked=1000)], [], 2 * SECOND, 0.5)
    late = 2 * SECOND + SECOND // 10
    one.look([connection(1, bytes_acked=100_000)], [Closed(2, 50_000, 0)], late, 0.5)
    assert (one.send_bytes, one.covered_ns) == (150_000, SECOND + SECOND // 10)
    assert sum(one.send.buckets) == 2
    assert one.send.largest == 50_000 * 8 / 0.5
    assert one.rates == {1: (8000.0, 0.0)}
    alone = Throughput(3)
    alone.look([connection(1, bytes_acked=0)], [], SECOND, 0.5)
    alone.look([connection(1, bytes_acked=1000)], [], SECOND + SECOND // 10, 0.5)
    assert alone.send.largest == 80_000


def test_a_namespace_that_comes_later_counts_from_its_first_look() -> None:
    throughput = Throughput(3)
    throughput.look([connection(1)], [], SECOND)
    throughput.look([connection(2, netns=8, bytes_acked=900)], [], 2 * SECOND)
    assert throughput.send_bytes == 0
    throughput.look(
        [connection(2, netns=8, bytes_acked=950), connection(3, netns=8, bytes_acked=7)], [], 3 * SECOND
    )
    assert throughput.send_bytes == 57


def document(**changes: Any) -> dict[str, Any]:
    count = histogram.bucket_count(3)
    empty = Reading(0)
    rtt = Histogram([0] * count)
    for value in (100, 200, 90_000):
        histogram.add(rtt.buckets, value, 3)
        rtt.total += value
        rtt.largest = value
    now = Reading(SECOND, {"retransmit_rto_events": 2, "retransmit_rto_segments": 3}, {"rtt_us": rtt})
    for name, value in changes.items():
        setattr(now, name, value)
    return summary.document(
        difference((0, empty), (SECOND, now)), backend="libbpf", netns=7, off={"cwnd": "no such probe here"},
        listeners=[], sub_bits=3, mask=Mask("none"), final=True,
    )  # fmt: skip


def test_what_is_off_or_absent_is_null() -> None:
    found = document()
    assert found["cwnd"] is None
    assert found["rttvar_us"] is None
    assert found["zero_window"]["sent"] == {"episodes": None, "seconds": None}
    assert found["retransmits"]["events"] == 2
    assert found["retransmits"]["segments"] == 3
    assert found["retransmits"]["by_class"]["fast"] == {"events": None, "segments": None}
    assert found["rtt_us"]["max"] == 90_000
    assert found["throughput_bps"]["send_total"] is None


def test_metrics_say_what_is_off_and_keep_labels_few() -> None:
    found = document(drops={(f"REASON_{at}", "f"): at + 1 for at in range(300)}, counters={"drops": 300})
    text = prometheus.text(found)
    assert 'otus_tcp_metric_available{metric="cwnd",reason="no such probe here"} 0.0' in text
    for metric in METRICS:
        assert f'metric="{metric}"' in text
    assert text.count("otus_tcp_drops_total{") == prometheus.MOST_REASONS
    buckets = [line for line in text.splitlines() if line.startswith("otus_tcp_rtt_seconds_bucket")]
    assert len(buckets) == 20
    assert buckets[-1].endswith('{le="+Inf"} 3.0')


def test_runs_that_the_kernel_left_out_are_told() -> None:
    class Programs:
        def costs(self) -> list[Cost]:
            return [Cost("segment", 10, 5000, 3), Cost("destroy", 4, 400)]

    _, *lines = text.costs(Programs())  # type: ignore[arg-type]
    assert [line.split()[0] for line in lines] == ["segment", "runs", "destroy"]
    assert lines[1].split()[-1] == "3"


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 30)), max_size=30), st.booleans())
def test_small_histograms_fit(pairs: list[tuple[int, int]], plain: bool) -> None:
    found = text.bars(sorted(pairs), plain)
    # Behind the numbers of a row there are 18 of 80 columns.
    assert len(found) <= 18
    assert bool(found.strip()) == bool(pairs)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 µs"), (412, "412 µs"), (2310, "2.31 ms"), (212_000, "212 ms"), (1_310_000, "1.31 s")],
)
def test_times_have_three_digits_and_a_unit(value: int, shown: str) -> None:
    assert text.micro(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "·"),
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (41_203, "41.2k"),
        (999_999, "1.00M"),
        (2.5e9, "2.50G"),
    ],
)
def test_numbers_have_three_digits(value: float | None, shown: str) -> None:
    assert text.thousand(value) == shown


@given(st.binary(max_size=400))
def test_any_octets_from_netlink_are_taken(octets: bytes) -> None:
    list(inet_diag.messages(octets))
    one = inet_diag.parse(octets)
    assert (one is None) == (len(octets) < 72)
    inet_diag.info(octets)


def test_older_kernels_lack_the_newest_fields() -> None:
    assert "snd_wnd" not in inet_diag.info(bytes(192))
    assert inet_diag.info(bytes(192))["sndbuf_limited"] == 0
    assert inet_diag.info(bytes(300))["total_rto_time"] == 0
    assert inet_diag.info(bytes(103))["retrans"] == 0
    assert "total_retrans" not in inet_diag.info(bytes(103))
    assert inet_diag.info(b"") == {}


def test_counters_of_the_kernel() -> None:
    found: dict[str, int] = {}
    snmp.parse(
        "Tcp: RtoMin RetransSegs\nTcp: 200 7\nIp: A\nIp: 1\nTcpExt: ListenDrops\nTcpExt: 3\nTcp: X", found
    )
    assert found == {"TcpRetransSegs": 7, "TcpExtListenDrops": 3}


def test_a_repeated_syn_is_no_timeout() -> None:
    """Three timeouts of segments, one of a SYN-ACK, which a repeated SYN had sent again, too: that they
    cannot be told apart is said."""
    kernel = {"TcpExtTCPTimeouts": 4, "TcpExtTCPSynRetrans": 2}
    assert snmp.counters(kernel)["retransmit_rto_events"] == 2
    words = (Triggers(), Limits(), Sizes())
    assert "repeated SYN" in NetlinkBackend(Filters(), *words).off["retransmits.rto.servers"]
    # With a filter each connection tells its own timeouts.
    narrow = NetlinkBackend(Filters(local_ports=[(80, 80)]), *words)
    assert "retransmits.rto.servers" not in narrow.off


def test_the_events_file_is_renamed_when_it_is_full(tmp_path: Any) -> None:
    path = tmp_path / "events.jsonl"
    file = EventsFile(str(path), 100, 2)
    file.open()
    for number in range(12):
        file.write({"number": number, "text": "x" * 20})
    file.close()
    names = ("events.jsonl.2", "events.jsonl.1", "events.jsonl")
    kept = "".join((tmp_path / name).read_text() for name in names).splitlines()
    assert all(line.startswith("{") and line.endswith("}") for line in kept)
    assert '"number":11' in kept[-1]
    assert len(kept) == 6

"""Every row of the table in docs/tcp.md that no other test takes from the command line, over a path with real
loss, delay and refusals."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path as File
from typing import Any

import pytest

from tests.builds import ROOT
from tests.live.cgroup import enter, own_cgroup
from tests.live.tcp_delay import FAR, delay, exchange, far_pair
from tests.live.tcp_path import AS_THE_KERNEL_COUNTS, CLIENT, NEEDS_PROGRAMS, SERVER, Path, needs
from tests.live.tcp_run import watching
from tests.live.tcp_traffic import Echo, asks, near, refused_by_a_firewall

pytestmark = [*NEEDS_PROGRAMS, needs("nft"), AS_THE_KERNEL_COUNTS]


def hist(one: dict[str, Any]) -> dict[str, Any]:
    """A histogram that holds something, and in order."""
    assert one["count"] == sum(count for _, count in one["buckets"]) > 0
    assert one["p50"] <= one["p90"] <= one["p99"] <= one["max"]
    return one


def test_summary_of_a_transfer_with_loss(between: Path, tmp_path: File) -> None:
    Echo(between.listen(), 60_000)
    with watching(between.client, tmp_path, "--interval", "0.5") as client:
        between.drop("tcp dport 8080 ip length > 100 numgen random mod 1000 < 15")
        begun = time.monotonic()
        asks(between, 3, 60_000, 3.0)
        client.windows()
        took = (time.monotonic() - begun) * 1e6
    last = client.final
    for name in ("rtt_us", "rttvar_us", "cwnd", "ssthresh", "pacing_bps"):
        hist(last[name])
    assert hist(last["handshake_us"]["client"])["count"] == 3
    assert last["handshake_us"]["failed"] == 0
    again = last["retransmits"]
    assert again["by_class"]["fast"]["segments"] > 0
    assert again["segments"] >= again["events"] > 0
    assert hist(again["per_connection"])["count"] == 3
    assert near(again["per_connection"]["sum"], again["segments"])
    probes = again["by_class"]["tlp"]["events"] + again["tlp_new_data"]
    assert hist(again["tlp_per_connection"])["sum"] == probes
    moved = last["throughput_bps"]
    assert hist(moved["send"])["p50"] > hist(moved["receive"])["p50"]
    assert moved["send_total"] > moved["receive_total"] > 0
    states = last["states"]
    assert states["transitions"]["SYN_SENT>ESTABLISHED"] == 3
    stay = hist(states["dwell_us"]["ESTABLISHED"])
    assert stay["count"] == 3
    # The mean is sum / count; each connection was open for three seconds.
    assert 2.5e6 < stay["sum"] / stay["count"] < took
    assert 2.5e6 < stay["p99"] < took * 1.13
    for name in ("send_bytes", "unsent_bytes", "receive_bytes"):
        hist(last["queues"][name])
    assert near(again["segments"], last["kernel"]["TcpRetransSegs"])


def test_summary_of_a_server_that_does_not_read(between: Path, tmp_path: File) -> None:
    listener = between.listen(receive_buffer=65536)
    with watching(between.server, tmp_path, "--interval", "0.5") as far:
        client, server = between.pair(listener)
        client.settimeout(0.2)
        with suppress(TimeoutError):
            while True:
                client.send(b"z" * 65536)
        time.sleep(2.5)
        client.close()
        server.close()
        listener.close()
        time.sleep(0.2)
    last = far.final
    assert hist(last["handshake_us"]["server"])["count"] == 1
    assert last["zero_window"]["sent"]["episodes"] == 1
    assert last["zero_window"]["sent"]["seconds"] > 1
    assert last["queues"]["receive_bytes"]["max"] > 10_000
    [row] = last["listen"]
    assert (row["port"], row["limit"], row["drops"], row["open"]) == (8080, 128, 0, False)


def test_rolling_windows(between: Path, tmp_path: File) -> None:
    listener = between.listen()
    with watching(between.client, tmp_path, "--interval", "0.5", "--window", "0.5,2") as run:
        client, server = between.pair(listener)
        for _ in range(20):
            client.sendall(b"q")
            server.recv(1)
        run.windows(16)
        client.close()
    lengths = [line["window_s"] for line in run.lines if not line["final"]]
    assert len(lengths) >= 12
    # On a busy machine each is as much longer as its last interval.
    pairs = list(zip(lengths[6::2], lengths[7::2], strict=True))
    assert all(0.4 < short < long for short, long in pairs)
    longest = max(short for short, _ in pairs)
    assert all(1.4 < long < 2 + 2 * longest for _, long in pairs[2:])
    assert run.lines[-3]["rtt_us"]["count"] == 0
    assert run.final["rtt_us"]["count"] > 0
    assert run.final["window_s"] > 3


def test_events_of_loss(between: Path, tmp_path: File) -> None:
    Echo(between.listen(), 60_000)
    words = ("--mode", "detail", "--cwnd-halved", "5", "--retrans-burst", "3/s", "--max-events", "10000/s")
    with watching(between.client, tmp_path, *words) as run:
        asks(between, 2, 60_000, 0.5, 0)
        between.drop("tcp dport 8080 ip length > 100 numgen random mod 1000 < 30")
        asks(between, 3, 60_000, 3.0, 0)
    halved = run.events("cwnd_drop")
    assert halved
    assert all(one["trigger"]["value"] <= one["trigger"]["threshold"] for one in halved)
    assert all(one["cwnd"] is not None and one["trigger"]["unit"] == "segments" for one in halved)
    assert all(one["trigger"]["value"] >= 3 for one in run.events("retransmit_burst"))
    assert run.events("retransmit_burst")


def test_events_of_a_path_that_becomes_slow(between: Path, tmp_path: File) -> None:
    with delay(between, 0.002) as slow:
        words = ("--mode", "both", "--rtt-jump", "3x", "--rtt-above", "20ms", "--rtt-p99")
        with watching(between.client, tmp_path, *words, "--interval", "0.5") as run:
            client, server = far_pair(between)
            exchange(client, server, 100)
            run.windows()
            slow.seconds = 0.04
            exchange(client, server, 30)
    [jump, *_] = run.events("rtt_jump")
    assert jump["trigger"]["value"] == jump["rtt_sample_us"] > jump["trigger"]["threshold"] > 3 * 3000
    [above, *_] = run.events("rtt_above")
    assert above["trigger"] == {
        "name": "rtt_above", "value": above["srtt_us"], "threshold": 20_000, "unit": "us",
    }  # fmt: skip
    [over, *_] = run.events("rtt_p99")
    assert over["trigger"]["value"] > over["trigger"]["threshold"] > 3000
    assert above["dest_ip"] == FAR


def test_events_of_a_rate_of_nothing(between: Path, tmp_path: File) -> None:
    listener = between.listen()
    client, server = between.pair(listener)
    with watching(between.client, tmp_path, "--mode", "detail", "--interval", "0.3") as run:
        client.setsockopt(socket.SOL_SOCKET, 47, struct.pack("I", 0))  # SO_MAX_PACING_RATE
        run.until('"pacing_zero"')
    found = run.events("pacing_zero")
    assert found
    assert found[0]["pacing_bps"] == found[0]["trigger"]["value"] == 0
    assert found[0]["dest_port"] == 8080
    server.close()


def test_events_of_resets_and_drops(between: Path, tmp_path: File) -> None:
    words = ("--mode", "both", "--resets", "--reset-rate", "2/s", "--drops", "--interval", "0.5")
    with watching(between.server, tmp_path, *words, "--max-events", "1000/s") as run:
        for _ in range(20):
            with between.open() as client, suppress(ConnectionRefusedError):
                client.connect((SERVER, 81))
        run.until('"reset_rate"')
        packets = refused_by_a_firewall(between, 4)
    last = run.final
    assert last["resets"]["sent"] == last["resets"]["by_reason"]["NO_SOCKET"] == 20
    assert len(run.events("reset")) == 20
    [rate, *_] = run.events("reset_rate")
    assert rate["trigger"]["value"] > rate["trigger"]["threshold"] == 2
    assert rate["trigger"]["unit"] == "resets/s"
    drops = last["drops"]
    assert drops["by_reason"]["NETFILTER_DROP"] == packets >= 4
    assert sum(drops["by_function"].values()) == drops["total"]
    told = [one for one in run.events("drop") if one["drop_reason"] == "NETFILTER_DROP"]
    assert len(told) == packets
    assert all(one["src_port"] == 8080 and one["dest_ip"] == CLIENT for one in told)
    assert all(one["drop_function"] in drops["by_function"] for one in told)


def test_a_rate_of_resets_is_of_a_second_however_long_the_interval(between: Path, tmp_path: File) -> None:
    words = ("--mode", "detail", "--reset-rate", "8/s", "--interval", "600")
    with watching(between.server, tmp_path, *words) as run:
        for _ in range(40):
            with between.open() as client, suppress(ConnectionRefusedError):
                client.connect((SERVER, 81))
        run.until('"reset_rate"')
    assert sum(one["trigger"]["value"] for one in run.events("reset_rate")) >= 20


def test_limits_of_events(between: Path, tmp_path: File) -> None:
    listener = between.listen()

    def visits(count: int) -> None:
        for _ in range(count):
            client, server = between.pair(listener)
            client.close()
            server.recv(1)
            server.close()

    seconds: list[int] = []
    """In how many at most it was done."""

    def held(*words: str) -> tuple[int, dict[str, int]]:
        with watching(between.client, tmp_path, "--mode", "detail", "--resets", *words) as run:
            begun = time.monotonic()
            for _ in range(40):
                with between.open() as client, suppress(ConnectionRefusedError):
                    client.connect((SERVER, 81))
            seconds.append(int(time.monotonic() - begun) + 2)
            visits(1)
        end = run.lines[-1]
        assert end["event_type"] == "tcp_end"
        assert end["lost"] == 0
        assert end["emitted"] == len(run.events("reset"))
        assert end["emitted"] + sum(end["suppressed"].values()) == 40
        return end["emitted"], end["suppressed"]

    emitted, stages = held("--max-events", "5/s")
    assert emitted <= 5 * seconds[0]
    assert stages["rate"] == 40 - emitted
    emitted, stages = held("--sample", "1/4")
    assert 0 < emitted < 30
    assert stages["sample"] == 40 - emitted


def test_top_flows(between: Path, tmp_path: File) -> None:
    """Ten connections with as many triggers each: those that came first stay, as long as they live."""
    listener = between.listen()
    with watching(
        between.client, tmp_path, "--mode", "detail", "--rtt-above", "1us", "--top-flows", "3"
    ) as run:
        pairs = [between.pair(listener) for _ in range(10)]
        for client, server in pairs:
            client.sendall(b"q")
            server.recv(1)
            server.sendall(b"a")
            client.recv(1)
        time.sleep(0.2)
    told = {one["socket_cookie"] for one in run.events("rtt_above")}
    assert 3 <= len(told) <= 6
    assert run.lines[-1]["suppressed"]["flow"] >= 10 - len(told)


def established(between: Path, folder: File, *words: str) -> int:
    """How many of one connection a filter lets pass."""
    listener = between.listen(8081)
    with watching(between.client, folder, *words, "--interval", "0.3") as run:
        client, server = between.pair(listener, 8081)
        client.close()
        server.close()
        time.sleep(0.1)
    listener.close()
    return int(run.final["states"]["transitions"].get("SYN_SENT>ESTABLISHED", 0))


def test_filter_by_interface(between: Path, tmp_path: File) -> None:
    assert established(between, tmp_path, "--iface", "otus0") == 1
    assert established(between, tmp_path, "--iface", "lo") == 0


def test_filter_by_cgroup(between: Path, tmp_path: File) -> None:
    with own_cgroup() as (group, _):
        assert established(between, tmp_path, "--cgroup", group.name) == 0
        enter(group)
        assert established(between, tmp_path, "--cgroup", group.name) == 1


def test_what_is_loaded_what_it_costs_and_what_is_off(between: Path, tmp_path: File) -> None:
    Echo(between.listen(), 6000)
    with watching(between.client, tmp_path, "--stats", "--max-cpu", "2%", form="text") as run:
        asks(between, 1, 6000, 0.5)
    costs = re.findall(r"^(\w+) +([\d,]+) +(\d+) +[\d.]+ ms$", run.text, re.MULTILINE)
    assert {"segment", "state_change", "sample"} <= {name for name, *_ in costs}
    assert all(0 < int(each) < 1_000_000 for _, _, each in costs)
    assert re.search(r"observer [\d.]+ % of a CPU, [\d.]+ s to start", run.text)
    assert re.search(r"^on +segment +tp_btf/tcp_probe$", run.errors, re.MULTILINE)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_prometheus_of_a_busy_host(between: Path, tmp_path: File) -> None:
    """promtool finds nothing wrong; histograms are filled, none has more than 20 buckets."""
    Echo(between.listen(), 60_000)
    place = tmp_path / "otus.prom"
    words = ("--max-cpu", "50%", "--output", str(place))
    with watching(between.client, tmp_path, *words, form="prometheus"):
        between.drop("tcp dport 8080 ip length > 100 numgen random mod 1000 < 15")
        asks(between, 3, 60_000, 2.0)
    text = place.read_text()
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
    buckets: dict[str, int] = {}
    for name, labels in re.findall(r"^(otus_tcp_\w+)_bucket\{(.*)\} ", text, re.MULTILINE):
        series = f"{name} {re.sub(r',?le=.[^,]*.', '', labels)}"
        buckets[series] = buckets.get(series, 0) + 1
    assert len(buckets) >= 12, sorted(buckets)
    assert max(buckets.values()) <= 20, buckets
    filled = set(re.findall(r"^(otus_tcp_\w+)_count\{?.* [1-9]", text, re.MULTILINE))
    assert {
        "otus_tcp_rtt_seconds",
        "otus_tcp_handshake_client_seconds",
        "otus_tcp_state_seconds",
    } <= filled, filled
    for name in ("look_factor", "sampling_factor", "observer_cpu_ratio", "observer_start_cpu_seconds"):
        assert re.search(rf"^otus_tcp_{name} [\d.e-]+$", text, re.MULTILINE), name


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_the_commands_of_the_docs(between: Path, tmp_path: File) -> None:
    """Each `jq` of docs/tcp.md reads a run: what it asks for is there."""
    Echo(between.listen(), 6000)
    with watching(
        between.client, tmp_path, "--mode", "both", "--rtt-above", "1us", "--interval", "0.5"
    ) as run:
        asks(between, 1, 6000, 1.0)
    last, event = json.dumps(run.final), json.dumps(run.events("rtt_above")[0])
    filters = re.findall(r"(?<!\\)`[^`\n]*?jq (?:-r )?('[^'\n]+'|\.[\w.]+)", docs())
    assert len(filters) >= 12
    for one in filters:
        answer = jq(one.strip("'").replace("\\|", "|"), last)
        assert answer not in ("", "null"), one
    select = re.search(r"jq -r '(select.*)'", docs())
    assert select
    assert jq(select[1], event, "-r").count("\t") == 3


def jq(expression: str, text: str, *words: str) -> str:
    done = subprocess.run(["jq", *words, expression], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def docs() -> str:
    return (ROOT / "docs" / "tcp.md").read_text()


def test_every_row_of_the_docs_names_its_test() -> None:
    """The table says where each row is shown; these tests are there."""
    rows = [line for line in docs().split("| measured |", 1)[1].split("\n\n", 1)[0].splitlines()[2:] if line]
    assert len(rows) >= 25
    files = {name.name: name.read_text() for name in (ROOT / "tests").glob("*/test_tcp_*.py")}
    for row in rows:
        tests = re.findall(r"`(test_\w+)`", row)
        assert tests, row
        for test in tests:
            assert any(f"def {test}(" in text for text in files.values()), test

"""Configuration files: the requirement's own examples, and errors that name their place."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import config_file
from engine.config import NodeConfig
from engine.errors import OtusError, UsageError
from engine.task_config import worker_config

if TYPE_CHECKING:
    from pathlib import Path

NODE = NodeConfig()

TASK = """\
task:
  id: "voip-monitor-01"
  capture:
    driver: af_packet_v3
    interface: eth0
    workers: 4
  filter:
    src_ip: ["10.0.1.0/24"]
    dst_ip: ["10.0.2.0/24"]
    ports: [5060, 5061]
    port_range: "10000-20000"
    protocol: udp
  parsers:
    - plugin: sip
      config:
        track_media: true
        media_stream_timeout: 300s
    - plugin: rtp
  processors:
    - plugin: filter
      config:
        rules:
          - label: "sip.method"
            values: ["OPTIONS", "REGISTER"]
            action: drop
  reporter:
    type: file
    config:
      path: /var/log/otus/voip.jsonl
      max_size: 10MB
  unmatched_policy: drop
"""


def load(text: str) -> object:
    return config_file.task_from_text(text, "task.yml", NODE)


def test_example_of_the_requirement() -> None:
    task = config_file.task_from_text(TASK, "task.yml", NODE)
    assert task.capture.workers == 4
    assert task.filter.ports == [5060, 5061]
    assert task.parsers[0].config["media_stream_timeout"] == 300.0
    assert task.reporter is not None
    assert task.reporter.config["max_size"] == 10 * 1024**2
    assert task.processors[0].config["rules"][0]["values"] == ["OPTIONS", "REGISTER"]


@pytest.mark.parametrize(
    ("old", "new", "place", "problem", "hint"),
    [
        ("  capture:", "  captur:", "3:3", "task.captur: unknown key", "did you mean 'capture'?"),
        ("    workers: 4", "    wrkers: 4", "6:5", "task.capture.wrkers: unknown key", "'workers'"),
        ("    workers: 4", "    workers: -1", "6:5", "task.capture.workers", ""),
        ("    workers: 4", "    fanout_mode: rollover", "6:5", "task.capture.fanout_mode", ""),
        ("    workers: 4", "    fanout_group: 70000", "6:5", "task.capture.fanout_group", ""),
        ("    workers: 4", "    config: {ring_mb: 0}", "6:14", "task.capture.config.ring_mb", ""),
        ("    workers: 4", "    config: {ring_mb: 32 MB}", "6:14", "task.capture.config.ring_mb", ""),
        ("    workers: 4", "    config: {block_kb: 8}", "6:14", "task.capture.config.block_kb", ""),
        ("    workers: 4", "    config: {retire_ms: 500}", "6:14", "task.capture.config.retire_ms", ""),
        ("    workers: 4", "    config: {snaplen: 10}", "6:14", "task.capture.config.snaplen", ""),
        ("    workers: 4", "    config: {pin: 3}", "6:14", "task.capture.config.pin", ""),
        (
            "    workers: 4",
            "    config: {ring_mb: 1, block_kb: 4096}",
            "6:5",
            "ring_mb 1 has no room for two blocks of block_kb 4096: at most 512",
            "",
        ),
        ("    workers: 4", "    workers: four", "6:5", "valid integer", ""),
        ("        track_media", "        trak_media", "16:9", "config.trak_media", "'track_media'"),
        ("    - plugin: rtp", "    - plugin: rdp", "18:7", "no parser 'rdp'", "'rtp'"),
        ("    type: file", "    type: kafkaesque", "27:5", "no reporter 'kafkaesque'", "console, file"),
        ("      max_size: 10MB", "      max_size: huge", "30:7", "no size such as", ""),
        ("      path: /var", "      pth: /var", "29:7", "config.pth: unknown key", "'path'"),
        ("            action: drop", "            action: dropp", "25:13", "'drop' or 'pass'", ""),
        ("    protocol: udp", "    bpf: udp", "7:3", "exclude each other", ""),
        ('  id: "voip-monitor-01"', '  id: "a b"', "2:3", "task.id", ""),
        ('  id: "voip-monitor-01"', "  id: 'x'\n  id: 'y'", "3:3", "'id' stands here twice", ""),
        ("    interface: eth0\n", "", "3:3", "needs interface", ""),
        ("task:", "tsak:", "1:1", "expected `task:`", "'task'"),
        ("interface: eth0", "interface: ${NO_SUCH_VARIABLE_HERE}", "5:5", "is not set", ""),
        ("interface: eth0", "interface: ${node.idd}", "5:5", "${node.idd} is not set", "node.id"),
        ("interface: eth0", "interface: [eth0", "6:5", "expected", "YAML"),
    ],
)
def test_errors_name_their_place(old: str, new: str, place: str, problem: str, hint: str) -> None:
    assert old in TASK
    with pytest.raises(UsageError) as caught:
        load(TASK.replace(old, new, 1))
    assert problem in caught.value.message
    if "interface: [" not in new:
        assert caught.value.message.startswith(f"task.yml:{place}: ")
    assert hint in caught.value.hint


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTUS_TEST_PATH", "/x")
    node = config_file.node_from_text(
        "otus:\n  node: {id: n7, dc: east}\n  reporters: {file: {queue: 9}}\n", "n"
    )
    text = TASK.replace("/var/log/otus/voip.jsonl", "${OTUS_TEST_PATH}/${node.id}-${node.dc}/$${literal}")
    task = config_file.task_from_text(text, "task.yml", node)
    assert task.reporter is not None
    assert task.reporter.config["path"] == "/x/n7-east/${literal}"
    assert task.reporter.config["queue"] == 9, "shared keys of the node file come first"


@pytest.mark.parametrize(
    ("reporters", "place", "problem", "hint"),
    [
        (
            "file:\n      max_sise: 1GB",
            "4:7",
            "otus.reporters.file.max_sise: unknown key",
            "mean 'max_size'?",
        ),
        (
            "file:\n      colour: red",
            "4:7",
            "otus.reporters.file.colour: unknown key",
            "known here: path, max_s",
        ),
        ("file:\n      queue: 0", "4:7", "otus.reporters.file.queue: input should be greater", ""),
        ("file: 3", "3:5", "otus.reporters.file: a mapping is wanted here", ""),
        ("fyle: {queue: 9}", "3:5", "otus.reporters.fyle: no reporter 'fyle'", "did you mean 'file'?"),
        ("kafka: {brokers: [a]}", "3:5", "otus.reporters.kafka: no reporter 'kafka'", "known: console, file"),
    ],
)
def test_shared_options_of_reporters_are_checked(reporters: str, place: str, problem: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_file.node_from_text(f"otus:\n  reporters:\n    {reporters}\n", "otus.yml")
    assert caught.value.message.startswith(f"otus.yml:{place}: {problem}")
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint


def test_shared_options_need_not_be_whole() -> None:
    node = config_file.node_from_text("otus:\n  reporters: {file: {queue: 77}, console: {}}\n", "n")
    task = config_file.task_from_text(TASK, "task.yml", node)
    assert task.reporter is not None
    assert task.reporter.config["queue"] == 77


def test_node_file_refers_to_itself() -> None:
    node = config_file.node_from_text("otus:\n  node: {id: n7}\n  control: {group: 'g-${node.id}'}\n", "n")
    assert node.control.group == "g-n7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "task",
        "- a",
        "task: 3",
        "task: &a [*a]",
        "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ntask: [*d,*d,*d,*d,*d,*d]",
        "task:\n  a0: &a0 {x: 1}\n"
        + "".join(f"  a{n}: &a{n}\n    <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)),
        "[" * 5000,
        "task:\n  1: 2\n  ? [a]\n  : b",
        "--- a\n--- b",
        "task: !!python/object/apply:os.system ['true']",
        "\x00",
        "a" * 1_100_000,
    ],
)
def test_hostile_texts_are_errors_for_people(text: str) -> None:
    with pytest.raises(UsageError):
        load(text)


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from(list("task: \n-[]{}&*!?|>'\"%@`#,iIdD0${}")), max_size=60))
def test_any_text(text: str) -> None:
    with contextlib.suppress(OtusError):
        load(text)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    )
)
def test_any_json(values: object) -> None:
    with contextlib.suppress(OtusError):
        config_file.task_from_values(values, NODE)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*No such file"):
        config_file.load_task(str(tmp_path / "no.yml"), NODE)
    path = tmp_path / "latin.yml"
    path.write_bytes(b"task:\n  id: \xe9\n")
    with pytest.raises(UsageError, match="octet 12 is no UTF-8"):
        config_file.load_task(str(path), NODE)


def node_with_tunnels(text: str) -> NodeConfig:
    return config_file.node_from_text(f"otus:\n  core:\n    decoder:\n      tunnel: {text}\n", "otus.yml")


def test_tunnels() -> None:
    off = NodeConfig().core.decoder.tunnel
    assert [name for name, value in off if value] == ["vxlan_ports"]
    names = ("vxlan", "geneve", "gtp_u", "gre", "nvgre", "ppp_gre", "erspan", "ipip")
    for name in names:
        tunnel = node_with_tunnels(f"{{{name}: true}}").core.decoder.tunnel
        assert [other for other in names if getattr(tunnel, other)] == [name]
    assert node_with_tunnels("{vxlan_ports: [14789]}").core.decoder.tunnel.vxlan_ports == [14789]
    with pytest.raises(UsageError, match=r"otus.yml:4:16: .*vxlans: unknown key"):
        node_with_tunnels("{vxlans: true}")
    with pytest.raises(UsageError, match="6081 is that of Geneve"):
        node_with_tunnels("{vxlan_ports: [4789, 6081]}")
    for bad in ("[]", "[0]", "[65536]", "4789", "[x]"):
        with pytest.raises(UsageError, match="vxlan_ports"):
            node_with_tunnels(f"{{vxlan_ports: {bad}}}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "otus: {resources: {max_workers: yes}}",
            "otus.yml:1:20: otus.resources.max_workers: a number is wanted",
        ),
        ("otus: {backpressure: {reporter: {send_timeout: on}}}", "send_timeout: a number is wanted here"),
        (
            "otus: {backpressure: {reporter: {send_timeout: .inf}}}",
            "otus.yml:1:34: .*send_timeout: input should be less",
        ),
        ("otus: {stores: {message_bytes: true}}", "message_bytes: a number is wanted here"),
        ("otus: {core: {decoder: {tunnel: {vxlan_ports: [no]}}}}", "vxlan_ports.*: a number is wanted here"),
        ("otus: []", "otus.yml:1:1: otus: a mapping is wanted here"),
        ("otus: no", "otus.yml:1:1: otus: a mapping is wanted here"),
        ('otus: {node: {dc: "\\ud800"}}', "is no text"),
    ],
)
def test_values_of_another_kind(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        config_file.node_from_text(text, "otus.yml")


PIPELINE = """\
task:
  id: t
  capture: {interface: eth0}
  parsers: [{plugin: rtp, config: {%s}}]
  processors:
    - plugin: filter
      config: {rules: [{label: %s, values: ["%s"], name: "%s"}]}
"""


@pytest.mark.parametrize(
    ("rtp", "label", "value", "problem"),
    [
        ("report: all", "sip.method", "x", "report"),
        ("report: sample, every: 0", "sip.method", "x", "every"),
        ("report: interval, interval: 10ms", "sip.method", "x", "interval"),
        ("intervals: 5s", "sip.method", "x", "'interval'"),
        ("", "SIP.Method", "x", "label"),
        ("", "sip_method", "x", "label"),
        ("", "sip.method", "/(a+)+$/", "may take too long"),
        ("", "sip.method", "/((/", "no regular expression"),
    ],
)
def test_what_rtp_records_and_rules_cannot_be(rtp: str, label: str, value: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_file.task_from_text(PIPELINE % (rtp, label, value, "n"), "task.yml", NODE)
    assert problem in caught.value.message + caught.value.hint
    assert caught.value.message.startswith("task.yml:")


@pytest.mark.parametrize(
    ("rtp", "report", "raw"),
    [
        ("", "interval", False),
        ("raw: true", "every", True),
        ("raw: true, report: sample, every: 7", "sample", True),
        ("report: every", "every", False),
    ],
)
def test_what_is_reported_of_rtp(rtp: str, report: str, raw: bool) -> None:
    task = config_file.task_from_text(PIPELINE % (rtp, "rtp.pt", "13", ""), "task.yml", NODE)
    options = worker_config(task, NODE)["options"]
    assert (options["rtp_report"], options["rtp_raw"]) == (report, raw)
    assert options["rtp_interval_ns"] == 5_000_000_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("metrics: {listen: 9091}", "listen"),
        ('metrics: {listen: "9091"}', "listen"),
        ('metrics: {listen: "127.0.0.1:http"}', "is no ADDRESS:PORT"),
        ('metrics: {listen: "127.0.0.1:65536"}', "is no ADDRESS:PORT"),
        ('metrics: {listen: "::1:9091"}', "is no ADDRESS:PORT"),
        ("metrics: {port: 9091}", "unknown key"),
        ("backpressure: {send_buffer: {low_watermark: 0.9}}", "low_watermark must be below high_watermark"),
        ("backpressure: {send_buffer: {high_watermark: 1.5}}", "high_watermark"),
        ("backpressure: {sampling: {lowest_rate: 0}}", "lowest_rate"),
        ("backpressure: {sampling: true}", "sampling"),
        ("backpressure: {reporter: {max_retries: 9}}", "max_retries"),
    ],
)
def test_what_metrics_and_back_pressure_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_file.node_from_text(f"otus:\n  {text}\n", "otus.yml")
    assert problem in caught.value.message
    assert caught.value.message.startswith("otus.yml:2:")


@pytest.mark.parametrize("listen", ["127.0.0.1:9091", "0.0.0.0:9091", "[::1]:9091", ":9091", "localhost:0"])
def test_where_metrics_are(listen: str) -> None:
    node = config_file.node_from_text(f'otus:\n  metrics: {{listen: "{listen}"}}\n', "otus.yml")
    assert node.metrics.listen == listen
    assert node.metrics.enabled


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("stores: {flows: 10000000000}", "less than or equal to 16777216", ""),
        ("stores: {streams: 10000000000}", "less than or equal to 4194304", ""),
        ("stores: {calls: 10000000000}", "less than or equal to 10000000", ""),
        ("backpressure: {reporter: {send_timeout: 0}}", "greater than or equal to 0.01", ""),
        ("backpressure: {sampling: true}", "sampling: a mapping is wanted here", ""),
        ("core: {decoder: {tunnel: {vxlan_ports: 4790}}}", "a list is wanted here", "write [4790]"),
        ("core: {decoder: {tunnel: {vxlan_ports: []}}}", "vxlan_ports: is empty", ""),
    ],
)
def test_what_node_files_cannot_have(text: str, problem: str, hint: str) -> None:
    """Tables that no memory holds, times that are none, and forms in words of the file."""
    with pytest.raises(UsageError) as error:
        config_file.node_from_text(f"otus:\n  {text}\n", "otus.yml")
    assert error.value.message.startswith("otus.yml:2:")
    assert problem in error.value.message
    assert error.value.hint == hint


@pytest.mark.parametrize(
    ("text", "place", "problem", "hint"),
    [
        ("parsers: [{plugin: sip}, {plugin: sip}]", "4:28", "parser sip stands here twice", "leave one out"),
        (
            "reporters: [{type: file, config: {path: a/x}}, {type: file, config: {path: a/../a/x}}]",
            "4:72",
            "another reporter writes this file",
            "give each a file of its own",
        ),
        (
            "parsers: [{plugin: sip, config: {media_stream_timeout: 0}}]",
            "4:36",
            "greater than or equal to 1",
            "",
        ),
        (
            "processors: [{plugin: filter, config: {rules: [{label: rtp.pt, values: [13]}]}}]",
            "4:75",
            "a text is wanted here",
            "put it in quotes: '13'",
        ),
        (
            "processors: [{plugin: label, config: {labels: {Rack_row: a}}}]",
            "4:50",
            "labels.Rack_row: 'Rack_row' is no label: lower case letters, digits, dots and dashes",
            "",
        ),
    ],
)
def test_what_task_files_cannot_have(text: str, place: str, problem: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        config_file.task_from_text(f"task:\n  id: a\n  capture: {{interface: lo}}\n  {text}\n", "a.yml", NODE)
    assert error.value.message.startswith(f"a.yml:{place}: ")
    assert problem in error.value.message
    assert error.value.hint == hint


def test_twins_that_are_switched_off_do_not_matter() -> None:
    text = (
        "task: {id: a, capture: {interface: lo}, parsers: [{plugin: sip}, {plugin: sip, enabled: false}],"
        " reporters: [{type: file, config: {path: x}}, {type: file, enabled: false, config: {path: x}}]}"
    )
    assert len(config_file.task_from_text(text, "a.yml", NODE).all_reporters()) == 1

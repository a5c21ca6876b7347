"""What a task file asks for is refused with the place where it stands."""

from __future__ import annotations

import pytest

from engine.config import NodeConfig
from engine.config_file import task_from_text, task_from_values
from engine.errors import UsageError
from engine.task_checks import check_capture

TEXT = """\
task:
  id: t
  capture:
    interface: {interface}
  filter:
    protocol: udp
    {line}
"""


def refusal(line: str, interface: str = "lo") -> UsageError:
    config = task_from_text(TEXT.format(line=line, interface=interface), "t.yml", NodeConfig())
    with pytest.raises(UsageError) as caught:
        check_capture(config, None)
    return caught.value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("port_range: '9-5'", "t.yml:7:5: task.filter.port_range: '9-5' is no range"),
        ("src_ip: [foo]", "t.yml:7:5: task.filter.src_ip: 'foo' is no address or prefix"),
        ("dst_ip: [10.0.0.1, 1.2.3]", "t.yml:7:5: task.filter.dst_ip: '1.2.3' is no address or prefix"),
    ],
)
def test_structured_keys(line: str, message: str) -> None:
    error = refusal(line)
    assert error.message == message
    assert error.hint


def test_expression() -> None:
    text = TEXT.replace("    protocol: udp\n", "").format(line="bpf: udp prot 5060", interface="lo")
    with pytest.raises(UsageError) as caught:
        check_capture(task_from_text(text, "t.yml", NodeConfig()), None)
    assert caught.value.message.startswith("t.yml:6:5: task.filter.bpf: ")
    assert "filter:" not in caught.value.message
    assert "^" in caught.value.hint


def test_interface() -> None:
    found = refusal("ports: [5060]", "nosuch0")
    assert found.message == "t.yml:4:5: task.capture.interface: no interface 'nosuch0' on this host"


def test_file() -> None:
    text = "task: {id: t, capture: {driver: pcap, file: /nowhere/x.pcap}}\n"
    with pytest.raises(UsageError) as caught:
        check_capture(task_from_text(text, "t.yml", NodeConfig()), None)
    assert caught.value.message == "t.yml:1:39: task.capture.file: /nowhere/x.pcap: no such file"


def test_from_elsewhere_than_a_file() -> None:
    values = {"id": "t", "capture": {"interface": "lo"}, "filter": {"port_range": "9-5"}}
    with pytest.raises(UsageError) as caught:
        check_capture(task_from_values(values, NodeConfig()), None)
    assert caught.value.message == "filter.port_range: '9-5' is no range"

"""Plugins of other packages: found through their entry points, named in a task file like our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import plugin
from engine.config import NodeConfig
from engine.config_file import task_from_text
from engine.errors import UsageError
from engine.processors.chain import build_chain

MODULE = """
from engine.plugin import Processor

class NoPing(Processor):
    name = "no-ping"
    reads = ("sip.method",)

    def init(self, config):
        self.methods = config.get("methods", ["OPTIONS"])

    def process(self, labels):
        return labels.get("sip.method") not in self.methods

class BadLabel(Processor):
    labels = ("not_allowed",)

    def process(self, labels):
        return True
"""
ENTRY_POINTS = """
[otus.processor]
no-ping = otus_plugin_under_test:NoPing
bad-label = otus_plugin_under_test:BadLabel
missing = otus_plugin_that_is_not_there:Nothing
no-plugin = otus_plugin_under_test:__name__
"""
TASK = """
task:
  id: t
  capture: {interface: lo}
  processors:
    - plugin: NAME
      config: {methods: [REGISTER]}
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else, installed."""
    (tmp_path / "otus_plugin_under_test.py").write_text(MODULE)
    metadata = tmp_path / "otus_plugin_under_test-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: otus-plugin-under-test\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_it_is_named_in_a_task_and_works_in_the_chain() -> None:
    task = task_from_text(TASK.replace("NAME", "no-ping"), "task.yml", NodeConfig())
    reference = task.processors[0]
    chain = build_chain([{"plugin": reference.plugin, "config": reference.config}])
    assert not chain.verdict({"sip.method": "REGISTER"})
    assert chain.verdict({"sip.method": "OPTIONS"})


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"task.yml:6:7") as caught:
        task_from_text(TASK.replace("NAME", "no-pin"), "task.yml", NodeConfig())
    assert "no-ping" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad-label", "label key 'not_allowed'"),
        ("missing", "does not load"),
        ("no-plugin", "is no engine.plugin.Plugin"),
        ("nowhere", "no processor 'nowhere'"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plugin.load("processor", name, {})

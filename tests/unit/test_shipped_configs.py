"""The configuration files that ship are taken by the loader."""

from __future__ import annotations

import pytest

from engine import resources
from engine.config import NodeConfig
from engine.config_file import load_node, load_task

TASKS = sorted(item.name for item in resources.data("configs", "tasks").iterdir())


def test_node_file() -> None:
    node = load_node(str(resources.data("configs", "otus.yml")))
    assert node.node.dc == "dc1"
    assert node.model_copy(update={"node": NodeConfig().node}) == NodeConfig()


def test_node_file_with_all_its_comments_is_the_default(tmp_path: object) -> None:
    lines = resources.data("configs", "otus.yml").read_text().splitlines()
    shown = "\n".join(line.replace("  # ", "  ", 1) if line.startswith("  # ") else line for line in lines)
    file = f"{tmp_path}/otus.yml"
    with open(file, "w") as out:
        out.write(shown.replace("    # id", "    id"))
    node = load_node(file)
    assert node.model_copy(update={"node": NodeConfig().node}) == NodeConfig()


@pytest.mark.parametrize("name", TASKS)
def test_task_file(name: str) -> None:
    task = load_task(str(resources.data("configs", f"tasks/{name}")), NodeConfig())
    assert f"{task.id}.yml" == name


def test_unit_file_leaves_the_end_of_children_to_the_engine() -> None:
    lines = resources.data("configs", "systemd/otus.service").read_text().splitlines()
    assert "KillMode=mixed" in lines

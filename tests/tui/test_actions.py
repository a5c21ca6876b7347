"""The registry of actions: nothing without words, no key twice in one place, every one works somewhere."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import pytest

from otus_tui import actions
from otus_tui.app import OtusApp
from otus_tui.screens.frame import FrameScreen
from otus_tui.widgets.live_table import LiveTable
from otus_tui.widgets.rows_view import RowsView

for name in ("calls", "media", "flow", "message", "overview", "drops", "tasks", "tcp", "tcp_connection"):
    importlib.import_module(f"otus_tui.screens.{name}")


def screens(base: type[FrameScreen] = FrameScreen) -> list[type[FrameScreen]]:
    found = []
    for cls in base.__subclasses__():
        if cls.SCOPES:
            found.append(cls)
        found += screens(cls)
    return found


def test_every_action_is_documented() -> None:
    for action in actions.ACTIONS:
        assert action.scope in actions.SCOPES
        assert action.keys
        assert action.label
        assert action.about.endswith(".")
        assert action.about[0].isupper()


def test_ids_are_unique() -> None:
    ids = [action.id for action in actions.ACTIONS]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("screen", screens(), ids=lambda cls: cls.__name__)
def test_no_key_means_two_things_on_a_screen(screen: type[FrameScreen]) -> None:
    for a, b in itertools.combinations(actions.of(*screen.SCOPES), 2):
        shared = set(a.keys) & set(b.keys)
        assert not shared, f"{a.id} and {b.id} both want {shared}"


@pytest.mark.parametrize("screen", screens(), ids=lambda cls: cls.__name__)
def test_a_screen_takes_no_key_from_the_application_unsaid(screen: type[FrameScreen]) -> None:
    everywhere = {key for action in actions.of("app") for key in action.keys}
    for action in actions.of(*screen.SCOPES):
        for key in set(action.keys) & everywhere:
            assert (action.scope, key) in actions.SHADOWS, f"{action.id} takes {key}"


@pytest.mark.parametrize("screen", screens(), ids=lambda cls: cls.__name__)
def test_every_action_of_a_screen_has_its_method(screen: type[FrameScreen]) -> None:
    for action in actions.of(*screen.SCOPES):
        assert hasattr(screen, f"action_{action.name}"), action.id


def test_actions_of_the_application_and_of_rows_have_their_methods() -> None:
    for action in actions.of("app"):
        assert hasattr(OtusApp, f"action_{action.name}"), action.id
    for action in actions.of("move"):
        assert hasattr(RowsView, f"action_{action.name}"), action.id
        assert hasattr(LiveTable, f"action_{action.name}"), action.id


def test_moving_keys_are_not_taken_by_tables_and_texts() -> None:
    moving = {key for action in actions.of("move") for key in action.keys}
    for cls in screens():
        for action in actions.of(*cls.SCOPES):
            taken = {key for key in moving & set(action.keys) if (action.scope, key) not in actions.SHADOWS}
            assert not taken, f"{action.id} takes a key that moves"


def test_names_of_keys() -> None:
    assert actions.key_name("ctrl+b") == "^B"
    assert actions.key_name("f10") == "F10"
    assert actions.key_name("slash") == "/"
    assert actions.key_name("A") == "A"


def test_the_page_of_keys_in_the_docs_is_the_registry() -> None:
    page = Path(__file__).parents[2] / "docs" / "keys.md"
    assert actions.markdown().strip() in page.read_text(encoding="utf-8"), (
        "write it again: python -m otus_tui.actions > docs/keys.md"
    )

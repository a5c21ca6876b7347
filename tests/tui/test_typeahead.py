"""Keys that come faster than the screens change go where they were meant."""

from __future__ import annotations

import pytest
from textual import events
from textual.widgets import Input

from otus_tui.screens.flow import FlowScreen
from tests.tui.conftest import SIZES, Desk, Size, Start


async def typed(desk: Desk, *keys: str) -> None:
    """All at once, as one packet of a slow connection brings them."""
    for key in keys:
        desk.app.post_message(events.Key(key, key if len(key) == 1 else None))


@SIZES
async def test_what_follows_the_slash_is_the_filter(start: Start, size: Size) -> None:
    async with start(size=size, screen="calls") as desk:
        await typed(desk, "slash", *"dave", "enter")
        await desk.until(lambda: desk.engine.asked_of("query")[-1].get("filter") == "dave")
        assert desk.app.is_running
        assert desk.app.return_value is None
        assert len(desk.app.screen_stack) == 1


async def test_fields_of_a_form_get_their_own(start: Start) -> None:
    async with start(screen="calls") as desk:
        await typed(desk, "f7", *"al", "tab", *"bo")
        await desk.until(lambda: desk.app.screen.query("#field-to"))
        await desk.until(lambda: desk.app.screen.query_one("#field-to", Input).value == "bo")
        assert desk.app.screen.query_one("#field-from", Input).value == "al"


async def test_keys_for_a_screen_that_is_just_opened(start: Start) -> None:
    async with start(screen="calls") as desk:
        await typed(desk, "down", "enter", "w", "down", "down")
        await desk.until(
            lambda: isinstance(desk.app.screen, FlowScreen) and desk.app.screen.ladder.cursor == 2
        )
        assert isinstance(desk.app.screen, FlowScreen)
        assert desk.app.screen.ladder.flow.options.times == "since"


@pytest.mark.parametrize("keys", [("s", *"x.csv"), ("slash", *"quit")])
async def test_letters_of_a_text_do_nothing_else(start: Start, keys: tuple[str, ...]) -> None:
    async with start(screen="calls") as desk:
        await typed(desk, *keys)
        await desk.until(lambda: desk.app.screen.query_one(Input).value.endswith("".join(keys[1:])))
        assert desk.app.is_running

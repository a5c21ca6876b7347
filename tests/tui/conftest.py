"""The application over a scripted engine, with a frozen clock and nobody's settings."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual")

from textual.widgets import Input

from otus_tui.app import OtusApp
from otus_tui.client import Client
from otus_tui.settings import Settings
from otus_tui.widgets.prompt import Prompt
from tests.tui.engine_rows import NOW_NS
from tests.tui.scripted_engine import ScriptedEngine

Size = tuple[int, int]

SMALL, LARGE = (80, 24), (160, 50)
SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "160x50"])
"""Decorator: the test takes `size` and runs at the smallest terminal and at a large one."""


def screen_text(app: OtusApp) -> str:
    """What stands on the screen, line by line."""
    return "\n".join("".join(s.text for s in strip) for strip in app.screen._compositor.render_strips())


async def settled(app: OtusApp, pilot: Any) -> None:
    """Until what was asked of the engine is answered and painted."""
    quiet = 0
    for _ in range(100):
        await pilot._wait_for_screen()
        await asyncio.sleep(0.01)
        busy = [w for w in app.workers if w.group != "reconnect" and not w.is_finished]
        quiet = 0 if busy else quiet + 1
        if quiet >= 3:
            return


@dataclass
class Desk:
    """The application under test, its pilot and the engine behind it."""

    app: OtusApp
    pilot: Any
    engine: ScriptedEngine

    @property
    def text(self) -> str:
        return screen_text(self.app)

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.pilot.press(key)
            await self.settle()

    async def type(self, text: str) -> None:
        """Fill the field in sight, and wait until it was noticed."""
        field = self.app.screen.query_one(Input)
        field.value = text
        prompts = [one for one in field.ancestors if isinstance(one, Prompt)]
        await self.until(lambda: all(one._last == text or not one.open for one in prompts))

    async def settle(self) -> None:
        """Until what was asked of the engine is answered and painted."""
        await settled(self.app, self.pilot)

    async def until(self, condition: Callable[[], object]) -> None:
        """Until something holds, which comes by itself."""
        ends = time.monotonic() + 20
        await self.settle()
        while not condition():
            assert time.monotonic() < ends, self.text
            await self.settle()
        await self.settle()

    async def tick(self, seconds: float = 1.0) -> None:
        """The engine sends a snapshot."""
        await self.engine.notify(seconds)
        await self.settle()


Start = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A short path: a Unix socket's name has room for 107 octets."""
    with tempfile.TemporaryDirectory(prefix="otus") as folder:
        yield os.path.join(folder, "s")


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()


@pytest.fixture
def start(socket_path: str, tmp_path: Path) -> Start:
    """`async with start(size=(80, 24), screen="calls") as desk`."""

    @asynccontextmanager
    async def run(
        size: Size = (80, 24),
        screen: str = "overview",
        prepare: Callable[[ScriptedEngine], None] | None = None,
        notifications: bool = False,
        **options: Any,
    ) -> AsyncIterator[Desk]:  # fmt: skip
        async with ScriptedEngine(socket_path) as engine:
            if prepare is not None:
                prepare(engine)
            client = await Client.connect(socket_path)
            options.setdefault("settings", Settings(path=tmp_path / "screens.json"))
            options.setdefault("ascii_only", False)
            app = OtusApp(client, path=socket_path, initial_screen=screen, clock=lambda: NOW_NS, **options)
            try:
                async with app.run_test(size=size, notifications=notifications) as pilot:
                    desk = Desk(app, pilot, engine)
                    await desk.settle()
                    yield desk
            finally:
                await (app.client or client).close()

    return run

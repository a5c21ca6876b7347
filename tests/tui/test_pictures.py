"""A few pictures of whole screens, with a frozen clock; what they must say is tested elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otus_tui.app import OtusApp
from otus_tui.client import Client
from otus_tui.settings import Settings
from tests.tui.conftest import settled
from tests.tui.engine_rows import NOW_NS
from tests.tui.scripted_engine import ScriptedEngine

Compare = Callable[..., bool]


@pytest.mark.parametrize(
    ("name", "size", "keys", "theme"),
    [
        ("calls", (80, 24), ("2",), "otus-dark"),
        ("flow", (160, 50), ("2", "end", "enter"), "otus-light"),
        ("tcp", (80, 24), ("4",), "otus-dark"),
        ("tcp", (160, 50), ("4",), "otus-light"),
        ("connection", (120, 30), ("4", "enter"), "otus-dark"),
        ("message", (80, 24), ("2", "end", "enter", "enter"), "otus-contrast"),
    ],
)
def test_picture(
    snap_compare: Compare,
    socket_path: str,
    tmp_path: Path,
    name: str,
    size: tuple[int, int],
    keys: tuple[str, ...],
    theme: str,
) -> None:
    settings = Settings(theme=theme, path=tmp_path / "screens.json")
    app = OtusApp(path=socket_path, settings=settings, clock=lambda: NOW_NS, ascii_only=False)
    engine = ScriptedEngine(socket_path)

    async def look(pilot: Any) -> None:
        await engine.start()
        client = await Client.connect(socket_path)
        await app._take_client(client)
        for _ in range(2):
            await engine.notify(1.0)
            await settled(app, pilot)
        for key in keys:
            await pilot.press(key)
            await settled(app, pilot)
        await client.close()
        await engine.stop()

    assert snap_compare(app, terminal_size=size, run_before=look)

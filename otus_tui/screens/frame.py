"""The frame that every screen has: header, body, books, keys."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.containers import Vertical
from textual.screen import Screen

from otus_tui import actions
from otus_tui.widgets.frame import (
    MIN_HEIGHT,
    MIN_WIDTH,
    Banner,
    BooksLine,
    FrameHead,
    KeyLine,
    LoadBar,
    TooSmall,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events
    from textual.app import ComposeResult
    from textual.geometry import Size

    from engine.snapshot import Snapshot
    from otus_tui.app import OtusApp
    from otus_tui.glyphs import Glyphs
    from otus_tui.model import Model

TWO_LINES_FROM = 30
"""Height from which the header has a line of its own for the screens."""


class FrameScreen(Screen[None]):
    """A screen between header and books; asks for nothing while it is not shown."""

    SCOPES: ClassVar[tuple[str, ...]] = ()
    MODE: ClassVar[str] = ""
    """Which of the numbered screens it is; a screen above one belongs to that."""
    AUTO_FOCUS = "#main"

    def __init__(self) -> None:
        super().__init__()
        self._composed = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "SCOPES" in cls.__dict__ and "BINDINGS" not in cls.__dict__:
            cls.BINDINGS = [*actions.bindings(*cls.SCOPES)]
            cls._merged_bindings = cls._merge_bindings()

    @property
    def otus(self) -> OtusApp:
        """The application."""
        return cast("OtusApp", self.app)

    @property
    def model(self) -> Model:
        """What is shown."""
        return self.otus.model

    @property
    def glyphs(self) -> Glyphs:
        """The signs that this terminal can show."""
        return self.otus.glyphs

    @property
    def ready(self) -> bool:
        """Whether its parts are there: before, and while it is taken down, a snapshot has nowhere to go."""
        return self._composed and self.is_attached and not self._pruning

    @property
    def mode_name(self) -> str:
        """The numbered screen that is marked in the header."""
        return self.MODE or self.app.current_mode

    def compose(self) -> ComposeResult:
        yield TooSmall(id="too-small")
        head = FrameHead(self.model, self.mode_name)
        # Before it is painted for the first time: a screen shall not jump when it is opened.
        head.set_class(self.app.size.height >= TWO_LINES_FROM, "-two")
        yield head
        yield Banner(self.model)
        yield LoadBar(self.model)
        with Vertical(id="body"):
            yield from self.compose_body()
        yield BooksLine(self.model)
        yield KeyLine(*self.SCOPES)

    def compose_body(self) -> ComposeResult:
        """The screen's own part."""
        yield from ()

    def on_mount(self) -> None:
        self._composed = True
        self._fit(self.app.size)
        self._frame_update()

    def on_resize(self, event: events.Resize) -> None:
        if self.ready:
            self._fit(event.size)

    def _fit(self, size: Size) -> None:
        """Arrange for a terminal of this size."""
        self.set_class(size.width < MIN_WIDTH or size.height < MIN_HEIGHT, "-too-small")
        self.query_one(FrameHead).set_class(size.height >= TWO_LINES_FROM, "-two")
        self.query_one(FrameHead).refresh()

    def on_screen_resume(self) -> None:
        self.snapshot_arrived()

    def _frame_update(self) -> None:
        self.query_one(Banner).update()
        self.query_one(LoadBar).update()
        self.query_one(FrameHead).refresh()
        self.query_one(BooksLine).refresh()

    def snapshot_arrived(self) -> None:
        """The model is newer; called while this screen is shown."""
        if self.ready:
            self._frame_update()
            self.update_body(self.model.snapshot)

    def update_body(self, snapshot: Snapshot) -> None:
        """Show a newer snapshot."""

    def settings_changed(self) -> None:
        """Signs, colours or names are others than before."""
        self.snapshot_arrived()
        for widget in self.query("*"):
            widget.refresh()

    def second_passed(self) -> None:
        """A second went by without anything else."""
        if self.ready:
            self.query_one(FrameHead).refresh()

    async def write_file(self, path: str, make: Callable[[], str], what: str) -> None:
        """Write what `make` returns, in a thread: it may be much, and the other end of a pipe may be slow.

        Octets that were no UTF-8 (surrogates, PEP 383) are written as they were. The user is told `what` was
        saved, or why it was not.
        """

        def write() -> None:
            octets = make().encode("utf-8", "surrogateescape")
            name = os.path.expanduser(path)
            # What is there already is not overwritten; a pipe or a device is there and takes it.
            with open(name, "xb" if not os.path.exists(name) or os.path.isfile(name) else "wb") as file:
                file.write(octets)

        try:
            await asyncio.to_thread(write)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self.notify(f"not saved: {reason}: {path}", severity="error", markup=False)
        else:
            self.notify(f"{what} saved to {path}", markup=False)

    def save_text(self, path: str | None, text: str) -> None:
        """Write a text that the user named a file for, or did not."""
        if path:
            self.run_worker(self.write_file(path, lambda: text, "text"), exit_on_error=False)

    async def ask(self, method: str, **params: Any) -> Any:
        """Call the engine; ClientError for the caller to show."""
        return await self.otus.ask(method, **params)

    def back(self) -> bool:
        """Take one step back inside this screen; False if there is none."""
        bar = self.query_one(LoadBar)
        if bar.reading and not bar.hidden:
            self.otus.stop_loading(bar)
            return True
        return False

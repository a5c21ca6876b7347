"""The media streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otus_tui.client import ClientError
from otus_tui.screens.cells import stream_columns
from otus_tui.screens.table import TableScreen
from otus_tui.widgets.columns import Column
from otus_tui.widgets.live_table import LiveTable

if TYPE_CHECKING:
    from engine.snapshot import Snapshot
    from otus_tui.widgets.ink import Line


class MediaScreen(TableScreen):
    """Each stream with its figures; Enter opens it on the ladder of its call, or by itself without one."""

    SCOPES = ("table", "media")
    MODE = "media"
    STORE = "streams"
    SORT = "start_ns"
    NOUN = "streams"

    def make_columns(self) -> list[Column]:
        return stream_columns(self.glyphs, self.otus.named)

    def version(self, snapshot: Snapshot) -> Any:
        media = snapshot.get("media")
        if media is None:
            return None
        return media["version"] if self.model.file or not media["active"] else None

    def empty_lines(self) -> list[Line]:
        return [
            [
                ("no media yet: found by the SDP of calls, or guessed from their packets", "dim"),
            ]
        ]

    def on_rows_view_opened(self, event: LiveTable.Opened) -> None:
        event.stop()
        row = self.table.current()
        if row is not None:
            self.run_worker(self._open_stream(row), exclusive=True, exit_on_error=False)

    async def _open_stream(self, row: dict[str, Any]) -> None:
        from otus_tui.screens.message import StreamScreen

        # A stream that was guessed has no call, or an empty name of one.
        call = await self.otus.find_call(str(row["call_id"])) if row.get("call_id") else None
        if call is not None:
            self.otus.open_call(call, stream=row["id"])
            return
        if row.get("call_id"):
            self.notify("the call of this stream is no longer in the store", severity="warning")
        self.app.push_screen(StreamScreen(await self._in_full(row)))

    async def _in_full(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its lists; as it is where the engine has it no more."""
        try:
            answer = await self.ask("query", store=self.STORE, ids=[row["id"]])
        except ClientError:
            return row
        return answer["rows"][0] if answer["rows"] else row

"""The media streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otus_tui.screens.cells import stream_columns
from otus_tui.screens.table import TableScreen
from otus_tui.widgets.live_table import Column, LiveTable

if TYPE_CHECKING:
    from engine.snapshot import Snapshot
    from otus_tui.widgets.ink import Line


class MediaScreen(TableScreen):
    """Each stream with its figures; Enter opens the call that it belongs to."""

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
                (
                    "no media yet: found by the SDP of calls, or guessed from several packets of one SSRC",
                    "dim",
                )
            ]
        ]

    def on_rows_view_opened(self, event: LiveTable.Opened) -> None:
        event.stop()
        row = self.table.current()
        if row is None:
            return
        if row.get("call_id") is None:
            self.notify("no call is known for this stream: its SDP was not seen", severity="warning")
        else:
            self.run_worker(self._open_call(row), exclusive=True, exit_on_error=False)

    async def _open_call(self, row: dict[str, Any]) -> None:
        call = await self.otus.find_call(str(row["call_id"]))
        if call is None:
            self.notify("the call of this stream is no longer in the store", severity="warning")
        else:
            self.otus.open_call(call)

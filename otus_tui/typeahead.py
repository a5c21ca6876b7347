"""Keys in the order of their typing, also where several come at once over a slow connection.

Textual hands a key to the widget that has the focus at that moment. What the key opens has the focus only
some messages later, so of `/dave` in one packet `/` would open the filter, and `d` would leave the screens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from textual import events
from textual.app import App

if TYPE_CHECKING:
    from textual.dom import DOMNode

PATIENCE = 0.5
"""Seconds after which the next key goes its way, whatever became of the one before."""


class OrderlyApp(App[str]):
    """Lets one key or paste through at a time; the next one goes to what has the focus when that is done."""

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._typed: deque[events.Key | events.Paste] = deque()
        self._key_number = 0
        self._key_under_way = False

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
        elif self._key_under_way:
            self._typed.append(event)
        else:
            await self._let_through(event)

    async def _let_through(self, event: events.Key | events.Paste) -> None:
        self._key_under_way = True
        self._key_number += 1
        target = self.focused or self.screen
        try:
            await super().on_event(event)
        finally:
            asyncio.get_running_loop().call_later(PATIENCE, self._next, self._key_number)
            self._follow(target, self._key_number)

    def _follow(self, node: DOMNode, number: int) -> None:
        """Behind the key through the queues that it climbs, from its first one up to the application."""
        above = node.parent
        if above is None:
            # The action was run: what it asked for stands in this queue, then in that of the screen in sight.
            self.call_later(self._behind, number)
        elif not node.call_later(self._follow, above, number):
            self._follow(above, number)

    def _behind(self, number: int) -> None:
        if not self.screen.call_later(self.call_later, self._next, number):
            self._next(number)

    def _next(self, number: int) -> None:
        if number == self._key_number and self._key_under_way:
            self._key_under_way = bool(self._typed)
            if self._typed:
                self.call_next(self._let_through, self._typed.popleft())

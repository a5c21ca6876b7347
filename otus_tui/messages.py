"""Messages between the application and its screens."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message


@dataclass
class SnapshotArrived(Message):
    """The model has a newer snapshot; a backlog of these collapses into one."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotArrived)


@dataclass
class ConnectionChanged(Message):
    """The engine was lost, or is back."""

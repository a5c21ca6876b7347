"""Evidence straight into the table of Call-IDs, for a process that does the whole work alone."""

from __future__ import annotations

from engine.calls.dialogs import DialogTable
from engine.shm.tap import Tap


class Witness(Tap):
    """Stands where a worker has its evidence ring."""

    def __init__(self, table: DialogTable) -> None:
        super().__init__()
        self.table = table
        table.view.attach(self.record)

    def take(self, kind: int, timestamp: int, length: int) -> int:
        """One record."""
        return self.table.take(kind, timestamp, length)

"""What the live tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.live.tcp_path import Path, path

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def between() -> Iterator[Path]:
    """Two hosts, and the network between them."""
    with path() as made:
        yield made

"""What one fuzzed part of the engine is: how an input is run on a build, and what must hold for any input."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar
from unittest.mock import patch

from engine.shm.region import alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.builds import Build


class BrokenError(AssertionError):
    """An input did what none may: the text says what."""


def must(holds: object, text: str) -> None:
    """BrokenError unless it holds."""
    if not holds:
        raise BrokenError(text)


class Target:
    """A part of the engine, of one build. `run()` raises for nothing: what it raises is a finding."""

    name: ClassVar[str]
    about: ClassVar[str]
    longest: ClassVar[int] = 4096
    """Octets of an input."""
    patience_ms: ClassVar[float] = 5.0
    """CPU time that an input may take where the modules are compiled."""
    pieces: ClassVar[tuple[bytes, ...]] = ()
    """To be put into inputs."""
    cold: ClassVar[bool] = False
    """Not compiled at all: both builds are the same."""

    def __init__(self, build: Build) -> None:
        self.build = build

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        """Inputs to begin with."""
        return ()

    def run(self, octets: bytes) -> Any:
        """Run one input; what both builds must agree on."""
        raise NotImplementedError

    def features(self, view: Any) -> Any:
        """What is new about an input that shows another of these (hashable)."""
        return view

    def repair(self, octets: bytes) -> bytes:
        """A changed input, with lengths made right, so that it comes further; here as it is."""
        return octets


@contextlib.contextmanager
def without_chance() -> Iterator[None]:
    """Seeds of hashes are fixed, and shared memory is this process's own: an input always does the same."""
    with patch("os.urandom", lambda count: bytes(i & 255 for i in range(count))), alone(huge=False):
        yield

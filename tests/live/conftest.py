"""What the live tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.builds import ROOT
from tests.live import tcp_path
from tests.live.capture import make_pair
from tests.live.engines import Engine, Traffic, own_engine
from tests.live.namespace import own_namespace
from tests.live.tcp_command import Hosts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of one's own, entered, with the veth pair `va` and `vb`; its name."""
    with own_namespace() as name:
        make_pair()
        yield name


@pytest.fixture
def loopback() -> Iterator[int]:
    """Inode of a namespace of one's own, entered."""
    with own_namespace() as name:
        yield os.stat(f"/run/netns/{name}").st_ino


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine that runs, in a namespace of its own, entered."""
    with own_namespace(), own_engine(tmp_path) as found:
        found.start()
        yield found


@pytest.fixture
def traffic(engine: Engine) -> Iterator[Traffic]:
    """SIP over `lo` of the engine's namespace."""
    found = Traffic()
    yield found
    found.close()


@pytest.fixture
def between() -> Iterator[tcp_path.Path]:
    """Two hosts, and the network between them."""
    with tcp_path.path() as made:
        yield made


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two namespaces and the wire between them, for `otus-tui tcp`."""
    made = Hosts()
    yield made
    made.close()


@pytest.fixture(params=["netlink", "libbpf"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend of `otus-tui tcp` that runs here."""
    name: str = request.param
    if name == "libbpf" and not (ROOT / "engine/data/bpf/tcp_observer.bpf.o").exists():
        pytest.skip("the eBPF object is not built")
    return name

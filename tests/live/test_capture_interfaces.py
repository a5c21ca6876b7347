"""Live capture of interfaces that go down, are deleted, renamed or changed, and come back."""

from __future__ import annotations

import os
import time

import pytest

from engine.capture import interfaces
from tests.live.capture import SIP, Reader, capturing, frame, gather, links, make_pair, promiscuity, sending
from tests.live.engines import wait_for
from tests.live.namespace import ip


@pytest.mark.usefixtures("namespace")
class TestInterfacesThatGo:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_down_and_up(self, workers: int) -> None:
        with capturing("va", SIP, workers) as (rings, readers):
            assert links(rings, "up")
            ip("link", "set", "va", "down")
            assert links(rings, "down")
            started = time.monotonic()
            for reader in readers:
                reader.poll.wait(100)
                assert not reader.poll.wait(100)
            assert time.monotonic() - started > 0.09 * workers, "poll spins on the socket's error"
            ip("link", "set", "va", "up")
            assert links(rings, "up")
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(40)])
            assert sum(map(len, gather(readers, 40))) == 40
            assert [ring.generation for ring in rings] == [0] * workers

    @pytest.mark.parametrize("workers", [1, 2])
    def test_down_at_the_start(self, workers: int) -> None:
        ip("link", "set", "va", "down")
        with capturing("va", SIP, workers) as (rings, readers):
            assert [ring.link for ring in rings] == ["down"] * workers
            ip("link", "set", "va", "up")
            assert links(rings, "up")
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(40)])
            assert sum(map(len, gather(readers, 40))) == 40

    def test_deleted_and_made_again_on_the_same_ring(self) -> None:
        with capturing("va", SIP) as (rings, (reader,)):
            descriptor = rings[0].fileno()
            for round_ in range(1, 3):
                with sending() as wire:
                    wire.send(frame(1))
                assert len(reader.read(2 * round_ - 1)) == 2 * round_ - 1
                ip("link", "del", "va")
                assert links(rings, "gone")
                assert not reader.poll.wait(20)
                make_pair()
                assert links(rings, "up")
                with sending() as wire:
                    wire.send(frame(2))
                assert len(reader.read(2 * round_)) == 2 * round_
            assert (rings[0].fileno(), rings[0].generation) == (descriptor, 0)
            assert promiscuity("va") == 1

    def test_a_fanout_group_gets_new_sockets(self) -> None:
        with capturing("va", SIP, 2) as (rings, old):
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(20)])
            wait_for(lambda: sum(reader.waiting() for reader in old) == 20)
            ip("link", "del", "va")
            assert links(rings, "gone")
            make_pair()
            assert links(rings, "up")
            assert [ring.generation for ring in rings] == [1, 1]
            new = [Reader(ring) for ring in rings]
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(30)])
            assert sum(map(len, gather(new, 30))) == 30
            assert sum(map(len, gather(old, 20))) == 20
            assert sum(ring.statistics()["packets"] for ring in rings) == 50
            for reader in new:
                reader.close()

    def test_a_list_follows_its_interfaces(self) -> None:
        with capturing("va,lo", SIP) as (rings, (reader,)):
            ip("link", "del", "va")
            assert links(rings, "up")
            make_pair()
            assert links(rings, "up")
            with sending() as wire:
                wire.send(frame(2))
            assert [row[3] for row in reader.read(1)] == [interfaces.index_of("va")]

    def test_renamed(self) -> None:
        with capturing("va", SIP) as (rings, (reader,)):
            ip("link", "set", "va", "down")
            ip("link", "set", "va", "name", "other")
            ip("link", "set", "other", "up")
            assert links(rings, "up")
            with sending() as wire:
                wire.send(frame(2))
            assert len(reader.read(1)) == 1

    def test_another_mtu(self) -> None:
        """Packets longer than what the interface took at the start come whole."""
        with capturing("va", SIP) as (rings, (reader,)):
            for name in ("va", "vb"):
                ip("link", "set", name, "mtu", "9000")
            with sending() as wire:
                wire.send(frame(1), frame(2, body=b"x" * 8900))
            assert [len(row[0]) for row in reader.read(2)] == [72, 8942]
            ip("link", "set", "va", "mtu", "600")
            with sending() as wire:
                wire.send(frame(3))
            assert len(reader.read(3)) == 3
            assert links(rings, "up")

    def test_the_other_ends_namespace_is_deleted(self) -> None:
        """With it goes the pair: as an interface that is deleted, and its namespace is not held."""
        with capturing("va", SIP) as (rings, (reader,)):
            other = f"otus-cap-other-{os.getpid()}"
            ip("netns", "add", other)
            ip("link", "set", "vb", "netns", other)
            ip("netns", "del", other)
            assert links(rings, "gone")
            assert not reader.poll.wait(20)
            make_pair()
            assert links(rings, "up")
            with sending() as wire:
                wire.send(frame(2))
            assert len(reader.read(1)) == 1

"""What the backend without programs says that it does not know, by kernel and by what is asked for."""

from __future__ import annotations

import pytest

from engine.tcp import inet_diag, lacks
from engine.tcp.backend import METRICS, Filters, Limits, Sizes, Triggers
from engine.tcp.bcc import BccBackend
from engine.tcp.inet_diag import Socket
from engine.tcp.netlink import NetlinkBackend

FILTERS = Filters(remote_ports=[(1, 65535)])
NEWER = {"total_rto", "rcv_wnd"}


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 6.2."""
    monkeypatch.setattr(lacks, "told", lambda: frozenset(inet_diag._NAMES) - NEWER)


def reading(filters: Filters) -> dict[str, int]:
    made = NetlinkBackend(filters, Triggers(), Limits(), Sizes())
    assert {metric.partition(".")[0] for metric in made.off} <= set(METRICS)
    return made.read().counters


def test_this_kernel_tells_what_its_structure_holds() -> None:
    known = inet_diag.told()
    assert {"rtt", "snd_cwnd", "total_retrans"} <= known
    # Fields come at the end: there is none without those before it.
    assert known == set(inet_diag._NAMES[: len(known)])


@pytest.mark.usefixtures("older")
def test_what_an_older_kernel_does_not_tell_is_not_zero() -> None:
    assert {"retransmit_rto_events", "zero_window_sent"} <= reading(Filters()).keys()
    assert "zero_window_sent_ns" not in reading(Filters())
    assert not {"retransmit_rto_events", "zero_window_sent", "zero_window_sent_ns"} & reading(FILTERS).keys()
    off = lacks.of_looks(FILTERS, Triggers())
    assert "6.7" in off["retransmits.rto"] == off["events.rto"]
    assert "6.2" in off["zero_window_sent"] == off["zero_window_sent.seconds"]
    assert "retransmits.rto" not in lacks.of_looks(Filters(), Triggers())


@pytest.mark.usefixtures("older")
def test_nor_is_it_with_programs_beside_looks() -> None:
    made = BccBackend(FILTERS, Triggers(), Limits(), Sizes())
    assert "6.2" in made._describe()["zero_window_sent"]
    assert "retransmits.rto" not in made._describe()


def test_a_newer_kernel_tells_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lacks, "told", lambda: frozenset(inet_diag._NAMES))
    counters = reading(FILTERS)
    assert counters["retransmit_rto_events"] == counters["zero_window_sent"] == 0


def test_triggers_that_nothing_sets_off_are_named() -> None:
    asked = Triggers(resets=True, drops=True, reset_rate=5)
    off = lacks.of_looks(FILTERS, asked)
    assert {line.split(":")[0] for line in lacks.events(asked, off)} >= {
        "no events of tlp", "no events of reset", "no events of drop", "no events of reset_rate",
    }  # fmt: skip
    assert lacks.events(Triggers(rto=False, tlp=False), off) == []
    assert lacks.events(asked, {}) == []
    assert lacks.events(asked, {"drops": "no tracepoint"}) == ["no events of drop: no tracepoint"]


@pytest.mark.parametrize(
    ("state", "figures", "found"),
    [
        (1, {"bytes_acked": 1, "bytes_sent": 0, "bytes_retrans": 0, "bytes_received": 0}, (0, 0)),
        (8, {"bytes_acked": 0, "bytes_sent": 0, "bytes_retrans": 0, "bytes_received": 1}, (0, 0)),
        (5, {"bytes_acked": 102, "bytes_sent": 140, "bytes_retrans": 40, "bytes_received": 7}, (100, 7)),
        (9, {"bytes_acked": 60, "bytes_sent": 100, "bytes_retrans": 0, "bytes_received": 8}, (60, 7)),
        # Closed: whether a FIN came nobody says, but no data did.
        (7, {"bytes_received": 1, "data_segs_in": 0}, (None, 0)),
        # Figures that were not read at one moment, or a kernel that does not tell them.
        (1, {"bytes_acked": 100, "bytes_sent": 90, "bytes_retrans": 0, "bytes_received": 5}, (100, 5)),
        (1, {"bytes_acked": 1, "bytes_received": 5}, (1, 5)),
        (1, {}, (None, None)),
    ],
)  # fmt: skip
def test_octets_are_those_of_data(
    state: int, figures: dict[str, int], found: tuple[int | None, int | None]
) -> None:
    one = Socket(2, state, 0, bytes(16), 80, bytes(16), 4711, 0, 1, 0, 0, 0, 0, figures)
    assert inet_diag.octets(one) == found

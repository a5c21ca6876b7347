"""Words of the command line: ports, prefixes, times, rates; each wrong one is one clear error."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import OtusError, UsageError
from engine.tcp import addresses, choose, filters, namespaces, options
from engine.tcp.addresses import Addresses
from engine.tcp.backend import Filters, Namespace
from engine.tcp.bcc import BccBackend
from engine.tcp.libbpf import LibbpfBackend
from engine.tcp.netlink import NetlinkBackend

RANGE = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted).map(tuple)


@given(st.lists(RANGE, min_size=1, max_size=20))
def test_ports_as_lists_and_ranges(ranges: list[tuple[int, int]]) -> None:
    word = ",".join(f"{low}-{high}" if low != high else str(low) for low, high in ranges)
    assert filters.ports(word, "--lport") == ranges


@given(st.text(max_size=12))
def test_ports_are_ports_or_an_error(word: str) -> None:
    found = []
    with contextlib.suppress(UsageError):
        found = filters.ports(word, "--lport")
    assert all(1 <= low <= high <= 65535 for low, high in found)


def test_ports_by_name() -> None:
    assert filters.ports("https,22", "--lport") == [(443, 443), (22, 22)]


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 32))
def test_prefixes(address: Any, length: int) -> None:
    [network] = filters.networks(f"{address}/{length}", "--raddr")
    assert network == ipaddress.ip_network(f"{address}/{length}", strict=False)
    [single] = filters.networks(str(address), "--raddr")
    assert single.num_addresses == 1


def test_a_mapped_prefix_is_ipv4() -> None:
    assert filters.networks("::ffff:10.0.0.0/104", "--raddr") == [ipaddress.ip_network("10.0.0.0/8")]


@given(st.text(max_size=12))
def test_prefixes_or_an_error(word: str) -> None:
    with contextlib.suppress(UsageError):
        assert filters.networks(word, "--raddr")


def test_matcher() -> None:
    matcher = filters.Matcher(
        Filters(
            local_ports=[(80, 90)],
            remote_networks=[ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")],
        )
    )
    assert matcher.passes("192.0.2.1", 80, "10.1.2.3", 5)
    assert matcher.passes("2001:db8::1", 90, "2001:db8::2", 5)
    assert not matcher.passes("192.0.2.1", 91, "10.1.2.3", 5)
    assert not matcher.passes("192.0.2.1", 80, "11.1.2.3", 5)
    assert matcher.listens("0.0.0.0", 85)
    assert not matcher.listens("0.0.0.0", 8080)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"interval": "0"}, "--interval 0"),
        ({"interval": "-1"}, "--interval -1"),
        ({"interval": "nan"}, "--interval nan"),
        ({"interval": "2h"}, "--interval 2h"),
        ({"duration": "0"}, "--duration 0"),
        ({"duration": "86401"}, "--duration 86401"),
        ({"duration": "2d"}, "--duration 2d"),
        ({"duration": "soon"}, "--duration soon: no duration"),
        ({"window": "61"}, "--window 61"),
        ({"window": "0.5", "interval": "3"}, "--window 0.5"),
        ({"window": "10,0.3", "interval": "0.5"}, "--window 0.3"),
        ({"mode": "both", "format": "prometheus"}, "--format prometheus"),
        ({"mode": "both", "format": "prometheus", "events": "-"}, "--format prometheus"),
        *(
            ({name: word}, f"--{name}: empty")
            for name in ("lport", "rport", "laddr", "raddr", "pid", "cgroup", "iface", "netns")
            for word in ("", "  ", *([[]] if name == "lport" else []))
        ),
        ({"cgroup": "999999999999"}, "cgroup"),
        ({"cgroup": "0"}, "cgroup"),
        ({"lport": "0"}, "there is no port 0"),
        ({"lport": "70000"}, "there is no port 70000"),
        ({"rport": "90-80"}, "runs backwards"),
        ({"rport": "no-such-service"}, "is no port"),
        ({"lport": ",".join(["1"] * 65)}, "at most 64"),
        ({"laddr": "10.0.0.0/33"}, "is no address and no prefix"),
        ({"raddr": "example.org"}, "is no address and no prefix"),
        ({"pid": "999999999"}, "there is no process 999999999"),
        ({"pid": "init"}, "'init' is no process"),
        ({"netns": "no-such-namespace"}, "no network namespace 'no-such-namespace'"),
        ({"netns": "999999999"}, "no process 999999999"),
        ({"netns": "/etc/passwd"}, "is no network namespace"),
        ({"netns": "/no/such"}, "no network namespace at /no/such"),
        ({"cgroup": "no/such/group"}, "cgroup"),
        ({"iface": "nosuch0"}, "there is no interface 'nosuch0'"),
        ({"iface": "nosuch0", "netns": "all"}, "there is no interface 'nosuch0'"),
        ({"mode": "all"}, "--mode all"),
        ({"events": "x"}, "--events"),
        ({"rtt_above": "200ms"}, "--rtt-above: there are no events with --mode summary"),
        ({"resets": True}, "--resets: there are no events"),
        ({"max_events": "5/s", "mode": "summary"}, "--max-events: there are no events"),
        ({"mode": "detail", "events": "x", "output": "y"}, "--output"),
        ({"mode": "detail", "format": "prometheus"}, "--format prometheus: no summaries"),
        ({"mode": "detail", "window": "1,10"}, "--window: no summaries"),
        ({"format": "xml"}, "--format xml"),
        ({"backend": "ebpf"}, "--backend ebpf"),
        ({"mask": "some"}, "--mask some"),
        ({"max_cpu": "0%"}, "--max-cpu 0%"),
        ({"max_cpu": "101%"}, "--max-cpu 101%"),
        ({"sample": "1/0"}, "--sample 1/0"),
        ({"sample": "half"}, "--sample half"),
        ({"max_events": "0"}, "--max-events 0"),
        ({"top_flows": "-1"}, "--top-flows -1"),
        ({"last": "17"}, "--last 17"),
        ({"top_flows": "65"}, "--top-flows 65"),
        ({"sub_bits": "1"}, "--sub-bits 1"),
        ({"raddr": ",".join(["10.0.0.0/8"] * 33)}, "at most 32"),
        ({"rtt_above": "200"}, "--rtt-above 200: no time"),
        ({"rtt_above": "0ms"}, "out of 1us"),
        ({"rtt_jump": "1x"}, "--rtt-jump 1x"),
        ({"rtt_jump": "nanx"}, "--rtt-jump nanx"),
        ({"cwnd_halved": "2m"}, "--cwnd-halved 2m"),
        ({"reset_rate": "many"}, "--reset-rate many"),
        ({"sockets": "2"}, "--sockets 2"),
        ({"ring": "1"}, "--ring 1"),
        ({"sub_bits": "7"}, "--sub-bits 7"),
        ({"window": ""}, "--window "),
        ({"interval": "\u0661"}, "--interval \u0661"),
        ({"lport": "9" * 5000}, "there is no port"),
        ({"pid": "9" * 5000}, "there is no process"),
        ({"cgroup": "9" * 5000}, "cgroup"),
        ({"duration": "9" * 400}, "no duration"),
        ({"rtt_above": f"{'9' * 400}s"}, "no time"),
        ({"max_cpu": "9" * 5000}, "--max-cpu"),
        ({"max_events": "9" * 5000}, "no rate"),
        ({"sample": "9" * 5000}, "no share"),
        ({"sockets": "9" * 5000}, "--sockets"),
        ({"ring": "9" * 5000}, "--ring"),
    ],
)
def test_bad_words(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.make(**words)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_of_several_namespaces_the_number_of_an_interface_stands_for_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Programs compare numbers."""
    there = {1: [(1, "lo"), (2, "eth0"), (3, "br0")], 2: [(1, "lo"), (2, "veth1")], 3: [(1, "lo")]}
    monkeypatch.setattr("engine.tcp.filters.call_inside", lambda one, _: there[one.inode])
    all_of_them = [Namespace(inode, f"/run/{inode}") for inode in there]
    assert filters.interface_index(Filters(interface="lo", namespaces=all_of_them)) == 1
    assert filters.interface_index(Filters(interface="br0", namespaces=all_of_them)) == 3
    for name in ("eth0", "veth1", "none0"):
        with pytest.raises(OtusError, match="not the same number"):
            filters.interface_index(Filters(interface=name, namespaces=all_of_them))


@pytest.mark.parametrize("kind", [LibbpfBackend, BccBackend, NetlinkBackend])
def test_what_is_taken_every_backend_has_room_for(kind: Any) -> None:
    words: dict[str, Any] = {"mode": "both", "top_flows": "64", "last": "16", "lport": ",".join(["1"] * 16)}
    # Kernels of BCC take fewer: --backend auto goes on to netlink.
    entries = 16 if kind is BccBackend else 32
    for name in ("laddr", "raddr"):
        words[name] = ",".join(f"10.{at}.0.0/16" for at in range(entries))
    for sub_bits in ("2", "6"):
        made = options.make(**words, sub_bits=sub_bits)
        backend = kind(made.filters, made.triggers, made.limits, made.sizes)
        assert backend.plan().programs
        backend.stop()


def test_a_bound_of_the_programs_is_told_and_not_worked_around() -> None:
    made = options.make()
    made.limits.last = 17
    with pytest.raises(UsageError, match="--last 17"):
        choose.start(made)


def test_a_filter_that_the_named_backend_lacks_is_a_wrong_word() -> None:
    for words in ({"pid": str(os.getpid())}, {"lport": ",".join(str(port) for port in range(1, 36, 2))}):
        with pytest.raises(UsageError, match="the bcc backend"):
            choose.start(options.make(backend="bcc", **words))


def test_a_filter_that_a_backend_lacks_leaves_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "ORDER", ("bcc", "netlink"))
    backend, reasons = choose.start(options.make(pid=str(os.getpid())))
    backend.stop()
    assert backend.name == "netlink"
    assert reasons == ["bcc: the bcc backend cannot filter by process or cgroup"]


def test_an_error_inside_a_constructor_is_not_taken_for_a_missing_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: object) -> None:
        raise AttributeError("a mistake of ours")

    monkeypatch.setattr("engine.tcp.netlink.NetlinkBackend", breaks)
    with pytest.raises(AttributeError, match="a mistake of ours"):
        choose.construct("netlink", options.make())
    monkeypatch.setitem(choose.PLACES, "netlink", ("engine.tcp.nothing", "Nothing"))
    with pytest.raises(OtusError, match="is not here"):
        choose.construct("netlink", options.make())


def test_where_events_go() -> None:
    assert options.make(mode="detail", events="x").events == "x"
    assert options.make(mode="detail", output="y").output == "y"
    assert options.make(mode="both", events="x", output="y").events == "x"


def test_good_words() -> None:
    made = options.make(
        mode="both", interval="500ms", duration="10m", window="1,10,60", lport=[80, "8000-8100"],
        pid=os.getpid(), rtt_above="1.5s", rtt_jump="3x", rtt_p99=True, retrans_burst="10/s",
        cwnd_halved="5", tlp=False,
        max_events="100/s", sample="1/16", top_flows="8", first="5", last="3", max_cpu="2%", ring="300K",
    )  # fmt: skip
    assert (made.interval, made.duration, made.windows) == (0.5, 600.0, (1.0, 10.0, 60.0))
    assert made.filters.local_ports == [(80, 80), (8000, 8100)]
    assert made.filters.pids == [os.getpid()]
    triggers, limits = made.triggers, made.limits
    assert (triggers.rtt_above_us, triggers.rtt_jump, triggers.retransmit_burst) == (1_500_000, 3.0, 10)
    assert (triggers.tlp, triggers.rto, triggers.cwnd_halved_s) == (False, True, 5.0)
    assert (limits.per_second, limits.sample, limits.top_flows, limits.first, limits.last) == (
        100,
        16,
        8,
        5,
        3,
    )
    assert made.max_cpu == 0.02
    assert made.sizes.ring_bytes == 524_288


def test_the_own_namespace_is_watched_unless_told_otherwise() -> None:
    here = namespaces.own()
    assert options.make().filters.netns == here.inode
    assert options.make(netns=str(os.getpid())).filters.netns == here.inode
    every = options.make(netns="all")
    assert every.filters.netns == 0
    assert here.inode in {one.inode for one in every.filters.namespaces}


def test_interfaces_have_addresses() -> None:
    assert filters.interface("lo") == "lo"
    names = [name for _, name in socket.if_nameindex()]
    found: set[str] = set()
    for name in names:
        known = Addresses(name)
        found |= known.read()
        known.close()
    assert "127.0.0.1" in found
    gone = Addresses("nosuch0")
    assert gone.read() == set()
    gone.close()


@given(st.binary(max_size=80))
def test_any_octets_from_rtnetlink_are_taken(octets: bytes) -> None:
    addresses.parse(octets, 1)


def test_of_a_link_with_a_peer_the_own_address_is_taken() -> None:
    head = struct.pack("=4BI", socket.AF_INET, 32, 0, 0, 7)
    peer, own = bytes([8, 0, 1, 0, 10, 0, 0, 1]), bytes([8, 0, 2, 0, 10, 0, 0, 2])
    assert addresses.parse(head + peer + own, 7) == "10.0.0.2"
    assert addresses.parse(head + peer, 7) == "10.0.0.1"
    assert addresses.parse(head + peer, 8) == ""


def test_words_that_pass() -> None:
    assert options.make(window="0.5", interval="0.5").windows == (0.5,)
    assert options.make(window="1", interval="3").windows == (1.0,)
    for words in ({"events": "x"}, {"output": "x"}):
        assert options.make(mode="both", format="prometheus", **words).format == "prometheus"


def test_cgroups_where_they_are_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when `ip netns exec` hides them: those of the first process."""
    groups = tmp_path / "first" / "sys" / "groups v2"
    group = groups / "web" / "one"
    group.mkdir(parents=True)
    for folder in (groups, group.parent, group):
        (folder / "cgroup.procs").touch()
        (folder / "cgroup.controllers").touch()
    mine, first = tmp_path / "mine", tmp_path / "first mounts"
    mine.write_text("sysfs /sys sysfs rw 0 0\nodd\n")
    first.write_text("cgroup2 /sys/groups\\040v2 cgroup2 rw 0 0\n")
    where = (("", str(mine)), (str(tmp_path / "first"), str(first)))
    monkeypatch.setattr(filters, "_MOUNTS", where)
    inode = group.stat().st_ino
    for word in ("web/one", "/web/one/", "/sys/groups v2/web/one", str(group), str(inode)):
        assert filters.cgroup(word) == inode, word
    assert filters.cgroup("/") == groups.stat().st_ino
    assert filters.descendants(group.parent.stat().st_ino) == {group.parent.stat().st_ino, inode}
    for word in ("web/two", str(inode + 10_000_000), "we", "x\0y"):
        with pytest.raises(UsageError, match="there is no cgroup"):
            filters.cgroup(word)
    first.write_text("")
    with pytest.raises(UsageError, match="no cgroup v2 is mounted"):
        filters.cgroup(str(inode))


@pytest.mark.parametrize(
    ("word", "near"), [("rtt_abov", "rtt-above?"), ("rtt-abov", "rtt-above?"), ("xyz", "known: ")]
)
def test_options_of_a_file_are_named_as_on_the_command_line(word: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.check({word: 1})
    assert caught.value.message == f"unknown option {word.replace('_', '-')}"
    assert near in caught.value.hint
    assert "_" not in caught.value.hint

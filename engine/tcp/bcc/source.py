"""Filters, triggers and sizes -> the C text that BCC compiles."""

from __future__ import annotations

import os
import re
import sys
from ipaddress import IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

from engine import resources
from engine.errors import OtusError, UsageError
from engine.tcp import histogram
from engine.tcp.backend import FEWEST_SUB_BITS, MOST_SUB_BITS, BeyondBackendError
from engine.tcp.bcc.types import BitField
from engine.tcp.filters import interface_index, mapped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network

    from engine.tcp.backend import Filters, Limits, Sizes, Triggers
    from engine.tcp.bcc.types import KernelTypes
    from engine.tcp.libbpf.reasons import Reasons

SOURCE = "tcp_observer.bcc.c"
MOST_ENTRIES = 16
"""Port ranges or prefixes of one side: each is some instructions more, and 4.19 takes 4096 in all."""
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
_INCOMPLETE = re.compile(r"error: .* incomplete type 'struct (bpf_\w+)'")
_UNDECLARED = re.compile(r"error: use of undeclared identifier '(BPF_\w+)'")
_MAPPED = IPv6Network("::ffff:0:0/96")
_FREE = 10_000
_INITIAL_PIDNS = 0xEFFFFFFC
_LEAST_A_SECOND = 2_000


def check(filters: Filters, sizes: Sizes) -> None:
    """UsageError: what these programs cannot do; BeyondBackendError where other backends can."""
    if filters.pids or filters.cgroup:
        raise BeyondBackendError(
            "the bcc backend cannot filter by process or cgroup", "--backend libbpf or --backend netlink"
        )
    for option, entries in (
        ("--lport", filters.local_ports), ("--rport", filters.remote_ports),
        ("--laddr", filters.local_networks), ("--raddr", filters.remote_networks),
    ):  # fmt: skip
        if len(entries) > MOST_ENTRIES:
            raise BeyondBackendError(
                f"the bcc backend takes at most {MOST_ENTRIES} entries, {option} has {len(entries)}",
                "--backend libbpf or --backend netlink",
            )
    if not FEWEST_SUB_BITS <= sizes.sub_bits <= MOST_SUB_BITS:
        hint = f"{FEWEST_SUB_BITS} to {MOST_SUB_BITS}"
        raise UsageError(f"{sizes.sub_bits} sub-bits of a histogram", hint)


def text(
    filters: Filters, triggers: Triggers, limits: Limits, sizes: Sizes, reasons: Reasons, types: KernelTypes
) -> str:
    """The whole program."""
    ca_state = types.ca_state() or BitField("0", 0, 8)
    rows = [f"#define {name} {value}" for name, value in _constants(filters, triggers, limits, sizes).items()]
    rows += [f"#define BENIGN_{i} 0x{word:x}ULL" for i, word in enumerate(reasons.benign())]
    rows += [
        f"#define CA_STATE_OCTET {ca_state.octet}",
        f"#define CA_STATE_SHIFT {ca_state.shift}",
        f"#define CA_STATE_MASK 0x{(1 << ca_state.bits) - 1:x}",
        f"#define LOCAL_PORTS(port) {_ports(filters.local_ports)}",
        f"#define REMOTE_PORTS(port) {_ports(filters.remote_ports)}",
        f"#define LOCAL_NETWORKS(address) {_networks(filters.local_networks)}",
        f"#define REMOTE_NETWORKS(address) {_networks(filters.remote_networks)}",
    ]
    body = programs()
    return "\n".join((types.declarations(body), *rows, body))


def programs() -> str:
    """The parts of SOURCE in their order, without what differs from run to run."""
    folder = resources.data("bpf")
    try:
        whole = (folder / SOURCE).read_text("utf-8")
        whole = _INCLUDE.sub(lambda found: (folder / found[1]).read_text("utf-8"), whole)
    except OSError as error:
        name = Path(error.filename).name if error.filename else SOURCE
        raise OtusError(f"the package has no {name}", "install it anew") from error
    return whole.replace("#pragma once\n", "")


def stand_ins(errors: Sequence[str], number: int) -> list[str]:
    """Compiler flags for names of linux/bpf.h that the kernel's headers use and BCC does not know.

    BCC brings its own copy of that file, as old as itself. The programs have no use of these names, only
    inline functions of the kernel that are never called: any type will do, and any number that is free.
    """
    found: dict[str, str] = {}
    for line in errors:
        if names := _INCOMPLETE.search(line):
            found[names[1]] = "bpf_timer"
        elif names := _UNDECLARED.search(line):
            found[names[1]] = str(_FREE + number + len(found))
    return [f"-D{name}={value}" for name, value in found.items()]


def _constants(filters: Filters, triggers: Triggers, limits: Limits, sizes: Sizes) -> dict[str, int]:
    addresses = any(
        (filters.interface, filters.local_ports, filters.remote_ports, filters.local_networks,
         filters.remote_networks)
    )  # fmt: skip
    return {
        "NETNS": filters.netns,
        "INTERFACE": interface_index(filters),
        "FILTERED": int(addresses),
        "SUB_BITS": sizes.sub_bits,
        "BUCKETS": histogram.bucket_count(sizes.sub_bits),
        "MOST_SOCKETS": sizes.sockets,
        "MOST_DROPS": sizes.stacks,
        "OWN_PIDS": int(os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PIDNS),
        "EVENTS_A_SECOND": max(_LEAST_A_SECOND, 10 * limits.per_second),
        "RTT_ABOVE_US": triggers.rtt_above_us or 0,
        "RTT_P99_EVENTS": int(triggers.rtt_p99),
        "RETRANSMIT_BURST_SEGMENTS": triggers.retransmit_burst or 0,
        "RTO_EVENTS": int(triggers.rto),
        "TLP_EVENTS": int(triggers.tlp),
        "ZERO_WINDOW_EVENTS": int(triggers.zero_window),
        "RESET_EVENTS": int(triggers.resets),
        "DROP_EVENTS": int(triggers.drops),
    }


def _ports(ranges: Sequence[tuple[int, int]]) -> str:
    tests = [
        f"(port) == {first}" if first == last else f"((port) >= {first} && (port) <= {last})"
        for first, last in ranges
    ]
    return f"({' || '.join(tests) or '1'})"


def _networks(wanted: Sequence[IPv4Network | IPv6Network]) -> str:
    return f"({' || '.join(map(_network, wanted)) or '1'})"


def _network(network: IPv4Network | IPv6Network) -> str:
    address, mask = mapped(network)
    tests = []
    if network.version == 6 and _MAPPED.subnet_of(network):
        # IPv4 is ::ffff:a.b.c.d here, and in no network of IPv6.
        marked = int.from_bytes(_MAPPED.network_address.packed[8:12], sys.byteorder)
        tests = [f"((address)[0] || (address)[1] || (address)[2] != 0x{marked:x})"]
    for word in range(4):
        own = int.from_bytes(mask[4 * word : 4 * word + 4], sys.byteorder)
        value = int.from_bytes(address[4 * word : 4 * word + 4], sys.byteorder)
        if own:
            tests.append(f"((address)[{word}] & 0x{own:x}) == 0x{value:x}")
    return f"({' && '.join(tests) or '1'})"

"""Filters, triggers and limits -> the constants of the programs; and the C source with them in words."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING

from engine import resources
from engine.errors import OtusError, UsageError
from engine.tcp import histogram
from engine.tcp.backend import FEWEST_SUB_BITS, MOST_SUB_BITS
from engine.tcp.filters import interface_index, mapped
from engine.tcp.libbpf import layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from engine.tcp.backend import Filters, Limits, Sizes, Triggers
    from engine.tcp.libbpf.reasons import Reasons

_INITIAL_PIDNS = 0xEFFFFFFC
"""Inode of the first pid namespace (include/linux/proc_ns.h)."""
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
SOURCE = "tcp_observer.bpf.c"


def check(filters: Filters, limits: Limits, sizes: Sizes) -> None:
    """UsageError: what the programs have no room for."""
    for side, networks in (("--laddr", filters.local_networks), ("--raddr", filters.remote_networks)):
        if len(networks) > layout.PREFIXES:
            raise UsageError(f"{side}: {len(networks)} prefixes", f"at most {layout.PREFIXES}")
    if limits.top_flows > layout.TOP_FLOWS:
        raise UsageError(f"--top-flows {limits.top_flows}", f"at most {layout.TOP_FLOWS}")
    if limits.last > layout.LAST_EVENTS:
        raise UsageError(f"--last {limits.last}", f"at most {layout.LAST_EVENTS}")
    if not FEWEST_SUB_BITS <= sizes.sub_bits <= MOST_SUB_BITS:
        hint = f"{FEWEST_SUB_BITS} to {MOST_SUB_BITS}"
        raise UsageError(f"{sizes.sub_bits} sub-bits of a histogram", hint)
    ring = sizes.ring_bytes
    if ring < 4096 or ring & (ring - 1):
        raise UsageError(f"a ring of {ring} octets", "a power of two, at least 4096")
    for name, value in (("sockets", sizes.sockets), ("stacks", sizes.stacks)):
        if value < 1:
            raise UsageError(f"{value} {name}", "at least 1")


def config(filters: Filters, triggers: Triggers, limits: Limits, sizes: Sizes) -> layout.Config:
    """All that does not depend on the kernel."""
    made = layout.Config()
    made.netns, made.cgroup = filters.netns, filters.cgroup
    made.interface = interface_index(filters)
    made.port_filtered_local = bool(filters.local_ports)
    made.port_filtered_remote = bool(filters.remote_ports)
    made.local_networks, made.remote_networks = len(filters.local_networks), len(filters.remote_networks)
    made.pid_filtered = bool(filters.pids)
    made.filtered = bool(
        made.interface or filters.local_ports or filters.remote_ports or filters.local_networks
        or filters.remote_networks or filters.pids or filters.cgroup
    )  # fmt: skip
    made.sub_bits, made.bucket_count = sizes.sub_bits, histogram.bucket_count(sizes.sub_bits)
    made.rtt_above_us = triggers.rtt_above_us or 0
    made.rtt_jump_percent = round((triggers.rtt_jump or 0) * 100)
    made.rtt_p99 = triggers.rtt_p99
    made.retransmit_burst = triggers.retransmit_burst or 0
    made.cwnd_halved_ns = round((triggers.cwnd_halved_s or 0) * 1e9)
    for name in ("rto", "tlp", "pacing_zero", "zero_window", "backlog_overflow", "resets", "drops"):
        setattr(made, name, getattr(triggers, name))
    for name in ("sample", "top_flows", "first", "last", "per_second"):
        setattr(made, name, getattr(limits, name))
    space = os.stat("/proc/self/ns/pid")
    if space.st_ino != _INITIAL_PIDNS:
        made.pid_namespace_device, made.pid_namespace_inode = space.st_dev, space.st_ino
    return made


def of_kernel(made: layout.Config, reasons: Reasons, *, socket_cookie: bool, rdonly_cast: bool) -> None:
    """What depends on the kernel."""
    made.socket_cookie, made.rdonly_cast = socket_cookie, rdonly_cast
    made.listen_overflow = reasons.listen_overflow
    for i, word in enumerate(reasons.benign()):
        made.benign[i] = word


def ports(ranges: Sequence[tuple[int, int]]) -> bytes:
    """A bit for each port, in words of 8 octets."""
    bits = 0
    for first, last in ranges:
        bits |= ((1 << (last - first + 1)) - 1) << first
    words = (bits >> (64 * i) & (1 << 64) - 1 for i in range(1024))
    return bytes((ctypes.c_uint64 * 1024)(*words))


def networks(wanted: Sequence[IPv4Network | IPv6Network]) -> bytes:
    """The prefixes, IPv4 as mapped IPv6, address and mask of 16 octets each."""
    made = (layout.Prefix * layout.PREFIXES)()
    for one, network in zip(made, wanted, strict=False):
        one.address[:], one.mask[:] = mapped(network)
    return bytes(made)


def source(made: layout.Config) -> str:
    """The C text, its headers put in, under the constants that are in effect."""
    folder = resources.data("bpf")
    try:
        text = (folder / SOURCE).read_text("utf-8")
        whole = _INCLUDE.sub(lambda found: (folder / found[1]).read_text("utf-8"), text)
    except OSError as error:
        raise OtusError(f"the package has no {SOURCE}", "install it anew") from error
    rows = [f" *   {name} = {value}" for name, value in constants(made).items()]
    return "\n".join(("/*", " * The constants of this run (struct config):", *rows, " */", whole))


def constants(made: layout.Config) -> Mapping[str, int | str]:
    """Name -> value of all that is set."""
    found: dict[str, int | str] = {}
    for field in made._fields_:
        value = getattr(made, field[0])
        if isinstance(value, ctypes.Array):
            found[field[0]] = "{" + ", ".join(f"0x{word:x}" for word in value) + "}"
        else:
            found[field[0]] = value
    return found

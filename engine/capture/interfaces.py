"""The host's interfaces: names, state, and what they lose before a capture socket sees it.

Everything here asks about the network namespace of the calling process.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import socket
import struct
from pathlib import Path

from engine.errors import UsageError

ANY = "any"
SIOCGIFFLAGS = 0x8913
IFF_UP, IFF_RUNNING = 0x1, 0x40
_IFREQ = struct.Struct("16sh22x")
NIC_DROPS = {"rx_dropped": 6, "rx_missed": 15, "rx_fifo": 14}
"""What an interface loses -> its place in struct rtnl_link_stats64 (linux/if_link.h)."""
RTM_NEWLINK, RTM_GETLINK = 16, 18
NLM_REQUEST, NLM_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFLA_IFNAME, IFLA_STATS64 = 3, 23
_NLMSG = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")


def names() -> list[str]:
    """Names of all interfaces, in the kernel's order."""
    return [name for _, name in socket.if_nameindex()]


def index_of(name: str) -> int:
    """Kernel index of an interface; 0 if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def split(interface: str) -> list[str]:
    """The names in `eth0,lo`, without repetition; an empty list for `any`."""
    wanted = [part.strip() for part in interface.split(",")]
    wanted = list(dict.fromkeys(part for part in wanted if part))
    return [] if ANY in wanted else wanted


def require(interface: str) -> list[str]:
    """split(), or UsageError that names the nearest interfaces for one that does not exist."""
    if not interface.strip(" ,"):
        raise UsageError("no interface given", f"one of {', '.join(names())} or {ANY}")
    wanted = split(interface)
    present = names()
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name, [*present, ANY], n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(present)} or {ANY}"
            raise UsageError(f"no interface {name!r} on this host", hint)
    return wanted


def link_state(name: str) -> str:
    """`up`, `down` (switched off, or without carrier) or `gone`."""
    flags = _flags(name)
    if flags is None:
        return "gone"
    return "up" if flags & IFF_UP and flags & IFF_RUNNING else "down"


def switched_on(name: str) -> bool:
    """Whether an interface is there and switched on, with carrier or without."""
    return bool((_flags(name) or 0) & IFF_UP)


def _flags(name: str) -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFFLAGS, _IFREQ.pack(os.fsencode(name)[:15], 0))
        except OSError:
            return None
    return int(_IFREQ.unpack(answer)[1])


def host_drops(interface: str) -> dict[str, int | None]:
    """Packets lost before any capture socket, since boot: `rx_dropped`, `rx_missed`, `rx_fifo`, `softnet`.

    The first three are sums over the named interfaces (`any`: all), as the kernel says by netlink in this
    namespace; `softnet` is the whole host's backlog (/proc/net/softnet_stat, second column). None where
    unknown. A driver may count one loss in two of them.
    """
    wanted = split(interface)
    drops: dict[str, int | None] = {**dict.fromkeys(NIC_DROPS), "softnet": softnet_drops()}
    try:
        found = link_drops(index_of(wanted[0]) if len(wanted) == 1 else 0)
    except OSError:
        return drops
    rows = [figures for name, figures in found.items() if not wanted or name in wanted]
    if rows:
        drops.update({name: sum(row[name] for row in rows) for name in NIC_DROPS})
    return drops


def softnet_drops() -> int | None:
    """Packets that no CPU's backlog had room for; None where the kernel does not say."""
    try:
        rows = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
        return sum(int(row.split()[1], 16) for row in rows)
    except (OSError, IndexError, ValueError):
        return None


def link_drops(index: int = 0) -> dict[str, dict[str, int]]:
    """Interface -> NIC_DROPS of one interface or of all (0), by RTM_GETLINK (linux/if_link.h)."""
    flags = NLM_REQUEST if index else NLM_REQUEST | NLM_DUMP
    header = _NLMSG.pack(_NLMSG.size + _IFINFO.size, RTM_GETLINK, flags, 1, 0)
    request = header + _IFINFO.pack(0, 0, index, 0, 0)
    found: dict[str, dict[str, int]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(1.0)
        link.send(request)
        while True:
            octets = link.recv(1 << 18)
            place = 0
            while place + _NLMSG.size <= len(octets):
                length, kind = _NLMSG.unpack_from(octets, place)[:2]
                if kind in (NLMSG_ERROR, NLMSG_DONE) or length < _NLMSG.size:
                    return found
                if kind == RTM_NEWLINK:
                    found.update(_link_figures(octets[place + _NLMSG.size + _IFINFO.size : place + length]))
                place += length + 3 & ~3
            if index:
                return found


def _link_figures(attributes: bytes) -> dict[str, dict[str, int]]:
    """The name and the figures in the attributes of one link; nothing where either is missing."""
    name, figures, place = "", {}, 0
    while place + 4 <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, place)
        value = attributes[place + 4 : place + length]
        if length < 4:
            break
        if kind == IFLA_IFNAME:
            name = os.fsdecode(value.rstrip(b"\0"))
        elif kind == IFLA_STATS64:
            words = struct.unpack_from(f"={len(value) // 8}Q", value)
            figures = {key: words[at] for key, at in NIC_DROPS.items() if at < len(words)}
        place += length + 3 & ~3
    return {name: figures} if name and len(figures) == len(NIC_DROPS) else {}

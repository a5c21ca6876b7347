"""The host's interfaces: names, state, and what they lose before a capture socket sees it.

Everything here asks about the network namespace of the calling process.
"""

from __future__ import annotations

import difflib
import fcntl
import socket
import struct
from pathlib import Path

from engine.errors import UsageError

ANY = "any"
SIOCGIFFLAGS = 0x8913
IFF_UP, IFF_RUNNING = 0x1, 0x40
_IFREQ = struct.Struct("16sh22x")


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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFFLAGS, _IFREQ.pack(name.encode()[:15], 0))
        except OSError:
            return "gone"
    flags = _IFREQ.unpack(answer)[1]
    return "up" if flags & IFF_UP and flags & IFF_RUNNING else "down"


def host_drops(interface: str) -> dict[str, int]:
    """Packets lost before any capture socket, since boot: `rx_dropped`, `rx_missed`, `rx_fifo`, `softnet`.

    The first three are sums over the named interfaces (`any`: all); `softnet` is the whole host's
    backlog (/proc/net/softnet_stat, second column). A driver may count one loss in two of them.
    """
    wanted = split(interface) or names()
    drops = {"rx_dropped": 0, "rx_missed": 0, "rx_fifo": 0, "softnet": 0}
    totals = _receive_totals()
    for name in wanted:
        dropped, fifo = totals.get(name, (0, 0))
        # /proc/net/dev adds rx_missed_errors to its drop column (net/core/net-procfs.c).
        missed = _missed(name)
        drops["rx_dropped"] += max(0, dropped - missed)
        drops["rx_missed"] += missed
        drops["rx_fifo"] += fifo
    try:
        rows = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
        drops["softnet"] = sum(int(row.split()[1], 16) for row in rows)
    except (OSError, IndexError, ValueError):
        pass
    return drops


def _receive_totals() -> dict[str, tuple[int, int]]:
    """Interface -> (drop, fifo) of /proc/net/dev, which is always of this process's namespace."""
    totals: dict[str, tuple[int, int]] = {}
    try:
        text = Path("/proc/net/dev").read_text(encoding="ascii", errors="replace")
    except OSError:
        return totals
    for row in text.splitlines()[2:]:
        name, _, figures = row.partition(":")
        columns = figures.split()
        if len(columns) >= 5:
            totals[name.strip()] = (int(columns[3]), int(columns[4]))
    return totals


def _missed(name: str) -> int:
    """rx_missed_errors from sysfs, if sysfs shows this process's namespace."""
    folder = Path("/sys/class/net") / name
    try:
        if int((folder / "ifindex").read_text()) != index_of(name):
            return 0
        return int((folder / "statistics/rx_missed_errors").read_text())
    except (OSError, ValueError):
        return 0

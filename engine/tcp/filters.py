"""Filters of the observer: from the words of a person to `backend.Filters`, and whether a socket passes them.

Every function that takes a word raises UsageError with what would be right.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from typing import TYPE_CHECKING, TypeVar

from engine.errors import NotPermittedError, OtusError, UsageError
from engine.tcp.backend import MOST_NETWORKS
from engine.tcp.namespaces import call_inside
from engine.text import MAPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.tcp.backend import Filters

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Entry = TypeVar("Entry")
_MOUNTS = (("", "/proc/self/mounts"), ("/proc/1/root", "/proc/1/mounts"))
"""Where it is looked for cgroup v2. `ip netns exec` mounts a /sys of its own, without cgroups: the first
process still has them."""
MOST_RANGES = 64
"""Port ranges or processes of one option."""
MOST_CGROUPS = 65_536
MOST_DIGITS = 18
"""Of a number: far more than anything here can be."""


def whole(text: str) -> int | None:
    """The number that the digits 0 to 9 are, up to 18 of them; None where it is something else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None


def ports(word: str, option: str) -> list[tuple[int, int]]:
    """Ranges out of `80,443,8000-8100,sip`."""
    found = []
    for part in (piece.strip() for piece in word.split(",")):
        first, dash, last = part.partition("-")
        if dash and first.strip().isdecimal():
            low, high = _port(first.strip(), option, word), _port(last.strip(), option, word)
            if low > high:
                raise UsageError(f"{option} {word}: {part} runs backwards", f"{high}-{low}")
            found.append((low, high))
        else:
            one = _port(part, option, word)
            found.append((one, one))
    return _bounded(found, option)


def _port(part: str, option: str, word: str) -> int:
    hint = "a number from 1 to 65535, a name of /etc/services, a list 80,443 or a range 8000-8100"
    if part.isdecimal():
        value = whole(part)
        if value is not None and 1 <= value <= 65535:
            return value
        raise UsageError(f"{option} {word}: there is no port {part}", hint)
    try:
        return socket.getservbyname(part, "tcp")
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {word}: {part!r} is no port", hint) from error


def networks(word: str, option: str) -> list[Network]:
    """Networks out of `10.0.0.0/8,2001:db8::1`; IPv4 in IPv6 is IPv4."""
    found: list[Network] = []
    for part in (piece.strip() for piece in word.split(",")):
        try:
            network = ipaddress.ip_network(part.strip("[]") if "/" not in part else part, strict=False)
        except ValueError as error:
            hint = "an address or a prefix: 10.0.0.7, 10.0.0.0/8, 2001:db8::/32, or a list of them"
            raise UsageError(f"{option} {word}: {part!r} is no address and no prefix", hint) from error
        found.append(_plain(network))
    return _bounded(found, option, MOST_NETWORKS)


def _plain(network: Network) -> Network:
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _bounded(found: list[Entry], option: str, most: int = MOST_RANGES) -> list[Entry]:
    if len(found) > most:
        raise UsageError(f"{option}: {len(found)} entries, at most {most} are taken", "use ranges, prefixes")
    return found


def mapped(network: Network) -> tuple[bytes, bytes]:
    """Address and mask of 16 octets each, IPv4 as mapped IPv6: what the programs compare with."""
    address, mask = network.network_address.packed, network.netmask.packed
    if network.version == 4:
        return MAPPED + address, b"\xff" * 12 + mask
    return address, mask


def pids(word: str) -> list[int]:
    """Processes that are there, out of `812,4711`."""
    found = []
    for part in (piece.strip() for piece in word.split(",")):
        if not (part.isascii() and part.isdecimal()) or not part.strip("0"):
            raise UsageError(
                f"--pid {word}: {part!r} is no process", "a number, or a list of them: --pid 812,4711"
            )
        pid = whole(part)
        if pid is None or not os.path.isdir(f"/proc/{pid}"):
            raise UsageError(f"there is no process {part}", "ps -e lists them")
        try:
            os.listdir(f"/proc/{pid}/fd")
        except PermissionError as error:
            raise NotPermittedError(
                f"the sockets of process {part} may not be seen: that takes CAP_SYS_PTRACE",
                "run it as root: sudo otus-tui tcp ...",
            ) from error
        except OSError as error:
            raise UsageError(f"there is no process {part}", "ps -e lists them") from error
        found.append(pid)
    return _bounded(found, "--pid")


def cgroup(word: str) -> int:
    """The inode of a cgroup v2 directory: its path, its path below the mount point, or the inode itself."""
    base = mount()
    if not base:
        raise UsageError(
            "--cgroup: no cgroup v2 is mounted here",
            "mount -t cgroup2 none /sys/fs/cgroup; instead of ip netns exec, which hides it: --netns NAME",
        )
    hint = "a path below /sys/fs/cgroup (systemd-cgls shows them), or the inode of one"
    if word.isascii() and word.isdecimal():
        inode = whole(word)
        if inode is None or not _folder_of(base, inode):
            raise UsageError(f"there is no cgroup with the inode {word}", hint)
        return inode
    below = word
    for prefix in (base, base.removeprefix(_MOUNTS[1][0])):
        if f"{word}/".startswith(f"{prefix}/"):
            below = word[len(prefix) :]
            break
    path = f"{base}/{below.strip('/')}".rstrip("/")
    try:
        # The root of all has no cgroup.procs in some containers, and is one all the same.
        if os.path.isfile(f"{path}/cgroup.procs") or os.path.isfile(f"{path}/cgroup.controllers"):
            return os.stat(path).st_ino
    except (OSError, ValueError):
        pass
    raise UsageError(f"there is no cgroup {word}", hint)


def mount() -> str:
    """Where cgroup v2 is mounted; empty where it is not."""
    for root, table in _MOUNTS:
        try:
            with open(table, encoding="utf-8", errors="replace") as lines:
                rows = [line.split() for line in lines]
        except OSError:
            continue
        for path in (_unescaped(row[1]) for row in rows if row[2:3] == ["cgroup2"]):
            if os.path.isfile(f"{root}{path}/cgroup.controllers"):
                return root + path
    return ""


def _unescaped(path: str) -> str:
    """A path of /proc/mounts, which has octal numbers for blanks."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _folder_of(base: str, inode: int) -> str:
    return next((folder for folder, _, _ in os.walk(base) if _inode(folder) == inode), "")


def descendants(inode: int) -> set[int]:
    """Inodes of a cgroup and of all below it (itself alone, where it is not found)."""
    base = mount()
    found = {inode}
    if not base:
        return found
    top = _folder_of(base, inode)
    for folder, _, _ in os.walk(top) if top else ():
        found.add(_inode(folder))
        if len(found) >= MOST_CGROUPS:
            break
    return found


def _inode(folder: str) -> int:
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0


def interface(name: str) -> str:
    """An interface that is there, in the namespace of the caller."""
    try:
        socket.if_nametoindex(name)
    except (OSError, ValueError) as error:
        there = ", ".join(other for _, other in socket.if_nameindex())
        raise UsageError(f"there is no interface {name!r}", f"there are: {there}") from error
    return name


def interface_index(filters: Filters) -> int:
    """The number that the interface has in the namespace that is watched; 0 without one.

    UsageError where it is not there, OtusError where several namespaces are watched and the number does not
    stand for the name in all of them: programs compare numbers.
    """
    name = filters.interface

    def number() -> int:
        try:
            return socket.if_nametoindex(name)
        except (OSError, ValueError) as error:
            raise UsageError(f"no interface {name}", "ip -br link lists them") from error

    if not name:
        return 0
    if filters.netns or not filters.namespaces:
        return call_inside(filters.namespaces[0], number) if filters.namespaces else number()
    there: list[tuple[int, str]] = []
    for namespace in filters.namespaces:
        with contextlib.suppress(OtusError):
            there += call_inside(namespace, socket.if_nameindex)
    numbers = {index for index, other in there if other == name}
    names = {other for index, other in there if index in numbers}
    if len(numbers) != 1 or len(names) != 1:
        raise OtusError(
            f"--iface {name}: not the same number in all namespaces",
            "--backend netlink, which looks for the name in each; or one namespace",
        )
    return numbers.pop()


class Matcher:
    """Whether addresses and ports pass; sockets of processes and cgroups are the backend's part."""

    def __init__(self, filters: Filters, addresses: set[str] | None = None) -> None:
        self.local_ports, self.remote_ports = tuple(filters.local_ports), tuple(filters.remote_ports)
        self.local_networks = tuple(filters.local_networks)
        self.remote_networks = tuple(filters.remote_networks)
        self.addresses = addresses
        """Of the interface that was asked for; None: any."""
        self.all = (
            not (self.local_ports or self.remote_ports or self.local_networks or self.remote_networks)
            and addresses is None
        )

    def passes(self, local: str, local_port: int, remote: str, remote_port: int) -> bool:
        """One socket, with addresses in print."""
        if self.all:
            return True
        return (
            _in_ranges(local_port, self.local_ports)
            and _in_ranges(remote_port, self.remote_ports)
            and (self.addresses is None or local in self.addresses)
            and _in_networks(local, self.local_networks)
            and _in_networks(remote, self.remote_networks)
        )

    def listens(self, local: str, port: int) -> bool:
        """A listening socket: by its own side alone; the wildcard address is in every network."""
        wildcard = local in ("0.0.0.0", "::")  # noqa: S104
        return _in_ranges(port, self.local_ports) and (
            wildcard
            or (
                _in_networks(local, self.local_networks)
                and (self.addresses is None or local in self.addresses)
            )
        )


def narrows(filters: Filters) -> bool:
    """Whether anything but the namespace is asked for."""
    return bool(
        filters.interface
        or filters.local_ports
        or filters.remote_ports
        or filters.local_networks
        or filters.remote_networks
        or filters.pids
        or filters.cgroup
    )


def _in_ranges(port: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return not ranges or any(low <= port <= high for low, high in ranges)


def _in_networks(text: str, wanted: Sequence[Network]) -> bool:
    if not wanted:
        return True
    address = ipaddress.ip_address(text)
    return any(address.version == network.version and address in network for network in wanted)

"""The kernel's own TCP counters of a namespace: /proc/net/snmp and /proc/net/netstat, as `nstat` names
them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine.tcp.namespaces import call_inside

if TYPE_CHECKING:
    from engine.tcp.backend import Namespace

NAMES = (
    "TcpActiveOpens", "TcpPassiveOpens", "TcpAttemptFails", "TcpEstabResets", "TcpOutRsts", "TcpRetransSegs",
    "TcpOutSegs", "TcpInSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpExtTCPFastRetrans",
    "TcpExtTCPSlowStartRetrans", "TcpExtTCPSynRetrans", "TcpExtTCPLostRetransmit", "TcpExtTCPRetransFail",
    "TcpExtTCPSpuriousRTOs", "TcpExtListenOverflows", "TcpExtListenDrops", "TcpExtTCPReqQFullDrop",
    "TcpExtTCPReqQFullDoCookies", "TcpExtTCPFromZeroWindowAdv", "TcpExtTCPToZeroWindowAdv",
    "TcpExtTCPWantZeroWindowAdv", "TcpExtTCPWinProbe", "TcpExtTCPZeroWindowDrop", "TcpExtTCPRcvQDrop",
    "TcpExtTCPBacklogDrop",
)  # fmt: skip
"""What is kept; a kernel that lacks one gives none."""
_WANTED = frozenset(NAMES)
_FILES = ("snmp", "netstat")
_LARGEST = 65_536


class Counters:
    """The counters of one namespace; opening needs what entering it needs, reading nothing."""

    def __init__(self, namespace: Namespace) -> None:
        self._descriptors = call_inside(namespace, _open)

    def read(self) -> dict[str, int]:
        """The values of now; those that the kernel does not have are absent."""
        found: dict[str, int] = {}
        for descriptor in self._descriptors:
            parse(os.pread(descriptor, _LARGEST, 0).decode("ascii", "replace"), found)
        return found

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def parse(text: str, into: dict[str, int]) -> None:
    """Pairs of lines `Tcp: names...` and `Tcp: values...`."""
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, _, rest = names.partition(":")
        if group not in ("Tcp", "TcpExt"):
            continue
        for name, value in zip(rest.split(), values.partition(":")[2].split(), strict=False):
            full = group + name
            if full in _WANTED and value.isdecimal():
                into[full] = int(value)


def _open() -> list[int]:
    return [os.open(f"/proc/thread-self/net/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in _FILES]

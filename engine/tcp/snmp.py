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


def counters(kernel: dict[str, int]) -> dict[str, int]:
    """Counters of a reading out of those of the namespace."""
    syn = kernel.get("TcpExtTCPSynRetrans", 0)
    return {
        "retransmit_syn_events": syn,
        "retransmit_syn_segments": syn,
        # Timeouts count those of SYNs and SYN-ACKs, too. A SYN-ACK is also sent again for a repeated SYN,
        # which is no timeout and cannot be told from one here: this is the least that there were.
        "retransmit_rto_events": max(0, kernel.get("TcpExtTCPTimeouts", 0) - syn),
        "retransmit_tlp_events": kernel.get("TcpExtTCPLossProbes", 0),
        "retransmit_fast_segments": kernel.get("TcpExtTCPFastRetrans", 0),
        "retransmit_slow_start_segments": kernel.get("TcpExtTCPSlowStartRetrans", 0),
        "zero_window_sent": kernel.get("TcpExtTCPToZeroWindowAdv", 0),
        "resets_sent": kernel.get("TcpOutRsts", 0),
    }

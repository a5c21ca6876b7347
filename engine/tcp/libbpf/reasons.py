"""Why packets were dropped and connections reset, in the kernel's words; and which drops are normal life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.tcp.drop_reasons import BENIGN
from engine.tcp.libbpf.layout import REASON_UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

BENIGN_PLACES = frozenset(
    ("sk_stream_kill_queues", "inet_sock_destruct", "tcp_write_queue_purge", "skb_queue_purge",
     "__skb_queue_purge", "skb_rbtree_purge")
)  # fmt: skip
"""Where the kernel gives no reason: functions that only empty queues."""

_DROP_PREFIXES = ("SKB_DROP_REASON_", "SKB_")
_RESET_PREFIX = "SK_RST_REASON_"
_SUBSYSTEM = 16


class Reasons:
    """Numbers of this kernel -> names."""

    def __init__(self, drops: Mapping[int, str], resets: Mapping[int, str]) -> None:
        """From enum skb_drop_reason and enum sk_rst_reason; empty where the kernel has none."""
        self._drops = {number: _strip(name) for number, name in drops.items()}
        self._resets = {number: name.removeprefix(_RESET_PREFIX) for number, name in resets.items()}

    def drop(self, number: int) -> str:
        """The name of a drop reason; its number where the kernel's types do not name it."""
        if number == REASON_UNKNOWN:
            return "UNKNOWN"
        if number in self._drops:
            return self._drops[number]
        if number >> _SUBSYSTEM:
            return f"SUBSYSTEM_{number >> _SUBSYSTEM}_{number & 0xFFFF}"
        return f"REASON_{number}"

    def reset(self, number: int) -> str:
        """The name of a reset reason."""
        return self._resets.get(number, f"REASON_{number}")

    def benign(self) -> tuple[int, int, int, int]:
        """A bit for each number below 256 that is no loss."""
        words = [0, 0, 0, 0]
        for number, name in self._drops.items():
            if name in BENIGN and 0 <= number < 256:
                words[number >> 6] |= 1 << (number & 63)
        return words[0], words[1], words[2], words[3]

    @property
    def listen_overflow(self) -> int:
        """The number of TCP_LISTEN_OVERFLOW, 0 where there is none."""
        found = (number for number, name in self._drops.items() if name == "TCP_LISTEN_OVERFLOW")
        return next(found, 0)


def _strip(name: str) -> str:
    for prefix in _DROP_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name

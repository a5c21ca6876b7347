"""The counters of one worker, in shared memory: written by the worker, read by everyone.

Every packet ends in exactly one of OUTCOMES, so `received == sum of the outcomes` holds whenever
the worker is between two packets; that sum is what "the books balance" means. `received` is
stored before a packet is looked at and is also the progress mark of the ring walk: a successor
of a killed worker goes on behind the packet that was in work, and `recover()` books that packet
as `worker_lost`.

Words behind the region header (index of the 64-bit word):

    16 heartbeat, CLOCK_MONOTONIC ns     17 state (STATES)          18 sequence of the block in work
    19 received when it was begun        20 index of that block     21 CPU time of the process, ns
    22 newest packet time, ns            23 pid
    24 share of the media conversations that sampling leaves out, in 1/2^32 (written by the controller)
    26 key of that sampling, 32 bits     25 1 + the CPU that the worker is bound to, 0: none
    32 counters, in the order of NAMES  544 latency histogram, LATENCY_BUCKETS words
    672 packets that a rule of the processors decided, RULES words
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.shm.region import Region

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 2
HEARTBEAT, STATE, BLOCK_SEQUENCE, BLOCK_BASE, BLOCK_INDEX, CPU_TIME, PACKET_TIME, PID = range(16, 24)
LEFT_OUT_SHARE = 24
SAMPLING_KEY = 26
CPU = 25
FIRST_COUNTER = 32
FIRST_LATENCY = 544
LATENCY_BUCKETS = 128
"""Log-linear: 4 buckets to each power of two of nanoseconds, so a value is known within 25 %."""
FIRST_RULE = FIRST_LATENCY + LATENCY_BUCKETS
RULES = 128
"""Rules and processors with a counter of their own (engine.processors.chain.MOST_REASONS and room)."""
STATES = ("starting", "running", "stopping", "stopped")

OUTCOMES = {
    "output": "written to the send buffer as OutputPacket",
    "handled": "parsed or counted without output; not a drop",
    "filtered": "dropped by a processor, or a datagram in fragments that the capture filter does not match",
    "unmatched": "no parser wanted it and unmatched_policy is drop",
    "malformed": "a length or a field that cannot be",
    "fragments": "an IP fragment, kept for reassembly or merged into the packet that it completed",
    "duplicates": "the second copy of a packet on loopback or on another interface",
    "sampled": "left out by dynamic sampling",
    "skipped": "in a ring block that a lagging worker skipped",
    "worker_lost": "in work when a worker was killed",
}
"""Where a received packet ends."""
NOT_DROPS = ("output", "handled")
"""The outcomes of a packet that was reported or used; all others are drops and are named as such."""
DROPS = tuple(name for name in OUTCOMES if name not in NOT_DROPS)
LEFT_OUT = ("unmatched", "filtered", "fragments", "duplicates", "sampled")
"""The drops that are as asked or as the protocol has it: nothing is missing because of them."""
LOSSES = tuple(name for name in DROPS if name not in LEFT_OUT)
FRAGMENT_LOSSES = (
    "fragments_timed_out",
    "fragments_evicted",
    "fragments_over_limit",
    "fragments_oversize",
    "fragments_snapped",
    "fragments_contradicting",
    "fragments_replaced",
    "fragments_unfinished",
)
"""Fragments whose datagram was never whole, by reason. Their outcome is `fragments`, like that of those which
were merged: they are taken from it where the books are made (drops())."""

FACTS = (
    "bytes",
    "wire_bytes",
    "blocks",
    "snapped",
    "gro",
    "checksum_not_ready",
    "vlan_tagged",
    "ipv4",
    "ipv6",
    "udp",
    "tcp",
    "icmp",
    "icmp_errors",
    "icmp_quoted_sip",
    "other_transport",
    "non_ip",
    "link_unknown",
    "malformed_link",
    "malformed_ipv4",
    "malformed_ipv6",
    "malformed_udp",
    "malformed_tcp",
    "malformed_tunnel",
    "tunnels",
    "tunnel_depth_exceeded",
    "ip_fragments",
    "reassembled",
    "datagrams_incomplete",
    "fragments_merged",
    "fragments_held",
    "fragments_duplicate",
    "fragments_overlapping",
    *FRAGMENT_LOSSES,
    "sip_messages",
    "sip_requests",
    "sip_responses",
    "sip_malformed",
    "sip_truncated",
    "sip_keepalives",
    "sdp_media",
    "sdp_rejected",
    "sdp_over_limit",
    "rtp_packets",
    "rtp_by_sdp",
    "rtp_by_heuristic",
    "rtp_malformed",
    "rtcp_packets",
    "rtcp_malformed",
    "flows_full",
    "flows_expired",
    "flow_conflicts",
    "streams_full",
    "streams_expired",
    "candidates_full",
    "evidence",
    "evidence_oversize",
    "output_oversize",
    "output_sip",
    "output_rtp",
    "output_rtcp",
    "output_raw",
    "plugin_errors",
    "filter_rechecked",
    "tcp_sip_port",
    "rtp_handled",
    "rtcp_handled",
    "output_plugin",
    "rtcp_unread",
    "rtcp_defects",
    "rtcp_strangers",
    "tunnels_vxlan",
    "tunnels_gre",
    "tunnels_erspan",
    "tunnels_geneve",
    "tunnels_ipip",
    "tunnels_gtp_u",
    "tunnels_nvgre",
    "tunnels_ppp_gre",
    "labels_refused",
    "flows_yielded",
)
"""Counted beside the outcomes; several may rise for one packet."""

NAMES = ("received", *OUTCOMES, *FACTS)
_INDEX = {name: FIRST_COUNTER + position for position, name in enumerate(NAMES)}
RECEIVED = _INDEX["received"]

if FIRST_COUNTER + len(NAMES) > FIRST_LATENCY:
    raise AssertionError("the counters reach into the histogram")


def index(name: str) -> int:
    """Word index of a counter, for modules that write `counters.words` directly."""
    return _INDEX[name]


def latency_bounds(bucket: int) -> int:
    """Upper bound in nanoseconds of a latency bucket (exclusive)."""
    power, quarter = divmod(bucket, 4)
    return (1 << power) + ((quarter + 1) << power) // 4


class Counters:
    """One worker's counter region."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.words = region.words

    @classmethod
    def create(cls, task: str, writer: int) -> Counters:
        """A new region with every counter at 0."""
        return cls(Region.create("counters", VERSION, 8 * (FIRST_RULE + RULES), task, writer))

    @classmethod
    def open(cls, fd: int) -> Counters:
        """Map the region behind an inherited descriptor."""
        return cls(Region(fd, "counters", VERSION))

    def get(self, name: str) -> int:
        """One counter."""
        return int(self.words[_INDEX[name]])

    def add(self, name: str, amount: int = 1) -> None:
        """Count; by the writer only."""
        self.words[_INDEX[name]] += amount

    def as_dict(self) -> dict[str, int]:
        """Every counter by name, cumulative."""
        return {name: int(self.words[word]) for name, word in _INDEX.items()}

    def rules(self, count: int) -> list[int]:
        """Packets that the first `count` reasons of the processors decided."""
        return list(self.words[FIRST_RULE : FIRST_RULE + count])

    def balance(self) -> int:
        """Received minus all outcomes: 0 between two packets, 1 while one is in work."""
        return self.get("received") - sum(self.get(name) for name in OUTCOMES)

    def recover(self, written: int = 0) -> int:
        """Book what a killed predecessor had in work as `worker_lost`; returns how many packets.

        `written`: the records of its send ring (ring.recovered()). The last one may be out although it did
        not come to count it: that packet is `output`. The fragments that it held are gone with it:
        `fragments_unfinished`.
        """
        if written > self.get("output") and self.balance() > 0:
            self.add("output")
        lost = max(0, self.balance())
        self.add("worker_lost", lost)
        self.add("fragments_unfinished", self.get("fragments_held"))
        self.words[_INDEX["fragments_held"]] = 0
        return lost


def fragment_losses(reasons: Mapping[str, int], fragments: int) -> dict[str, int]:
    """FRAGMENT_LOSSES, together no more than the outcome `fragments`, which may be a packet behind."""
    left = fragments
    found = {}
    for name in FRAGMENT_LOSSES:
        found[name] = min(reasons[name], left)
        left -= found[name]
    return found


def drops(values: Mapping[str, int]) -> dict[str, int]:
    """What a worker dropped, by name, from its counters: DROPS, with lost fragments apart from the merged."""
    lost = fragment_losses(values, values["fragments"])
    found = {name: values[name] for name in DROPS} | lost
    found["fragments"] -= sum(lost.values())
    return found

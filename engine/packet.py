"""The three records of the packet road, and the small types in them.

`RawPacket` is a frame as captured, `DecodedPacket` what parsers read, `OutputPacket` what
processors and reporters see. The compiled road keeps the same facts as offsets into the capture
block (`engine.decode.classifier.Decoder`) and as records in shared memory
(`engine.shm.records`); these classes are their form for plugins, for the cold side and for tests.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol

from engine.text import MAPPED as MAPPED  # noqa: PLC0414
from engine.text import PROTOCOL_NAMES as PROTOCOL_NAMES  # noqa: PLC0414
from engine.text import address_text as address_text  # noqa: PLC0414
from engine.text import format_timestamp as format_timestamp  # noqa: PLC0414

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class FiveTuple:
    """Addresses, ports and transport of one packet, in its direction."""

    src_ip: IPAddress
    dst_ip: IPAddress
    src_port: int
    dst_port: int
    protocol: int

    def reversed(self) -> FiveTuple:
        """The same conversation seen from the other side."""
        return FiveTuple(self.dst_ip, self.src_ip, self.dst_port, self.src_port, self.protocol)

    def as_fields(self) -> dict[str, Any]:
        """EVE's field names: `src_ip`, `src_port`, `dest_ip`, `dest_port`, `proto`."""
        return {
            "src_ip": str(self.src_ip),
            "src_port": self.src_port,
            "dest_ip": str(self.dst_ip),
            "dest_port": self.dst_port,
            "proto": PROTOCOL_NAMES.get(self.protocol, str(self.protocol)),
        }


@dataclass(frozen=True, slots=True)
class TunnelInfo:
    """The outer header of the innermost tunnel that was taken off."""

    type: str
    """One of engine.shm.records.TUNNELS."""
    outer_src_ip: IPAddress
    outer_dst_ip: IPAddress
    vni: int
    """VXLAN, Geneve, NVGRE: network; GRE: key; GTP-U: TEID; ERSPAN: session; PPP in GRE: call; else 0."""

    def as_dict(self) -> dict[str, Any]:
        """The `tunnel` object of records and messages."""
        return {
            "type": self.type,
            "outer_src_ip": str(self.outer_src_ip),
            "outer_dst_ip": str(self.outer_dst_ip),
            "vni": self.vni,
        }


@dataclass(frozen=True, slots=True)
class NetworkMeta:
    """L2 to L4 context of one packet; read only for everyone behind the parser."""

    src_ip: IPAddress
    dst_ip: IPAddress
    src_port: int
    dst_port: int
    src_mac: str = ""
    dst_mac: str = ""
    vlans: tuple[int, ...] = ()
    """Outermost first; empty means untagged."""
    interface: int = 0
    """Kernel interface index, 0 in a file without one."""
    tunnel: TunnelInfo | None = None
    fragmented: bool = False
    """Put together from fragments."""
    interface_name: str = ""
    """The interface's name on this host; empty in a file, and when the interface is gone."""


@dataclass(slots=True)
class RawPacket:
    """One frame as the driver delivered it; `data` is valid only until its block is given back."""

    data: bytes | memoryview
    timestamp_ns: int
    """Nanoseconds since 1970, UTC."""
    capture_length: int
    original_length: int
    interface: int = 0
    link_type: int = 1
    """LINKTYPE_ number of the pcap registry; 1 is Ethernet."""


@dataclass(slots=True)
class DecodedPacket:
    """What a parser may read; parsers change nothing in it."""

    raw: RawPacket
    src_mac: str
    dst_mac: str
    vlans: tuple[int, ...]
    ether_type: int
    tunnel: TunnelInfo | None
    src_ip: IPAddress
    dst_ip: IPAddress
    protocol: int
    ttl: int
    fragmented: bool
    src_port: int
    dst_port: int
    tcp_flags: int
    payload: bytes | memoryview

    @property
    def five_tuple(self) -> FiveTuple:
        """The packet's flow, in its direction."""
        return FiveTuple(self.src_ip, self.dst_ip, self.src_port, self.dst_port, self.protocol)


class Payload(Protocol):
    """What a parser made of a packet; only reporters look into it."""

    def type(self) -> str:
        """Protocol name, equal to `OutputPacket.protocol`."""

    def as_dict(self) -> dict[str, Any]:
        """JSON form: plain values only."""

    def to_bytes(self) -> bytes:
        """Binary form."""


@dataclass(frozen=True, slots=True)
class DictPayload:
    """A payload that is a dictionary of plain values and, in binary, the octets it was parsed from."""

    protocol: str
    fields: dict[str, Any]
    octets: bytes = b""

    def type(self) -> str:
        """Protocol name."""
        return self.protocol

    def as_dict(self) -> dict[str, Any]:
        """A copy of the dictionary: what one reporter does with it is not seen by another."""
        return dict(self.fields)

    def to_bytes(self) -> bytes:
        """The octets as they were on the wire."""
        return self.octets


@dataclass(slots=True)
class OutputPacket:
    """Envelope, labels and typed payload.

    Parsers write all of it, processors read the envelope and change `labels`, reporters read.
    """

    timestamp_ns: int
    protocol: str
    """sip, rtp, rtcp, dns, ... or raw for forwarded unmatched packets."""
    flow_id: FiveTuple
    network: NetworkMeta
    task: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    payload: Payload | None = None
    raw_bytes: bytes | None = None
    """The frame, where the task asks for it."""
    _envelope: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    """envelope_fields() of `flow_id` and `network`, where somebody has them at hand."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON Lines form: envelope, network, labels, payload, raw as base64."""
        record: dict[str, Any] = {
            "timestamp": format_timestamp(self.timestamp_ns),
            "task": self.task,
            "protocol": self.protocol,
            **(self._envelope or envelope_fields(self.flow_id, self.network)),
            "labels": self.labels,
            "payload": None if self.payload is None else self.payload.as_dict(),
        }
        if self.raw_bytes is not None:
            record["raw"] = base64.b64encode(self.raw_bytes).decode("ascii")
        return record


def envelope_fields(flow_id: FiveTuple, network: NetworkMeta) -> dict[str, Any]:
    """Five-tuple and network as they stand in JSON; for all packets of a flow the same."""
    tunnel = network.tunnel
    return {
        **flow_id.as_fields(),
        "network": {
            "src_mac": network.src_mac or None,
            "dst_mac": network.dst_mac or None,
            "vlans": list(network.vlans),
            "interface": network.interface_name or network.interface or None,
            "fragmented": network.fragmented,
            "tunnel": None if tunnel is None else tunnel.as_dict(),
        },
    }


class SealedLabels(dict[str, str]):
    """Labels that nobody changes any more; JSON writers take them as the dictionary they are."""

    __slots__ = ()

    def _sealed(self, *_: Any, **__: Any) -> Any:
        raise TypeError("labels are read-only for reporters")

    __setitem__ = __delitem__ = __ior__ = _sealed
    clear = pop = popitem = setdefault = update = _sealed


class SealedPacket(OutputPacket):
    """An OutputPacket as reporters get it: read-only, because all of them get the same one."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError(f"{name}: packets are read-only for reporters")

    def __delattr__(self, name: str) -> None:
        raise TypeError(f"{name}: packets are read-only for reporters")


def seal(packet: OutputPacket) -> OutputPacket:
    """The same packet, which can no longer be changed."""
    packet.labels = SealedLabels(packet.labels)
    packet.__class__ = SealedPacket
    return packet


def address_from_bytes(octets: bytes) -> IPAddress:
    """The address in a 16-octet field; ::ffff:a.b.c.d is IPv4."""
    address = ip_address(octets)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

"""From the configuration models to the plain values that the children of a task are started with."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from engine.config import Filter
from engine.plugin_options import PARSER_OPTIONS
from engine.shm.records import TUNNELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.config import NodeConfig, ParserRef, TaskConfig

TUNNEL_BITS = {name.replace("-", "_"): bit for bit, name in enumerate(TUNNELS) if name}
"""The switches of `core.decoder.tunnel`."""


def _parser(config: TaskConfig, name: str) -> ParserRef | None:
    return next((parser for parser in config.parsers if parser.plugin == name and parser.enabled), None)


def _foreign_parsers(config: TaskConfig) -> list[dict[str, Any]]:
    return [
        {"plugin": ref.plugin, "config": ref.config}
        for ref in config.parsers
        if ref.enabled and ref.plugin not in PARSER_OPTIONS
    ]


def _processors(config: TaskConfig) -> list[dict[str, Any]]:
    return [
        {"plugin": ref.plugin, "priority": ref.priority, "config": ref.config}
        for ref in config.processors
        if ref.enabled
    ]


def plugins_of(config: TaskConfig) -> list[dict[str, str]]:
    """Every plugin that a task runs, once: {type, name}."""
    found: list[tuple[str, str]] = [("capture", config.capture.driver)]
    found += [("parser", ref.plugin) for ref in config.parsers if ref.enabled]
    found += [("processor", ref.plugin) for ref in config.processors if ref.enabled]
    found += [("reporter", ref.type) for ref in config.all_reporters()]
    return [{"type": kind, "name": name} for kind, name in dict.fromkeys(found)]


def node_labels(node: NodeConfig) -> dict[str, str]:
    """What a label processor without labels of its own writes."""
    labels = {"node": node.node.name(), "dc": node.node.dc, "env": node.node.env}
    return {key: value for key, value in labels.items() if value}


def worker_config(config: TaskConfig, node: NodeConfig) -> dict[str, Any]:
    """Everything of engine.pipeline.worker's configuration but the descriptors."""
    reassembly = node.core.decoder.ip_reassembly
    tunnels = node.core.decoder.tunnel.model_dump()
    offline = config.capture.driver == "pcap"
    sip, rtp = _parser(config, "sip"), _parser(config, "rtp")
    return {
        "task": config.id,
        "tunnels": sum(1 << bit for name, bit in TUNNEL_BITS.items() if tunnels[name] or offline),
        "vxlan_ports": tunnels["vxlan_ports"],
        "reassembly": {
            "timeout_ns": int(reassembly.timeout * 1e9),
            "max_datagrams": reassembly.max_fragments,
            "max_bytes": reassembly.max_bytes,
            "max_fragments": reassembly.fragments_per_datagram,
        },
        "parsers": _foreign_parsers(config),
        "processors": _processors(config),
        "node": node_labels(node),
        "options": {
            "parse_sip": sip is not None,
            "parse_rtp": rtp is not None,
            "sip_ports": sip.config.get("ports", []) if sip else [],
            "track_media": bool(sip and sip.config.get("track_media", True)),
            "media_ttl_ns": media_ttl_ns(config),
            "rtp_heuristic": bool(rtp and rtp.config.get("heuristic", True)),
            **_rtp_reports(rtp.config if rtp else {}),
            "unmatched_forward": config.unmatched_policy == "forward",
            # A filter leaves packets out before they are counted: then no number would be that of the file.
            "frame_numbers": offline and file_filter(config) is None,
            **_live_options(config.capture.interface),
        },
    }


def _rtp_reports(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is reported of RTP (docs/adr/0008-rtp-records.md)."""
    raw = bool(options.get("raw", False))
    return {
        "rtp_raw": raw,
        # Who asks for frames wants them all.
        "rtp_report": options.get("report") or ("every" if raw else "interval"),
        "rtp_every": int(options.get("every", 100)),
        "rtp_interval_ns": int(float(options.get("interval", 5.0)) * 1e9),
    }


def media_ttl_ns(config: TaskConfig) -> int:
    """How long an endpoint of media lives without packets."""
    sip = _parser(config, "sip")
    return int(float(sip.config.get("media_stream_timeout", 300.0) if sip else 300.0) * 1e9)


def file_filter(config: TaskConfig) -> dict[str, Any] | None:
    """The plain filter rules of a task that reads a file; None where everything passes."""
    rules = config.filter.model_dump()
    return None if rules == Filter.model_validate({}).model_dump() else rules


def _live_options(interface: str) -> dict[str, Any]:
    """Several interfaces show one packet several times; loopback shows each of its own twice."""
    if not interface:
        return {}
    try:
        loopback = socket.if_nametoindex("lo")
    except OSError:
        loopback = 0
    return {"deduplicate": interface == "any" or "," in interface, "loopback_index": loopback}


def sender_config(config: TaskConfig, node: NodeConfig) -> dict[str, Any]:
    """Everything of engine.reporters.sender's configuration but the descriptors."""
    pressure = node.backpressure.reporter
    return {
        "task": config.id,
        "reporters": [{"type": ref.type, "config": ref.config} for ref in config.all_reporters()],
        "processors": [spec for spec in _processors(config) if spec["plugin"] != "filter"],
        "node": node_labels(node),
        "patient": config.capture.driver == "pcap",
        "send_timeout": pressure.send_timeout,
        "max_retries": pressure.max_retries,
    }


def calls_config(config: TaskConfig, node: NodeConfig) -> dict[str, Any]:
    """Everything of engine.calls.process's configuration but the descriptors."""
    return {
        "task": config.id,
        "limits": node.stores.model_dump(),
        "clock": "packet" if config.capture.driver == "pcap" else "live",
    }

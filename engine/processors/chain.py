"""The processors of a task in order, as workers and the sender run them.

A worker asks for verdicts: the labels that it can make without parsing more decide, and a verdict
of a flow is kept there. The sender writes the static labels into what is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.plugin import load
from engine.processors.filter import FilterProcessor
from engine.processors.label import LabelProcessor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.plugin import Processor

PROCESSORS: dict[str, type[Processor]] = {"filter": FilterProcessor, "label": LabelProcessor}


class Chain:
    """Processors sorted by priority, those of one priority in the order of the file."""

    def __init__(self, processors: Iterable[Processor] = ()) -> None:
        self.processors = sorted(processors, key=lambda processor: processor.priority)
        self.reads = frozenset(key for processor in self.processors for key in processor.reads)
        """The label keys that verdicts depend on."""
        self.filters = bool(self.reads)
        """Whether anything can be dropped at all."""
        self.errors = 0
        """How often a processor raised; the packet went on as if it had said yes."""

    def verdict(self, labels: dict[str, str]) -> bool:
        """Whether a packet with these labels goes on; labels are changed by those that write."""
        for processor in self.processors:
            try:
                if not processor.process(labels):
                    return False
            except Exception:
                # A plugin must not take the packet road down.
                self.errors += 1
        return True

    def verdict_sip(self, labels: dict[str, str]) -> bool:
        """Verdict of one SIP message."""
        return self.verdict(labels)

    def verdict_flow(self, labels: dict[str, str]) -> bool:
        """Verdict of a media flow and payload type; kept by the caller until the labels change."""
        return self.verdict(labels)

    def static_labels(self) -> dict[str, str]:
        """What the label processors write."""
        labels: dict[str, str] = {}
        for processor in self.processors:
            if isinstance(processor, LabelProcessor):
                labels.update(processor.labels)
        return labels


def build_chain(specs: Iterable[Mapping[str, Any]], node: Mapping[str, str] | None = None) -> Chain:
    """The chain of `processors:` as plain values: {plugin, priority, config}.

    `node` is what a label processor without labels writes. UsageError names a plugin or option at fault.
    """
    processors = []
    for spec in specs:
        kind = load("processor", spec["plugin"], PROCESSORS)
        config = spec.get("config") or {}
        if kind is LabelProcessor and not config.get("labels"):
            config = {"labels": {key: value for key, value in (node or {}).items() if value}}
        processor = kind()
        processor.init(config)
        if spec.get("priority") is not None:
            processor.priority = spec["priority"]
        processors.append(processor)
    return Chain(processors)

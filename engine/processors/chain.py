"""The processors of a task in order, as workers and the sender run them.

A worker asks for verdicts: the labels that it can make without parsing more decide, and the verdict of a flow
is kept there. The sender writes the labels of what is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.plugin import LABEL_KEY, RAISED, Faults, started, stop_all
from engine.processors.filter import FilterProcessor
from engine.processors.label import LabelProcessor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.plugin import Envelope, Processor

PROCESSORS: dict[str, type[Processor]] = {kind.name: kind for kind in (FilterProcessor, LabelProcessor)}
MOST_REASONS = 126
"""Rules and processors that have a counter of their own; what more there are share the last one."""


class Chain:
    """Processors sorted by priority, those of one priority in the order of the file."""

    def __init__(self, processors: Iterable[Processor] = ()) -> None:
        self.processors = sorted(processors, key=lambda processor: processor.priority)
        self.reads = frozenset(key for processor in self.processors for key in processor.reads)
        """The label keys that verdicts depend on."""
        self.filters = bool(self.reads)
        """Whether anything can be dropped at all."""
        self.pure = all(processor.pure for processor in self.processors)
        self.wants_envelope = any(processor.wants_envelope for processor in self.processors)
        self.foreign = any(
            not isinstance(processor, FilterProcessor | LabelProcessor) for processor in self.processors
        )
        self.faults = Faults()
        """Where a processor raised; the packet went on as if it had said yes."""
        self.refused = 0
        """Label keys that break LABEL_KEY, taken out again."""
        self.reason = 0
        """What decided the last verdict: 1 + its place in `reasons`; 0: nothing did, the packet passes."""
        self.reasons: list[str] = []
        self._first: list[int] = []
        for processor in self.processors:
            self._first.append(len(self.reasons) + 1)
            if isinstance(processor, FilterProcessor):
                self.reasons += [rule.name for rule in processor.rules]
            elif processor.reads:
                self.reasons.append(f"processor {processor.name}")

    def verdict(self, labels: dict[str, str], envelope: Envelope | None = None) -> bool:
        """Whether a packet with these labels goes on; labels are changed by those that write."""
        self.reason = 0
        for processor, first in zip(self.processors, self._first, strict=True):
            passes = self._run(processor, labels, envelope)
            if isinstance(processor, FilterProcessor):
                if processor.decided >= 0:
                    self.reason = min(first + processor.decided, MOST_REASONS)
            elif not passes:
                self.reason = min(first, MOST_REASONS)
            if not passes:
                return False
        return True

    def write(self, labels: dict[str, str], envelope: Envelope | None = None) -> None:
        """Let every processor write its labels; nobody drops here."""
        for processor in self.processors:
            self._run(processor, labels, envelope)

    def _run(self, processor: Processor, labels: dict[str, str], envelope: Envelope | None) -> bool:
        """One processor's verdict; one that raises says yes."""
        if processor.wants_envelope:
            processor.envelope = envelope
        try:
            passes = bool(processor.process(labels))
        except RAISED:
            self.faults.note(processor)
            passes = True
        if not isinstance(processor, FilterProcessor | LabelProcessor):
            self.refused += drop_bad_labels(labels)
        return passes

    def verdict_sip(self, labels: dict[str, str], envelope: Envelope | None = None) -> bool:
        """Verdict of one SIP message."""
        return self.verdict(labels, envelope)

    def verdict_flow(self, labels: dict[str, str], envelope: Envelope | None = None) -> bool:
        """Verdict of a media flow and payload type; kept by the caller until the labels change."""
        return self.verdict(labels, envelope)

    def stop(self) -> None:
        """Behind the last packet."""
        stop_all(self.processors)

    def static_labels(self) -> dict[str, str]:
        """What the label processors write."""
        labels: dict[str, str] = {}
        for processor in self.processors:
            if isinstance(processor, LabelProcessor):
                labels.update(processor.labels)
        return labels

    def writers(self) -> Chain:
        """The processors whose labels depend on the packet: those the sender has to run for each."""
        return Chain(
            processor
            for processor in self.processors
            if processor.writes and not isinstance(processor, FilterProcessor | LabelProcessor)
        )


def drop_bad_labels(labels: dict[Any, Any]) -> int:
    """Take out what is no label: the key breaks LABEL_KEY, or a value is no text."""
    bad = [
        key
        for key, value in labels.items()
        if not (isinstance(key, str) and LABEL_KEY.fullmatch(key) and _is_text(value))
    ]
    for key in bad:
        del labels[key]
    return len(bad)


def _is_text(value: Any) -> bool:
    """Whether a value is text that UTF-8 can say: lone surrogates would cost every line of their batch."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def build_chain(specs: Iterable[Mapping[str, Any]], node: Mapping[str, str] | None = None) -> Chain:
    """The chain of `processors:` as plain values, {plugin, priority, config}: started, until stop().

    `node` is what a label processor without labels writes. UsageError names a plugin or option at fault.
    """
    processors = []
    for spec in specs:
        name, config = spec["plugin"], spec.get("config") or {}
        if name == LabelProcessor.name and not config.get("labels"):
            config = {"labels": {key: value for key, value in (node or {}).items() if value}}
        processor = started("processor", name, PROCESSORS, config)
        if spec.get("priority") is not None:
            processor.priority = spec["priority"]
        processors.append(processor)
    return Chain(processors)

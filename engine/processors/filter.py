"""The filter processor (requirement 4.2.3): declarative rules over labels, drop or pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.plugin import Processor

if TYPE_CHECKING:
    from collections.abc import Mapping

MATCHED = 1024
"""Characters of a label that a regular expression looks at: labels come from the wire."""


class Rule:
    """One rule: a label, values (exact, `prefix*`, `/regular expression/`), drop or pass."""

    __slots__ = ("drop", "exact", "label", "patterns", "prefixes")

    def __init__(self, label: str, values: list[str], action: str) -> None:
        self.label = label
        self.drop = action == "drop"
        self.exact = set()
        self.prefixes: tuple[str, ...] = ()
        self.patterns: list[re.Pattern[str]] = []
        for value in values:
            if len(value) > 1 and value.startswith("/") and value.endswith("/"):
                try:
                    self.patterns.append(re.compile(value[1:-1]))
                except re.error as error:
                    raise UsageError(
                        f"processor filter: {value} is no regular expression: {error}",
                        f"rule of label {label}",
                    ) from error
            elif value.endswith("*"):
                self.prefixes += (value[:-1],)
            else:
                self.exact.add(value)

    def matches(self, value: str) -> bool:
        """Whether one of the values fits."""
        return (
            value in self.exact
            or (bool(self.prefixes) and value.startswith(self.prefixes))
            or any(pattern.search(value, 0, MATCHED) for pattern in self.patterns)
        )


class FilterProcessor(Processor):
    """The first rule that matches decides; a packet that none matches passes."""

    name = "filter"

    def init(self, config: Mapping[str, Any]) -> None:
        """Take `rules: [{label, values, action}]`."""
        self.rules = [
            Rule(rule["label"], list(rule["values"]), rule.get("action", "drop"))
            for rule in config.get("rules", ())
        ]
        self.reads = tuple(dict.fromkeys(rule.label for rule in self.rules))

    def process(self, labels: dict[str, str]) -> bool:
        """False drops; labels stay as they are."""
        for rule in self.rules:
            value = labels.get(rule.label)
            if value is not None and rule.matches(value):
                return not rule.drop
        return True

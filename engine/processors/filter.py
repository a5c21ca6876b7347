"""The filter processor: declarative rules over labels, drop or pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from engine.plugin import Processor
from engine.processors.pattern import MATCHED, check_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping


class Rule:
    """One rule: a label, values (exact, `prefix*`, `/regular expression/`), drop or pass."""

    __slots__ = ("drop", "exact", "label", "name", "patterns", "prefixes")

    def __init__(self, label: str, values: list[str], action: str, name: str = "") -> None:
        """`name` is that of its counter."""
        self.label = label
        self.drop = action == "drop"
        self.name = name
        self.exact = set()
        self.prefixes: tuple[str, ...] = ()
        self.patterns: list[re.Pattern[str]] = []
        for value in values:
            if len(value) > 1 and value.startswith("/") and value.endswith("/"):
                self.patterns.append(check_pattern(value[1:-1], f"processor filter, rule of label {label}"))
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
        """Take `rules: [{label, values, action, name}]`."""
        self.rules = []
        for number, rule in enumerate(config.get("rules", ()), 1):
            action = rule.get("action", "drop")
            # Without its values: they may be addresses, and counters are shown to everybody.
            name = rule.get("name") or f"{number}: {action} {rule['label']}"
            self.rules.append(Rule(rule["label"], list(rule["values"]), action, name))
        self.reads = tuple(dict.fromkeys(rule.label for rule in self.rules))
        self.decided = -1
        """The rule that decided the last process(); -1 none."""

    def process(self, labels: dict[str, str]) -> bool:
        """False drops; labels stay as they are."""
        for number, rule in enumerate(self.rules):
            value = labels.get(rule.label)
            if value is not None and rule.matches(value):
                self.decided = number
                return not rule.drop
        self.decided = -1
        return True

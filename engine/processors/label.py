"""The label processor: static labels, such as where this node stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.plugin import Processor, check_label_keys

if TYPE_CHECKING:
    from collections.abc import Mapping


class LabelProcessor(Processor):
    """Adds its labels to every packet and drops none."""

    name = "label"

    def init(self, config: Mapping[str, Any]) -> None:
        """Take `labels: {key: value}`."""
        self.labels = {str(key): str(value) for key, value in config.get("labels", {}).items()}
        try:
            check_label_keys(list(self.labels), "processor label")
        except ValueError as error:
            raise UsageError(str(error), "lower case, dots and dashes: sip.method, dc, rack-row") from error

    def process(self, labels: dict[str, str]) -> bool:
        """Write the labels."""
        labels.update(self.labels)
        return True

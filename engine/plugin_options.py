"""The options of our own plugins: the `config:` mappings of parsers, processors and reporters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from engine.config_values import Duration, LabelKey, Model, Port, Size
from engine.processors.pattern import pattern_problem

MAX_RULES = 100
"""Of one filter processor: each rule has a counter."""


class SipOptions(Model):
    """Parser sip."""

    ports: list[Port] = [5060, 5061]
    """Tried first; SIP on any other port is known by its first line."""
    track_media: bool = True
    media_stream_timeout: Duration = Field(300.0, ge=1, le=86400)
    """An endpoint of media without packets is forgotten after this time."""


class RtpOptions(Model):
    """Parser rtp."""

    heuristic: bool = True
    """Find media without signalling."""
    report: Literal["", "every", "sample", "interval"] = ""
    """What is reported of RTP: every packet, every Nth of each stream, or one record a stream and interval,
    with the stream's figures at that moment. Empty: interval; with `raw`, every."""
    every: int = Field(100, ge=1, le=65535)
    """`report: sample`: the first packet of a stream and each Nth behind it."""
    interval: Duration = Field(5.0, ge=0.1, le=86400)
    """`report: interval`: the first packet of a stream, one an interval, and the last."""
    raw: bool = False
    """Put the frame into the record."""


class FilterRule(Model):
    """One rule of the filter processor: the first rule whose label has one of the values decides."""

    label: LabelKey
    values: list[str] = Field(min_length=1, max_length=1000)
    """Exact, a prefix with a trailing `*`, or `/a regular expression/` whose time is bounded."""
    action: Literal["drop", "pass"] = "drop"
    name: str = Field("", max_length=64)
    """Of the rule's counter; without one, its number, action and label."""

    @field_validator("values")
    @classmethod
    def _patterns(cls, values: list[str]) -> list[str]:
        for value in values:
            if len(value) > 1 and value.startswith("/") and value.endswith("/"):
                problem = pattern_problem(value[1:-1])
                if problem:
                    raise ValueError(problem)
        return values


class FilterOptions(Model):
    """Processor filter."""

    rules: list[FilterRule] = Field([], max_length=MAX_RULES)


class LabelOptions(Model):
    """Processor label."""

    labels: dict[LabelKey, str] = {}
    """Empty: node, dc and env of the node file, where they are set."""


class ConsoleOptions(Model):
    """Reporter console: JSON Lines on the engine's standard output."""

    queue: int = Field(8192, ge=1, le=1_000_000)
    """Packets that wait for this reporter; the oldest go first."""


class FileOptions(Model):
    """Reporter file: JSON Lines."""

    path: str = Field(min_length=1)
    max_size: Size = 100 * 1024**2
    """The file is renamed to PATH.1 when it has reached this size; 0: never."""
    max_backups: int = Field(5, ge=0, le=1000)
    queue: int = Field(8192, ge=1, le=1_000_000)


PARSER_OPTIONS: dict[str, type[Model]] = {"sip": SipOptions, "rtp": RtpOptions}
PROCESSOR_OPTIONS: dict[str, type[Model]] = {"filter": FilterOptions, "label": LabelOptions}
REPORTER_OPTIONS: dict[str, type[Model]] = {"console": ConsoleOptions, "file": FileOptions}
"""The models of the `config:` mappings, by plugin name or reporter type."""

"""What the sections of the configuration files are made of: durations, sizes, ports, label keys."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from engine.plugin import LABEL_KEY

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)?")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d+)\s*([kmg]?i?b?)", re.IGNORECASE)
_UNIT_OCTETS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def no_truth(value: Any) -> Any:
    """A number that is meant as one: YAML reads yes, no, on and off as truth values."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted here, not yes or no")
    return value


def parse_duration(value: Any) -> Any:
    """Seconds from `300s`, `50ms`, `7d` or a bare number of seconds."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is no duration such as 300s, 50ms or 7d")
        return float(match[1]) * _UNIT_SECONDS[match[2] or "s"]
    return no_truth(value)


def parse_size(value: Any) -> Any:
    """Octets from `128MB`, `32KB` (powers of 1024) or a bare number."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is no size such as 128MB or 32KB")
        return int(match[1]) * _UNIT_OCTETS[match[2].lower().rstrip("ib")]
    return no_truth(value)


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Port = Annotated[int, BeforeValidator(no_truth), Field(ge=0, le=65535)]


def check_label_key(key: str) -> str:
    """A label key; ValueError says what one looks like."""
    if LABEL_KEY.fullmatch(key) is None:
        raise ValueError(
            f"{key!r} is no label: lower case letters, digits, dots and dashes, as in sip.method"
        )
    return key


LabelKey = Annotated[str, AfterValidator(check_label_key)]


class Model(BaseModel):
    """Every section: unknown keys are refused, and yes or no where a number is wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        return no_truth(value) if field.annotation in (int, float) else value

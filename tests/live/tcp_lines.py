"""Lines of `otus-tui tcp --format jsonl`, held against docs/schemas."""

from __future__ import annotations

import json
from typing import Any

from tests.builds import ROOT


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "$") -> str:
    """Where a value departs from a JSON Schema (what of it is used here); empty where it does not."""
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, where)
    if "oneOf" in schema:
        found = [conforms(value, one, root, where) for one in schema["oneOf"]]
        return "" if found.count("") == 1 else f"{where}: none or several of {found}"
    if "const" in schema and value != schema["const"]:
        return f"{where}: not {schema['const']}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}: {value!r} is none of {schema['enum']}"
    kinds = schema.get("type", [])
    names = [kinds] if isinstance(kinds, str) else kinds
    if names and not any(_is(value, name) for name in names):
        return f"{where}: {value!r} is no {names}"
    if isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        lacks = [name for name in schema.get("required", ()) if name not in value]
        if lacks:
            return f"{where}: lacks {lacks}"
        for name, part in value.items():
            if name not in known and more is False:
                return f"{where}.{name}: not known"
            rule = known.get(name, more if isinstance(more, dict) else {})
            if found_there := conforms(part, rule, root, f"{where}.{name}"):
                return found_there
    if isinstance(value, list) and "items" in schema:
        for place, part in enumerate(value):
            if found_there := conforms(part, schema["items"], root, f"{where}[{place}]"):
                return found_there
    return ""


def _is(value: Any, name: str) -> bool:
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
        "boolean": (bool,), "null": (type(None),),
    }  # fmt: skip
    return isinstance(value, kinds[name]) and (name == "boolean" or not isinstance(value, bool))


WINDOW = '"window_s"'
"""What each line of a window has, once, and no other line."""
SCHEMAS = {
    name: json.loads((ROOT / f"docs/schemas/tcp-{name}.json").read_text()) for name in ("summary", "event")
}


def check_lines(lines: list[dict[str, Any]]) -> None:
    """Fails on a line that does not conform to its schema."""
    for line in lines:
        schema = SCHEMAS["event" if "event_type" in line else "summary"]
        assert conforms(line, schema, schema) == ""

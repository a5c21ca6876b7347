"""How a process of the engine answers what its controller asks over the control socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.control.methods import ERROR_INVALID, ERROR_REFUSED, INTERNAL, MAX_LINE
from engine.errors import OtusError, UsageError
from engine.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LISTS = ("rows", "messages", "streams", "media", "hosts", "events", "points")
_HEADER = 256
"""Octets of a line beside those of the answer."""


def answer_to(
    request: Mapping[str, Any], serve: Callable[[str, dict[str, Any]], dict[str, Any]], component: str
) -> dict[str, Any]:
    """{"id", "result": what `serve(method, params)` returns} or {"id", "error"}: whatever goes wrong is one.

    `component` stands in the log, which has what is a fault of ours.
    """
    number = request.get("id")
    answer: dict[str, Any] = {"id": number}
    try:
        answer["result"] = serve(str(request["method"]), request.get("params") or {})
        fit(answer)
    except OtusError as error:
        answer = {"id": number, "error": error_of(error)}
    except Exception as error:
        log.exception(component, f"method {request['method']} failed")
        trouble = {"code": INTERNAL, "message": f"{type(error).__name__}: {error}", "data": {"hint": ""}}
        answer = {"id": number, "error": trouble}
    return answer


def error_of(error: OtusError) -> dict[str, Any]:
    """The error object of JSON-RPC for an error of ours; a filter's `position` is told."""
    data: dict[str, Any] = {"hint": error.hint}
    position = getattr(error, "position", None)
    if position is not None:
        data["position"] = position
    code = ERROR_INVALID if isinstance(error, UsageError) else ERROR_REFUSED
    return {"code": code, "message": error.message, "data": data}


def fit(answer: dict[str, Any]) -> None:
    """Halve the lists of an answer until its line is no longer than MAX_LINE; `more` says so where it is."""
    result = answer["result"]
    lists = [name for name in _LISTS if isinstance(result.get(name), list)]
    while any(result[name] for name in lists) and _octets(answer) > MAX_LINE - _HEADER:
        for name in lists:
            result[name] = result[name][: len(result[name]) // 2]
        if "more" in result:
            result["more"] = True


def _octets(answer: dict[str, Any]) -> int:
    return len(json.dumps(answer, separators=(",", ":")))

"""Regular expressions over text from the wire: only those whose time is bounded are taken.

Python's `re` backtracks. A label is at most MATCHED characters of it, but `(a+)+$` needs 2^n steps of n
characters. Refused, when the task is checked: a repetition or a choice inside a repetition, a reference back,
and what may take more than MOST_STEPS: the product of all counts of repetitions and choices, and of MATCHED
for an expression that is tried at every character because it does not begin with ^.
"""

from __future__ import annotations

import re
import warnings
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from engine.errors import UsageError

MATCHED = 256
"""Characters of a label that a regular expression looks at."""
MAX_LENGTH = 200
MOST_STEPS = 70_000
"""About 0.2 ms."""
_REPEATS: tuple[Any, ...] = (codes.MAX_REPEAT, codes.MIN_REPEAT)
_BEGINNING = ((codes.AT, codes.AT_BEGINNING), (codes.AT, codes.AT_BEGINNING_STRING))
_POSSESSIVE = getattr(codes, "POSSESSIVE_REPEAT", None)


def check_pattern(text: str, owner: str) -> re.Pattern[str]:
    """The compiled expression; UsageError with `owner` in front where it is none, or may take too long."""
    problem = pattern_problem(text)
    if problem:
        raise UsageError(f"{owner}: {problem}", "exact values and prefixes such as sip:bob* do most of it")
    return re.compile(text)


def pattern_problem(text: str) -> str:
    """What keeps a text from being used as a regular expression on labels; empty if nothing does."""
    if len(text) > MAX_LENGTH:
        return f"a regular expression of {len(text)} characters, at most {MAX_LENGTH} are possible"
    try:
        with warnings.catch_warnings():
            # What another version of Python will understand otherwise is not taken by this one.
            warnings.simplefilter("error")
            re.compile(text)
            trouble = _trouble(list(parser.parse(text)))
    except (re.error, RecursionError, OverflowError, Warning) as error:
        return f"/{text}/ is no regular expression: {error}"
    return f"/{text}/ may take too long: {trouble}" if trouble else ""


def _trouble(items: list[Any]) -> str:
    """Why matching may take too long; empty if it cannot."""
    anchored = bool(items) and items[0] in _BEGINNING
    steps = 1 if anchored else MATCHED
    for operation, argument in _walk(items, False):
        if operation is codes.GROUPREF or operation is codes.GROUPREF_EXISTS:
            return "a reference back to a group"
        if operation == "nested":
            return str(argument)
        if operation in _REPEATS:
            steps *= min(MATCHED, int(argument[1]) - int(argument[0]) + 1)
        elif operation is codes.BRANCH:
            steps *= len(argument[1])
    return f"up to {steps} steps, more than {MOST_STEPS}" if steps > MOST_STEPS else ""


def _walk(items: list[Any], repeated: bool) -> list[tuple[Any, Any]]:
    """Every operation in the tree; ("nested", why) where a repetition holds one, or a choice."""
    found: list[tuple[Any, Any]] = []
    for operation, argument in items:
        found.append((operation, argument))
        if operation in _REPEATS or operation is _POSSESSIVE:
            _, most, body = argument
            if repeated and most > 1:
                found.append(("nested", "a repetition inside a repetition"))
            found += _walk(list(body), repeated or most > 1)
        elif operation is codes.BRANCH:
            if repeated:
                found.append(("nested", "a choice inside a repetition"))
            for branch in argument[1]:
                found += _walk(list(branch), repeated)
        else:
            for part in _parts(argument):
                found += _walk(part, repeated)
    return found


def _parts(argument: Any) -> list[list[Any]]:
    """Sub-patterns in the argument of a group, a look-around or a condition."""
    if isinstance(argument, parser.SubPattern):
        return [list(argument)]
    if isinstance(argument, tuple):
        return [list(part) for part in argument if isinstance(part, parser.SubPattern)]
    return []

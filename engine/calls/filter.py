"""The display filter: a small expression language over the columns of a store.

    state == failed and from ~ "carol"        lost_pct > 1 or not (method == INVITE)        alice 10\\.0\\.

A comparison is COLUMN OPERATOR VALUE, with == != < <= > >= and ~ !~ (regular expression). `and`, `or`, `not`
(also && || !) and parentheses combine them, `not` binds tightest, `or` loosest. Anything else is a
regular expression that is looked for in the joined columns; terms side by side must all hold. Text is
compared without regard to case. A value with spaces or operators stands in quotes. Numbers may carry a
unit: 500ms, 2s, 1.5%. `failed` also means busy, rejected and timeout. What is unknown fulfils no
comparison but != and !~.
"""

from __future__ import annotations

import difflib
import functools
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.calls.states import FAILED_STATES, STATES
from engine.errors import UsageError

MOST_CHARACTERS = 1000
MOST_DEPTH = 40
MOST_PATTERN = 256

Test = Callable[[Any], bool]

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<open>\()|(?P<close>\))|(?P<op>==|!=|!~|<=|>=|=|~|<|>)|(?P<and>&&)|(?P<or>\|\|)|(?P<not>!)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<word>[^\s()"'=<>~!&|]+(?:[!&|](?![=~&|])[^\s()"'=<>~!&|]+)*)""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?)(ms|us|µs|s|m|h|%)?", re.IGNORECASE)
_FACTOR = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "s": 1.0, "m": 60.0, "h": 3600.0, "%": 1.0}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip


class Column(NamedTuple):
    """One column of a store: `kind` is text, number or state; `get` answers None where unknown."""

    kind: str
    get: Callable[[Any], Any]


class FilterError(UsageError):
    """A filter that cannot be meant; `position` is the column at fault, from 0."""

    def __init__(self, message: str, position: int, hint: str = "") -> None:
        super().__init__(f"filter, column {position + 1}: {message}", hint)
        self.position = position


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def compile_filter(text: str, columns: dict[str, Column], search: Callable[[Any], str]) -> Test | None:
    """The test of a filter, None for an empty one; FilterError names what is wrong and where.

    `search` gives a row's joined columns in lower case, in which bare words are looked for.
    """
    if len(text) > MOST_CHARACTERS:
        raise FilterError("too long", MOST_CHARACTERS, f"at most {MOST_CHARACTERS} characters")
    tokens = _tokens(text)
    if not tokens:
        return None
    return _Parser(tokens, len(text), columns, search).whole()


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            quote = text[position] in "\"'"
            raise FilterError(
                "the quote is not closed" if quote else f"{text[position]!r} means nothing here",
                position,
                "put a value with spaces or operators in quotes" if not quote else "",
            )
        kind = match.lastgroup or ""
        word = match[0]
        if kind == "word" and word.lower() in ("and", "or", "not"):
            kind = word.lower()
        if kind != "space":
            tokens.append(_Token(kind, word, position))
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(
        self, tokens: list[_Token], length: int, columns: dict[str, Column], search: Callable[[Any], str]
    ) -> None:
        self.tokens = tokens
        self.end = _Token("end", "", length)
        self.columns = columns
        self.search = search
        self.next = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> _Token:
        place = self.next + ahead
        return self.tokens[place] if place < len(self.tokens) else self.end

    def take(self) -> _Token:
        token = self.peek()
        self.next += 1
        return token

    def whole(self) -> Test:
        test = self.either()
        if self.peek().kind != "end":
            raise FilterError(f"{self.peek().text!r} does not belong here", self.peek().position)
        return test

    def either(self) -> Test:
        tests = [self.all()]
        while self.peek().kind == "or":
            self.take()
            tests.append(self.all())
        return functools.reduce(_or, tests)

    def all(self) -> Test:
        tests = [self.one()]
        while self.peek().kind not in ("or", "close", "end"):
            if self.peek().kind == "and":
                self.take()
            tests.append(self.one())
        return functools.reduce(_and, tests)

    def one(self) -> Test:
        token = self.take()
        if token.kind == "not":
            self.deeper(token)
            test = self.one()
            self.depth -= 1
            return lambda row: not test(row)
        if token.kind == "open":
            self.deeper(token)
            test = self.either()
            self.depth -= 1
            if self.take().kind != "close":
                raise FilterError("this parenthesis is not closed", token.position)
            return test
        if token.kind == "word" and self.peek().kind == "op":
            return self.comparison(token)
        if token.kind in ("word", "string"):
            return self.word(token)
        if token.kind == "end":
            raise FilterError("something is missing at the end", token.position, "such as: state == failed")
        raise FilterError(f"{token.text!r} does not belong here", token.position, "such as: state == failed")

    def deeper(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise FilterError("nested too deeply", token.position)

    def word(self, token: _Token) -> Test:
        find = _pattern(token).search
        search = self.search
        plain = _plain(token).lower()
        if plain.isascii() and re.escape(plain) == plain:
            return lambda row: plain in search(row)
        return lambda row: find(search(row)) is not None

    def comparison(self, name: _Token) -> Test:
        key = name.text.lower().replace("-", "_")
        column = self.columns.get(key)
        if column is None:
            near = difflib.get_close_matches(key, self.columns, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"columns: {', '.join(self.columns)}"
            raise FilterError(f"no column {name.text!r}", name.position, hint)
        sign = self.take()
        value = self.take()
        if value.kind not in ("word", "string"):
            raise FilterError(f"{sign.text} needs a value", value.position, f"such as: {key} {sign.text} 1")
        if sign.text in ("~", "!~"):
            return _matches(column, _pattern(value).search, sign.text == "!~")
        relation = "==" if sign.text == "=" else sign.text
        if column.kind == "number":
            return _compares(column, _COMPARE[relation], _number(key, value), relation == "!=")
        if relation not in ("==", "!="):
            raise FilterError(
                f"{key} is text: {sign.text} cannot compare it", sign.position, "use == != ~ or !~"
            )
        if column.kind == "state":
            return _among(column, _states(value), relation == "!=")
        return _among(column, frozenset([_plain(value).lower()]), relation == "!=")


def _and(first: Test, second: Test) -> Test:
    return lambda row: first(row) and second(row)


def _or(first: Test, second: Test) -> Test:
    return lambda row: first(row) or second(row)


def _matches(column: Column, find: Callable[[str], Any], negated: bool) -> Test:
    get = column.get

    def test(row: Any) -> bool:
        value = get(row)
        return (value is not None and find(str(value)) is not None) is not negated

    return test


def _compares(column: Column, relation: Callable[[Any, Any], bool], wanted: float, unknown: bool) -> Test:
    get = column.get

    def test(row: Any) -> bool:
        value = get(row)
        return unknown if value is None else relation(value, wanted)

    return test


def _among(column: Column, wanted: frozenset[str], negated: bool) -> Test:
    get = column.get

    def test(row: Any) -> bool:
        value = get(row)
        return (value is not None and str(value).lower() in wanted) is not negated

    return test


def _plain(token: _Token) -> str:
    if token.kind != "string":
        return token.text
    return re.sub(r"\\([\"'\\])", r"\1", token.text[1:-1])


def _number(key: str, token: _Token) -> float:
    match = _NUMBER.fullmatch(_plain(token).strip())
    if match is None:
        raise FilterError(
            f"{key} is a number and {_plain(token)!r} is none", token.position, f"such as: {key} > 1"
        )
    unit = (match[2] or "").lower()
    factor = _FACTOR.get(unit, 1.0)
    if key.endswith("_ms") and unit not in ("", "%"):
        factor *= 1000
    return float(match[1]) * factor


def _states(token: _Token) -> frozenset[str]:
    name = re.sub(r"[\s-]+", "_", _plain(token).strip().lower())
    if name == "failed":
        return frozenset(FAILED_STATES)
    if name not in STATES[1:]:
        near = difflib.get_close_matches(name, STATES[1:], 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"states: {', '.join(STATES[1:])}"
        raise FilterError(f"no state {_plain(token)!r}", token.position, hint)
    return frozenset([name])


def _pattern(token: _Token) -> re.Pattern[str]:
    """A caseless regular expression. One may take for ever on a text made for it: see engine.calls.query."""
    text = token.text[1:-1].replace('\\"', '"') if token.kind == "string" else token.text
    quoted = token.kind == "string"
    if len(text) > MOST_PATTERN:
        raise FilterError("this expression is too long", token.position, f"at most {MOST_PATTERN} characters")
    try:
        with warnings.catch_warnings():
            # What Python will read otherwise some day is no concern of who types a filter.
            warnings.simplefilter("ignore")
            return re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        place = getattr(error, "pos", None) or 0
        raise FilterError(
            f"not a regular expression: {getattr(error, 'msg', error)}",
            token.position + place + quoted,
            "put a backslash before . * + ? ( ) [ ] to mean the character",
        ) from error

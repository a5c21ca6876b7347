"""Reading the node file and task files: YAML, `${...}`, and errors with their place and the nearest key."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import types
import typing
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from engine.config import NodeConfig, TaskConfig
from engine.config_values import Model
from engine.errors import UsageError
from engine.plugin import installed
from engine.plugin_options import PARSER_OPTIONS, PROCESSOR_OPTIONS, REPORTER_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_OCTETS = 1_048_576
MAX_VALUES = 20_000
MAX_DEPTH = 32
_REFERENCE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")
_HALF = re.compile("[\ud800-\udfff]")

Place = tuple[str | int, ...]
"""Keys and positions from the top of a document down to a value."""


class Document:
    """One configuration text: its values, and where each of them stands."""

    def __init__(self, name: str, text: str | None = None, values: Any = None) -> None:
        """Parse `text`, or take `values` that came as JSON; `name` stands in errors."""
        self.name = name
        self.root: yaml.Node | None = None
        if text is None:
            self.values = values
        else:
            self.values = self._parse(text)
        self._check_bounds()

    def _parse(self, text: str) -> Any:
        if len(text) > MAX_OCTETS:
            raise UsageError(
                f"{self.name}: longer than {MAX_OCTETS} octets", "a configuration is a small YAML file"
            )
        try:
            loader = _Loader(text)
            try:
                self.root = loader.get_single_node()
                return loader.construct_document(self.root) if self.root is not None else None
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name
            raise UsageError(f"{place}: {error.problem or error.context}", "the file must be YAML") from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
            raise UsageError(f"{self.name}: {reason}", "the file must be YAML") from error

    def _check_bounds(self) -> None:
        """Aliases make a small text a huge or an endless document: refuse it before anything walks it."""
        count = 0
        stack: list[tuple[Any, int]] = [(self.values, 0)]
        while stack:
            value, depth = stack.pop()
            count += 1
            if count > MAX_VALUES or depth > MAX_DEPTH:
                raise UsageError(
                    f"{self.name}: too many values or too deeply nested", "no file of ours needs that"
                )
            if isinstance(value, dict):
                stack.extend((item, depth + 1) for item in value.values())
            elif isinstance(value, list):
                stack.extend((item, depth + 1) for item in value)
            elif isinstance(value, str) and self.root is not None and _HALF.search(value):
                # Of what came as values, a path may hold such characters for octets that are no UTF-8.
                raise UsageError(f"{self.name}: {value!r} is no text", "half a character in \\u notation")

    def where(self, place: Place) -> str:
        """`file:line:column` of a value (in a mapping, of its key), or of what is above an absent one."""
        node, mark = self.root, None
        for step in place:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == str(step)), None)
                if pair is None:
                    break
                mark, node = pair[0].start_mark, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                break
        if mark is None and node is not None:
            mark = node.start_mark
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name

    def error(self, place: Place, problem: str, hint: str = "") -> UsageError:
        """An error at a value: `file:line:column: path: problem`."""
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
        return UsageError(f"{self.where(place)}: {path + ': ' if path else ''}{problem}", hint)

    def expand(self, variables: Mapping[str, str]) -> None:
        """Replace `${NAME}` (environment) and `${node.KEY}` in every text value; `$${` stands for `${`."""
        self.values = self._expand(self.values, variables, ())

    def _expand(self, value: Any, variables: Mapping[str, str], place: Place) -> Any:
        if isinstance(value, str) and "${" in value:
            return _REFERENCE.sub(lambda match: self._reference(match, variables, place), value)
        if isinstance(value, dict):
            return {key: self._expand(item, variables, (*place, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, variables, (*place, number)) for number, item in enumerate(value)]
        return value

    def _reference(self, match: re.Match[str], variables: Mapping[str, str], place: Place) -> str:
        if match[1]:
            return match[1]
        name = match[2].strip()
        found = variables.get(name) if name.startswith("node.") else os.environ.get(name)
        if found is None:
            known = list(variables) if "." in name else []
            raise self.error(
                place, f"${{{name}}} is not set", nearest(name, known) or "export it, or write $${"
            )
        return found

    def section(self, key: str) -> Any:
        """The value below the document's one root key."""
        if not isinstance(self.values, dict):
            raise UsageError(f"{self.name}: empty, or no mapping", f"the file begins with `{key}:`")
        for found in self.values:
            if found != key:
                other = {"task": "a task file", "otus": "a node file"}.get(str(found), "")
                raise self.error(
                    (found,),
                    f"unknown key; expected `{key}:` here" + (f" (this is {other})" if other else ""),
                    nearest(str(found), [key]),
                )
        found = self.values.get(key)
        return {} if found is None else found

    def check_part(self, model: type[Model], value: Any, place: Place) -> None:
        """UsageError as of validate(), but nothing has to be there: another document may bring it."""
        with contextlib.suppress(_MissingError):
            self.validate(model, value, place, part=True)

    def validate(self, model: type[_Section], value: Any, place: Place, part: bool = False) -> _Section:
        """`value` as `model`; UsageError with the place of the first fault. `part`: see check_part()."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            if part:
                faults = [fault for fault in faults if fault["type"] != "missing"]
                if not faults:
                    raise _MissingError from error
            # A misspelt key also makes the right one missing: the misspelling is the news.
            fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
            loc = fault["loc"]
            if fault["type"] == "extra_forbidden":
                known = _keys_at(model, loc[:-1])
                raise self.error(
                    (*place, *loc),
                    "unknown key",
                    nearest(str(loc[-1]), known) or f"known here: {', '.join(known)}",
                ) from error
            if fault["type"] == "missing":
                raise self.error((*place, *loc), "is missing") from error
            if loc and loc[-1] == "[key]":
                loc = loc[:-1]
            raise self.error((*place, *loc), *_in_words(fault)) from error


def _in_words(fault: Any) -> tuple[str, str]:
    """What is wrong with a value, and a hint, in words of the file and not of the program."""
    given, kind = fault["input"], fault["type"]
    # Other values are not repeated: they may be secrets.
    number = str(given) if isinstance(given, int | float) and not isinstance(given, bool) else ""
    if kind in ("model_type", "dict_type"):
        return "a mapping is wanted here: keys with values", ""
    if kind == "list_type":
        return (
            "a list is wanted here",
            f"write [{number}]" if number else "write it in brackets: [one, another]",
        )
    if kind == "string_type":
        return "a text is wanted here", f"put it in quotes: '{number}'" if number else ""
    if kind == "too_short" and fault["ctx"]["min_length"] == 1:
        return "is empty", ""
    problem: str = fault["msg"].removeprefix("Value error, ")
    return problem[:1].lower() + problem[1:], ""


_Section = typing.TypeVar("_Section", bound=Model)


class _MissingError(Exception):
    """Only keys that another document may bring are not there."""


class _Loader(yaml.SafeLoader):
    """Safe values only; a key given twice is an error instead of a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """What `<<` takes in is bounded: mappings that merge mappings ten times grow tenfold a line."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "too many merged keys", node.start_mark)


def nearest(word: str, known: Sequence[str]) -> str:
    """`did you mean X?`, or nothing when no known word is near."""
    found = difflib.get_close_matches(word, known, 1, 0.6)
    return f"did you mean {found[0]!r}?" if found else ""


def _keys_at(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that `model` knows at a place below it."""
    current: Any = model
    for step in place:
        if isinstance(current, type) and issubclass(current, BaseModel) and step in current.model_fields:
            current = _inner(current.model_fields[str(step)].annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner(annotation: Any) -> Any:
    """The model in `X | None` and `list[X]`."""
    while True:
        arguments = [item for item in typing.get_args(annotation) if item is not types.NoneType]
        if typing.get_origin(annotation) in (list, typing.Union, types.UnionType) and arguments:
            annotation = arguments[0]
        else:
            return annotation


def read_text(path: str) -> str:
    """The text of a configuration file; UsageError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_OCTETS + 1).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: octet {error.start} is no UTF-8", "the file must be YAML text") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def node_variables(node: NodeConfig) -> dict[str, str]:
    """What `${node.KEY}` stands for; the id defaults to the hostname, that to the kernel's."""
    values = {**node.node.model_dump(), "hostname": node.node.host(), "id": node.node.name()}
    return {f"node.{key}": value for key, value in values.items()}


def load_node(path: str) -> NodeConfig:
    """Read a node file."""
    return node_from_text(read_text(path), path)


def node_from_text(text: str, name: str) -> NodeConfig:
    """A node configuration from YAML; `${node.KEY}` means the keys of its own `node:` section."""
    document = Document(name, text)
    section = document.section("otus")
    own = section.get("node") if isinstance(section, dict) else None
    variables = node_variables(NodeConfig())
    if isinstance(own, dict):
        texts = {f"node.{key}": str(value) for key, value in own.items() if isinstance(value, str | int)}
        variables.update({key: value for key, value in texts.items() if "${" not in value})
    document.expand(variables)
    found = document.validate(NodeConfig, document.section("otus"), ("otus",))
    for kind, options in found.reporters.items():
        place: Place = ("otus", "reporters", kind)
        model = _options_of(document, kind, REPORTER_OPTIONS, "reporter", place)
        if model is not None:
            document.check_part(model, options, place)
    return found


def load_task(path: str, node: NodeConfig) -> TaskConfig:
    """Read a task file."""
    return task_from(Document(path, read_text(path)), node)


def task_from_text(text: str, name: str, node: NodeConfig) -> TaskConfig:
    """A task from YAML; `name` stands in errors."""
    return task_from(Document(name, text), node)


def task_from_values(values: Any, node: NodeConfig, name: str = "config") -> TaskConfig:
    """A task from values that came as JSON, with or without the root key `task`."""
    if isinstance(values, dict) and "task" not in values:
        values = {"task": values}
    return task_from(Document(name, values=values), node)


def task_from(document: Document, node: NodeConfig) -> TaskConfig:
    """The task in a document, its plugins' options checked and completed with their defaults."""
    document.expand(node_variables(node))
    section = document.section("task")
    task = document.validate(TaskConfig, section, ("task",))
    changes: dict[str, Any] = {}
    for key, models, what in (
        ("parsers", PARSER_OPTIONS, "parser"),
        ("processors", PROCESSOR_OPTIONS, "processor"),
        ("reporters", REPORTER_OPTIONS, "reporter"),
    ):
        changes[key] = [
            _with_options(document, ref, ("task", key, number), models, what, node)
            for number, ref in enumerate(getattr(task, key))
        ]
    if task.reporter is not None:
        place: Place = ("task", "reporter")
        changes["reporter"] = _with_options(
            document, task.reporter, place, REPORTER_OPTIONS, "reporter", node
        )
    task = task.model_copy(update=changes)
    _check_twins(document, task)
    if document.root is not None:
        for name in ("capture", "filter"):
            keys = section.get(name) if isinstance(section, dict) else None
            places = {f"{name}.{key}": document.where(("task", name, key)) for key in keys or ()}
            task.mark({name: document.where(("task", name)), **places})
    return task


def _check_twins(document: Document, task: TaskConfig) -> None:
    """Of two parsers of ours one would say nothing; two reporters would cut each other's file."""
    seen: set[tuple[str, str]] = set()
    for number, parser in enumerate(task.parsers):
        if parser.enabled and parser.plugin in PARSER_OPTIONS:
            if ("parser", parser.plugin) in seen:
                raise document.error(
                    ("task", "parsers", number), f"parser {parser.plugin} stands here twice", "leave one out"
                )
            seen.add(("parser", parser.plugin))
    for number, reporter in enumerate(task.reporters):
        if reporter.enabled and reporter.type == "file":
            path = os.path.realpath(reporter.config["path"])
            if ("file", path) in seen:
                raise document.error(
                    ("task", "reporters", number, "config", "path"),
                    "another reporter writes this file",
                    "give each a file of its own",
                )
            seen.add(("file", path))


def _with_options(
    document: Document, ref: Any, place: Place, models: Mapping[str, type[Model]], what: str, node: NodeConfig
) -> Any:
    name_key = "type" if what == "reporter" else "plugin"
    name = getattr(ref, name_key)
    model = _options_of(document, name, models, what, (*place, name_key))
    own = ref.config
    if what == "reporter":
        own = {**node.reporters.get(name, {}), **own}
    if model is not None:
        own = document.validate(model, own, (*place, "config")).model_dump()
    return ref.model_copy(update={"config": own})


def _options_of(
    document: Document, name: str, models: Mapping[str, type[Model]], what: str, place: Place
) -> type[Model] | None:
    """The model of a plugin's options; None for one of another package, whose init() checks them."""
    if name in models:
        return models[name]
    others = installed(what)
    if name in others:
        return None
    known = [*models, *others]
    raise document.error(place, f"no {what} {name!r}", nearest(name, known) or f"known: {', '.join(known)}")

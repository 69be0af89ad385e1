"""YAML with line numbers, and validation errors told as one sentence: file, line, key, nearest valid name."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tokenization.errors import SchemaError, first_line, nearest

Path_ = tuple[str | int, ...]


class Mistake(ValueError):
    """A rule between keys that is broken at `path`; raised inside validators, told by `sentence`."""

    def __init__(self, path: Path_, text: str) -> None:
        super().__init__(text)
        self.path = path


@dataclass(frozen=True)
class Source:
    """A declaration as read: where from, its values, and the line of every key."""

    name: str
    values: object
    lines: Mapping[Path_, int]

    def place(self, path: Path_) -> str:
        """`file:line`, of the nearest enclosing key whose line is known."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name


def read(path: Path) -> Source:
    """Parse a YAML file into values and line numbers.

    Raises:
        SchemaError: no such file, not UTF-8, not YAML, empty, or one key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SchemaError(f"{path}: can't read this schema: {reason}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SchemaError(f"{path}:{line}: this is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-02-30 looks like a date, and is none
        raise SchemaError(f"{path}: this is not YAML: {first_line(error)}") from error
    except RecursionError:
        raise SchemaError(f"{path}: this is nested too deeply to be a schema; take anchors and brackets out") from None
    if root is None:
        raise SchemaError(f"{path}: the schema is empty; start from examples/complete_journey/schema.yaml")
    lines: dict[Path_, int] = {}
    try:
        _collect(str(path), root, (), lines)
    except RecursionError:
        raise SchemaError(f"{path}: an anchor of this file holds itself; write what it stands for") from None
    return Source(str(path), values, lines)


def _collect(name: str, node: yaml.Node, path: Path_, lines: dict[Path_, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                where = ".".join(str(part) for part in inner)
                raise SchemaError(f"{name}:{line}: {where} is given twice (first on line {lines[inner]})")
            lines[inner] = line
            _collect(name, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            lines[(*path, position)] = value.start_mark.line + 1
            _collect(name, value, (*path, position), lines)


def sentence(error: ValidationError, model: type[BaseModel], source: Source) -> str:
    """The first thing that is wrong, in one sentence, and how many more there are."""
    details = error.errors()

    def urgency(detail: ErrorDetails) -> tuple[int, int]:
        # A misspelt key goes before the key that is missing because of it.
        rank = {"extra_forbidden": 0, "missing": 2}.get(detail["type"], 1)
        return rank, source.lines.get(_told(detail, model)[0], 0)

    path, text = _told(min(details, key=urgency), model)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    key = ".".join(str(part) for part in path)
    return f"{source.place(path)}: {key + ': ' if key else ''}{text}{more}"


def _told(detail: ErrorDetails, model: type[BaseModel]) -> tuple[Path_, str]:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    context = detail.get("ctx", {})
    if isinstance(cause := context.get("error"), Mistake):
        return (*path, *cause.path), str(cause)
    match detail["type"]:
        case "extra_forbidden":
            return path, f"there is no such key; {nearest(str(path[-1]), _keys_at(model, path[:-1]))}"
        case "missing":
            return path, "this key is missing"
        case "enum" | "literal_error":
            options = _options_at(model, path)
            given = str(detail["input"])
            return path, f"{given!r} is none of {', '.join(options)}; {nearest(given, options)}"
        case "value_error":
            return path, str(cause)
        case _:
            return path, f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {detail['input']!r}"


def _keys_at(model: type[BaseModel], path: Path_) -> list[str]:
    inner = _annotation_at(model, path)
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return [field.alias or name for name, field in inner.model_fields.items()]
    return []


def _options_at(model: type[BaseModel], path: Path_) -> list[str]:
    inner = _annotation_at(model, path)
    if isinstance(inner, type) and issubclass(inner, Enum):
        return [str(member.value) for member in inner]
    return [str(option) for option in typing.get_args(inner)]


def _annotation_at(model: type[BaseModel], path: Path_) -> object:
    """The type declared for the key at `path`: through models by field, through mappings and tuples by value."""
    here: object = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {field.alias or name: field for name, field in here.model_fields.items()}
            here = fields[str(part)].annotation if str(part) in fields else None
        elif arguments := typing.get_args(here):
            here = arguments[1] if typing.get_origin(here) is dict else arguments[0]
        if isinstance(here, UnionType):
            here = next(option for option in typing.get_args(here) if option is not type(None))
    return here

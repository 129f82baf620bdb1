"""Reading a configuration: YAML, `--set` overrides, and every fault in one message."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evaluator.config.schema import RunConfig
from evaluator.errors import ConfigError


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice; YAML would take the last silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply `a.b=value` overrides; raises ConfigError with every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: expected a configuration file, got nothing there. "
            "Check the path, and the folder you are in."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a UTF-8 text file, got: {error}") from error
    return parse_config(text, overrides, where=str(path))


def parse_config(text: str, overrides: Sequence[str] = (), *, where: str) -> RunConfig:
    """Validate YAML text. `where` names it in messages."""
    try:
        record = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: expected YAML, got: {error}") from error
    if not isinstance(record, dict):
        got = "an empty file" if record is None else type(record).__name__
        raise ConfigError(f"{where}: expected sections (name, model, prompts, …), got {got}.")
    for override in overrides:
        _apply_override(record, override)
    try:
        return RunConfig.model_validate(record)
    except ValidationError as error:
        faults = tuple(_describe(fault) for fault in error.errors())
        count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
        raise ConfigError(f"{where}: the configuration has {count}:", faults) from error


def _apply_override(record: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in place; the value is YAML, list items are addressed by number."""
    path, equals, value = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: expected path=value, such as generation.steps=20")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: expected a YAML value, got: {error}") from error
    here: Any = record
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(here, list):
            if not part.isdecimal() or int(part) >= len(here):
                raise ConfigError(
                    f"--set {override!r}: expected a number below {len(here)} after "
                    f"'{'.'.join(parts[:i])}', got '{part}'."
                )
            key: Any = int(part)
        elif isinstance(here, dict):
            key = part
        else:
            raise ConfigError(
                f"--set {override!r}: '{'.'.join(parts[:i])}' is a plain value, it has no '{part}'."
            )
        if last:
            here[key] = parsed
        elif isinstance(here, dict) and here.get(key) is None:
            here[key] = {}
            here = here[key]
        else:
            here = here[key]


def _describe(fault: ErrorDetails) -> str:
    """One fault as a line: path, what was expected, what was got, the likely meaning."""
    location = [part for part in fault["loc"] if part not in _TAGS]
    path = ".".join(str(part) for part in location) or "the file"
    if fault["type"] == "extra_forbidden":
        known = list(_fields_at(RunConfig, location[:-1]))
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{path}: expected a value, got none"
    message = fault["msg"].removeprefix("Value error, ")
    got = fault.get("input")
    if fault["type"] == "value_error" and isinstance(got, (dict, BaseModel)):
        return message if path == "the file" else f"{path}: {message}"
    return f"{path}: {message[0].lower() + message[1:]}, got {got!r}"


_TAGS = frozenset({"diffusers", "custom", "literal['hashed']", "literal['all']", "SeedRange"})
"""Names of union branches that pydantic puts into a location."""


def _fields_at(model: type[BaseModel], location: Iterable[Any]) -> Mapping[str, Any]:
    """The fields that are known at a place in the configuration."""
    candidates: list[Any] = [model]
    for part in location:
        deeper: list[Any] = []
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                field = candidate.model_fields.get(str(part))
                # A part that is no field is a dict's key or a list's index: stay where we are.
                deeper += [candidate] if field is None else _unwrap(field.annotation)
        candidates = deeper
    fields: dict[str, Any] = {}
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            fields |= candidate.model_fields
    return fields


def _unwrap(annotation: Any) -> list[Any]:
    """The plain types inside Optional, Union, Annotated, list, tuple and dict."""
    origin = get_origin(annotation)
    if origin is None:
        return [annotation]
    if origin in (Union, types.UnionType):
        return [inner for part in get_args(annotation) for inner in _unwrap(part)]
    if origin is Annotated:
        return _unwrap(get_args(annotation)[0])
    if origin is dict:
        return _unwrap(get_args(annotation)[1])
    if origin in (list, tuple):
        return _unwrap(get_args(annotation)[0])
    return [] if origin is typing.Literal else [annotation]

"""Reading a configuration: YAML, `--set` overrides, and every fault in one message."""

from __future__ import annotations

import difflib
import re
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
from evaluator.text import count_of


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
    return parse_record(read_record(path), overrides, where=str(path))


def read_record(path: Path) -> dict[str, Any]:
    """A configuration file as plain data, not validated; raises ConfigError where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: expected a configuration file, got nothing there. "
            "Check the path, and the folder you are in."
        ) from error
    except IsADirectoryError as error:
        began = path / "init" / "config.yaml"
        hint = (
            f"It is a run directory: {began} is the configuration that it began with."
            if began.is_file()
            else "Name the file in it."
        )
        raise ConfigError(
            f"{path}: expected a configuration (YAML), got a folder. {hint}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a UTF-8 text file, got: {error}") from error
    return _record_of(text, where=str(path))


def parse_config(text: str, overrides: Sequence[str] = (), *, where: str) -> RunConfig:
    """Validate YAML text. `where` names it in messages."""
    return parse_record(_record_of(text, where=where), overrides, where=where)


def _record_of(text: str, *, where: str) -> dict[str, Any]:
    try:
        record = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: expected YAML, got: {error}") from error
    if not isinstance(record, dict):
        got = "an empty file" if record is None else type(record).__name__
        raise ConfigError(f"{where}: expected sections (name, model, prompts, …), got {got}.")
    return record


def parse_record(record: dict[str, Any], overrides: Sequence[str] = (), *, where: str) -> RunConfig:
    """Validate a configuration given as plain data, which the overrides change in place.

    It is of one run: `points.load_runs` reads what may be a sweep of several.
    """
    apply_overrides(record, overrides)
    try:
        config = RunConfig.model_validate(record)
    except ValidationError as error:
        raise with_faults(where, describe_faults(error)) from error
    if config.sweep is not None:
        raise ConfigError(
            f"{where}: expected the settings of one run, got those of a sweep (section sweep), "
            "which `evaluator run`, `validate`, `fetch` and `sweep` take. Name the run of one of "
            "its points (FOLDER/POINT), or set the section aside: sweep: null in a copy, or --set "
            "sweep=null of a verb that sets the configuration's values."
        )
    return config


def with_faults(where: str, faults: Sequence[str]) -> ConfigError:
    """The error that lists everything that is wrong with a configuration."""
    count = count_of(len(faults), "fault")
    return ConfigError(f"{where}: the configuration has {count}:", tuple(faults))


_NAMED_ITEMS = ("features", "metrics")
"""Lists in which a name alone stands for an item of that name."""


def apply_overrides(record: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set each `a.b=value` in place; the value is YAML."""
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise ConfigError(
                f"--set {override!r}: expected path=value, such as generation.steps=20"
            )
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override!r}: expected a YAML value, got: {error}") from error
        set_value(record, path.strip(), parsed, where=f"--set {override!r}")


def set_value(record: dict[str, Any], path: str, value: Any, *, where: str) -> None:
    """Set what lies at `a.b` in place; list items go by number or by their name."""
    parts = path.split(".")
    here: Any = record
    for i, part in enumerate(parts):
        before = ".".join(parts[:i])
        key: Any = part
        if isinstance(here, list):
            key = _item(here, part, where=where, before=before)
        elif not isinstance(here, dict):
            raise ConfigError(f"{where}: '{before}' is a plain value, it has no '{part}'.")
        if i == len(parts) - 1:
            here[key] = value
            return
        if isinstance(here, dict) and here.get(key) is None:
            here[key] = {}
        elif before in _NAMED_ITEMS and isinstance(here[key], str):
            here[key] = {"name": here[key]}  # what a name alone stands for
        here = here[key]


def _item(items: list[Any], part: str, *, where: str, before: str) -> int:
    """The place in a list that `part` means: its number, or the `name` of the item."""
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = [item.get("name") if isinstance(item, dict) else item for item in items]
    if part in names:
        return names.index(part)
    known = ", ".join(str(name) for name in names if name is not None)
    raise ConfigError(
        f"{where}: expected a number below {len(items)} after '{before}'"
        f"{f', or one of {known}' if known else ''}, got '{part}'."
    )


_FORM = re.compile(r"(constrained-|tuple\[|literal\['all'\])")
"""A part of a location that is one of the forms which a value may have."""


def describe_faults(error: ValidationError) -> list[str]:
    """One line for each value at fault: pydantic has a fault for each form that it may have."""
    faults = error.errors()
    by_value: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    lines: dict[tuple[int | str, ...] | int, str] = {}
    for number, fault in enumerate(faults):
        place = next((i for i, part in enumerate(fault["loc"]) if _FORM.match(str(part))), None)
        if place is None:
            lines[number] = _describe(fault)
        else:
            value = fault["loc"][:place]
            by_value.setdefault(value, []).append(fault)
            lines[value] = _one_of_forms(value, by_value[value])
    return list(lines.values())


def _one_of_forms(value: tuple[int | str, ...], faults: Sequence[ErrorDetails]) -> str:
    """The fault of a value that may have one of several forms, and has none."""
    path = ".".join(map(str, value))
    for fault in faults:
        if deeper := fault["loc"][len(value) + 1 :]:  # it has the form, but for one of its items
            path = ".".join(map(str, (*value, *deeper)))
            return f"{path}: expected {_wanted(fault)}, got {fault.get('input')!r}"
    forms = [_wanted(fault) for fault in faults]
    expected = " or ".join([", ".join(forms[:-1]), forms[-1]] if len(forms) > 1 else forms)
    return f"{path}: expected {expected}, got {faults[0].get('input')!r}"


def _wanted(fault: ErrorDetails) -> str:
    """What was expected, in the words of somebody who writes YAML."""
    kind, given = fault["type"], fault.get("ctx", {})
    if kind == "literal_error":
        return str(given["expected"])
    if kind == "greater_than_equal":
        return f"a whole number of at least {given['ge']}"
    if kind.startswith("int_"):
        return "a whole number"
    if kind in ("tuple_type", "list_type"):
        return "a list in brackets"
    return fault["msg"][0].lower() + fault["msg"][1:]


def _describe(fault: ErrorDetails) -> str:
    """One fault as a line: path, what was expected, what was got, the likely meaning."""
    location = [part for part in fault["loc"] if part not in _TAGS]
    path = ".".join(str(part) for part in location) or "the file"
    if fault["type"] == "extra_forbidden":
        known = list(_fields_at(RunConfig, location[:-1]))
        if location[:-1] == ["sweep"] and "." in str(location[-1]):
            return f"{path}: unknown key; write settings under grid: `sweep: {{grid: {{…: […]}}}}`"
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(known)}"
        return f"{path}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{path}: expected a value, got none"
    if fault["type"] in ("tuple_type", "list_type") or fault["type"].startswith("int_"):
        return f"{path}: expected {_wanted(fault)}, got {fault.get('input')!r}"
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

"""From a record (a JSON line, a table's row) to a Prompt: which column means what."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluator.data.raw import Place
from evaluator.errors import InputError
from evaluator.records import Prompt, is_safe_key

KEY_NAMES = ("key", "id")
TEXT_NAMES = ("text", "prompt", "prompts", "caption", "captions")
NEGATIVE_NAMES = ("negative_prompt",)
CLASS_NAMES = ("class_label", "label")
OBJECT_NAMES = ("objects", "include")
GROUP_NAMES = frozenset(
    {"category", "subcategory", "challenge", "region", "country", "tag", "skill", "style"}
)
"""Strings under these names are tags wherever they come from; benchmarks group by them."""


@dataclass(frozen=True)
class Columns:
    """The name that each field goes by in a source; None where it is absent."""

    key: str | None
    text: str | None
    negative_prompt: str | None
    class_label: str | None
    objects: str | None


def find_columns(
    names: Iterable[str], *, key_column: str | None = None, text_column: str | None = None
) -> Columns:
    """Match column names to fields, ignoring case; names given explicitly must match exactly.

    An empty `key_column` means that no column holds keys.
    """
    names = list(names)
    lowered: dict[str, str] = {}
    for name in names:
        lowered.setdefault(name.strip().lower(), name)

    def first(candidates: tuple[str, ...]) -> str | None:
        return next((lowered[c] for c in candidates if c in lowered), None)

    return Columns(
        key=first(KEY_NAMES) if key_column is None else key_column or None,
        text=first(TEXT_NAMES) if text_column is None else text_column,
        negative_prompt=first(NEGATIVE_NAMES),
        class_label=first(CLASS_NAMES),
        objects=first(OBJECT_NAMES),
    )


def near_miss(names: Iterable[str], candidates: Iterable[str]) -> str:
    """`; did you mean …?` for the name closest to one of the candidates, else nothing."""
    candidates = list(candidates)
    for name in names:
        if close := difflib.get_close_matches(name.strip().lower(), candidates, n=1, cutoff=0.7):
            return f"; did you mean {close[0]!r} by {name!r}?"
    return ""


def declared_key(value: Any, *, place: Place, column: str) -> str:
    """A key that the user wrote: a string or an integer, safe as it is, else InputError."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and is_safe_key(value):
        return value
    raise InputError(
        f"{place}: expected {column!r} to be a key of 1 to 200 letters, digits, '_' and '-'"
        f" (it names tar members), got {value!r}; replace dots, slashes and spaces by '_', or"
        " leave the column out (key_column='') to number the samples"
    )


def prompt_from_record(
    record: Mapping[str, Any],
    *,
    key: str,
    columns: Columns,
    place: Place,
    strings_are_tags: bool,
    leave_out: frozenset[str] = frozenset(),
) -> Prompt:
    """The prompt a record describes.

    Fields of their own: text, negative prompt, class label, objects; `tags` and `metadata` if
    they hold an object. What is left goes to the tags if it is a string and `strings_are_tags`
    (or its name is one to group by), else to the metadata. Nulls and empty cells are dropped.
    """
    used = {columns.key, columns.text, columns.negative_prompt, columns.objects, *leave_out}
    tags = _string_map(record.get("tags"), name="tags", place=place)
    metadata = dict(record["metadata"]) if isinstance(record.get("metadata"), Mapping) else {}
    used |= {name for name in ("tags", "metadata") if isinstance(record.get(name), Mapping)}
    label, captions = None, _texts(record.get(columns.text or ""), columns=columns, place=place)
    if columns.class_label is not None:
        label = _class_label(record.get(columns.class_label), columns.class_label, place)
        used |= {columns.class_label} if label is not None else set()
    if len(captions) > 1:
        metadata["captions"] = list(captions)
    for name, value in record.items():
        if name in used or value is None or value == "" or _is_nan(value):
            continue
        if isinstance(value, str) and (strings_are_tags or name.strip().lower() in GROUP_NAMES):
            tags.setdefault(name.strip(), value)
        else:
            metadata.setdefault(name, value)
    return Prompt(
        key=key,
        text=captions[0] if captions else None,
        negative_prompt=_text(record.get(columns.negative_prompt or ""), "negative_prompt", place),
        class_label=label,
        tags=tags,
        objects=_objects(record.get(columns.objects or ""), columns.objects, place),
        metadata=metadata,
    )


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _text(value: Any, name: str, place: Place) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{place}: expected {name!r} to be a string, got {value!r}; quote it")


def _texts(value: Any, *, columns: Columns, place: Place) -> list[str]:
    """The captions of a record: several where the source has a list of them."""
    values = value if isinstance(value, list) else [value]
    texts = (_text(item, columns.text or "text", place) for item in values)
    return [text for text in texts if text is not None]


def _string_map(value: Any, *, name: str, place: Place) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    for tag, content in value.items():
        if content is not None and not isinstance(content, str):
            raise InputError(
                f"{place}: expected {name!r} to hold strings, got {content!r} under {tag!r};"
                " quote it, or move it to 'metadata'"
            )
    return {tag: content for tag, content in value.items() if content is not None}


def _class_label(value: Any, name: str, place: Place) -> int | None:
    """An integer, also from a table's text cell. `label` may be a name; `class_label` not."""
    if value is None or value == "" or _is_nan(value):
        return None
    if isinstance(value, str) and value.strip().isdecimal() and value.strip().isascii():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if name.strip().lower() != "class_label":
        return None
    raise InputError(
        f"{place}: expected {name!r} to be a class index (0, 1, …), got {value!r}; correct it"
    )


def _objects(value: Any, name: str | None, place: Place) -> tuple[Mapping[str, Any], ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        return tuple(value)
    raise InputError(
        f"{place}: expected {name!r} to be a list of objects such as"
        f' [{{"class": "bench", "count": 1}}], got {value!r}; rewrite or rename it'
    )

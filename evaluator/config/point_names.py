"""What the points of a sweep are called: made from their values, safe as names of folders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

LONGEST_SUFFIX = 100
LONGEST_NAME = 100
_PLAIN_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,59}")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")
"""Neither has what sets it apart from the other: a name tells its values unmistakably."""


def suffix_of(values: Mapping[str, Any]) -> str:
    """Name of a point's folder: safe, and the same whatever other points there are.

    `guidance_scale-3_steps-10`; `generation.` is left out. What is no plain word or number is
    shortened, with a digest of the whole behind it.
    """
    parts = [f"{_name_of(path)}-{_text_of(value)}" for path, value in values.items()]
    whole = "_".join(parts)
    if len(whole) <= LONGEST_SUFFIX:
        return whole
    return f"{whole[: LONGEST_SUFFIX - 13]}-{_digest(whole, 12)}"


def _name_of(path: str) -> str:
    short = path.removeprefix("generation.")
    return short if _PLAIN_PATH.fullmatch(short) else f"{_slug(short)}-{_digest(path, 8)}"


def _text_of(value: Any) -> str:
    """A value as part of a folder's name; different values give different texts."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 2**53
        return str(int(value)) if whole else repr(value).replace("+", "")
    if isinstance(value, str) and _PLAIN_VALUE.fullmatch(value) and _stays_text(value):
        return value
    named = value.get("name") if isinstance(value, Mapping) else value
    text = str(named).rstrip("/").rpartition("/")[2] if isinstance(named, str) else "value"
    return f"{_slug(text)}-{_digest(json.dumps(value, sort_keys=True, default=str), 8)}"


def _stays_text(value: str) -> bool:
    """Whether YAML reads it as this text, and not as a number or a truth value."""
    return value != "none" and yaml.safe_load(value) == value


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:24] or "value"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def run_name(name: str, suffix: str) -> str:
    """What a point's run is called: the sweep's name and the point's."""
    whole = f"{name}-{suffix}"
    if len(whole) <= LONGEST_NAME:
        return whole
    return f"{name[:40]}-{suffix[:50]}-{_digest(whole, 8)}"

"""Checks of metric options, shared by the catalog and the classes. Imports nothing heavy.

Each check returns the value it accepted, or raises ConfigError: expected, then got.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evaluator.errors import ConfigError

CLIP_VARIANTS = ("mean", "clamped", "w2.5")
"""How cosines become a CLIPScore; see `evaluator.metrics.clip_score`."""

DISTANCES = ("cosine", "euclidean")
"""How far two images of one prompt are apart; see `evaluator.metrics.within_prompt_diversity`."""


def whole_number(name: str, value: Any, *, at_least: int) -> int:
    """An integer, not a bool, no less than `at_least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(
            f"{name}: expected a whole number of at least {at_least}, got {value!r}; change {name}"
        )
    return value


def positive_number(name: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name}: expected a number above 0, got {value!r}; change {name}")
    if not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{name}: expected a number above 0, got {value!r}; change {name}")
    return float(value)


def share(name: str, value: Any) -> float:
    """A number above 0 and at most 1."""
    number = positive_number(name, value)
    if number > 1.0:
        raise ConfigError(
            f"{name}: expected a number above 0 and at most 1, got {value!r}; change {name}"
        )
    return number


def entropy_order(name: str, value: Any) -> float | str:
    """A number above 0, infinity included; "inf" for records that cannot hold infinity."""
    if value == "inf" or (isinstance(value, float) and value == math.inf):
        return "inf"
    return positive_number(name, value)


def optional_positive(name: str, value: Any) -> float | None:
    """A finite number above 0, or None for the metric's own choice."""
    return None if value is None else positive_number(name, value)


def finite_number(name: str, value: Any) -> float:
    """Any finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name}: expected a finite number, got {value!r}; change {name}")
    return float(value)


def confidence(name: str, value: Any) -> float:
    """A confidence level strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, float) or not 0.0 < value < 1.0:
        raise ConfigError(
            f"{name}: expected a level between 0 and 1 such as 0.95, got {value!r}; change {name}"
        )
    return value


def flag(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: expected true or false, got {value!r}; change {name}")
    return value


def one_of(name: str, value: Any, *, choices: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(
            f"{name}: expected one of {', '.join(choices)}, got {value!r}; change {name}"
        )
    return value


def group_count(name: str, value: Any) -> int:
    """The number of jackknife groups: 0 for no interval, otherwise at least 2."""
    count = whole_number(name, value, at_least=0)
    if count == 1:
        raise ConfigError(f"{name}: expected 0 (no interval) or at least 2, got 1; change {name}")
    return count


def cosine_threshold(name: str, value: Any) -> float:
    """A cosine that some pairs exceed: from -1 to below 1."""
    number = finite_number(name, value)
    if not -1.0 <= number < 1.0:
        raise ConfigError(
            f"{name}: expected a cosine from -1 to below 1, got {value!r}; change {name}"
        )
    return number

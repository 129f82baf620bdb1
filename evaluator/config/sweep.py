"""The section `sweep`: settings that take several values, one run for each point."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from evaluator.config.sections import NumericSection

Values = tuple[Any, ...]


class SweepConfig(NumericSection):
    """Settings by their path (`generation.steps`), each with the values that it takes.

    Given together, every point of one form is combined with every point of the others.
    """

    grid: dict[str, Values] = Field({})
    """Every value of one setting with every value of the others; the last one changes fastest."""
    zip: dict[str, Values] = Field({})
    """Lists of one length: the first values together, then the second, and so on."""
    list: tuple[dict[str, Any], ...] = ()
    """Points one by one, each with the settings that it changes."""
    max_points: int = Field(256, ge=1)
    """More points than this are refused, as a slip of the keyboard would make them."""

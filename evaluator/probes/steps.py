"""Which steps of a run are observed, and which call of the scheduler belongs to which step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from evaluator.errors import ConfigError, ProbeError

PRK_CALLS = 4
"""Model evaluations in one Runge-Kutta step of PNDM."""


@dataclass(frozen=True, slots=True)
class StepChoice:
    """The observed steps: all of them, a number of evenly spaced ones, or a list."""

    count: int | None = None
    """This many steps, evenly spaced, the first and the last among them; 1 is the first alone."""
    listed: tuple[int, ...] | None = None
    """These steps, counted from 0. With neither `count` nor `listed`, every step."""
    name: str = "steps"
    """What the choice is called where it was made: messages begin with it."""

    @classmethod
    def parse(cls, value: str | int | Sequence[int], *, name: str = "steps") -> StepChoice:
        """`"all"`, a positive number, or distinct step indices; ConfigError on anything else."""
        if value == "all":
            return cls(name=name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return cls(count=value, name=name)
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            plain = all(isinstance(step, int) and not isinstance(step, bool) for step in value)
            if plain and min(value) >= 0 and len(set(value)) == len(value):
                return cls(listed=tuple(sorted(value)), name=name)
        raise ConfigError(
            f'{name}: expected "all", a positive number of steps, or a list of distinct step '
            f"indices counted from 0; got {value!r}. Write for example steps: 10 "
            "or steps: [0, 5, 19]."
        )

    def select(self, num_steps: int) -> tuple[int, ...]:
        """Indices of the observed steps of a run of `num_steps` steps, ascending."""
        if self.listed is not None:
            if self.listed[-1] >= num_steps:
                raise ProbeError(
                    f"{self.name}: expected indices below {num_steps}, the number of steps of this "
                    f"run; got {list(self.listed)}. List only steps that run, or use steps: 10."
                )
            return self.listed
        if self.count is None or self.count >= num_steps:
            return tuple(range(num_steps))
        if self.count == 1:
            return (0,)
        gaps = self.count - 1
        return tuple((2 * i * (num_steps - 1) + gaps) // (2 * gaps) for i in range(self.count))


class Place(NamedTuple):
    """Where one call of `scheduler.step` lies."""

    step: int
    """The sampler's step, from 0."""
    first: bool
    """Whether it is the step's first model evaluation: the one at the step's own noise level."""


def place_of_call(scheduler: Any, call: int) -> Place:
    """The step that the `call`-th call of `scheduler.step` (from 0) belongs to.

    Second-order samplers (Heun, KDPM2) evaluate the model twice a step. PNDM evaluates it four
    times in each Runge-Kutta step; without those, its second call repeats the first step.
    """
    prk_timesteps = getattr(scheduler, "prk_timesteps", None)
    if prk_timesteps is None:
        order = max(1, int(getattr(scheduler, "order", 1) or 1))
        return Place(call // order, call % order == 0)
    num_prk_calls = len(prk_timesteps)
    if num_prk_calls == 0:
        return Place(max(0, call - 1), call != 1)
    if call < num_prk_calls:
        return Place(call // PRK_CALLS, call % PRK_CALLS == 0)
    return Place(num_prk_calls // PRK_CALLS + call - num_prk_calls, True)


def num_steps_of(scheduler: Any, num_calls: int) -> int:
    """How many steps `num_calls` calls of `scheduler.step` make."""
    return place_of_call(scheduler, num_calls - 1).step + 1 if num_calls else 0

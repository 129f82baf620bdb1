"""Run a pipeline from latents of one's own, or along latents of one's own, whatever its family.

A pipeline prepares its text, its time conditions and its guidance in its own way. Nothing of that
is repeated here: the pipeline runs as always, and only what the scheduler gives back is replaced.
One step is put in front, at the noise level where the run is to begin; its result is thrown away
and the given latents are returned in its place.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.probes.noise import (
    NoiseFamily,
    NoiseLevel,
    level_of_cumprod,
    level_of_sigma,
    noise_family,
)
from evaluator.probes.patching import replaced

if TYPE_CHECKING:
    from torch import Tensor


class Stepped(NamedTuple):
    """What a scheduler's step returns, as a tuple and by name: pipelines do it either way."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class Prediction(NamedTuple):
    """What the model said about latents that it was given."""

    index: int
    """Place of the timestep in the pipeline's run, from 0."""
    timestep: float
    level: NoiseLevel
    latents: Tensor
    """x_t as the scheduler sees it, (N, …)."""
    output: Tensor
    """The model's output after guidance, (N, …), without a predicted variance."""


class _Enough(Exception):
    """Leaves the pipeline once everything is known."""


def grid_levels(scheduler: Any) -> tuple[NoiseLevel, ...]:
    """The noise level at each of `scheduler.timesteps`, as it was set; ProbeError where unknown."""
    family = noise_family(scheduler)
    if family is NoiseFamily.VP:
        cumprod = scheduler.alphas_cumprod
        return tuple(level_of_cumprod(float(cumprod[int(t)])) for t in scheduler.timesteps)
    count = len(scheduler.timesteps)
    return tuple(level_of_sigma(family, float(sigma)) for sigma in scheduler.sigmas[:count])


class _Steering:
    """Stands before a scheduler's `set_timesteps` and `step` during one run of a pipeline."""

    def __init__(
        self,
        scheduler: Any,
        start: Callable[[Any, Tensor], tuple[int, Tensor]],
        every: Callable[[int, Any, Any], Tensor | None] | None,
        begin: int,
    ) -> None:
        self._scheduler = scheduler
        self._start = start
        self._every = every
        self._begin = begin
        self._timesteps: Any = None
        self._index = -1
        self.started = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Steer while inside; the scheduler's methods are put back on the way out."""
        scheduler = self._scheduler
        set_timesteps = self._watched_set_timesteps(scheduler.set_timesteps)
        with (
            replaced(scheduler, "set_timesteps", set_timesteps),
            replaced(scheduler, "step", self._watched_step(scheduler.step)),
        ):
            yield

    def _watched_set_timesteps(self, original: Any) -> Any:
        @functools.wraps(original)
        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            import torch

            result = original(*args, **kwargs)
            timesteps = self._timesteps = self._scheduler.timesteps
            if not 0 <= self._begin < len(timesteps):
                raise ProbeError(
                    f"Expected a first step below {len(timesteps)}, the number of steps of this "
                    f"run; got {self._begin}. Ask for more steps."
                )
            left = timesteps[self._begin :]
            self._scheduler.timesteps = torch.cat([left[:1], left])
            self._index = -1
            return result

        return set_timesteps

    def _watched_step(self, original: Any) -> Any:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            sample = given["sample"]
            if self._index < 0:
                self._scheduler.timesteps = self._timesteps
                self._index, latents = self._start(self._scheduler, sample)
                self._rewind()
                self.started = True
                return _stepped(latents, sample)
            place, self._index = self._index, self._index + 1
            if self._every is None:
                return original(*args, **kwargs)
            following = self._every(place, self._scheduler, given)
            if following is None:
                return original(*args, **kwargs)
            self._advance(given["timestep"])
            return _stepped(following, sample)

        return step

    def _rewind(self) -> None:
        """Let the scheduler begin at the index; it found a place of its own in the step before."""
        scheduler = self._scheduler
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(self._index)
            scheduler._step_index = None

    def _advance(self, timestep: Any) -> None:
        """Count a step that the scheduler did not make itself."""
        scheduler = self._scheduler
        if not hasattr(scheduler, "_step_index"):
            return
        if scheduler._step_index is None:
            scheduler._init_step_index(timestep)
        scheduler._step_index += 1


def _stepped(latents: Tensor, sample: Tensor) -> Stepped:
    """The given latents in the place of the scheduler's; guidance may carry every row twice."""
    count = latents.shape[0]
    if sample.shape[1:] != latents.shape[1:] or sample.shape[0] % count:
        raise ProbeError(
            f"Expected latents {tuple(sample.shape)}, as this pipeline runs on; got "
            f"{tuple(latents.shape)}. Its latents are not what its autoencoder encodes to."
        )
    ours = latents.to(device=sample.device, dtype=sample.dtype)
    ours = ours.repeat(sample.shape[0] // count, *[1] * (sample.ndim - 1))
    return Stepped(ours, ours)


def _scheduler_of(pipeline: Any) -> Any:
    scheduler = getattr(pipeline, "scheduler", None)
    if scheduler is None:
        raise ProbeError(
            f"Expected a pipeline with a scheduler; {type(pipeline).__name__} has none. "
            "Its latents cannot be chosen."
        )
    return scheduler


@contextmanager
def starting_from(
    pipeline: Any, latents: Callable[[NoiseLevel | None], Tensor], *, begin: int = 0
) -> Iterator[None]:
    """While inside, a run of the pipeline begins at step `begin` with these latents.

    `latents` is called with the noise level there (None where the scheduler's is not known) and
    gives x_t (N, …) as the scheduler sees it. The rest of the run is the pipeline's own.
    """

    def start(scheduler: Any, sample: Tensor) -> tuple[int, Tensor]:
        try:
            level = grid_levels(scheduler)[begin]
        except ProbeError:
            level = None
        return begin, latents(level)

    steering = _Steering(_scheduler_of(pipeline), start, None, begin)
    with steering.attached():
        yield
    _require_started(pipeline, steering)


def predictions_along(
    pipeline: Any, generate: Callable[[], object], latents: Callable[[NoiseLevel], Tensor]
) -> list[Prediction]:
    """What the model predicts at each noise level of its run, for latents that are given.

    `generate` calls the pipeline once; `latents` is called with a noise level and gives x_t
    (N, …). Each timestep comes once, at its first model evaluation. The pipeline never finishes:
    nothing is decoded.
    """
    found: list[Prediction] = []
    levels: tuple[NoiseLevel, ...] = ()
    current: list[Tensor] = []

    def start(scheduler: Any, sample: Tensor) -> tuple[int, Tensor]:
        nonlocal levels
        levels = grid_levels(scheduler)
        current.append(latents(levels[0]))
        return 0, current[-1]

    def every(index: int, scheduler: Any, given: Any) -> Tensor:
        x = current[-1]
        timestep = float(given["timestep"])
        if not any(known.timestep == timestep for known in found):
            output = given["model_output"].detach().clone()[: x.shape[0], : x.shape[1]]
            found.append(Prediction(index, timestep, levels[index], x, output))
        if index + 1 >= len(levels):
            raise _Enough
        current[:] = [latents(levels[index + 1])]
        return current[-1]

    steering = _Steering(_scheduler_of(pipeline), start, every, 0)
    try:
        with steering.attached():
            generate()
    except _Enough:
        return found
    _require_started(pipeline, steering)
    return found


def _require_started(pipeline: Any, steering: _Steering) -> None:
    if not steering.started:
        raise ProbeError(
            "Expected one run of the pipeline that calls scheduler.set_timesteps and "
            f"scheduler.step; {type(pipeline).__name__} did not. Its latents cannot be chosen."
        )

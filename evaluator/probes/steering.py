"""Run a pipeline from latents of one's own, or along latents of one's own, whatever its family.

A pipeline prepares its text, its time conditions and its guidance in its own way. Nothing of that
is repeated here: the pipeline runs as always, and only what the scheduler gives back is replaced.
One step is put in front, at the noise level where the run is to begin; its result is thrown away
and the given latents are returned in its place.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.noise import (
    NoiseFamily,
    NoiseLevel,
    level_of_cumprod,
    level_of_sigma,
    noise_family,
)
from evaluator.probes.patching import replaced
from evaluator.probes.steps import num_steps_of, place_of_call

if TYPE_CHECKING:
    from torch import Tensor

LMS_ORDER = 4
"""Steps that the linear multistep sampler looks back on, its own included."""


class Stepped(NamedTuple):
    """What a scheduler's step returns, as a tuple and by name: pipelines do it either way."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class Prediction(NamedTuple):
    """What the model said about latents that it was given."""

    step: int
    """Place of the timestep in the pipeline's run, from 0."""
    timestep: float
    level: NoiseLevel
    latents: Tensor
    """x_t as the scheduler sees it, (N, …)."""
    output: Tensor
    """The model's output after guidance, (N, …), without a predicted variance."""


class _Enough(Exception):
    """Leaves the pipeline once everything is known."""


def grid_level(scheduler: Any, step: int) -> NoiseLevel:
    """The noise level at `scheduler.timesteps[step]`, as they were set; ProbeError if unknown."""
    family = noise_family(scheduler)
    if family is NoiseFamily.VP:
        timestep = int(scheduler.timesteps[step])
        return level_of_cumprod(float(scheduler.alphas_cumprod[timestep]))
    return level_of_sigma(family, float(scheduler.sigmas[step]))


class _Steering:
    """Stands before a scheduler's `set_timesteps` and `step` during one run of a pipeline."""

    def __init__(
        self,
        scheduler: Any,
        choose: Callable[[Sequence[float]], Sequence[int]],
        start: Callable[[int], Tensor],
        follow: Callable[[int, Any], None] | None,
    ) -> None:
        self.scheduler = scheduler
        self._choose = choose
        self._start = start
        self._follow = follow
        self._timesteps: Any = None
        self._left: list[int] = []
        self._num_made = 0
        self.started = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Steer while inside; the scheduler's methods are put back on the way out."""
        scheduler = self.scheduler
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
            timesteps = self._timesteps = self.scheduler.timesteps
            self._left = list(self._choose([float(timestep) for timestep in timesteps]))
            self.started = False
            self._num_made = 0
            chosen = timesteps[self._left]
            self.scheduler.timesteps = torch.cat([chosen[:1], chosen])
            return result

        return set_timesteps

    def _watched_step(self, original: Any) -> Any:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            if not self.started:
                self.started = True
                self.scheduler.timesteps = self._timesteps
                self._go_to(self._left[0])
                return _stepped(self._start(self._left[0]), given["sample"])
            if self._follow is None:
                self._num_made += 1
                if "order" in signature.parameters:
                    # LMS takes a run from the middle to have made all the steps before.
                    kwargs["order"] = min(LMS_ORDER, self._num_made)
                return original(*args, **kwargs)
            self._follow(self._left.pop(0), given)
            if not self._left:
                raise _Enough
            self._go_to(self._left[0])
            return _stepped(self._start(self._left[0]), given["sample"])

        return step

    def _go_to(self, step: int) -> None:
        """Let a scheduler that counts its steps be at this one."""
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(step)
            self.scheduler._step_index = None


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


def _evaluations_from(scheduler: Any, begin: int, count: int) -> list[int]:
    """Places in the run's `count` timesteps of every model evaluation from step `begin` on."""
    places = [place_of_call(scheduler, i) for i in range(count)]
    first = next(i for i, place in enumerate(places) if place.first and place.step == begin)
    prk_timesteps = getattr(scheduler, "prk_timesteps", None)
    if begin == 0 or prk_timesteps is None:
        return list(range(first, count))
    if len(prk_timesteps):
        raise ProbeError(
            f"Expected a sampler that can begin in the middle; got {type(scheduler).__name__} "
            "with Runge-Kutta steps, which come first in a run. Set skip_prk_steps, or choose "
            "another scheduler."
        )
    # PNDM evaluates its second step twice to begin with, wherever that is.
    return [first, *range(first + 1, count)[:1], *range(first + 1, count)]


@contextmanager
def starting_from(
    pipeline: Any, latents: Callable[[NoiseLevel | None], Tensor], *, begin: int = 0
) -> Iterator[None]:
    """While inside, a run of the pipeline begins at step `begin` with these latents.

    Steps are the sampler's, as probes count them: second-order ones evaluate the model twice in
    each. `latents` is called with the noise level there (None where the scheduler's is not known)
    and gives x_t (N, …) as the scheduler sees it. The rest of the run is the pipeline's own.
    """
    scheduler = _scheduler_of(pipeline)

    def choose(timesteps: Sequence[float]) -> Sequence[int]:
        num_steps = num_steps_of(scheduler, len(timesteps))
        if not 0 <= begin < num_steps:
            raise ProbeError(
                f"Expected a first step below {num_steps}, the number of steps of this run; "
                f"got {begin}. Ask for more steps."
            )
        return _evaluations_from(scheduler, begin, len(timesteps))

    def start(step: int) -> Tensor:
        try:
            level = grid_level(scheduler, step)
        except ProbeError:
            level = None
        return latents(level)

    steering = _Steering(scheduler, choose, start, None)
    with steering.attached():
        yield
    _require_started(pipeline, steering)


def predictions_along(
    pipeline: Any,
    generate: Callable[[], object],
    latents: Callable[[NoiseLevel], Tensor],
    *,
    timesteps: Sequence[float] | None = None,
) -> list[Prediction]:
    """What the model predicts at the noise levels of its run, for latents that are given.

    `generate` calls the pipeline once; `latents` is called with a noise level and gives x_t
    (N, …). Every timestep of the run comes once, or those nearest to `timesteps`. The pipeline
    never finishes: nothing is decoded.
    """
    scheduler = _scheduler_of(pipeline)
    found: list[Prediction] = []
    given_latents: list[Tensor] = []

    def choose(run: Sequence[float]) -> Sequence[int]:
        # the other evaluations of a second-order step are not at a noise level of the run
        usable = [i for i in range(len(run)) if place_of_call(scheduler, i).first]
        if timesteps is None:
            return usable
        # some grids begin one step past the last that the model was trained on
        last = float(scheduler.config.get("num_train_timesteps", math.inf))
        if noise_family(scheduler) is not NoiseFamily.VP:
            last = math.inf
        usable = [i for i in usable if run[i] < last]
        nearest = [min(usable, key=lambda i: abs(run[i] - t)) for t in timesteps]
        return sorted(set(nearest))

    def start(step: int) -> Tensor:
        given_latents[:] = [latents(grid_level(scheduler, step))]
        return given_latents[0]

    def follow(step: int, given: Any) -> None:
        x, level = given_latents[0], grid_level(scheduler, step)
        output = given["model_output"].detach().clone()[: x.shape[0], : x.shape[1]]
        found.append(Prediction(step, float(given["timestep"]), level, x, output))

    steering = _Steering(scheduler, choose, start, follow)
    try:
        with steering.attached():
            generate()
    except _Enough:
        return found
    _require_started(pipeline, steering)
    return found


@contextmanager
def without_class(pipeline: Any) -> Iterator[None]:
    """While inside, the denoiser is told the class that stands for none, whichever was asked for.

    Classifier-free guidance trains it as one more class behind the last (DiT's label dropout).
    """
    import torch

    denoiser = denoiser_of(pipeline)
    null = getattr(denoiser, "config", {}).get("num_embeds_ada_norm")
    if null is None:
        raise ProbeError(
            f"Expected a model that was trained without a class too; {type(pipeline).__name__}'s "
            "knows no class that stands for none. Give the images' classes."
        )

    def replace(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("class_labels") is not None:
            kwargs = {**kwargs, "class_labels": torch.full_like(kwargs["class_labels"], null)}
        return args, kwargs

    handle = denoiser.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _require_started(pipeline: Any, steering: _Steering) -> None:
    if not steering.started:
        raise ProbeError(
            "Expected one run of the pipeline that calls scheduler.set_timesteps and "
            f"scheduler.step; {type(pipeline).__name__} did not. Its latents cannot be chosen."
        )

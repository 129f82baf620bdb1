"""A pipeline's denoiser as a function of x_t, at points of the way that one sample takes.

What the pipeline passes to its denoiser (timestep, text, sizes, guidance embeddings) is kept as it
was, so the function is the one that made the sample, whatever the family: x_t => the predicted x0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from evaluator.errors import ProbeError
from evaluator.probes.noise import NoiseFamily, NoiseLevel, noise_family, predict
from evaluator.probes.steps import StepChoice
from evaluator.probes.watch import PipelineWatch, StepCall, denoiser_of, is_compiled

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.branches import BranchRows

TOLERANCE = 1e-2
"""How far the denoiser's input may be from x_t times a number, as a share of its length; half
precision stays below."""


@dataclass(frozen=True, slots=True)
class DenoiserCall:
    """What the denoiser was called with, but for its first input."""

    denoiser: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    key: str | None
    """Keyword of the first input; None where it is the first of `args`."""
    dtype: torch.dtype
    """What the first input is given as."""

    def __call__(self, noisy: Tensor) -> Tensor:
        """(B, …) inputs => (B, …) outputs; everything else is repeated B times."""
        repeat = len(noisy)
        args = [_repeated(value, repeat) for value in self.args]
        kwargs = {name: _repeated(value, repeat) for name, value in self.kwargs.items()}
        if self.key is None:
            args[0] = noisy.to(self.dtype)
        else:
            kwargs[self.key] = noisy.to(self.dtype)
        return _answer(self.denoiser(*args, **kwargs))


@dataclass(frozen=True, slots=True)
class TrajectoryPoint:
    """One step of one sample."""

    step: int
    timestep: float
    level: NoiseLevel
    latents: Tensor
    """(…) x_t, as the scheduler received it."""
    x0: Tensor
    """(…) what the denoiser took the clean latents to be."""
    call: DenoiserCall
    scheduler: Any
    family: NoiseFamily
    input_scale: float
    """What x_t is multiplied by before the denoiser sees it."""
    output_scale: float
    """What the denoiser's answer is multiplied by before the scheduler sees it; −1 in places."""

    def denoise(self, latents: Tensor) -> Tensor:
        """(B, …) x_t => (B, …) predicted x0, each row by itself; differentiable."""
        output = _without_variance(self.call(self.input_scale * latents), latents)
        output = self.output_scale * output.to(latents)
        alpha, sigma = (latents.new_tensor(value) for value in self.level)
        levels = {"alpha": alpha, "sigma": sigma}
        return predict(self.scheduler, self.family, latents, output, **levels).x0


@contextmanager
def recorded_trajectory(pipeline: Any, steps: StepChoice) -> Iterator[list[TrajectoryPoint]]:
    """Generate one sample inside; the list holds the chosen steps' points on the way out.

    Raises ProbeError where the denoiser's input is not x_t alone: with classifier-free guidance it
    sees every sample twice, and the guided answer is no denoiser's.
    """
    denoiser = denoiser_of(pipeline)
    if denoiser is None or is_compiled(denoiser):
        found = "none" if denoiser is None else "a compiled one"
        raise ProbeError(
            f"Expected a pipeline with a UNet or transformer that can be differentiated; got "
            f"{found}. Leave torch.compile out."
        )
    recorder = _Recorder(pipeline, denoiser, steps)
    keep = denoiser.register_forward_pre_hook(recorder.keep_call, with_kwargs=True)
    try:
        with recorder.watch.attached(hook_denoiser=True):
            yield recorder.points
    finally:
        keep.remove()
    missing = sorted(set(recorder.watch.observed) - {point.step for point in recorder.points})
    if missing or not recorder.points:
        raise ProbeError(
            f"Expected one run of the pipeline; steps {missing or 'all'} did not come. Generate "
            "one sample with the pipeline that the model exposes."
        )


@contextmanager
def frozen(module: Any) -> Iterator[None]:
    """No gradients of the weights while inside: only the input's are wanted."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


class _Recorder:
    """Listens to one run, and makes a point of every chosen step."""

    def __init__(self, pipeline: Any, denoiser: Any, steps: StepChoice) -> None:
        self.points: list[TrajectoryPoint] = []
        self._scheduler = pipeline.scheduler
        self._family = noise_family(pipeline.scheduler)
        self.watch = PipelineWatch(pipeline, self, steps=steps, family=self._family)
        self._denoiser = denoiser
        self._last: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._calls: list[tuple[DenoiserCall, Tensor, Tensor]] = []

    def keep_call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the running call was given."""
        self._last = args, kwargs

    def denoiser_starts(self, step: int, latents: Tensor, rows: BranchRows | None) -> None:
        """Nothing to do: the call is kept when it is answered."""

    def denoiser_ends(self, step: int, output: Tensor, rows: BranchRows | None) -> None:
        """Keep the call with its input and its answer."""
        args, kwargs = self._last
        key = None
        if not args:
            key = "sample" if "sample" in kwargs else "hidden_states"
        given = args[0] if key is None else kwargs[key]
        call = DenoiserCall(self._denoiser, args, dict(kwargs), key, given.dtype)
        self._calls.append((call, given.detach().clone(), output.detach().clone()))

    def stepping(self, step: int, latents: Tensor, call: StepCall | None) -> None:
        """Make the point of a chosen step."""
        calls, self._calls = self._calls, []
        if call is None:
            return
        if len(calls) != 1 or len(latents) != 1 or calls[0][1].shape != latents.shape:
            rows = [len(given) for _, given, _ in calls]
            raise ProbeError(
                f"Expected one call of the denoiser with one sample in each step, as without "
                f"classifier-free guidance; got {rows} rows of {tuple(latents.shape[1:])} in the "
                "calls of a step. Set the guidance scale to 1, and leave conditions that are "
                "concatenated to the latents out."
            )
        made, seen, output = calls[0]
        given, answer = (_without_variance(x, latents) for x in (call.model_output, output))
        input_scale = _factor(seen, latents, "the denoiser's input is not x_t times a number")
        output_scale = _factor(given, answer, "the scheduler is not given the denoiser's answer")
        level = call.time.level
        assert level is not None
        x_t = latents.detach().clone()
        alpha, sigma = (x_t.new_tensor(value) for value in level)
        levels = {"alpha": alpha, "sigma": sigma}
        x0 = predict(self._scheduler, self._family, x_t, given.detach(), **levels).x0
        point = TrajectoryPoint(
            step, call.time.timestep, level, x_t[0], x0[0], made, self._scheduler, self._family,
            input_scale, output_scale,
        )  # fmt: skip
        self.points.append(point)


def _factor(found: Tensor, of: Tensor, otherwise: str) -> float:
    """The number c with found = c·of; ProbeError where there is none."""
    a, b = found.detach().flatten().double(), of.detach().flatten().double()
    if a.shape == b.shape:
        factor = float(a @ b / (b @ b).clamp_min(1e-300))
        whole = round(factor)
        factor = whole if abs(factor - whole) < 1e-6 else factor
        if float((a - factor * b).norm()) <= TOLERANCE * float(a.norm()) + 1e-12:
            return factor
    raise ProbeError(
        f"Expected a denoiser that is a function of x_t; got a pipeline where {otherwise}. Choose "
        "another pipeline or scheduler for this probe."
    )


def _repeated(value: Any, times: int) -> Any:
    """Tensors of one sample, in whatever they are nested, for `times` samples."""
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == 1:
        return value.expand(times, *value.shape[1:])
    if isinstance(value, Mapping):
        return {name: _repeated(item, times) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_repeated(item, times) for item in value)
    return value


def _answer(output: Any) -> Tensor:
    """The tensor that a denoiser answered with."""
    answer: Tensor = output[0] if isinstance(output, tuple) else output.sample
    return answer


def _without_variance(output: Tensor, latents: Tensor) -> Tensor:
    """Drop the second half of the channels where the model also predicts the variance."""
    return output if output.shape == latents.shape else output[:, : latents.shape[1]]

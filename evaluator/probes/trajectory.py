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

from evaluator.errors import ObservationError, ProbeError
from evaluator.pipelines import denoiser_of, has_compiled_part
from evaluator.probes.noise import NoiseFamily, NoiseLevel, noise_family, predict
from evaluator.probes.steps import StepChoice
from evaluator.probes.watch import PipelineWatch, StepCall

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.branches import BranchRows

TOLERANCE = 1e-4
"""How far the denoiser's input may be from x_t times a number, as a share of its length."""
HALF_TOLERANCE = 1e-2
"""The same in half precision."""


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

    rows: int
    """Rows of the call that was recorded: 2 where guidance batches both branches."""

    def __call__(self, noisy: Tensor) -> Tensor:
        """(R·B, …) inputs, branch by branch => (R·B, …) outputs; the rest is repeated B times."""
        repeat = len(noisy) // self.rows
        args = [_repeated(value, repeat, self.rows) for value in self.args]
        kwargs = {name: _repeated(value, repeat, self.rows) for name, value in self.kwargs.items()}
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
    calls: tuple[DenoiserCall, ...]
    """What the denoiser was asked in this step: once, or for each branch of the guidance."""
    weights: tuple[float, ...]
    """Factor of each row of the calls, in order: 1 without guidance, else 1 − g and g."""
    scheduler: Any
    family: NoiseFamily
    input_scale: float
    """What x_t is multiplied by before the denoiser sees it."""
    output_scale: float
    """What the denoiser's answer is multiplied by before the scheduler sees it; −1 in places."""

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        return self.calls[0].dtype

    def denoise(self, latents: Tensor) -> Tensor:
        """(B, …) x_t => (B, …) predicted x0, each row by itself; differentiable."""
        scaled = self.input_scale * latents
        parts: list[Tensor] = []
        for call in self.calls:
            answer = _without_variance(call(torch.cat([scaled] * call.rows)), latents)
            parts += answer.to(latents).chunk(call.rows)
        weighted = [weight * part for weight, part in zip(self.weights, parts, strict=True)]
        output = self.output_scale * torch.stack(weighted).sum(0)
        alpha, sigma = (latents.new_tensor(value) for value in self.level)
        levels = {"alpha": alpha, "sigma": sigma}
        return predict(self.scheduler, self.family, latents, output, **levels).x0


@contextmanager
def recorded_trajectory(
    pipeline: Any, steps: StepChoice, *, guidance: float = 1.0
) -> Iterator[list[TrajectoryPoint]]:
    """Generate one sample inside; the list holds the chosen steps' points on the way out.

    With classifier-free guidance of the scale g the function is the guided one, u + g·(c − u), of
    the two answers that the denoiser gives in a step. Raises ProbeError where the denoiser's input
    is not x_t alone, and where the scheduler is given something else than that sum.
    """
    denoiser = denoiser_of(pipeline)
    if denoiser is None or has_compiled_part(denoiser):
        found = "none" if denoiser is None else "a compiled one"
        raise ProbeError(
            f"Expected a pipeline with a UNet or transformer that can be differentiated; got "
            f"{found}. Leave torch.compile out."
        )
    if getattr(pipeline, "controlnet", None) is not None:
        raise ProbeError(
            f"Expected a denoiser that sees x_t alone; got {type(pipeline).__name__}, whose "
            "ControlNet sees it too. Leave it out: --set model.controlnet=null."
        )
    recorder = _Recorder(pipeline, denoiser, steps, guidance)
    keep = denoiser.register_forward_pre_hook(recorder.keep_call, with_kwargs=True)
    try:
        with recorder.watch.attached():
            yield recorder.points
    finally:
        keep.remove()
    missing = sorted(set(recorder.watch.observed) - {point.step for point in recorder.points})
    if missing or not recorder.points:
        raise ObservationError(
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

    def __init__(self, pipeline: Any, denoiser: Any, steps: StepChoice, guidance: float) -> None:
        self.points: list[TrajectoryPoint] = []
        self._scheduler = pipeline.scheduler
        self._family = noise_family(pipeline.scheduler)
        self.watch = PipelineWatch(pipeline, self, steps=steps, family=self._family)
        self._denoiser = denoiser
        self._guidance = guidance
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
        call = DenoiserCall(self._denoiser, args, dict(kwargs), key, given.dtype, len(given))
        self._calls.append((call, given.detach().clone(), output.detach().clone()))

    def stepping(self, step: int, latents: Tensor, call: StepCall | None) -> None:
        """Make the point of a chosen step."""
        calls, self._calls = self._calls, []
        if call is None:
            return
        # some pipelines step both branches, which are one sample
        x_t, given = latents.detach()[:1].clone(), call.model_output.detach()[:1]
        num_rows = sum(made.rows for made, _, _ in calls)
        same = all(torch.equal(row, latents[0]) for row in latents[1:])
        fits = all(seen.shape[1:] == latents.shape[1:] for _, seen, _ in calls)
        if num_rows not in (1, 2) or not same or not fits:
            rows = [(len(seen), *seen.shape[1:]) for _, seen, _ in calls]
            raise ProbeError(
                f"Expected a denoiser that is asked about one sample of {tuple(latents.shape[1:])} "
                f"in each step, once or for both branches of classifier-free guidance; got {rows}. "
                "Leave conditions that are concatenated to the latents out."
            )
        if not bool(given.isfinite().all()):
            raise ObservationError(
                f"Expected a finite prediction, got NaN or infinity in step {step}. Try --dtype "
                "float32; if it stays, the weights are damaged."
            )
        seen_rows = torch.cat([seen for _, seen, _ in calls])
        why = "the denoiser's input is not x_t times a number"
        input_scale = _factor(seen_rows, torch.cat([x_t] * num_rows), why)
        answers = torch.cat([_without_variance(output, latents) for _, _, output in calls])
        given = _without_variance(given, latents)
        weights, output_scale = _combination(given, answers, self._guidance)
        level = call.time.level
        assert level is not None
        alpha, sigma = (x_t.new_tensor(value) for value in level)
        levels = {"alpha": alpha, "sigma": sigma}
        x0 = predict(self._scheduler, self._family, x_t, given, **levels).x0
        point = TrajectoryPoint(
            step, call.time.timestep, level, x_t[0], x0[0], tuple(made for made, _, _ in calls),
            weights, self._scheduler, self._family, input_scale, output_scale,
        )  # fmt: skip
        self.points.append(point)


def _combination(
    given: Tensor, answers: Tensor, guidance: float
) -> tuple[tuple[float, ...], float]:
    """Factors of (R, …) answers, and of their sum, that make what the scheduler is given (1, …).

    Which of two is the conditional one is seen by trying; ProbeError where neither fits.
    """
    otherwise = "the scheduler is not given the denoiser's answer"
    if len(answers) == 1:
        return (1.0,), _factor(given, answers, otherwise)
    otherwise = f"the scheduler is not given u + {guidance:g}·(c − u) of the two answers"
    orders = [(1 - guidance, guidance), (guidance, 1 - guidance)]
    sums = [first * answers[:1] + second * answers[1:] for first, second in orders]
    # where both answers are the same either order is right
    best = min(range(2), key=lambda i: min(_distance(given, sums[i]), _distance(given, -sums[i])))
    return orders[best], _factor(given, sums[best], otherwise)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm())


def _factor(found: Tensor, of: Tensor, otherwise: str) -> float:
    """The number c with found = c·of; ProbeError where there is none."""
    half = min(found.dtype.itemsize, of.dtype.itemsize) < 4
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    a, b = found.detach().flatten().double(), of.detach().flatten().double()
    if a.shape == b.shape:
        factor = float(a @ b / (b @ b).clamp_min(1e-300))
        whole = round(factor)
        factor = whole if abs(factor - whole) < 1e-6 else factor
        if float((a - factor * b).norm()) <= tolerance * float(a.norm()) + 1e-12:
            return factor
    raise ProbeError(
        f"Expected a denoiser that is a function of x_t; got a pipeline where {otherwise}, as "
        "where guidance is rescaled or normalised. Ask for --guidance 1, or switch that off with "
        "--set model.arguments."
    )


def _repeated(value: Any, times: int, rows: int) -> Any:
    """Tensors of `rows` rows, in whatever they are nested, each row `times` times."""
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == rows:
        if rows == 1:
            return value.expand(times, *value.shape[1:])
        return value.repeat_interleave(times, dim=0)
    if isinstance(value, Mapping):
        return {name: _repeated(item, times, rows) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_repeated(item, times, rows) for item in value)
    return value


def _answer(output: Any) -> Tensor:
    """The tensor that a denoiser answered with."""
    answer: Tensor = output[0] if isinstance(output, tuple) else output.sample
    return answer


def _without_variance(output: Tensor, latents: Tensor) -> Tensor:
    """Drop the second half of the channels where the model also predicts the variance."""
    return output if output.shape[1:] == latents.shape[1:] else output[:, : latents.shape[1]]

"""The latents probe: what x_t, the predicted x0 and the predicted noise look like at each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import torch

from evaluator.errors import ObservationError, ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.branches import BranchRows, samples_of
from evaluator.probes.latent_statistics import LatentTables, latent_statistics
from evaluator.probes.latents_table import latents_table
from evaluator.probes.noise import NoiseLevel, noise_family, predict
from evaluator.probes.steps import StepChoice
from evaluator.probes.watch import PipelineWatch, StepCall, StepTime

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.protocols import GenerativeModel
    from evaluator.records import Prompt

MAX_PENDING_BYTES = 16 * 2**20
"""Latents waiting to be digested; more is digested at once. Of half precision, digesting takes
about thirty times as much for a moment: float64, and a sorted copy."""


class LatentsProbe:
    """Moments of x_t and of the predictions made from it, for each observed step.

    Works for every pipeline whose scheduler mixes signal and noise in a known way; a step's row
    is that of its first model evaluation (second-order samplers make several). `guidance_norm` is
    null where there is no guidance, and measured around a compiled denoiser as around any other.
    """

    def __init__(self, *, steps: str | int | Sequence[int] = "all") -> None:
        self.name = "latents"
        self.steps = StepChoice.parse(steps, name="probes.latents.steps")

    @contextmanager
    def attach(
        self, model: GenerativeModel, prompts: Sequence[Prompt], positions: Sequence[int]
    ) -> Iterator[LatentsObservation]:
        """Watch one call of `model.generate(prompts, …)`; `positions` are not needed."""
        pipeline = model.pipeline
        observation = LatentsObservation(pipeline, prompts, self.steps)
        with observation.watch.attached():
            yield observation
        observation.digest()


class Snapshot(NamedTuple):
    """One observed step. The tensors are copies: schedulers may work in place."""

    latents: Tensor
    """(B, …)."""
    previous: Tensor | None
    """(B, …) of the step before; None at the first."""
    model_output: Tensor
    """(B, …)."""
    guidance_norm: Tensor | None
    """(B,), None where the branches are unknown."""
    level: NoiseLevel


class LatentsObservation:
    """What the scheduler was given during one batch."""

    def __init__(self, pipeline: Any, prompts: Sequence[Prompt], steps: StepChoice) -> None:
        scheduler = getattr(pipeline, "scheduler", None)
        self._family = noise_family(scheduler) if scheduler is not None else None
        self.watch = PipelineWatch(pipeline, self, steps=steps, family=self._family)
        self._scheduler = scheduler
        self._denoiser = denoiser_of(pipeline)
        self._prompts = prompts
        self._previous: Tensor | None = None
        self._answers: list[Tensor] = []
        self._pending: list[Snapshot] = []
        self._pending_bytes = 0
        self._times: dict[int, StepTime] = {}
        self._parts: list[LatentTables] = []
        self._num_rows = 0

    def denoiser_starts(self, step: int, latents: Tensor, rows: BranchRows | None) -> None:
        """Nothing to do: what counts is the answer."""

    def denoiser_ends(self, step: int, output: Tensor, rows: BranchRows | None) -> None:
        """Keep the answer: guidance comes in one call with twice the rows, or in two calls."""
        self._answers.append(output.detach().clone())

    def stepping(self, step: int, latents: Tensor, call: StepCall | None) -> None:
        """Keep copies of what the scheduler receives."""
        answers, self._answers = self._answers, []
        twice = self._is_twice(latents)
        latents = latents.detach().clone()
        if twice:
            latents = latents.chunk(2)[0]
        if call is not None:
            level = call.time.level
            assert level is not None
            self._check_answers(answers, step)
            output = _without_variance(call.model_output.detach().clone(), latents)
            output = output.chunk(2)[0] if twice else output
            guidance_norm = _guidance_norm(answers, output)
            snapshot = Snapshot(latents, self._previous, output, guidance_norm, level)
            self._times[step] = call.time
            self._pending.append(snapshot)
            self._pending_bytes += 2 * latents.nbytes
            self._num_rows = latents.shape[0]
        self._previous = latents
        if self._pending_bytes > MAX_PENDING_BYTES:
            self.digest()

    def _check_answers(self, answers: Sequence[Tensor], step: int) -> None:
        """ProbeError where another network took a step: its guidance would be told as none."""
        if self._denoiser is not None and not answers:
            raise ProbeError(
                f"Expected {type(self._denoiser).__name__} to run at every step; at step {step} it "
                "did not, as in pipelines that share the steps between several denoisers. Remove "
                "latents from the probes, or choose earlier steps."
            )

    def _is_twice(self, latents: Tensor) -> bool:
        """Whether every sample is there twice: DiT's pipeline steps both branches of guidance."""
        if latents.shape[0] != 2 * len(self._prompts):
            return False
        first, second = latents.chunk(2)
        return torch.equal(first, second)

    def digest(self) -> None:
        """Statistics of the pending steps, all at once, in float64."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if not pending:
            return
        with torch.no_grad():
            self._parts.append(self._statistics(pending))

    def _statistics(self, pending: list[Snapshot]) -> LatentTables:
        assert self._family is not None
        exact = _exact(pending[0].latents.device)
        latents = torch.stack([snapshot.latents for snapshot in pending]).to(exact)
        outputs = torch.stack([snapshot.model_output for snapshot in pending]).to(exact)
        nothing = torch.full_like(pending[0].latents, math.nan)
        previous = torch.stack([nothing if s.previous is None else s.previous for s in pending]).to(
            exact
        )
        unknown = latents.new_full(latents.shape[1:2], math.nan)
        guidance = torch.stack(
            [unknown if s.guidance_norm is None else s.guidance_norm.to(unknown) for s in pending]
        )
        form = (-1, *[1] * (latents.ndim - 1))
        alpha = latents.new_tensor([snapshot.level.alpha for snapshot in pending]).view(form)
        sigma = latents.new_tensor([snapshot.level.sigma for snapshot in pending]).view(form)
        levels = {"alpha": alpha, "sigma": sigma}
        x0, noise = predict(self._scheduler, self._family, latents, outputs, **levels)
        return latent_statistics(latents, previous, outputs, x0, noise, guidance, **levels)

    def tables(self) -> Mapping[str, pa.Table]:
        """`latents`; ProbeError if not every step was seen."""
        missing = sorted(set(self.watch.observed) - set(self._times))
        if not self._parts or missing:
            seen = f"steps {missing} did not come" if missing else "scheduler.step was never called"
            raise ObservationError(
                "Expected one run of the pipeline while the latents probe was attached; "
                f"{seen}. Generate between entering and leaving attach(), with the pipeline that "
                "the model exposes."
            )
        samples = samples_of(self._prompts, self.watch.encodings.texts, self._num_rows)
        return {"latents": latents_table(self._parts, samples=samples, times=self._times)}


def _guidance_norm(answers: Sequence[Tensor], output: Tensor) -> Tensor | None:
    """‖c − u‖/√d of each sample; None without guidance: no call was watched, or one of B rows.

    Which branch is which does not matter: one call with twice the rows of `output`, (2B, …), or
    two calls with as many, as pipelines with classifier-free guidance make them. ProbeError for
    anything else: guidance of three branches has no single c − u.
    """
    num_rows = output.shape[0]
    rows = [answer.shape[0] for answer in answers]
    if rows in ([], [num_rows]):
        return None
    if rows == [num_rows, num_rows]:
        first, second = answers
    elif rows[0] == 2 * num_rows:
        first, second = answers[0].chunk(2)
    else:
        raise ProbeError(
            f"Expected a step's denoiser to answer once or twice for each of {num_rows} samples; "
            f"got calls of {', '.join(map(str, rows))} rows, as guidance by more than a prompt "
            "makes them (image guidance, perturbed attention). Remove latents from the probes."
        )
    difference = first - second
    if difference.ndim == 4:  # without the variance that some models predict as well
        difference = difference[:, : output.shape[1]]
    flat = difference.flatten(1).to(_exact(difference.device))
    norm: Tensor = flat.norm(dim=1) / math.sqrt(flat.shape[1])
    return norm


def _exact(device: torch.device) -> torch.dtype:
    """float64, but on Apple's GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def _without_variance(output: Tensor, latents: Tensor) -> Tensor:
    """Drop the second half of the channels where the model also predicts the variance."""
    if output.shape == latents.shape:
        return output
    return output[:, : latents.shape[1]]

"""`probe jacobian`: how many directions a denoiser lets through, along the way of its samples."""

from __future__ import annotations

import dataclasses
import inspect
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError, ProbeError, SampleError
from evaluator.probes.jacobian import (
    BATCH,
    ETA,
    NUM_CHECKS,
    Spectrum,
    exact_spectrum,
    numerical_rank,
    randomised_spectrum,
)
from evaluator.probes.latent_space import LatentSpace
from evaluator.probes.steps import StepChoice
from evaluator.probes.trajectory import TrajectoryPoint, frozen, recorded_trajectory
from evaluator.probes.watch import denoiser_of
from evaluator.probing.inputs import ModelRequest, ProbedModel, load_model
from evaluator.probing.jacobian_pictures import (
    PointSpectrum,
    rank_chart,
    spectrum_chart,
    vector_grid,
)
from evaluator.probing.outputs import open_folder, provenance
from evaluator.probing.progress import Progress
from evaluator.records import Prompt
from evaluator.seeds import hashed_seed, stream_seed

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from evaluator.probing.outputs import ProbeFolder

WHOLE_UP_TO = 4096
"""Dimensions up to which the whole Jacobian is computed: 128 MiB in float64."""
LARGE_BATCH = 4
"""Copies of a larger one: the second derivative of attention keeps the whole matrix of each."""
NUM_VALUES = 64
"""Singular values of a larger one."""
ROUNDING = 32
"""Singular values below this many units of rounding count as nothing: x0 is a difference."""


@dataclass(frozen=True, slots=True)
class JacobianRequest:
    """What the command line asks for."""

    model: ModelRequest
    prompts: tuple[str, ...] = ()
    """Texts; samples take them in turn. None for a model without text."""
    class_label: int | None = None
    """Class, for a class-conditional model."""
    samples: int = 4
    """Trajectories."""
    steps: str | int | Sequence[int] = 6
    """Which steps of each trajectory: `all`, how many, or a list."""
    values: int | None = None
    """Singular values found by products with vectors; None: the whole Jacobian where it is small,
    else 64."""
    eta: float = ETA
    """Share of the root of the energy that the rank stands for."""
    vectors: int = 5
    """Singular vectors drawn."""
    batch: int | None = None
    """Copies of x_t that are differentiated at once; None: 32, and 4 of a large one."""


@dataclass(frozen=True, slots=True)
class StepRank:
    """The ranks of all samples at one step."""

    step: int
    timestep: float
    log_snr: float
    ranks: tuple[int | None, ...]
    """One a sample; None: more than the singular values found; 0: no direction is let through, as
    where a training image is repeated."""
    median: float | None


@dataclass(frozen=True, slots=True)
class JacobianResult:
    """What was found, and where it lies."""

    path: Path
    dim: int
    """Numbers in x_t."""
    values: int
    """Singular values found: `dim` for the whole Jacobian."""
    eta: float
    steps: tuple[StepRank, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For the command line."""
        how = "whole" if self.values == self.dim else f"{self.values} values by products"
        lines = [
            f"numerical rank of the denoiser's Jacobian ({self.dim} dimensions, {how}):",
            f"the first r with √(s₁² + … + s_r²) > {self.eta:g}·√Σs²",
            f"{'step':>4} {'timestep':>9} {'log-SNR':>8} {'median':>7}  ranks",
        ]
        for at in self.steps:
            ranks = " ".join(f">{self.values}" if r is None else str(r) for r in at.ranks)
            median = f">{self.values}" if at.median is None else f"{at.median:g}"
            lines.append(
                f"{at.step:>4} {at.timestep:>9.4g} {at.log_snr:>8.2f} {median:>7}  {ranks}"
            )
        return [*lines, *self.notes, f"written to {self.path}"]


def probe_jacobian(request: JacobianRequest, output: Path | None = None) -> JacobianResult:
    """Ranks and spectra as a table, singular vectors as a picture.

    The Jacobian is that of the conditional denoiser without classifier-free guidance, on a
    trajectory that it makes itself, with respect to x_t/a: the clean image plus noise. So it
    compares between schedules, and is the posterior covariance over σ² for an optimal denoiser.
    """
    import torch

    if not 0 < request.eta < 1:
        raise ConfigError(
            f"--eta: expected a number between 0 and 1, got {request.eta:g}; the paper's is 0.99"
        )
    choice = StepChoice.parse(request.steps)
    probed = load_model(_unguided(request.model))
    prompts = _prompts(request, probed)
    progress = Progress("jacobian", request.samples)
    found: list[PointSpectrum] = []
    for number in range(request.samples):
        points = _trajectory(probed, prompts[number], choice)
        with frozen(denoiser_of(probed.pipeline)):
            for point in points:
                if point.level.alpha == 0:
                    continue  # pure noise: no clean image to differentiate with respect to
                seed = stream_seed(probed.seed, "jacobian", number, point.step)
                generator = torch.Generator().manual_seed(seed)
                spectrum = spectrum_at(
                    point, values=request.values, batch=request.batch, generator=generator
                )
                floor = ROUNDING * torch.finfo(point.call.dtype).eps
                rank = numerical_rank(spectrum, eta=request.eta, floor=floor)
                found.append(PointSpectrum(number, point, spectrum, rank))
        progress.advance()
    if not found:
        raise ProbeError(
            f"steps: expected steps with some signal, got pure noise at {request.steps}; ask for "
            "later steps, such as --steps all"
        )
    folder = open_folder("jacobian", probed.name, output)
    folder.table("jacobian.parquet", _table(found, prompts))
    folder.picture("ranks.png", rank_chart(found, probed.name))
    folder.picture("spectra.png", spectrum_chart(found))
    notes = _draw_vectors(folder, found, probed, request.vectors)
    result = JacobianResult(
        path=folder.path,
        dim=found[0].point.latents.numel(),
        values=len(found[0].spectrum.values),
        eta=request.eta,
        steps=_by_step(found),
        notes=(*_precision(found), *notes),
    )
    arguments = {name: getattr(request, name) for name in request.__slots__ if name != "model"}
    folder.finish(result, arguments=arguments, provenance=provenance(probed))
    return result


def spectrum_at(
    point: TrajectoryPoint,
    *,
    values: int | None,
    batch: int | None = None,
    generator: torch.Generator,
) -> Spectrum:
    """The spectrum of ∂x0/∂(x_t/a) at a point: whole if it is small and nothing else is asked."""
    x = point.latents.float()
    size = x.numel()
    batch = batch or (BATCH if size <= WHOLE_UP_TO else LARGE_BATCH)
    if values is None and size <= WHOLE_UP_TO:
        raw = exact_spectrum(point.denoise, x, batch=batch)
    else:
        count = min(values or NUM_VALUES, size)
        raw = randomised_spectrum(
            point.denoise, x, num_values=count, generator=generator, batch=batch
        )
    a = point.level.alpha
    return raw._replace(
        values=a * raw.values,
        energy=a**2 * raw.energy,
        energy_error=a**2 * raw.energy_error,
        bound=a * raw.bound,
    )


def _unguided(request: ModelRequest) -> ModelRequest:
    if request.guidance_scale not in (None, 1.0):
        raise ConfigError(
            f"guidance scale: expected 1 or none, got {request.guidance_scale:g}: a guided answer "
            "is that of two denoisers; leave it out"
        )
    return dataclasses.replace(request, guidance_scale=1.0)


def _prompts(request: JacobianRequest, probed: ProbedModel) -> list[Prompt]:
    """One for each sample; ConfigError where the model takes a text and none was given."""
    takes = inspect.signature(probed.pipeline.__call__).parameters
    if "prompt" in takes and not request.prompts:
        raise ConfigError(
            f"--prompt: expected a text for {type(probed.pipeline).__name__}, got none; add "
            '--prompt "…", which may be repeated'
        )
    if "class_labels" in takes and request.class_label is None:
        raise ConfigError("--class-label: expected a class for this model, got none")
    texts = request.prompts or (None,)
    return [
        Prompt(f"sample-{i}", texts[i % len(texts)], class_label=request.class_label)
        for i in range(request.samples)
    ]


def _trajectory(probed: ProbedModel, prompt: Prompt, steps: StepChoice) -> list[TrajectoryPoint]:
    """The points of one sample, made as `run` makes it."""
    seed = hashed_seed(probed.seed, prompt.key, 0)
    with recorded_trajectory(probed.pipeline, steps) as points:
        (made,) = probed.model.generate([prompt], [0], [seed])
    if isinstance(made, SampleError):
        raise ConfigError(f"--prompt: {made}")
    return points


def _by_step(found: Sequence[PointSpectrum]) -> tuple[StepRank, ...]:
    summaries = []
    for step in sorted({item.point.step for item in found}):
        here = [item for item in found if item.point.step == step]
        point = here[0].point
        ranks = tuple(item.rank.rank for item in here)
        median = statistics.median(math.inf if rank is None else rank for rank in ranks)
        known = median if math.isfinite(median) else None
        level = point.level.log_snr
        summaries.append(StepRank(step, point.timestep, level, ranks, known))
    return tuple(summaries)


def _precision(found: Sequence[PointSpectrum]) -> tuple[str, ...]:
    """How far the numbers are known, where not the whole Jacobian was computed."""
    spectra = [item.spectrum for item in found if item.spectrum.bound > 0 and item.rank.rank != 0]
    if not spectra:
        return ()
    energy = max(s.energy_error / s.energy for s in spectra)
    bound = max(s.bound for s in spectra)
    return (
        f"by products: Σs² known to ±{100 * energy:.2g} % or better, each value to ±{bound:.2g} "
        f"(more has a probability of 1e-{NUM_CHECKS})",
    )


def _table(found: Sequence[PointSpectrum], prompts: Sequence[Prompt]) -> pa.Table:
    """One row for each sample and step."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {
        "sample": [item.sample for item in found],
        "prompt": [prompts[item.sample].text for item in found],
        "step": [item.point.step for item in found],
        "timestep": [item.point.timestep for item in found],
        "alpha": [item.point.level.alpha for item in found],
        "sigma": [item.point.level.sigma for item in found],
        "log_snr": [item.point.level.log_snr for item in found],
        "rank": [item.rank.rank for item in found],
        "rank_low": [item.rank.low for item in found],
        "rank_high": [item.rank.high for item in found],
        "energy": [item.spectrum.energy for item in found],
        "energy_error": [item.spectrum.energy_error for item in found],
        "value_bound": [item.spectrum.bound for item in found],
        "singular_values": [item.spectrum.values.tolist() for item in found],
    }
    return pa.table(columns)


def _draw_vectors(
    folder: ProbeFolder, found: Sequence[PointSpectrum], probed: ProbedModel, count: int
) -> tuple[str, ...]:
    """The directions of the first sample, where its latents are an image's; else a note."""
    own = [item for item in found if item.sample == 0]
    if own[0].point.latents.ndim != 3:
        return ("no vectors.png: this family packs its latents into tokens",)
    folder.picture("vectors.png", vector_grid(own, LatentSpace(probed.pipeline), count))
    return ()

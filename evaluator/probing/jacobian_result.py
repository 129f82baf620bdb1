"""What `probe jacobian` found, step by step, in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator.probes.jacobian import NUM_CHECKS
from evaluator.probing.jacobian_pictures import PointSpectrum


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
    guidance: float | None
    """Scale of the guidance that is part of the denoiser; 1 or None: the conditional one alone."""
    steps: tuple[StepRank, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For the command line."""
        how = "whole" if self.values == self.dim else f"{self.values} values by products"
        which = "the denoiser's Jacobian"
        if self.guidance is not None:
            which += f" at guidance {self.guidance:g}"
        lines = [
            f"numerical rank of {which} ({self.dim} dimensions, {how}):",
            f"the first r with √(s₁² + … + s_r²) > {self.eta:g}·√Σs²",
            f"{'step':>4} {'timestep':>9} {'log-SNR':>8} {'median':>7}  ranks",
        ]
        for at in self.steps:
            ranks = " ".join(f">{self.values}" if r is None else str(r) for r in at.ranks)
            median = f">{self.values}" if at.median is None else f"{at.median:g}"
            lines.append(
                f"{at.step:>4} {at.timestep:>9.4g} {at.log_snr:>8.2f} {median:>7}  {ranks}"
            )
        notes = [f"note: {note}" for note in self.notes]
        return [*lines, *notes, f"written: {self.path}"]


def ranks_by_step(found: Sequence[PointSpectrum]) -> tuple[StepRank, ...]:
    """The ranks of all samples at each step."""
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


def precision_notes(found: Sequence[PointSpectrum]) -> tuple[str, ...]:
    """How far the numbers are known, where not the whole Jacobian was computed."""
    spectra = [item.spectrum for item in found if item.spectrum.bound > 0 and item.rank.rank != 0]
    if not spectra:
        return ()
    energy = max(s.energy_error / s.energy for s in spectra)
    bound = max(s.bound for s in spectra)
    if any(s.bound >= float(s.values[0]) for s in spectra):
        return (
            f"by products: Σs² known to ±{100 * energy:.2g} % or better; too few values to say how "
            "far each is known: ask for more with --values",
        )
    return (
        f"by products: Σs² known to ±{100 * energy:.2g} % or better, each value to ±{bound:.2g} "
        f"(more has a probability of 1e-{NUM_CHECKS})",
    )

"""Whether a sampler keeps the noise that its schedule says: distribution collapse, and where.

Ancestral sampling takes noise away and puts some back at every step. Left out, the latents hold
ever less noise than the model is told, and all samples end near the mean of the distribution.
Two independent statistics of `latents` then fall below 1 together while noise prevails:

    norm      ‖x_t‖ / √(d (ᾱ min(1, x̂0²) + 1 − ᾱ)) · 1/√(a² + b²), from the latents alone;
              x̂0² is the mean square of the predicted x0, which latents scaled to unit
              variance do not exceed, but predictions at high noise and strong guidance do
    noise     the standard deviation of the predicted noise, from the model

A step is bad where the means of both over the samples lie below the threshold. Each alone has
innocent causes: a dark image lowers the norm, an untrained model predicts too little noise. A
model that does so for the first latents, which are sound, is not believed later either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evaluator.errors import ProbeError

COLUMNS = ("step", "log_snr", "mean", "std", "norm", "norm_ratio", "x0_mean", "x0_std", "eps_std")
"""Of the table `latents`; what `collapse` needs."""

MAX_LOG_SNR = 2.0
"""Later steps hold so little noise that a model cannot tell how much is missing."""

TOLERANCE = 0.1
"""Means less than this below 1 are never called bad. In sound runs of the digits model (20 and 50
steps of DDPM, guidance 1 to 5, 416 samples) the larger of the two means is never below 0.997;
without the noise, it falls to 0.82 in two of 50 steps and to 0.44 in twelve."""

NUM_DEVIATIONS = 4.5
"""A few small samples vary more than `TOLERANCE`: the norm of d normal values has a relative
standard deviation of 1/√(2d), so the mean over n samples may lie this many times 1/√(2dn) below
1. One in 300,000 normal values lies that low, and none of the 416 sound samples did, each taken
as a run of its own: the rate of false alarms is below 0.8 % with 95 % confidence."""

PERSISTENCE = 2
"""Observed steps in a row that must be bad; fewer where fewer are observed."""


@dataclass(frozen=True, slots=True)
class Collapse:
    """Where the latents of a run lose their noise."""

    first_step: int
    """The first step whose latents lack noise: the step before it put too little back."""
    log_snr: float
    """Of that step."""
    norm: float
    """Norm of the latents relative to the expected one, at the worst step; mean over samples."""
    noise: float
    """Standard deviation of the predicted noise at the worst step; mean over samples."""
    worst_step: int
    threshold: float
    """Below which both are bad."""
    num_samples: int

    def __str__(self) -> str:
        found = (
            f"From step {self.first_step} (log-SNR {self.log_snr:.2f}) on the latents hold less "
            f"noise than their schedule says: at step {self.worst_step} their norm is "
            f"{self.norm:.2f} and the predicted noise {self.noise:.2f} of what is expected, over "
            f"{self.num_samples:,} samples; both stay above {self.threshold:.2f} in sound runs. "
        )
        if self.first_step == 0:
            return found + (
                "It is so from the start: multiply the initial noise by init_noise_sigma."
            )
        return found + (
            "The sampler seems to leave out the noise that ancestral sampling adds at every step: "
            "check what its step() does with variance and generator."
        )


class _Step(NamedTuple):
    """Sums over the samples of one step."""

    num: int
    norm: float
    noise: float
    log_snr: float
    size: float

    def merged(self, other: _Step) -> _Step:
        return _Step(
            self.num + other.num,
            self.norm + other.norm,
            self.noise + other.noise,
            other.log_snr,
            other.size,
        )


@dataclass
class NoiseContent:
    """Accumulates tables of `latents`, shard by shard, in any order."""

    steps: dict[int, _Step] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Add a table with `COLUMNS`; one without them adds nothing."""
        if not table.num_rows or not set(COLUMNS) <= set(table.column_names):
            return
        c = {name: table.column(name).to_numpy().astype(np.float64) for name in COLUMNS}
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            share = 1 / (1 + np.exp(-c["log_snr"]))  # ᾱ
            x0 = np.minimum(1.0, c["x0_mean"] ** 2 + c["x0_std"] ** 2)
            # Without any signal, x0 cannot be told from the model's output.
            x0 = np.where(share > 0, x0, 1.0)
            norm = c["norm_ratio"] / np.sqrt(share * x0 + 1 - share)
            size = c["norm"] ** 2 / (c["mean"] ** 2 + c["std"] ** 2)
        known = np.isfinite(norm) & np.isfinite(c["eps_std"]) & np.isfinite(size)
        known &= c["log_snr"] <= MAX_LOG_SNR
        for step in np.unique(c["step"][known]).astype(int).tolist():
            of = known & (c["step"] == step)
            found = _Step(
                num=int(of.sum()),
                norm=float(norm[of].sum()),
                noise=float(c["eps_std"][of].sum()),
                log_snr=float(c["log_snr"][of][0]),
                size=float(size[of][0]),
            )
            self.steps[step] = self.steps[step].merged(found) if step in self.steps else found

    def finding(self) -> Collapse | None:
        """What is wrong; None for a sound run, and where the model or the steps cannot tell."""
        order = sorted(self.steps)
        if not order:
            return None
        steps = [self.steps[step] for step in order]
        num = max(step.num for step in steps)
        size = max(1.0, steps[0].size)
        deviation = 1 / math.sqrt(2 * size * num)
        threshold = 1 - max(TOLERANCE, NUM_DEVIATIONS * deviation)
        content: NDArray[np.float64] = np.array(
            [(step.norm / step.num, step.noise / step.num) for step in steps]
        )
        if content[0, 0] >= threshold > content[0, 1]:
            return None  # it misses the noise in sound latents: the model is no judge
        highest = content.max(axis=1)
        detected = _first_run(highest < threshold, min(PERSISTENCE, len(order)))
        if detected is None:
            return None
        # The fall began before it crossed the threshold: go back while it is beyond chance.
        first = detected
        while first > 0 and highest[first - 1] < 1 - 2 * deviation:
            first -= 1
        worst = int(highest.argmin())
        return Collapse(
            first_step=order[first],
            log_snr=steps[first].log_snr,
            norm=float(content[worst, 0]),
            noise=float(content[worst, 1]),
            worst_step=order[worst],
            threshold=threshold,
            num_samples=num,
        )


def _first_run(bad: NDArray[np.bool_], length: int) -> int | None:
    """Index at which `length` bad ones in a row begin."""
    for start in range(len(bad) - length + 1):
        if bad[start : start + length].all():
            return start
    return None


def collapse(latents: pa.Table) -> Collapse | None:
    """Distribution collapse in a run, from its table `latents`; None where there is none.

    Every observed step counts, and a run of many shards is one table of all of them. ProbeError
    if columns are missing. Independent of the scheduler: a deterministic sampler keeps its noise
    too, and only loses what its schedule takes away.
    """
    missing = sorted(set(COLUMNS) - set(latents.column_names))
    if missing:
        raise ProbeError(
            f"Expected the table of the latents probe; got one without {', '.join(missing)}. "
            "Read latents.parquet of a shard."
        )
    content = NoiseContent()
    content.add(latents)
    return content.finding()

"""Pictures of Jacobians: ranks against log-SNR, spectra, and singular vectors as images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from evaluator.probes.jacobian import Rank, Spectrum
from evaluator.probes.latent_space import to_images
from evaluator.probes.steps import StepChoice
from evaluator.probes.trajectory import TrajectoryPoint
from evaluator.probing.pictures import Curve, Picture, curve_chart, image_grid

if TYPE_CHECKING:
    from torch import Tensor

MAX_ROWS = 12
"""Steps drawn."""
NUM_SPECTRA = 4
LEAST = 1e-6
"""Singular values below are rounding, and stretch a logarithmic scale."""


class PointSpectrum(NamedTuple):
    """One sample at one step."""

    sample: int
    point: TrajectoryPoint
    spectrum: Spectrum
    rank: Rank


def rank_chart(found: Sequence[PointSpectrum], name: str) -> Picture:
    """The median rank against log-SNR, and the least and the most of the samples."""
    steps: dict[int, list[PointSpectrum]] = {}
    for item in found:
        if item.rank.rank:  # the scale is logarithmic
            steps.setdefault(item.point.step, []).append(item)
    ranks = [[float(item.rank.rank or 0) for item in here] for here in steps.values()]
    curve = Curve(
        x=[here[0].point.level.log_snr for here in steps.values()],
        y=[statistics.median(here) for here in ranks],
        low=[min(here) for here in ranks],
        high=[max(here) for here in ranks],
        label="median, least, most",
    )
    title = f"{name}: numerical rank of the denoiser's Jacobian; 0 is not drawn"
    return curve_chart([curve], title=title, x_label="log-SNR (noise left, image right)")


def spectrum_chart(found: Sequence[PointSpectrum]) -> Picture:
    """The singular values of the first sample, at some of its steps."""
    own = [item for item in found if item.sample == 0]
    chosen = [own[i] for i in StepChoice.parse(NUM_SPECTRA).select(len(own))]
    curves = []
    for item in chosen:
        values = [value for value in item.spectrum.values.tolist() if value > LEAST]
        if not values:
            continue
        nothing = [math.nan] * len(values)
        places = [float(i + 1) for i in range(len(values))]
        curves.append(Curve(places, values, nothing, nothing, f"t = {item.point.timestep:.4g}"))
    return curve_chart(
        curves,
        title="Singular values of the derivative of x0 with respect to x_t/a",
        x_label="number",
    )


def vector_grid(
    own: Sequence[PointSpectrum],
    decode: Callable[[Tensor], Tensor],
    count: int,
    *,
    is_pixels: bool,
) -> Picture:
    """The predicted x0 of one sample and the leading directions there, step by step.

    `decode` makes pixels (N, 3, H, W) in [−1, 1] of latents (N, …).
    """
    shown = [own[i] for i in StepChoice.parse(MAX_ROWS).select(len(own))]
    return image_grid(
        [_row(item, decode, count, is_pixels=is_pixels) for item in shown],
        title="Leading left singular vectors of the denoiser's Jacobian, from noise to image",
        row_labels=[f"t = {item.point.timestep:.4g}, rank {_spelled(item)}" for item in shown],
        column_labels=["predicted x0", *(f"direction {i + 1}" for i in range(count))],
    )


def _spelled(item: PointSpectrum) -> str:
    return f">{len(item.spectrum.values)}" if item.rank.rank is None else str(item.rank.rank)


def _row(
    item: PointSpectrum, decode: Callable[[Tensor], Tensor], count: int, *, is_pixels: bool
) -> list[Tensor]:
    """The decoded x0, then what each direction adds to it, grey for nothing."""
    import torch

    x0 = item.point.x0.float()
    directions = item.spectrum.left[:count].reshape(-1, *x0.shape).to(x0)
    if is_pixels:
        directions = decode(directions)
    else:
        # what a step of a tenth of x0's length to either side changes in the decoded image
        reach = 0.1 * x0.norm() * directions
        ends = decode(torch.cat([x0 + reach, x0 - reach]))
        directions = ends[: len(directions)] - ends[len(directions) :]
    largest = directions.abs().flatten(1).amax(1).clamp_min(1e-12)
    pictures = directions / largest[:, None, None, None]
    return [*to_images(decode(x0[None])), *to_images(pictures)]

"""The reference as moments: accumulated from real samples, or given from a file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from evaluator.errors import MetricError
from evaluator.metrics.accumulators import FAKE, REAL, PlannedMetric
from evaluator.metrics.moments import Moments
from evaluator.metrics.options import whole_number
from evaluator.metrics.published import ReferenceMoments


class Reference(NamedTuple):
    """What a distance to the reference takes."""

    mean: Tensor
    """(D,) float64."""
    covariance: Tensor
    """(D, D) float64."""
    n: int | None
    """Number of samples; None where it is not known."""
    remarks: tuple[str, ...] = ()
    """Sentences for the reader of the number."""

    @property
    def details(self) -> dict[str, float]:
        """What a result says about its reference."""
        return {} if self.n is None else {"n_reference": self.n}


def pack_moments(moments: Moments) -> Tensor:
    """(1 + D + D²,) float64: n, mean, m2."""
    count = moments.mean.new_tensor([moments.n])
    return torch.cat([count, moments.mean, moments.m2.flatten()])


def unpack_moments(row: Tensor, dim: int) -> Moments:
    """The inverse of `pack_moments`, without a copy."""
    return Moments(int(row[0]), row[1 : 1 + dim], row[1 + dim :].view(dim, dim))


def merge_packed(stacked: Tensor, dim: int) -> Tensor:
    """(W, …, 1 + D + D²) packed moments → their union over the first axis, in its order."""
    if stacked.shape[-1] == 0:
        return stacked[0]
    if stacked.ndim > 2:
        return torch.stack([merge_packed(row, dim) for row in stacked.unbind(dim=1)])
    moments = [unpack_moments(row, dim) for row in stacked]
    return pack_moments(functools.reduce(Moments.merge, moments))


def add_to_packed(state: Tensor, values: Tensor) -> None:
    """Chan's merge of a batch (N, D) into packed moments, in place.

    Passing over D² numbers is what a batch costs, so the term of the two means is one more row of
    the product, and large batches are cheap.
    """
    if len(values) == 0:
        return
    values = values.to(torch.float64)
    count, (batch, dim) = float(state[0]), values.shape
    mean, m2 = state[1 : 1 + dim], state[1 + dim :].view(dim, dim)
    batch_mean = values.mean(dim=0)
    centred, delta = values - batch_mean, batch_mean - mean
    rows = torch.cat([centred, delta[None] * (count * batch / (count + batch)) ** 0.5])
    m2.addmm_(rows.T, rows)
    mean.add_(delta, alpha=batch / (count + batch))
    state[0] += batch


class AgainstMoments(PlannedMetric):
    """A metric that needs the reference as moments only: (1 + D + D²) float64.

    ```
    metric.update(values, positions, clusters, real=True)    # from samples, or
    metric.use_reference(read_moments("imagenet256.npz"))    # the same on every process
    ```
    """

    sides: tuple[str, ...] = (FAKE, REAL)

    reference: Tensor

    def __init__(self, dim: int, **kwargs: Any) -> None:
        """`dim` of the features; `kwargs` as for `PlannedMetric`."""
        self.dim = whole_number("dim", dim, at_least=1)
        self._given: ReferenceMoments | None = None
        super().__init__(**kwargs)
        self.add_state(
            "reference",
            default=torch.zeros(1 + self.dim + self.dim**2, dtype=torch.float64),
            dist_reduce_fx=functools.partial(merge_packed, dim=self.dim),
            persistent=True,
        )

    def use_reference(self, moments: ReferenceMoments) -> None:
        """Compare with these moments instead of real samples; `reset` keeps them.

        Every process is given the same. Refused when the dimension differs, or when real samples
        were counted already.
        """
        if len(moments.mean) != self.dim:
            raise MetricError(
                f"reference: expected moments of dimension {self.dim} as the features of "
                f"{', '.join(self.names)}, got {len(moments.mean)} from {moments.origin}; give "
                "moments of the same extractor"
            )
        if len(self._joined("real_positions")):
            raise MetricError(
                f"reference: expected moments or real samples, got both; drop {moments.origin} or "
                "the updates with real=True"
            )
        self._given, self.sides = moments, (FAKE,)
        # the state is not needed beside them: at D = 2048 it takes 34 MB
        self._defaults["reference"] = torch.zeros(0, dtype=torch.float64)
        self.reference = torch.zeros(0, dtype=torch.float64, device=self.device)

    @property
    def shares_reference(self) -> bool:
        """Whether moments are all that is held of real samples, and so may be another metric's."""
        return True

    def fed_reference(self) -> tuple[Tensor, Tensor]:
        """The moments of the real samples that this process fed, and their positions."""
        return self.reference, self._joined("real_positions")

    def take_reference(self, fed: tuple[Tensor, Tensor]) -> None:
        """Take what another metric of the same features was fed, in place of feeding it again."""
        moments, positions = fed
        self.reference, self.real_positions = moments.clone(), [positions]

    def _num_reference(self) -> int | None:
        """Number of reference samples; None where it is not known."""
        return int(self.reference[0]) if self._given is None else self._given.n

    def _reference(self) -> Reference:
        """Mean and covariance of the reference."""
        given = self._given
        if given is None:
            moments = unpack_moments(self.reference, self.dim)
            return Reference(moments.mean, moments.covariance(), moments.n)
        mean, cov = (
            torch.from_numpy(part).to(self.device) for part in (given.mean, given.covariance)
        )
        remarks = given.remarks
        if given.n is None:
            remarks = (*remarks, "the number of reference samples is not known")
        return Reference(mean, cov, given.n, remarks)

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None
    ) -> None:
        """The moments of all processes merged; given ones are the same everywhere."""
        merged = self.reference
        if self._given is None:
            gathered = dist_sync_fn(merged, group=process_group or self.process_group)
            merged = merge_packed(torch.stack(gathered), self.dim)
        super()._sync_dist(dist_sync_fn, process_group)
        self.reference = merged

    def get_extra_state(self) -> dict[str, Any]:
        """What decides the meaning of the states; saved with them."""
        origin = "samples" if self._given is None else self._given.origin
        return {**super().get_extra_state(), "reference": origin}

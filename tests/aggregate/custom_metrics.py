"""Metrics of a user's own: one that works, and some that go wrong."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from evaluator.metrics import Result


class MeanShift(Metric):
    """Distance between the means of two sets, times `scale`."""

    full_state_update = False

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        for side in ("made", "real"):
            self.add_state(f"{side}_sum", torch.zeros(dim, dtype=torch.float64), "sum")
            self.add_state(f"{side}_num", torch.zeros((), dtype=torch.int64), "sum")

    def update(
        self, values: Tensor, positions: Tensor, clusters: Tensor, *, real: bool = False
    ) -> None:
        if real:
            self.real_sum += values.double().sum(0)
            self.real_num += len(values)
        else:
            self.made_sum += values.double().sum(0)
            self.made_num += len(values)

    def compute(self) -> tuple[Result, ...]:
        shift = self.made_sum / self.made_num - self.real_sum / self.real_num
        value = self.scale * float(shift.norm())
        return (Result("mean_shift", value, int(self.made_num), higher_is_better=False),)


class BareNumber(Metric):
    """Returns a tensor, as torchmetrics' own do."""

    full_state_update = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, values: Tensor, positions: Tensor, clusters: Tensor) -> None:
        self.total += values.sum()

    def compute(self) -> Tensor:
        return self.total


class Broken(BareNumber):
    """Fails at the end."""

    def compute(self) -> Tensor:
        raise ValueError("a mistake in the metric")

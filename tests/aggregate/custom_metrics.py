"""Metrics of a user's own that go wrong."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


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

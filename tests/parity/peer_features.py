"""Features as networks give them, and what lets torchmetrics take them for images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

DIM = 48


def network_features(seed: int, n: int, dim: int = DIM, *, shift: float = 0.0) -> Tensor:
    """(N, D) float32: never negative, far from zero mean, variances over four decades."""
    generator = np.random.default_rng(seed)
    scales = np.logspace(0, -2, dim)
    mixing = np.random.default_rng(99).normal(size=(8, dim)) * scales
    values = np.abs(generator.normal(size=(n, dim)) * scales + 0.3)
    values += np.abs(generator.normal(size=(n, 8)) @ mixing) + shift * scales
    return torch.from_numpy(values.astype(np.float32))


class Passthrough(nn.Module):
    """An extractor whose images are features already."""

    num_features = DIM

    def forward(self, images: Tensor) -> Tensor:
        return images.double()

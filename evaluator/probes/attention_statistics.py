"""Attention probabilities, and what they say about each token.

P is (…, heads, T, N): the probability that image position n, in a head, gives to token t. Text
columns come before image positions here so that sums over positions run through memory in order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.layers import Grid

TOP_SHARE = 0.1
"""`top10_share` counts this share of the positions, rounded up."""


def text_probabilities(
    query: Tensor, key: Tensor, mask: Tensor | None, *, scale: float, num_tokens: int
) -> Tensor:
    """Softmax over all T keys, of which the first `num_tokens` columns are returned.

    query (…, heads, N, D), key (…, heads, T, D), mask broadcasting to (…, heads, N, T); any dtype
    → (…, heads, num_tokens, N) float32 in [0, 1].
    """
    logits = torch.matmul(key.float(), query.float().transpose(-1, -2)).mul_(scale)
    if mask is not None:
        mask = mask.transpose(-1, -2)
        if mask.dtype == torch.bool:
            logits.masked_fill_(~mask, -math.inf)
        else:
            logits.add_(mask.float())
    normaliser = logits.logsumexp(dim=-2, keepdim=True)
    return logits[..., :num_tokens, :].sub(normaliser).exp_()


def attention_statistics(probabilities: Tensor, grid: Grid) -> Tensor:
    """(…, heads, T, N) float32 → (10, …, T), in the order of `ATTENTION_STATISTICS`.

    With P̄ the mean over heads, N positions, and D = P̄ / Σ_n P̄:

    mass            mean of P̄ over positions, in [0, 1]
    peak            maximum of P̄, in [0, 1]
    peak_ratio      peak / mass, in [1, N]
    top10_share     share of Σ P̄ on the ⌈N/10⌉ strongest positions, in [0, 1]
    entropy         −Σ D ln D / ln N, in [0, 1]; compares only at equal N; NaN at N = 1
    sharpness       1 − entropy
    centroid_y, _x  mean position under D, as a fraction of height and width, from the top left
    spread          √(Var y + Var x) under D, in the same units
    head_diversity  Jensen–Shannon divergence between the heads' maps, over ln heads, in [0, 1];
                    heads weigh the same however much mass they give; 0 for a single head

    Tokens without any mass give NaN.
    """
    num_heads, num_positions = probabilities.shape[-3], probabilities.shape[-1]
    mean = probabilities.mean(dim=-3)
    total = mean.sum(dim=-1)
    density = mean / total.unsqueeze(-1)
    mass = total / num_positions
    peak = mean.amax(dim=-1)
    num_top = math.ceil(TOP_SHARE * num_positions)
    top = density.topk(num_top, dim=-1, sorted=False).values.sum(dim=-1)
    limit = math.log(num_positions) if num_positions > 1 else math.nan
    entropy = _entropy(density) / limit

    # Offsets from the centre, not from the corner: their squares stay small.
    offsets = _centred_positions(grid).to(density.device)
    y, x, square = (density @ offsets).unbind(dim=-1)
    spread = (square - y * y - x * x).clamp_min(0).sqrt()
    diversity = _head_diversity(probabilities) if num_heads > 1 else torch.zeros_like(mass)
    statistics = (mass, peak, peak / mass, top, entropy, 1 - entropy)
    stacked: Tensor = torch.stack([*statistics, y + 0.5, x + 0.5, spread, diversity])
    return stacked


def _entropy(density: Tensor) -> Tensor:
    """−Σ p ln p over the last dimension, with 0 ln 0 = 0; in nats."""
    nats: Tensor = torch.special.xlogy(density, density).sum(dim=-1)
    return -nats


def _head_diversity(probabilities: Tensor) -> Tensor:
    """H(mean of the heads' maps) − mean of H(head's map), over ln heads (Lin 1991, eq. 5.1)."""
    maps = probabilities / probabilities.sum(dim=-1, keepdim=True)
    divergence: Tensor = _entropy(maps.mean(dim=-3)) - _entropy(maps).mean(dim=-2)
    return (divergence / math.log(probabilities.shape[-3])).clamp_min(0)


def _centred_positions(grid: Grid) -> Tensor:
    """(N, 3): y and x of every position, from the centre, and y² + x²; height and width are 1."""
    y = (torch.arange(grid.height) + 0.5) / grid.height - 0.5
    x = (torch.arange(grid.width) + 0.5) / grid.width - 0.5
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([rows, columns, rows**2 + columns**2], dim=-1).flatten(0, 1)

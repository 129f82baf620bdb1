"""How much the maps of two tokens of one prompt have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

NUM_MEASURES = 3


def pair_statistics(probabilities: Tensor) -> Tensor:
    """(…, heads, T, N) float32 → (3, …, T, T), in the order of `PAIR_STATISTICS`.

    With P̄ the mean over heads and D = P̄ / Σ_n P̄ a token's map as a distribution:

    soft_iou   Σ_n min(D, D′) / Σ_n max(D, D′), in [0, 1]: intersection over union of fuzzy sets
               (Jaccard index as Ruzicka 1958 generalised it)
    cosine     D · D′ / (‖D‖ ‖D′‖), in [0, 1]
    js         Jensen–Shannon divergence of D and D′ over ln 2, in [0, 1] (Lin 1991, eq. 4.1)

    Symmetric; a token with itself has 1, 1 and 0. Tokens without any mass give NaN.
    """
    mean = probabilities.mean(dim=-3)
    density = mean / mean.sum(dim=-1, keepdim=True)
    unit = density / density.norm(dim=-1, keepdim=True)
    entropy = -torch.special.xlogy(density, density).sum(dim=-1)
    num_tokens = density.shape[-2]
    overlap, js = (density.new_empty(*density.shape[:-1], num_tokens) for _ in range(2))
    # One token against those after it at a time: T² maps at once would be too many.
    for token in range(num_tokens):
        one, others = density[..., token : token + 1, :], density[..., token:, :]
        shared = torch.minimum(one, others).sum(dim=-1)
        middle = (one + others) / 2
        of_middle = -torch.special.xlogy(middle, middle).sum(dim=-1)
        halves = (entropy[..., token : token + 1] + entropy[..., token:]) / 2
        for whole, found in (
            (overlap, shared / (2 - shared)),  # min + max = D + D′, which sums to 2
            (js, (of_middle - halves) / math.log(2)),
        ):
            whole[..., token, token:] = found
            whole[..., token:, token] = found
    return torch.stack([overlap, unit @ unit.mT, js.clamp(0, 1)])

"""Attention probabilities, and what they say about each token.

P is (…, heads, T, N): the probability that image position n, in a head, gives to token t. Text
columns come before image positions here so that sums over positions run through memory in order.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from evaluator.probes.layers import Grid

TOP_SHARE = 0.1
"""`top10_share` counts this share of the positions, rounded up."""
LOWEST = -1e4
"""Logarithm of a probability that is 0: finite, so that its product with 0 is 0."""

MAX_LOGIT_BYTES = 64 * 2**20
"""Logits of all keys held at once, where the kernel does not give their normaliser."""


class TextMaps(NamedTuple):
    """Attention of image positions to some text columns."""

    probabilities: Tensor
    """(…, heads, T, N) in [0, 1]."""
    logs: Tensor
    """(…, heads, T, N): their logarithms, at least `LOWEST`."""


def text_maps(
    query: Tensor, key: Tensor, mask: Tensor | None, normaliser: Tensor, *, scale: float
) -> TextMaps:
    """Softmax probabilities of the columns `key`, given the normaliser over all keys.

    query (…, heads, N, D), key (…, heads, T, D), mask broadcasting to (…, heads, N, T), any dtype;
    normaliser (…, heads, N): log Σ exp of the logits of all keys, of which these may be a part.
    """
    logs = _logits(query, key, mask, scale=scale).sub_(normaliser.float().unsqueeze(-2))
    if mask is not None:
        logs.clamp_(min=LOWEST)
    return TextMaps(logs.exp(), logs)


def log_normaliser(query: Tensor, key: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """Log Σ exp of the logits over all of `key`'s columns: (…, heads, N) float32.

    mask (…, N or 1, T). Some image positions at a time: joint attention over thousands of
    positions would need gigabytes at once.
    """
    per_position = 4 * key[..., 0].numel()
    size = max(1, MAX_LOGIT_BYTES // per_position)
    parts = []
    for start in range(0, query.shape[-2], size):
        rows = slice(start, start + size)
        own = mask[..., rows, :] if mask is not None and mask.shape[-2] > 1 else mask
        logits = _logits(query[..., rows, :], key, own, scale=scale)
        parts.append(logits.logsumexp(dim=-2))
    return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """(…, heads, T, N) float32."""
    logits = torch.matmul(key.float().mul(scale), query.float().transpose(-1, -2))
    if mask is not None:
        mask = mask.transpose(-1, -2)
        if mask.dtype == torch.bool:
            logits.masked_fill_(~mask, -math.inf)
        else:
            logits.add_(mask.float())
    return logits


def attention_statistics(
    probabilities: Tensor,
    grid: Grid,
    *,
    logs: Tensor | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """(…, heads, T, N) float32 → (12, …, T), in the order of `ATTENTION_STATISTICS`.

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
    text_mass       mean of Σ_t P over heads and positions, t over the prompt's tokens without
                    padding: the same for every token; what is left went to padding and, in joint
                    attention, to the image itself
    text_share      mean of P / Σ_t P over heads and positions: the mass as it were if nothing but
                    the prompt's tokens could be looked at, however little it is; a position that
                    gives them nothing, as behind a mask, counts as 0

    Tokens without any mass give NaN. `logs` are the logarithms of the probabilities, where known;
    `present` (…, T) tells the prompt's own columns from others, by default all are.
    """
    if logs is None:
        logs = probabilities.log().clamp(min=LOWEST)
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
    offsets = _centred_positions(grid, density.device)
    y, x, square = (density @ offsets).unbind(dim=-1)
    spread = (square - y * y - x * x).clamp_min(0).sqrt()
    diversity = _head_diversity(probabilities, logs) if num_heads > 1 else torch.zeros_like(mass)
    # Not peak / mass: the mass of a faint token may be too small a number where its sum is none.
    peak_ratio = peak / total * num_positions
    statistics = (mass, peak, peak_ratio, top, entropy, 1 - entropy)
    of_text = _of_text(probabilities, logs, present)
    stacked: Tensor = torch.stack([*statistics, y + 0.5, x + 0.5, spread, diversity, *of_text])
    return stacked


def _entropy(density: Tensor) -> Tensor:
    """−Σ p ln p over the last dimension, with 0 ln 0 = 0; in nats."""
    nats: Tensor = torch.special.xlogy(density, density).sum(dim=-1)
    return -nats


def _head_diversity(probabilities: Tensor, logs: Tensor) -> Tensor:
    """H(mean of the heads' maps) − mean of H(head's map), over ln heads (Lin 1991, eq. 5.1).

    A head's map is p / m with m = Σ_n p, so that its entropy is ln m − Σ p ln p / m: the
    logarithms that the softmax knows already are all it takes.
    """
    num_heads = probabilities.shape[-3]
    mass = probabilities.sum(dim=-1)
    of_heads = mass.log() - (probabilities * logs).sum(dim=-1) / mass
    weights = (1 / (num_heads * mass)).movedim(-2, -1).unsqueeze(-2)  # (…, T, 1, heads)
    mixture = (weights @ probabilities.movedim(-3, -2)).squeeze(-2)
    divergence = _entropy(mixture) - of_heads.mean(dim=-2)
    return (divergence / math.log(num_heads)).clamp_min(0)


def _of_text(probabilities: Tensor, logs: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean attention on the prompt's tokens, and each token's share of it, both (…, T)."""
    num_heads, num_tokens, num_positions = probabilities.shape[-3:]
    shape = (*probabilities.shape[:-3], num_tokens)
    columns = probabilities.new_ones(shape) if present is None else present.to(probabilities.dtype)
    columns = columns.expand(shape)[..., None, None, :]
    text = columns @ probabilities  # (…, heads, 1, N)
    limits = torch.finfo(text.dtype)
    # A share is a share however small: near the smallest number only logarithms hold it. They take
    # the CPU longer; a GPU would wait longer to be asked.
    if text.device.type != "cpu" or bool((text < limits.tiny / limits.eps).any()):
        own = logs.masked_fill(columns.mT == 0, -math.inf)
        whole = own.logsumexp(dim=-2, keepdim=True)
        share = torch.where(whole > LOWEST / 2, (own - whole).exp(), 0).mean(dim=(-3, -1))
    else:
        share = (probabilities @ (1 / text).mT).sum(dim=(-3, -1)) / (num_heads * num_positions)
    mass = text.mean(dim=(-3, -2, -1)).unsqueeze(-1).expand(shape)
    return mass, share


@functools.lru_cache(maxsize=64)
def _centred_positions(grid: Grid, device: torch.device) -> Tensor:
    """(N, 3): y and x of every position, from the centre, and y² + x²; height and width are 1."""
    y = (torch.arange(grid.height) + 0.5) / grid.height - 0.5
    x = (torch.arange(grid.width) + 0.5) / grid.width - 0.5
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([rows, columns, rows**2 + columns**2], dim=-1).flatten(0, 1).to(device)


def indices(places: Sequence[int], device: torch.device) -> Tensor:
    """int64, to index by; a GPU is not waited for."""
    return torch.tensor(places, dtype=torch.int64).to(device, non_blocking=True)

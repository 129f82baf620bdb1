"""The fused attention kernels, called so that they also give what they normalise by.

`F.scaled_dot_product_attention` chooses a kernel and throws its log-sum-exp away. The same kernel
with the same arguments gives the same output bit for bit, and saves a second pass over all keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend

if TYPE_CHECKING:
    from torch import Tensor


class Fused(NamedTuple):
    """What a kernel gave."""

    output: Tensor
    """(B, heads, N, D)."""
    normaliser: Tensor
    """(B, heads, N) float32: log Σ exp of the scaled and masked logits."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float | None
) -> Fused | None:
    """Attention without dropout and causality; None where another kernel would be chosen.

    query (B, heads, N, D); key and value (B, heads, T, D).
    """
    given = (query, key, value)
    device = query.device.type
    if query.ndim != 4 or torch.overrides.has_torch_function(given):
        return None
    if torch.is_autocast_enabled(device) or _needs_gradient(given):
        return None
    if device != "cpu":
        return None
    choice = torch._fused_sdp_choice(query, key, value, mask, 0.0, False, scale=scale)
    if choice != SDPBackend.FLASH_ATTENTION.value:
        return None
    return _attend_on_cpu(query, key, value, mask, scale)


def _needs_gradient(tensors: tuple[Tensor, ...]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _attend_on_cpu(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Fused:
    if mask is not None and mask.dtype == torch.bool:
        added = torch.zeros_like(mask, dtype=query.dtype)
        mask = added.masked_fill_(mask.logical_not(), -torch.inf)
    kernel: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return Fused(*kernel(query, key, value, 0.0, False, attn_mask=mask, scale=scale))

"""See the exact queries and keys of one attention layer while it runs.

They are met where they enter the kernel, so nothing is recomputed from projections that masks,
norms or adapters may have changed. Three places, whichever the layer's processor uses:
`F.scaled_dot_product_attention`, diffusers' registry of attention backends, and the layer's own
`get_attention_scores`. The first two are global: they are replaced only while some watched layer
runs, give every call's output unchanged, and report only calls made by the thread whose layer it
is. Where the fused kernel also returns the normaliser of its softmax, that is reported too.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.nn.functional as F
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from evaluator.errors import ProbeError
from evaluator.probes.fused import attend

if TYPE_CHECKING:
    from torch import Tensor


class AttentionCall(NamedTuple):
    """What enters the attention kernel."""

    query: Tensor
    """(B, heads, N, D)."""
    key: Tensor
    """(B, heads, T, D)."""
    mask: Tensor | None
    """Broadcasts to (B, heads, N, T): True is attended, or added to the logits."""
    scale: float
    normaliser: Tensor | None = None
    """(B, heads, N): log Σ exp of the logits, where the kernel itself computed it."""


Sink = Callable[[AttentionCall], None]

_thread = threading.local()
_lock = threading.Lock()
_num_open = 0
_original_sdpa: Any = None
_original_backends: Any = None


class LayerBoundary:
    """The boundary of one layer; `open` before it runs, `close` after, even after an error."""

    def __init__(self, module: Any, sink: Sink) -> None:
        self._module = module
        self._sink = sink
        self._had_own_scores = "get_attention_scores" in vars(module)
        # Newer attention classes have no such method.
        self._scores = getattr(module, "get_attention_scores", None)
        self._watched_scores = _watch_scores(self._scores, module) if self._scores else None

    def open(self) -> None:
        """Report the layer's attention calls on this thread to the sink from now on."""
        _thread.sink = self._sink
        if self._scores is not None:
            vars(self._module)["get_attention_scores"] = self._watched_scores
        _install()

    def close(self) -> None:
        """Put everything back."""
        _remove()
        if self._had_own_scores:
            vars(self._module)["get_attention_scores"] = self._scores
        else:
            vars(self._module).pop("get_attention_scores", None)
        _thread.sink = None


def _install() -> None:
    global _num_open, _original_sdpa, _original_backends
    with _lock:
        _num_open += 1
        if _num_open > 1:
            return
        _original_sdpa = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = _watch_sdpa(_original_sdpa)
        _original_backends = _AttentionBackendRegistry._backends
        _AttentionBackendRegistry._backends = {
            name: _watch_backend(backend) for name, backend in _original_backends.items()
        }


def _remove() -> None:
    global _num_open
    with _lock:
        _num_open -= 1
        if _num_open == 0:
            F.scaled_dot_product_attention = _original_sdpa
            _AttentionBackendRegistry._backends = _original_backends


def _current_sink() -> Sink | None:
    return getattr(_thread, "sink", None)


@functools.lru_cache(maxsize=4)
def _watch_sdpa(original: Any) -> Any:
    """`F.scaled_dot_product_attention`, reporting: query (B, heads, N, D)."""

    @functools.wraps(original)
    def scaled_dot_product_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options: Any,
    ) -> Tensor:
        if (sink := _current_sink()) is None:
            plain: Tensor = original(query, key, value, attn_mask, dropout_p, is_causal, **options)
            return plain
        call = _call(query, key, attn_mask, is_causal=is_causal, scale=options.get("scale"))
        fused = None
        if not dropout_p and not options.get("enable_gqa"):
            fused = attend(query, key, value, attn_mask, scale=options.get("scale"))
        if fused is None:
            output: Tensor = original(query, key, value, attn_mask, dropout_p, is_causal, **options)
            sink(call)
            return output
        sink(call._replace(normaliser=fused.normaliser))
        return fused.output

    return scaled_dot_product_attention


@functools.lru_cache(maxsize=64)
def _watch_backend(original: Any) -> Any:
    """A backend of diffusers' registry, reporting: query (B, N, heads, D), always by keyword."""

    @functools.wraps(original)
    def backend(**given: Any) -> Any:
        if (sink := _current_sink()) is None:
            return original(**given)
        query, key = (given[name].transpose(1, 2) for name in ("query", "key"))
        causal = bool(given.get("is_causal"))
        mask = _by_key(given.get("attn_mask"), key)
        call = _call(query, key, mask, is_causal=causal, scale=given.get("scale"))
        # Most backends end in F.scaled_dot_product_attention: it must not report a second time,
        # but may know the normaliser.
        inner: list[AttentionCall] = []
        _thread.sink = inner.append
        try:
            output = original(**given)
        finally:
            _thread.sink = sink
        # What it was given there counts: backends read a mask of two dimensions differently.
        sink(inner[0] if len(inner) == 1 and inner[0].query.shape == query.shape else call)
        return output

    return backend


def _by_key(mask: Tensor | None, key: Tensor) -> Tensor | None:
    """A mask (B, T) as (B, 1, 1, T), which is what backends with kernels of their own read."""
    if mask is not None and mask.shape == (key.shape[0], key.shape[2]):
        return mask[:, None, None, :]
    return mask


def _watch_scores(original: Any, module: Any) -> Any:
    """A layer's `get_attention_scores`, reporting: query (B · heads, N, D)."""

    @functools.wraps(original)
    def get_attention_scores(query: Tensor, key: Tensor, attention_mask: Any = None) -> Any:
        if (sink := _current_sink()) is not None:
            mask = None if attention_mask is None else _split_heads(attention_mask, module.heads)
            query_heads, key_heads = (_split_heads(x, module.heads) for x in (query, key))
            sink(AttentionCall(query_heads, key_heads, mask, float(module.scale)))
        return original(query, key, attention_mask)

    return get_attention_scores


def _split_heads(joined: Tensor, heads: int) -> Tensor:
    """(B · heads, …) → (B, heads, …)."""
    return joined.view(-1, heads, *joined.shape[1:])


def _call(
    query: Tensor, key: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
) -> AttentionCall:
    if is_causal or key.shape[1] != query.shape[1]:
        raise ProbeError(
            "Expected attention to all positions, with one key head for each query "
            f"head; got is_causal={is_causal}, query heads {query.shape[1]}, key heads "
            f"{key.shape[1]}. Remove attention from the probes of this model."
        )
    return AttentionCall(
        query, key, mask, 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    )

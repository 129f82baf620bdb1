"""Which rows of the denoiser's batch are which prompt, with its text or without.

Classifier-free guidance runs every prompt twice. Nothing in the denoiser's input says which row
is which, so the rows are compared with what `encode_prompt` returned for this very call.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.probes.patching import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.records import Prompt


class BranchRows(NamedTuple):
    """Rows of one denoiser call; None for a branch that it does not hold."""

    conditional: slice | None
    unconditional: slice | None


class PromptEncodings:
    """What `encode_prompt` returned, kept to recognise the denoiser's rows by."""

    def __init__(self) -> None:
        self.texts: tuple[str, ...] | None = None
        """The texts that were encoded, in order; None until a call names them."""
        self.conditional: Tensor | None = None
        """(B, T, C), or None before the first call and for returns of another shape."""
        self.unconditional: Tensor | None = None
        """(B, T, C), or None without guidance."""
        self._last: tuple[Tensor, BranchRows | None] | None = None

    @contextmanager
    def watching(self, pipeline: Any) -> Iterator[None]:
        """Keep the returns of `pipeline.encode_prompt`; nothing to do where there is none."""
        original = getattr(pipeline, "encode_prompt", None)
        if original is None:
            yield
            return

        @functools.wraps(original)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            encoded = original(*args, **kwargs)
            self._keep(args[0] if args else kwargs.get("prompt"), encoded)
            return encoded

        with replaced(pipeline, "encode_prompt", encode_prompt):
            yield

    def _keep(self, prompt: Any, encoded: Any) -> None:
        """Keep the last call's tensors, and the texts of the last call that had any."""
        if isinstance(prompt, str):
            self.texts = (prompt,)
        elif prompt is not None:
            self.texts = tuple(prompt)
        self._last = None
        self.conditional = self.unconditional = None
        if not isinstance(encoded, tuple) or len(encoded) < 2 or not _is_sequence(encoded[0]):
            return
        if encoded[1] is None or getattr(encoded[1], "shape", None) == encoded[0].shape:
            self.conditional, self.unconditional = encoded[:2]

    def rows(self, hidden: Tensor | None) -> BranchRows | None:
        """Branches of the denoiser rows `hidden` (R, T, C); None where they match nothing.

        Whole layouts are compared, not single rows, so that repeated prompts keep their order.
        """
        if hidden is None or self.conditional is None:
            return None
        if self._last is None or self._last[0] is not hidden:
            # A pipeline passes the same tensor at every step: compare once.
            self._last = (hidden, self._match(hidden))
        return self._last[1]

    def _match(self, hidden: Tensor) -> BranchRows | None:
        assert self.conditional is not None
        count = self.conditional.shape[0]
        first, second = slice(0, count), slice(count, 2 * count)
        if self.unconditional is not None and hidden.shape[0] == 2 * count:
            if _same(hidden[first], self.unconditional) and _same(hidden[second], self.conditional):
                return BranchRows(second, first)
            if _same(hidden[first], self.conditional) and _same(hidden[second], self.unconditional):
                return BranchRows(first, second)
        if hidden.shape[0] == count:
            if _same(hidden, self.conditional):
                return BranchRows(first, None)
            if self.unconditional is not None and _same(hidden, self.unconditional):
                return BranchRows(None, first)
        return None

    def indistinct(self) -> list[bool]:
        """For each encoded prompt, whether guidance steers away from the very same embedding."""
        assert self.conditional is not None
        if self.unconditional is None:
            return [False] * self.conditional.shape[0]
        equal = self.conditional == self.unconditional
        return [bool(flag) for flag in equal.flatten(1).all(dim=1).tolist()]


def _is_sequence(value: Any) -> bool:
    return getattr(value, "ndim", None) == 3


def _same(rows: Tensor, embeddings: Tensor) -> bool:
    import torch

    if rows.shape != embeddings.shape:
        return False
    return torch.equal(rows, embeddings.to(device=rows.device, dtype=rows.dtype))


def samples_of(prompts: Sequence[Prompt], texts: Sequence[str] | None, num_rows: int) -> list[int]:
    """Which prompt of the batch each of the pipeline's `num_rows` rows belongs to, in order.

    A model may leave out a prompt that it refuses; the rest is then found by its text.
    """
    if num_rows == len(prompts):
        return list(range(num_rows))
    if texts is not None and len(texts) == num_rows:
        samples: list[int] = []
        for sample, prompt in enumerate(prompts):
            if len(samples) < num_rows and (prompt.text or "") == texts[len(samples)]:
                samples.append(sample)
        if len(samples) == num_rows:
            return samples
    raise ProbeError(
        f"Expected one row of the pipeline for each of the {len(prompts)} prompts; got {num_rows}, "
        "and their texts do not tell them apart. Generate one image for each prompt and call."
    )

"""Which rows of the denoiser's batch are which prompt, with its text or without.

Classifier-free guidance runs every prompt twice. Nothing in the denoiser's input says which row
is which, so the rows are compared with what `encode_prompt` returned for this very call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.pipelines import is_compiled
from evaluator.probes.patching import replaced

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.records import Prompt


class BranchRows(NamedTuple):
    """Rows of one denoiser call; None for a branch that it does not hold."""

    conditional: slice | None
    unconditional: slice | None


class Encoding(NamedTuple):
    """What a text encoder made of a batch of prompts."""

    embeddings: Tensor
    """(B, T, C)."""
    mask: Tensor | None
    """(B, T): nonzero where a text position takes part in attention; None: all do."""


class PromptEncodings:
    """What `encode_prompt` returned, kept to recognise the denoiser's rows by."""

    def __init__(self) -> None:
        self.texts: tuple[str, ...] | None = None
        """The texts that were encoded, in order; None until a call names them."""
        self.arguments: dict[str, Any] = {}
        """What `encode_prompt` was called with, defaults included."""
        self.ids: dict[str, list[Tensor]] = {}
        """Text encoder → the batches of token ids that it read, (B, T) each."""
        self._conditional: Encoding | None = None
        self._unconditional: Encoding | None = None
        self._last: tuple[Tensor, BranchRows | None] | None = None

    @property
    def conditional(self) -> Tensor | None:
        """(B, T, C), or None before the first call and for returns of another shape."""
        return None if self._conditional is None else self._conditional.embeddings

    @property
    def unconditional(self) -> Tensor | None:
        """(B, T, C), or None without guidance."""
        return None if self._unconditional is None else self._unconditional.embeddings

    @contextmanager
    def watching(self, pipeline: Any) -> Iterator[None]:
        """Keep the returns of `pipeline.encode_prompt`; nothing to do where there is none."""
        original = getattr(pipeline, "encode_prompt", None)
        if original is None:
            yield
            return
        signature = inspect.signature(original)

        @functools.wraps(original)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            encoded = original(*args, **kwargs)
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            self._keep(dict(given.arguments), encoded)
            return encoded

        with replaced(pipeline, "encode_prompt", encode_prompt), self._reading(pipeline):
            yield

    @contextmanager
    def _reading(self, pipeline: Any) -> Iterator[None]:
        """Keep the token ids that the text encoders read."""
        handles = []
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
            encoder: Any = getattr(pipeline, name, None)
            if not hasattr(encoder, "register_forward_pre_hook") or is_compiled(encoder):
                continue
            hook = functools.partial(self._read, name)
            handles.append(encoder.register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _read(self, name: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids: Any = args[0] if args else kwargs.get("input_ids")
        if getattr(ids, "ndim", None) == 2:
            self.ids.setdefault(name, []).append(ids)

    def _keep(self, arguments: dict[str, Any], encoded: Any) -> None:
        """Keep the tensors, and the texts of the last call that had any.

        Where `encode_prompt` knows no negative prompt, the pipeline calls it a second time for
        the unconditional branch before the denoiser first runs.
        """
        found = _sequences(encoded)
        is_second = "negative_prompt" not in arguments and self._conditional is not None
        if is_second and self._unconditional is None and self._last is None:
            self._unconditional = found[0] if found else None
            return
        prompt = arguments.get("prompt")
        if isinstance(prompt, str):
            self.texts = (prompt,)
        elif prompt is not None:
            self.texts = tuple(prompt)
        self.arguments = arguments
        self._last = None
        self._conditional = found[0] if found else None
        self._unconditional = found[1] if len(found) > 1 else None

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
        conditional, unconditional = self.conditional, self.unconditional
        assert conditional is not None
        count = conditional.shape[0]
        first, second = slice(0, count), slice(count, 2 * count)
        if unconditional is not None and hidden.shape[0] == 2 * count:
            if _same(hidden[first], unconditional) and _same(hidden[second], conditional):
                return BranchRows(second, first)
            if _same(hidden[first], conditional) and _same(hidden[second], unconditional):
                return BranchRows(first, second)
        if hidden.shape[0] == count:
            if _same(hidden, conditional):
                return BranchRows(first, None)
            if unconditional is not None and _same(hidden, unconditional):
                return BranchRows(None, first)
        return None

    def indistinct(self) -> list[bool]:
        """For each encoded prompt, whether guidance steers away from the very same embedding.

        Only positions that take part in attention count: padding may differ.
        """
        conditional, unconditional = self._conditional, self._unconditional
        assert conditional is not None
        num_rows = conditional.embeddings.shape[0]
        if unconditional is None or unconditional.embeddings.shape[0] != num_rows:
            return [False] * num_rows
        rows = zip(_visible(conditional), _visible(unconditional), strict=True)
        return [_same(first, second) for first, second in rows]


def _sequences(encoded: Any) -> list[Encoding]:
    """The text embeddings among what `encode_prompt` returned, each with the mask after it."""
    if not isinstance(encoded, tuple) or len(encoded) < 2:
        return []
    found: list[Encoding] = []
    for item in encoded:
        shape = getattr(item, "shape", None)
        if shape is None:
            continue
        if len(shape) == 3 and item.is_floating_point():
            found.append(Encoding(item, None))
        elif found and shape == found[-1].embeddings.shape[:2] and not item.is_floating_point():
            found[-1] = found[-1]._replace(mask=item)
    return found


def _visible(encoding: Encoding) -> list[Tensor]:
    """(positions, C) of each prompt: those that take part in attention."""
    if encoding.mask is None:
        return list(encoding.embeddings)
    return [
        rows[mask.bool()] for rows, mask in zip(encoding.embeddings, encoding.mask, strict=True)
    ]


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

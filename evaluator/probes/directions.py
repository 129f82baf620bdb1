"""Directions in a pipeline's text-embedding space: the difference that two prompts make.

e = e(base) + s · (e(to) − e(from)), for everything that the pipeline's `encode_prompt` returns:
token embeddings and pooled ones, of all its text encoders. What does not depend on the prompt
(negative embeddings, position ids) has no difference and stays as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluator.errors import ProbeError
from evaluator.probes.patching import replaced

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

PROMPTS = ("prompt", "prompt_2", "prompt_3")
"""What pipelines call the texts of their encoders."""


class Shift(NamedTuple):
    """How far one sample is moved along a direction."""

    strength: float
    """0 is the base prompt; 1, from its first prompt, is the second prompt of the pair."""
    shuffled: bool = False
    """Whether the direction's entries are permuted: as long, and without its meaning."""


class Similarity(NamedTuple):
    """Cosines of the embeddings of P prompts, (P, P) each."""

    cosine: NDArray[np.float64]
    centred: NDArray[np.float64]
    """After their common mean is taken away: what all of them share says nothing."""


class _Encoded(Exception):
    """Leaves the pipeline once its prompts are encoded."""


@contextmanager
def shifted_prompts(
    pipeline: Any, base: str, pair: tuple[str, str], shifts: Sequence[Shift], *, seed: int = 0
) -> Iterator[None]:
    """While inside, a call of the pipeline for `base` repeated gets one shift a sample.

    ProbeError for a pipeline that has no `encode_prompt`, and for prompts that it encodes to
    different lengths. `seed` is that of the shuffled directions.
    """
    original = _encode_prompt_of(pipeline)
    signature = inspect.signature(original)
    texts = [base] * len(shifts)
    came = False

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        nonlocal came
        bound = signature.bind(*args, **kwargs)
        if came or _texts(bound.arguments.get("prompt")) != texts:
            # The negative prompt, in a call of its own; it comes second, and may be the same text.
            return original(*args, **kwargs)
        came = True
        here = original(*bound.args, **bound.kwargs)
        # A text that the settings give to one encoder is the same for every prompt.
        told = [name for name in PROMPTS if _texts(bound.arguments.get(name)) == texts]
        ends = []
        for text in pair:
            bound.arguments.update({name: [text] * len(shifts) for name in told})
            ends.append(original(*bound.args, **bound.kwargs))
        own = base == pair[0]
        if not isinstance(here, tuple):
            return _moved(here, ends[0], ends[1], shifts, seed)
        return tuple(
            _shown(item, start, end, shifts, from_start=own)
            if _is_mask(item)
            else _moved(item, start, end, shifts, seed)
            for item, start, end in zip(here, *ends, strict=True)
        )

    with replaced(pipeline, "encode_prompt", encode_prompt):
        yield
    if not came:
        raise ProbeError(
            f"Expected one run of the pipeline for {len(texts)} times the prompt {base!r}; its "
            "encode_prompt was not called with them. Generate while inside."
        )


def prompt_embeddings(
    pipeline: Any, generate: Callable[[], object], texts: Sequence[str]
) -> NDArray[np.float64]:
    """The token embeddings of P prompts, flattened: (P, positions · channels).

    Positions behind the encoder's mask are 0: no denoiser sees what it made of padding.
    `generate` calls the pipeline for `texts`; it goes no further than its text encoders.
    """
    original = _encode_prompt_of(pipeline)
    signature = inspect.signature(original)
    found: list[Tensor] = []

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        encoded = original(*args, **kwargs)
        if _texts(signature.bind(*args, **kwargs).arguments.get("prompt")) != list(texts):
            return encoded
        first, *others = encoded if isinstance(encoded, tuple) else (encoded,)
        embeddings = first.detach().double().cpu()
        for item in others:
            if _is_mask(item) and item.shape == first.shape[:2]:
                embeddings = embeddings * (item != 0).cpu().unsqueeze(-1)
                break
        found.append(embeddings.flatten(1))
        raise _Encoded

    try:
        with replaced(pipeline, "encode_prompt", encode_prompt):
            generate()
    except _Encoded:
        flat: NDArray[np.float64] = found[0].numpy()
        return flat
    raise ProbeError(
        f"Expected a pipeline that encodes its prompts; {type(pipeline).__name__} did not encode "
        "these. Their embeddings cannot be compared."
    )


def similarity(embeddings: NDArray[np.float64]) -> Similarity:
    """Cosines of (P, D) embeddings; NaN between an embedding that is the mean and any other."""
    return Similarity(_cosines(embeddings), _cosines(embeddings - embeddings.mean(axis=0)))


def slope(strengths: Sequence[float], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares slope of each row of (N, S) scores over the S strengths: (N,)."""
    x = np.asarray(strengths, dtype=np.float64)
    x = x - x.mean()
    slopes: NDArray[np.float64] = scores @ x / (x @ x)
    return slopes


def _encode_prompt_of(pipeline: Any) -> Any:
    original = getattr(pipeline, "encode_prompt", None)
    if original is None:
        raise ProbeError(
            f"Expected a text-to-image pipeline with encode_prompt; {type(pipeline).__name__} has "
            "none. It has no text embeddings to move."
        )
    return original


def _texts(prompt: Any) -> list[str] | None:
    if prompt is None:
        return None
    return [prompt] if isinstance(prompt, str) else list(prompt)


def _moved(base: Any, start: Any, end: Any, shifts: Sequence[Shift], seed: int) -> Any:
    """One thing that `encode_prompt` returned, each row moved by its own shift."""
    import torch

    if not isinstance(base, torch.Tensor):
        return base
    _require_one_length(base, start, end)
    if torch.equal(start, end) or base.shape[0] != len(shifts):
        return base
    difference = (end.double() - start.double())[0]
    order = torch.randperm(
        difference.numel(), generator=torch.Generator("cpu").manual_seed(seed)
    ).to(base.device)
    shuffled = difference.flatten()[order].view_as(difference)
    rows = [
        row.double() + shift.strength * (shuffled if shift.shuffled else difference)
        for row, shift in zip(base, shifts, strict=True)
    ]
    return torch.stack(rows).to(base.dtype)


def _is_mask(item: Any) -> bool:
    import torch

    return isinstance(item, torch.Tensor) and not item.is_floating_point()


def _shown(
    base: Tensor, start: Tensor, end: Tensor, shifts: Sequence[Shift], *, from_start: bool
) -> Tensor:
    """Which positions each row shows: a prompt's own where a shift ends at it, else all prompts'.

    Behind a mask lie embeddings too, of padding, that no prompt was ever shown with.
    """
    import torch

    _require_one_length(base, start, end)
    every = torch.maximum(base, torch.maximum(start, end))
    if base.shape[0] != len(shifts):
        return every
    rows = [
        base[row]
        if shift.strength == 0
        else end[row]
        if shift == Shift(1.0) and from_start
        else every[row]
        for row, shift in enumerate(shifts)
    ]
    return torch.stack(rows)


def _require_one_length(base: Tensor, start: Tensor, end: Tensor) -> None:
    if not base.shape == start.shape == end.shape:
        raise ProbeError(
            "Expected prompts that are encoded to one length; got "
            f"{tuple(base.shape)}, {tuple(start.shape)} and {tuple(end.shape)}. Choose prompts "
            "with as many tokens."
        )


def _cosines(values: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = values / norms
    cosines: NDArray[np.float64] = np.clip(unit @ unit.T, -1.0, 1.0)
    return cosines

"""What extractors share in their options and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluator.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = ("float32", "float16", "bfloat16")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def expect_choice(extractor: str, option: str, value: object, choices: Sequence[str]) -> str:
    """`value`, if it is one of `choices`; else a ConfigError that names them."""
    if isinstance(value, str) and value in choices:
        return value
    named = ", ".join(f"'{choice}'" for choice in choices)
    raise ConfigError(
        f"features: '{extractor}': expected {option} to be one of {named}; got {value!r}."
    )


def torch_dtype(extractor: str, dtype: str) -> torch.dtype:
    """The torch type of that name."""
    import torch

    kind: torch.dtype = getattr(torch, expect_choice(extractor, "dtype", dtype, DTYPES))
    return kind


def fingerprint(weights_sha256: str, preprocessing: str, dtype: str) -> str:
    """SHA-256 over what decides a feature; `preprocessing` names every setting that does."""
    note = f"{weights_sha256}\n{preprocessing}\n{dtype}"
    return hashlib.sha256(note.encode()).hexdigest()


def brief(error: BaseException, *, line: int = 0) -> str:
    """One line of an error's text, of 200 characters at most and without a full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[line].strip()[:200].rstrip(". ")


def imagenet_normalised(pixels: Tensor) -> Tensor:
    """(3, H, W) from 0 to 1 → the same, channel by channel (x - mean) / std of ImageNet."""
    mean = pixels.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = pixels.new_tensor(IMAGENET_STD)[:, None, None]
    return (pixels - mean) / std

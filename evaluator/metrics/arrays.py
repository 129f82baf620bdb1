"""Inputs of the pure functions: numpy arrays or torch tensors, made float64 and checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluator.errors import MetricError

ArrayLike: TypeAlias = NDArray[Any] | Tensor
"""What every pure function takes."""

ROWS = 4096
"""Samples that are converted at one time."""

EPSILON = torch.finfo(torch.float64).eps
"""Spacing of float64 at 1."""


def as_float64(values: ArrayLike, name: str) -> Tensor:
    """`values` as a detached float64 tensor on its own device; raises on NaN and infinity."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
    if tensor.is_complex():
        raise MetricError(f"{name}: expected real numbers, got {tensor.dtype}; take the real part")
    tensor = tensor.detach().to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise MetricError(
            f"{name}: expected finite numbers, got {bad} that are not; drop or recompute them"
        )
    return tensor


def as_matrix(values: ArrayLike, name: str, *, at_least: int = 1) -> Tensor:
    """`values` as a finite (N, D) float64 tensor with N >= `at_least`."""
    tensor = as_float64(values, name)
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise MetricError(
            f"{name}: expected shape (samples, features), got {tuple(tensor.shape)}; reshape it"
        )
    if tensor.shape[0] < at_least:
        raise MetricError(
            f"{name}: expected at least {at_least} samples, got {tensor.shape[0]}; add samples"
        )
    return tensor


def as_pair(
    a: ArrayLike, b: ArrayLike, names: tuple[str, str], *, at_least: int = 1
) -> tuple[Tensor, Tensor]:
    """Two checked (N, D) float64 tensors with the same D."""
    first, second = (
        as_matrix(values, name, at_least=at_least)
        for values, name in zip((a, b), names, strict=True)
    )
    if first.shape[1] != second.shape[1]:
        raise MetricError(
            f"{names[1]}: expected {first.shape[1]} features as in {names[0]}, "
            f"got {second.shape[1]}; use one extractor for both"
        )
    return first, second


def as_feature_sets(**sets: ArrayLike) -> tuple[Tensor, ...]:
    """Finite (N, D) tensors of one D, on the device of the first; float32 stays float32.

    For functions that convert in pieces: a float64 copy of a set would take twice its memory.
    """
    checked: dict[str, Tensor] = {}
    for name, values in sets.items():
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
        single = tensor.dtype in (torch.float16, torch.bfloat16, torch.float32)
        if not single or tensor.ndim != 2:
            checked[name] = as_matrix(tensor, name)
            continue
        # NaN and infinity need no look at single entries, only at the extremes
        extremes = tensor.detach().aminmax() if tensor.numel() else ()
        if not all(bool(value.isfinite()) for value in extremes) or 0 in tensor.shape:
            as_matrix(tensor, name)
        checked[name] = tensor.detach().to(torch.float32)
    (first, leading), *others = checked.items()
    for name, tensor in others:
        if tensor.shape[1] != leading.shape[1]:
            raise MetricError(
                f"{name}: expected {leading.shape[1]} features as in {first}, "
                f"got {tensor.shape[1]}; use one extractor for both"
            )
    return tuple(tensor.to(leading.device) for tensor in checked.values())


class Directions:
    """The rows of an (N, D) float tensor, each divided by its L2 norm, as float64.

    A slice is made when it is taken: all of them would be twice as large as float32 values.
    Raises MetricError naming `name` where rows of zeros have no direction.
    """

    def __init__(self, values: Tensor, name: str) -> None:
        missing = int((values == 0).all(dim=1).sum())
        if missing:
            raise MetricError(
                f"{name}: expected features other than zero, which have a direction, got {missing} "
                "samples of zeros; recompute their features or leave them out"
            )
        self._values, self.device = values, values.device
        # by the largest first: the square of a tiny number would be 0
        scales = []
        for start in range(0, len(values), ROWS):
            rows = values[start : start + ROWS].to(torch.float64)
            largest = rows.abs().amax(dim=1, keepdim=True)
            scales.append(torch.cat([largest, (rows / largest).norm(dim=1, keepdim=True)], dim=1))
        self._scales = torch.cat(scales)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: slice) -> Tensor:
        scales = self._scales[rows]
        return self._values[rows].to(torch.float64).div(scales[:, :1]).div_(scales[:, 1:])


def as_directions(values: Tensor, name: str) -> Tensor:
    """All `Directions` in one tensor; beside it and the values, nothing of their size is held."""
    rows = Directions(values, name)
    directions = torch.empty(values.shape, dtype=torch.float64, device=values.device)
    for start in range(0, len(values), ROWS):
        directions[start : start + ROWS] = rows[start : start + ROWS]
    return directions

"""Per-sample rows as they are held: kept without loss, put in plan order, gathered.

Features come as float32 more often than not. Held so, they take half the room, and a sum in
float64 is the same to the bit whether they are widened at once or a chunk at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def held(values: Tensor) -> Tensor:
    """A copy in the narrower of float32 and float64 that holds every value exactly."""
    exact = torch.float64 if values.dtype == torch.float64 else torch.float32
    return values.to(exact, copy=True)


def in_order(pieces: Sequence[Tensor], order: Tensor) -> Tensor:
    """The rows of all pieces together, taken in `order`, as the widest of their dtypes.

    One copy is made, and none of a single piece that is in order.
    """
    pieces = [piece for piece in pieces if len(piece)] or pieces[:1]
    places = torch.arange(len(order), device=order.device)
    if len(pieces) == 1 and torch.equal(order, places):
        return pieces[0]
    place = torch.empty_like(order)
    place[order] = places
    dtype = functools.reduce(torch.promote_types, (piece.dtype for piece in pieces))
    ordered = pieces[0].new_empty(len(order), *pieces[0].shape[1:], dtype=dtype)
    start = 0
    for piece in pieces:
        ordered[place[start : start + len(piece)]] = piece.to(dtype)
        start += len(piece)
    return ordered


def gathered(rows: Tensor, gather: Callable[..., Any], group: Any) -> list[Tensor]:
    """The rows of every process, in their order; all take part, with rows or without.

    A process without samples cannot know how wide the others' floats are, so that is asked first.
    """
    if rows.is_floating_point():
        wide = rows.new_tensor([float(rows.dtype == torch.float64)], dtype=torch.float32)
        if any(bool(answer) for answer in gather(wide, group=group)):
            rows = rows.to(torch.float64)
    return list(gather(rows, group=group))

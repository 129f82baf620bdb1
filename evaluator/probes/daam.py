"""Heat maps of words as DAAM aggregates them (Tang et al. 2023, "What the DAAM").

DAAM brings each head's map of a token to one size by bicubic interpolation and sums over heads,
layers and steps; a word's map is the mean over its tokens. Enlarging is linear, so that maps may be
summed at their own resolution first. Here the sum is divided by the number of maps, which leaves
the picture as it is and makes it a probability. Bicubic interpolation can fall below 0; the
package `daam` (0.2) clips there, each head by itself, and leaves out the coarsest layers, as
`layers` does here where it is asked to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from evaluator.errors import ProbeError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

IDENTITY = ("key", "image_index", "sample")
"""Columns that say whose map a row is: of a run's table the first two, of one batch's the last."""


class WordMap(NamedTuple):
    """Where one word of one sample was looked at."""

    identity: tuple[Any, ...]
    """(key, image index), or (sample,)."""
    word: int
    text: str
    """Its tokens, joined."""
    values: NDArray[np.float64]
    """(height, width)."""


def daam_maps(
    layer_maps: pa.Table,
    *,
    size: tuple[int, int],
    steps: Collection[int] | None = None,
    layers: Collection[str] | None = None,
) -> list[WordMap]:
    """Maps of all words in a table `heatmaps_layers`, of `size` (height, width).

    Summed over all steps and layers of the table, or over some of them: one step, one layer.
    """
    chosen = [
        row
        for row in layer_maps.to_pylist()
        if (steps is None or row["step"] in steps) and (layers is None or row["layer"] in layers)
    ]
    if not chosen:
        raise ProbeError(
            f"Expected heat maps of steps {steps or 'all'} and layers {layers or 'all'}; the table "
            "has none. Ask for what was observed, with maps: N for the first N samples."
        )
    by_word: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in chosen:
        identity = tuple(row[name] for name in IDENTITY if name in row)
        by_word.setdefault((identity, row["word"]), []).append(row)
    return [
        WordMap(identity, word, _text(rows), _word_map(rows, size))
        for (identity, word), rows in by_word.items()
    ]


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    pieces = {row["token"]: row["token_text"] for row in rows}
    return "".join(pieces[token] for token in sorted(pieces))


def _word_map(rows: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> NDArray[np.float64]:
    """Mean over tokens of the mean over heads, layers and steps."""
    sums: dict[tuple[int, int], NDArray[np.float64]] = {}
    total = 0.0
    for row in rows:
        grid = (row["height"], row["width"])
        num_maps = row["num_layers"] * row["heads"]  # a row is the mean of these
        values = np.asarray(row["map"], np.float64).reshape(grid) * num_maps
        sums[grid] = sums[grid] + values if grid in sums else values
        total += num_maps
    enlarged = np.zeros(size)
    for values in sums.values():
        image = torch.from_numpy(values)[None, None]
        enlarged += F.interpolate(image, size, mode="bicubic", align_corners=False)[0, 0].numpy()
    return enlarged / total

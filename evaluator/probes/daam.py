"""Heat maps of words as DAAM aggregates them (Tang et al. 2023, "What the DAAM").

A token's map is summed over steps in each head by itself, brought to one size bicubically and cut
off at 0, which bicubic interpolation undershoots; then comes the mean over all heads and layers. A
word's map is the mean over its tokens. In the package `daam` (0.2) the middle block of a UNet does
not count, nor do layers an eighth as fine as the maps; both are so here, and the values are its
values. Deviations: every sample of a batch has maps, where `daam` takes one prompt and one image;
without guidance all heads count, where `daam` takes the first half for the unconditional branch;
and where `daam` cannot work (other denoisers than UNets, images that are not square, UNets in
which it finds no layer) all layers outside the middle block count, at the finest of their sizes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from evaluator.errors import ProbeError
from evaluator.probes.layers import AttentionLayer, Grid
from evaluator.probes.tokens import SPECIAL

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor

IDENTITY = ("key", "image_index", "sample")
"""Columns that say whose map a row is: of a run's table the first two, of one batch's the last."""

FACTORS = frozenset({0, 1, 2, 4, 16, 32, 64})
"""How many times coarser than the maps a layer may be, in either direction, rounded down."""
SIDES = {512: 64, 1024: 64}
"""Pixels that a UNet was made for → side of its maps; other UNets have `OTHER_SIDE`."""
OTHER_SIDE = 96
NOTHING = 1e-6
"""Added to what `normalize` divides by."""


class MapLayers(NamedTuple):
    """Which layers count in a map, and the size that they are all brought to."""

    size: Grid
    grids: Mapping[str, Grid]
    """By the layer's name."""


def map_layers(
    layers: Sequence[AttentionLayer], denoiser: Any, image: Grid, *, pixels_per_latent: int = 8
) -> MapLayers:
    """DAAM's choice of layers and size; `image` are the denoiser's positions before any halving."""
    if type(denoiser).__name__ != "UNet2DConditionModel":
        return MapLayers(image, {layer.name: image for layer in layers})
    outer = [layer for layer in layers if layer.block != "mid"] or layers
    num_blocks = len(denoiser.config.block_out_channels)
    grids = {layer.name: _unet_grid(layer, num_blocks, image) for layer in outer}
    trained = denoiser.config.sample_size
    if isinstance(trained, int) and image.height == image.width:
        side = SIDES.get(trained * pixels_per_latent, OTHER_SIDE)
        found = {name: grid for name, grid in grids.items() if _factor(side, grid) in FACTORS}
        if found:
            return MapLayers(Grid(side, side), found)
    return MapLayers(max(grids.values(), key=lambda grid: grid.num_positions), grids)


def _factor(side: int, grid: Grid) -> int:
    return int(math.sqrt(side * side // grid.num_positions))


def _unet_grid(layer: AttentionLayer, num_blocks: int, image: Grid) -> Grid:
    """`down_blocks.i` works on latents halved i times, `up_blocks` in reverse order."""
    place = re.match(r"(down|up)_blocks\.(\d+)\.", layer.name)
    halvings = num_blocks - 1
    if place is not None:
        halvings = int(place[2]) if place[1] == "down" else num_blocks - 1 - int(place[2])
    grid = image
    for _ in range(halvings):
        grid = Grid((grid.height + 1) // 2, (grid.width + 1) // 2)
    return grid


def narrowed(
    chosen: MapLayers, layers: Sequence[AttentionLayer], patterns: Sequence[str] | None
) -> MapLayers:
    """Those of the layers whose name or group fits a pattern: `up-16x16`, `down_blocks.0.*`.

    The size stays.
    """
    if patterns is None:
        return chosen
    counted = [layer for layer in layers if layer.name in chosen.grids]
    groups = {layer.name: f"{layer.block}-{chosen.grids[layer.name]}" for layer in counted}
    grids = {
        name: chosen.grids[name]
        for name, group in groups.items()
        if any(fnmatchcase(name, pattern) or fnmatchcase(group, pattern) for pattern in patterns)
    }
    if not grids:
        raise ProbeError(
            "probes.attention.map_layers: expected names or groups of layers that count in heat "
            f"maps; got {', '.join(patterns)}, which fit none. The groups are "
            f"{', '.join(dict.fromkeys(groups.values()))}."
        )
    return MapLayers(chosen.size, grids)


def enlarged(maps: Tensor, grid: Grid, size: Grid) -> Tensor:
    """(…, N) probabilities or their sums over steps → (…, size's positions), at least 0."""
    if grid == size:
        return maps
    images = maps.reshape(1, -1, *grid)
    images = F.interpolate(images, size=tuple(size), mode="bicubic", align_corners=False)
    return images.clamp_(min=0).view(*maps.shape[:-1], size.num_positions)


def word_map(heatmaps: pa.Table, word: str, *, normalize: bool = False) -> NDArray[np.float64]:
    """One word's map from a sample's rows of `heatmaps`, of one step or of all steps together.

    (height, width), summed over steps. The mean over the tokens that spell it, wherever they stand,
    as `daam` finds them: a word that comes twice has one map, the pieces of a longer word count if
    they spell it, and several words may be asked for at once. `normalize` first divides each
    token's map by the sum over all tokens of words.
    """
    rows = sorted(heatmaps.to_pylist(), key=lambda row: int(row["token"]))
    whose = {tuple(row[name] for name in (*IDENTITY, "step") if name in row) for row in rows}
    if len(whose) != 1:
        raise ProbeError(
            f"Expected the heat maps of one sample at one step (-1: all steps together); got those "
            f"of {len(whose)}. Filter the table by key, image_index and step."
        )
    rows = [row for row in rows if row["word"] != SPECIAL]
    places = _occurrences(rows, "".join(word.lower().split()))
    if not places:
        text = " ".join(str(row["token_text"]) for row in rows)
        raise ProbeError(f"Expected a word of the prompt ({text}); got {word!r}.")
    maps = np.array([row["map"] for row in rows], np.float64)
    if normalize:
        maps /= maps.sum(axis=0) + NOTHING
    mean: NDArray[np.float64] = maps[places].mean(axis=0)
    return mean.reshape(rows[0]["height"], rows[0]["width"])


def _occurrences(rows: Sequence[Mapping[str, Any]], wanted: str) -> list[int]:
    """Places of the tokens in every run of neighbours that spell `wanted`."""
    found: list[int] = []
    for start in range(len(rows)):
        spelled, end = "", start
        while (
            end < len(rows)
            and len(spelled) < len(wanted)
            and rows[end]["token"] - rows[start]["token"] == end - start
        ):
            spelled += str(rows[end]["token_text"]).lower()
            end += 1
        if wanted and spelled == wanted:
            found += range(start, end)
    return found


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

    Summed over all steps and layers of the table, or over some of them: one step, one layer. The
    table holds means over heads, so that nothing is cut off at 0 here, and a map is divided by the
    number of maps that it is the sum of: it is a probability.
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
    whole = np.zeros(size)
    for values in sums.values():
        image = torch.from_numpy(values)[None, None]
        whole += F.interpolate(image, size, mode="bicubic", align_corners=False)[0, 0].numpy()
    return whole / total

"""Heat maps of each content token: where in the image its word was looked at.

After Tang et al. 2023 (DAAM), who sum over heads, layers and steps. Here it is the mean, so that
a map is a probability and does not depend on how many steps were observed; layers are brought to
the largest attention resolution bilinearly (DAAM: bicubic, which can overshoot below 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from evaluator.probes.layers import Grid
from evaluator.probes.schemas import HEATMAP_SCHEMA, LAYER_MAP_SCHEMA

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.tokens import TokenizedPrompt

ALL_STEPS = -1
"""In the column `step`: the mean over all observed steps."""


class LayerMaps(NamedTuple):
    """Maps of one layer, or of one group of layers, summed over the group."""

    grid: Grid
    sums: Tensor
    """(S, rows, T, N): sums over layers of the mean over heads."""
    counts: Tensor
    """(S,): layers."""
    heads: int


class HeatmapSums:
    """Sums over layers, kept apart by resolution and step until all layers are in."""

    def __init__(self, rows: Sequence[int], num_steps: int) -> None:
        self._rows = list(rows)
        self._num_steps = num_steps
        self._sums: dict[Grid, Tensor] = {}
        self._counts = torch.zeros(num_steps)
        self.layers: dict[str, LayerMaps] = {}
        """Label of a layer or group → its own maps, in the order in which they ran."""

    def add(
        self, probabilities: Tensor, grid: Grid, step_places: Sequence[int], *, label: str = ""
    ) -> None:
        """(S, B, heads, T, N) of one layer; `step_places` index the observed steps.

        With a `label` the maps are kept by layer or group too.
        """
        if not self._rows:
            return
        maps = probabilities[:, self._rows].mean(dim=2)
        if grid not in self._sums:
            self._sums[grid] = maps.new_zeros(self._num_steps, *maps.shape[1:])
        places = torch.tensor(step_places)
        self._sums[grid].index_add_(0, places.to(maps.device), maps)
        ones = torch.ones(len(step_places))
        self._counts.index_add_(0, places, ones)
        if not label:
            return
        if label not in self.layers:
            sums = torch.zeros_like(self._sums[grid])
            self.layers[label] = LayerMaps(
                grid, sums, torch.zeros(self._num_steps), probabilities.shape[2]
            )
        self.layers[label].sums.index_add_(0, places.to(maps.device), maps)
        self.layers[label].counts.index_add_(0, places, ones)

    def largest(self) -> Grid:
        """The finest resolution of any layer."""
        return max(self._sums, key=lambda grid: grid.num_positions)

    def means(self) -> Tensor:
        """(S + 1, rows, T, height, width) float32 on the CPU; the last is the mean over steps."""
        height, width = self.largest()
        total = torch.zeros(())
        for grid, sums in self._sums.items():
            maps = sums.view(-1, sums.shape[2], *grid)
            resized = maps
            if grid != (height, width):
                resized = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
            total = total + resized.view(*sums.shape[:2], -1, height, width).cpu()
        overall = total.sum(dim=0, keepdim=True) / self._counts.sum()
        return torch.cat([total / self._counts.view(-1, 1, 1, 1, 1), overall])


def heatmap_table(
    sums: HeatmapSums | None,
    *,
    rows: Sequence[int],
    samples: Sequence[int],
    prompts: Sequence[TokenizedPrompt],
    steps: Sequence[int],
    positions: Sequence[int] | None = None,
) -> pa.Table:
    """Table of `HEATMAP_SCHEMA`: each mapped row's content tokens, all steps together, then each.

    `rows` are the mapped rows of the denoiser's conditional branch, `samples` and `prompts` belong
    to all of its rows, `steps` are the observed ones;
    `positions` are the text positions of the maps' columns, by default counted from 0.
    """
    if sums is None or not rows:
        return HEATMAP_SCHEMA.empty_table()
    maps = sums.means().numpy()
    height, width = maps.shape[-2:]
    columns_of = _columns(positions, maps.shape[2])
    records: dict[str, list[object]] = {name: [] for name in HEATMAP_SCHEMA.names}
    for place, row in enumerate(rows):
        for index, step in [(len(steps), ALL_STEPS), *enumerate(steps)]:
            for token in prompts[row].content:
                values = (samples[row], step, token.word, token.position, token.text)
                column = columns_of[token.position]
                flat = np.ascontiguousarray(maps[index, place, column]).reshape(-1)
                for name, value in zip(
                    HEATMAP_SCHEMA.names, (*values, height, width, flat), strict=True
                ):
                    records[name].append(value)
    columns = [pa.array(records[field.name], field.type) for field in HEATMAP_SCHEMA]
    return pa.table(columns, schema=HEATMAP_SCHEMA)


def _columns(positions: Sequence[int] | None, num_columns: int) -> dict[int, int]:
    places = range(num_columns) if positions is None else positions
    return {position: column for column, position in enumerate(places)}


def layer_map_table(
    sums: HeatmapSums | None,
    *,
    rows: Sequence[int],
    samples: Sequence[int],
    prompts: Sequence[TokenizedPrompt],
    steps: Sequence[int],
    positions: Sequence[int] | None = None,
) -> pa.Table:
    """Table of `LAYER_MAP_SCHEMA`: by mapped row, step, layer or group, and content token."""
    records: dict[str, list[object]] = {name: [] for name in LAYER_MAP_SCHEMA.names}
    layers = [] if sums is None else list(sums.layers.items())
    arrays = {label: maps.sums.cpu().numpy() for label, maps in layers}
    for place, row in enumerate(rows):
        for index, step in enumerate(steps):
            for label, maps in layers:
                count = int(maps.counts[index])
                columns_of = _columns(positions, maps.sums.shape[2])
                for token in prompts[row].content if count else ():
                    flat = arrays[label][index, place, columns_of[token.position]] / count
                    who = (token.word, token.position)
                    told = (samples[row], step, label, count, maps.heads, *who)
                    values = (*told, token.text, maps.grid.height, maps.grid.width, flat)
                    for name, value in zip(LAYER_MAP_SCHEMA.names, values, strict=True):
                        records[name].append(value)
    return pa.table([pa.array(records[f.name], f.type) for f in LAYER_MAP_SCHEMA], LAYER_MAP_SCHEMA)

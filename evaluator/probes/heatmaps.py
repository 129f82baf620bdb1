"""Heat maps of each content token: where in the image its word was looked at.

After Tang et al. 2023 (DAAM), who sum over heads, layers and steps. Here it is the mean, so that
a map is a probability and does not depend on how many steps were observed; layers are brought to
the largest attention resolution bilinearly (DAAM: bicubic, which can overshoot below 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from evaluator.probes.layers import Grid
from evaluator.probes.schemas import HEATMAP_SCHEMA

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.tokens import TokenizedPrompt

ALL_STEPS = -1
"""In the column `step`: the mean over all observed steps."""


class HeatmapSums:
    """Sums over layers, kept apart by resolution and step until all layers are in."""

    def __init__(self, rows: Sequence[int], num_steps: int) -> None:
        self._rows = list(rows)
        self._num_steps = num_steps
        self._sums: dict[Grid, Tensor] = {}
        self._counts = torch.zeros(num_steps)

    def add(self, probabilities: Tensor, grid: Grid, step_places: Sequence[int]) -> None:
        """(S, B, heads, T, N) of one layer; `step_places` index the observed steps."""
        if not self._rows:
            return
        maps = probabilities[:, self._rows].mean(dim=2)
        if grid not in self._sums:
            self._sums[grid] = maps.new_zeros(self._num_steps, *maps.shape[1:])
        places = torch.tensor(step_places)
        self._sums[grid].index_add_(0, places.to(maps.device), maps)
        self._counts.index_add_(0, places, torch.ones(len(step_places)))

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
) -> pa.Table:
    """Table of `HEATMAP_SCHEMA`: each mapped row's content tokens, all steps together, then each.

    `rows` are the mapped rows of the denoiser's conditional branch, `samples` and `prompts` belong
    to all of its rows, `steps` are the observed ones.
    """
    if sums is None or not rows:
        return HEATMAP_SCHEMA.empty_table()
    maps = sums.means().numpy()
    height, width = maps.shape[-2:]
    records: dict[str, list[object]] = {name: [] for name in HEATMAP_SCHEMA.names}
    for place, row in enumerate(rows):
        for index, step in [(len(steps), ALL_STEPS), *enumerate(steps)]:
            for token in prompts[row].content:
                values = (samples[row], step, token.word, token.position, token.text)
                flat = np.ascontiguousarray(maps[index, place, token.position]).reshape(-1)
                for name, value in zip(
                    HEATMAP_SCHEMA.names, (*values, height, width, flat), strict=True
                ):
                    records[name].append(value)
    columns = [pa.array(records[field.name], field.type) for field in HEATMAP_SCHEMA]
    return pa.table(columns, schema=HEATMAP_SCHEMA)

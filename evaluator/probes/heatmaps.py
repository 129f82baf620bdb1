"""Heat maps of each token: where in the image its word was looked at, as DAAM aggregates them.

Of all observed steps together, of each step by itself, and by step and layer before enlarging.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from evaluator.errors import ProbeError
from evaluator.probes.attention_statistics import indices
from evaluator.probes.daam import MapLayers, enlarged
from evaluator.probes.layers import Grid
from evaluator.probes.schemas import HEATMAP_SCHEMA, LAYER_MAP_SCHEMA
from evaluator.probes.tokens import SPECIAL

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.tokens import Token, TokenizedPrompt

ALL_STEPS = -1
"""In the column `step`: all observed steps together."""
MAX_ENLARGED_BYTES = 64 * 2**20
"""Maps enlarged at once; they are larger than the probabilities that they come from."""


class LayerMaps(NamedTuple):
    """Maps of one layer, or of one group of layers, summed over the group."""

    grid: Grid
    sums: Tensor
    """(S, rows, T, N): sums over layers of the mean over heads."""
    counts: Tensor
    """(S,): layers."""
    heads: int


class HeadSums(NamedTuple):
    """Maps of one layer's heads, summed over steps: what must wait to be cut off at 0."""

    grid: Grid
    sums: Tensor
    """(rows, heads, T, N)."""


class HeatmapSums:
    """Maps of some rows of the batch, as the layers run.

    All steps together cost, for each mapped sample and each token of the batch's prompts, 4 bytes ×
    (heads × positions of every layer that is enlarged, and the map's positions once), however many
    steps there are: 0.22 MB with Stable Diffusion 1.5 at 512 pixels, 4.1 MB with SDXL at 1,024, and
    16 kB with a transformer at 1,024. The maps of each step are rows of a table, and grow with it.
    """

    def __init__(
        self,
        rows: Sequence[int],
        num_steps: int,
        chosen: MapLayers,
        *,
        heads: Sequence[int] | None = None,
    ) -> None:
        """Maps of `rows` from the layers `chosen`, from all heads or those with these numbers."""
        self._rows = list(rows)
        self._num_steps = num_steps
        self._chosen = chosen
        self._heads = None if heads is None else list(heads)
        self._steps = torch.zeros(())
        self._step_counts = torch.zeros(num_steps)
        self._at_size = torch.zeros(())
        self._apart: dict[str, HeadSums] = {}
        self._num_heads: dict[str, int] = {}
        self.layers: dict[str, LayerMaps] = {}
        """Label of a layer or group → its own maps."""

    @property
    def size(self) -> Grid:
        """Height and width of the maps."""
        return self._chosen.size

    def add(
        self,
        probabilities: Tensor,
        grid: Grid,
        step_places: Sequence[int],
        *,
        layers: Sequence[str],
        label: str = "",
    ) -> None:
        """(S, B, heads, T, N): layer `layers[i]` at the observed step number `step_places[i]`.

        With a `label` the maps are kept by layer or group too.
        """
        maps = probabilities.index_select(1, indices(self._rows, probabilities.device))
        if label:
            self._add_to_label(label, maps, grid, step_places)
        counted = [i for i, name in enumerate(layers) if name in self._chosen.grids]
        if not counted:
            return
        if self._heads is not None:
            chosen = self._of_heads(maps.shape[2], layers[counted[0]])
            maps = maps.index_select(2, indices(chosen, maps.device))
        size = max(1, MAX_ENLARGED_BYTES // (4 * maps[0, ..., 0].numel() * self.size.num_positions))
        for start in range(0, len(counted), size):
            some = counted[start : start + size]
            every = len(some) == len(layers)
            part = maps if every else maps.index_select(0, indices(some, maps.device))
            self._add_steps(part, grid, [step_places[i] for i in some])
        for i in counted:
            self._add_heads(layers[i], maps[i], grid)

    def _of_heads(self, num_heads: int, layer: str) -> list[int]:
        assert self._heads is not None
        if beyond := [head for head in self._heads if head >= num_heads]:
            raise ProbeError(
                f"probes.attention.map_heads: expected numbers below {num_heads}, the heads of "
                f"{layer}; got {beyond[0]}. Choose layers with as many heads by map_layers."
            )
        return self._heads

    def _add_steps(self, maps: Tensor, grid: Grid, step_places: Sequence[int]) -> None:
        """(S, rows, heads, T, N), each step cut off at 0 by itself."""
        whole = enlarged(maps, grid, self.size).sum(dim=2)
        if not self._steps.ndim:
            self._steps = whole.new_zeros(self._num_steps, *whole.shape[1:])
        self._steps.index_add_(0, indices(step_places, whole.device), whole)
        heads = torch.full((len(step_places),), float(maps.shape[2]))
        self._step_counts.index_add_(0, torch.tensor(step_places), heads)

    def _add_heads(self, layer: str, maps: Tensor, grid: Grid) -> None:
        """(rows, heads, T, N); heads and layers stay apart only where they will be enlarged."""
        self._num_heads[layer] = maps.shape[1]
        if grid == self.size:
            self._at_size = self._at_size + maps.sum(dim=1)
            return
        if layer not in self._apart:
            self._apart[layer] = HeadSums(grid, maps.new_zeros(maps.shape))
        self._apart[layer].sums.add_(maps)

    def _add_to_label(
        self, label: str, maps: Tensor, grid: Grid, step_places: Sequence[int]
    ) -> None:
        means = maps.mean(dim=2)
        if label not in self.layers:
            sums = means.new_zeros(self._num_steps, *means.shape[1:])
            self.layers[label] = LayerMaps(grid, sums, torch.zeros(self._num_steps), maps.shape[2])
        self.layers[label].sums.index_add_(0, indices(step_places, means.device), means)
        self.layers[label].counts.index_add_(
            0, torch.tensor(step_places), torch.ones(len(step_places))
        )

    def maps(self) -> Tensor:
        """(S + 1, rows, T, height, width) float32 on the CPU: of each step, then of all together.

        Means over heads and layers; the last are sums over steps.
        """
        overall = self._at_size
        for one in self._apart.values():
            overall = overall + enlarged(one.sums, one.grid, self.size).sum(dim=1)
        steps = self._steps.cpu() / self._step_counts.view(-1, 1, 1, 1)
        overall = overall.cpu() / sum(self._num_heads.values())
        whole = torch.cat([steps, overall.unsqueeze(0)])
        return whole.view(*whole.shape[:-1], *self.size)


def heatmap_table(
    sums: HeatmapSums | None,
    *,
    rows: Sequence[int],
    samples: Sequence[int],
    prompts: Sequence[TokenizedPrompt],
    steps: Sequence[int],
    positions: Sequence[int] | None = None,
) -> pa.Table:
    """Table of `HEATMAP_SCHEMA`: each mapped row's tokens, all steps together, then each step.

    `rows` are the mapped rows of the denoiser's conditional branch, `samples` and `prompts` belong
    to all of its rows, `steps` are the observed ones;
    `positions` are the text positions of the maps' columns, by default counted from 0.
    """
    if sums is None or not rows:
        return HEATMAP_SCHEMA.empty_table()
    maps = sums.maps().numpy()
    height, width = maps.shape[-2:]
    columns_of = _columns(positions, maps.shape[2])
    records: list[tuple[object, ...]] = []
    for place, row in enumerate(rows):
        for index, step in [(len(steps), ALL_STEPS), *enumerate(steps)]:
            num_steps = len(steps) if step == ALL_STEPS else 1
            for token in _mapped(prompts[row]):
                told = (token.word, token.position, token.text)
                column = columns_of[token.position]
                flat = np.ascontiguousarray(maps[index, place, column]).reshape(-1)
                records.append((samples[row], step, num_steps, *told, height, width, flat))
    return _table(records, HEATMAP_SCHEMA)


def _table(records: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """Rows, each with its values in the order of the schema."""
    columns = zip(*records, strict=True) if records else ((),) * len(schema)
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def _mapped(prompt: TokenizedPrompt) -> list[Token]:
    """Tokens of words, and begin and end of text: not what a pipeline's template adds."""
    kept: list[Token] = []
    for _, group in groupby(prompt.tokens, key=lambda token: token.encoder):
        read = list(group)
        kept += [token for token in read if token.word != SPECIAL or token in (read[0], read[-1])]
    return kept


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
    labels: Iterable[str],
    positions: Sequence[int] | None = None,
) -> pa.Table:
    """Table of `LAYER_MAP_SCHEMA`: by mapped row, step, layer or group, and content token.

    Layers and groups come in the order of `labels`.
    """
    records: list[tuple[object, ...]] = []
    kept = {} if sums is None else sums.layers
    layers = [(label, kept[label]) for label in labels if label in kept]
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
                    records.append((*told, token.text, maps.grid.height, maps.grid.width, flat))
    return _table(records, LAYER_MAP_SCHEMA)

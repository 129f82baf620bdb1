"""Record the attention of one run to its text, and digest it into statistics.

Queries and keys are only kept while the model runs, and digested together, several layers and
steps at once: on small models the number of operations costs more than their size.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from evaluator.errors import ObservationError
from evaluator.probes.attention_pairs import pair_statistics
from evaluator.probes.attention_statistics import (
    attention_statistics,
    indices,
    log_normaliser,
    text_maps,
)
from evaluator.probes.boundaries import AttentionCall, LayerBoundary
from evaluator.probes.heatmaps import HeatmapSums
from evaluator.probes.layers import AttentionLayer, Grid, Order
from evaluator.probes.sequences import TextColumns, image_to_text, of_rows

if TYPE_CHECKING:
    from torch import Tensor

MAX_PENDING_BYTES = 64 * 2**20
"""Queries, keys and probabilities waiting to be digested; more is digested at once."""
MAX_PENDING_BYTES_ON_DEVICE = 4 * MAX_PENDING_BYTES
"""The same on a GPU, where each digest costs its launches however little waits."""


class Captured(NamedTuple):
    """One layer on one step, conditional rows only."""

    tally: Tally
    place: int
    """Index into the tally's steps."""
    layer: str
    label: str
    grid: Grid
    call: AttentionCall
    """Queries of the image, keys of the prompt's tokens, and the normaliser over all keys."""


class LayerFacts(NamedTuple):
    """What is known of a layer once it ran."""

    layer: AttentionLayer
    group: str
    grid: Grid
    heads: int


class StatisticSums:
    """Statistics of one layer, or of one group of layers, summed over the group's layers."""

    def __init__(self, grid: Grid, num_steps: int) -> None:
        self.grid = grid
        self.counts = torch.zeros(num_steps)
        """(S,) on the CPU: layers that ran at each step."""
        self._sums = torch.zeros(())

    def add(self, statistics: Tensor, places: Sequence[int]) -> None:
        """(K, S, B, T, …) of steps `places`, which may repeat."""
        if not self._sums.ndim:
            num_statistics, _, *rest = statistics.shape
            self._sums = statistics.new_zeros(num_statistics, len(self.counts), *rest)
        self._sums.index_add_(1, indices(places, statistics.device), statistics)
        self.counts.index_add_(0, torch.tensor(places), torch.ones(len(places)))

    def means(self) -> Tensor:
        """(K, S, B, T, …) on the CPU; NaN on steps at which no layer of the group ran."""
        counts = self.counts.view(1, -1, *(1,) * (self._sums.ndim - 2))
        return self._sums.cpu() / counts


class Reading(NamedTuple):
    """For whom one pass of the denoiser is recorded."""

    tally: Tally
    place: int
    """Index into the tally's steps."""
    rows: Sequence[int] | None = None
    """Of the recorded rows, those that it takes; None takes all."""


class AttentionRecorder:
    """Hooks on attention layers, there only between `begin` and `end`."""

    def __init__(self, layers: Sequence[AttentionLayer], order: Order) -> None:
        self._layers = layers
        self._order = order
        self._thread = threading.get_ident()
        self._readings: Sequence[Reading] = ()
        self._rows: slice | list[int] = slice(0)
        self._columns = TextColumns.none()
        self._heard = 0
        self._handles: list[Any] = []
        self._open: LayerBoundary | None = None
        self._pending: list[Captured] = []
        self._pending_bytes = 0
        self._most_pending = MAX_PENDING_BYTES
        self.facts: dict[str, LayerFacts] = {}
        """By the layer's name, in the order in which the layers ran."""
        self.num_layer_runs = 0
        """Layer runs on observed steps."""
        self.unseen: set[str] = set()
        """Layers that ran on an observed step and were not seen exactly once."""

    def begin(
        self, rows: slice | list[int], columns: TextColumns, readings: Sequence[Reading]
    ) -> None:
        """The denoiser starts; record these batch rows, whose texts `columns` tells of."""
        self._rows, self._columns, self._readings = rows, columns, readings
        for layer in self._layers:
            before, after = self._hooks(layer)
            self._handles.append(layer.module.register_forward_pre_hook(before))
            # Also after an error: a patched function must never be left behind.
            self._handles.append(layer.module.register_forward_hook(after, always_call=True))

    def end(self) -> None:
        """The denoiser is done, or was interrupted; take the hooks away."""
        if self._open is not None:
            # Only after what is no Exception (Ctrl-C, SystemExit): torch then calls no hook.
            self._open.close()
            self._open = None
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """No hook is left behind, errors included."""
        try:
            yield
        finally:
            self.end()

    def _hooks(self, layer: AttentionLayer) -> tuple[Callable[..., None], Callable[..., None]]:
        boundary = LayerBoundary(layer.module, lambda call: self._hear(layer, call))

        def before(module: Any, args: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            self._heard = 0
            self._open = boundary
            boundary.open()

        def after(module: Any, args: Any, output: Any) -> None:
            if self._open is not boundary:
                return
            self._open = None
            boundary.close()
            self.num_layer_runs += 1
            if self._heard != 1:
                self.unseen.add(layer.name)
            if self._pending_bytes > self._most_pending:
                self.digest()

        return before, after

    @torch.no_grad()
    def _hear(self, layer: AttentionLayer, call: AttentionCall) -> None:
        """Keep one attention call: views where that is enough, no copies."""
        self._heard += 1
        rows = self._rows
        mask, normaliser = call.mask, call.normaliser
        if mask is not None:
            mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
            mask = mask[rows] if mask.shape[0] > 1 else mask
        query, key = call.query[rows], call.key[rows]
        if normaliser is None:
            normaliser = log_normaliser(query, key, mask, scale=call.scale)
        else:
            normaliser = normaliser[rows]
        whole = AttentionCall(query, key, mask, call.scale, normaliser)
        grid, kept = image_to_text(self._order, whole, self._columns, layer.name)
        self.facts.setdefault(
            layer.name, LayerFacts(layer, f"{layer.block}-{grid}", grid, query.shape[1])
        )
        if call.query.device.type != "cpu":
            self._most_pending = MAX_PENDING_BYTES_ON_DEVICE
        # Rows that are not kept stay alive with those they share memory with.
        self._pending_bytes += call.query.nbytes
        for reading in self._readings:
            part = kept if reading.rows is None else of_rows(kept, reading.rows)
            label = reading.tally.enter(layer, grid)
            captured = Captured(reading.tally, reading.place, layer.name, label, grid, part)
            self._pending.append(captured)
            num_probabilities = part.query[..., 0].numel() * part.key.shape[2]
            self._pending_bytes += part.key.nbytes + 8 * num_probabilities

    def digest(self) -> None:
        """Turn what is pending into statistics: one pass for all captures of equal form."""
        alike: dict[tuple[Any, ...], list[Captured]] = defaultdict(list)
        for captured in self._pending:
            call = captured.call
            mask_form = None if call.mask is None else (call.mask.shape, call.mask.dtype)
            form = (captured.grid, call.query.shape, call.key.shape, call.scale, mask_form)
            alike[captured.tally, *form].append(captured)
        self._pending, self._pending_bytes = [], 0
        for group in alike.values():
            device = group[0].call.query.device
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                group[0].tally.digest(group)

    def check(self) -> None:
        """ProbeError if a layer ran and left no record, or none ran at all."""
        if self.unseen:
            names = sorted(self.unseen)
            raise ObservationError(
                f"Expected to see every attention layer exactly once a pass; {len(names)} "
                f"ran unseen or attended several times, {names[0]} among them. Use the default "
                "attention processors (unet.set_default_attn_processor()), or remove attention "
                "from the probes."
            )
        if self.num_layer_runs and (
            silent := [x for x in self._layers if x.name not in self.facts]
        ):
            raise ObservationError(
                f"Expected every attention layer to run on an observed step; {silent[0].name} did "
                "not. Turn off what skips layers, or remove attention from the probes."
            )


class Tally:
    """What is summed up of some rows at some steps, by layer or by group of layers."""

    def __init__(self, label: Callable[[AttentionLayer, Grid], str], *, pairs: bool) -> None:
        self._label = label
        self._pairs = pairs
        self._num_steps = 0
        self._present: Tensor | None = None
        self.statistics: dict[str, StatisticSums] = {}
        """By label, in the order in which the layers ran."""
        self.pairs: dict[str, StatisticSums] = {}
        """The same, for pairs of tokens."""
        self.heatmaps: HeatmapSums | None = None

    def prepare(
        self, *, num_steps: int, present: Tensor, heatmaps: HeatmapSums | None = None
    ) -> None:
        """What is only known once the run has begun; `present` (B, T) of the tally's rows."""
        self._num_steps, self._present, self.heatmaps = num_steps, present, heatmaps

    def enter(self, layer: AttentionLayer, grid: Grid) -> str:
        """The label that a layer's statistics are summed up under."""
        label = self._label(layer, grid)
        for sums in (self.statistics, self.pairs) if self._pairs else (self.statistics,):
            if label not in sums:
                sums[label] = StatisticSums(grid, self._num_steps)
        return label

    def digest(self, group: Sequence[Captured]) -> None:
        """Add captures of equal form."""
        group = sorted(group, key=lambda captured: captured.label)
        calls = [captured.call for captured in group]
        masks = [call.mask for call in calls if call.mask is not None]
        normalisers = [call.normaliser for call in calls if call.normaliser is not None]
        probabilities, logs = text_maps(
            _stacked([call.query for call in calls]),
            _stacked([call.key for call in calls]),
            _stacked(masks) if masks else None,
            _stacked(normalisers),
            scale=calls[0].scale,
        )
        grid = group[0].grid
        statistics = attention_statistics(probabilities, grid, logs=logs, present=self._present)
        pairs = pair_statistics(probabilities) if self._pairs else None
        start = 0
        for label, members in groupby(group, key=lambda captured: captured.label):
            some = list(members)
            own = slice(start, start := start + len(some))
            places = [captured.place for captured in some]
            self.statistics[label].add(statistics[:, own], places)
            if pairs is not None:
                self.pairs[label].add(pairs[:, own], places)
            if self.heatmaps is not None:
                layers = [captured.layer for captured in some]
                self.heatmaps.add(probabilities[own], grid, places, layers=layers, label=label)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """(S, …); a single tensor is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))

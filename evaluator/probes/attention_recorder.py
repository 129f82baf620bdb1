"""Record the cross-attention of one run, and digest it into statistics.

Queries and keys are only kept while the model runs, and digested together, several layers and
steps at once: on small models the number of operations costs more than their size.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from evaluator.errors import ProbeError
from evaluator.probes.attention_statistics import attention_statistics, text_probabilities
from evaluator.probes.boundaries import AttentionCall, LayerBoundary
from evaluator.probes.heatmaps import HeatmapSums
from evaluator.probes.layers import AttentionLayer, Grid, grid_of

if TYPE_CHECKING:
    from torch import Tensor

MAX_PENDING_BYTES = 64 * 2**20
"""Queries, keys and probabilities waiting to be digested; more is digested at once."""


class Captured(NamedTuple):
    """One layer on one step, conditional rows only."""

    place: int
    """Index into the observed steps."""
    label: str
    grid: Grid
    call: AttentionCall


class StatisticSums:
    """Statistics of one layer, or of one group of layers, summed over the group's layers."""

    def __init__(self, grid: Grid, shape: Sequence[int], num_steps: int, device: Any) -> None:
        num_statistics, _, *rest = shape
        self.grid = grid
        self.sums = torch.zeros(num_statistics, num_steps, *rest, device=device)
        self.counts = torch.zeros(num_steps, device=device)

    def add(self, statistics: Tensor, places: Tensor) -> None:
        """(10, S, B, T) of steps `places`, which may repeat."""
        self.sums.index_add_(1, places, statistics)
        self.counts.index_add_(0, places, torch.ones_like(places, dtype=torch.float32))

    def means(self) -> Tensor:
        """(10, S, B, T) on the CPU; NaN on steps at which no layer of the group ran."""
        return (self.sums / self.counts.view(1, -1, 1, 1)).cpu()


class AttentionRecorder:
    """Hooks on cross-attention layers; asleep unless told `begin`."""

    def __init__(
        self, layers: Sequence[AttentionLayer], label: Callable[[AttentionLayer, Grid], str]
    ) -> None:
        self._layers = layers
        self._label = label
        self._thread = threading.get_ident()
        self._place: int | None = None
        self._rows = slice(0)
        self._latent_size = (0, 0)
        self._num_tokens = 0
        self._num_steps = 0
        self._heard = 0
        self._pending: list[Captured] = []
        self._pending_bytes = 0
        self.statistics: dict[str, StatisticSums] = {}
        """By label, in the order in which the layers ran."""
        self.heatmaps: HeatmapSums | None = None
        self.num_layer_runs = 0
        """Layer runs on observed steps."""
        self.unseen: set[str] = set()
        """Layers that ran on an observed step and were not seen exactly once."""

    def prepare(self, *, num_tokens: int, num_steps: int, heatmaps: HeatmapSums | None) -> None:
        """What is only known once the run has begun: text columns and steps to keep."""
        self._num_tokens = num_tokens
        self._num_steps = num_steps
        self.heatmaps = heatmaps

    def begin(self, place: int, rows: slice, latent_size: tuple[int, int]) -> None:
        """The denoiser starts on the observed step number `place`; record these batch rows."""
        self._place, self._rows, self._latent_size = place, rows, latent_size

    def end(self) -> None:
        """The denoiser is done; sleep."""
        self._place = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hooks on all layers while inside."""
        handles = []
        try:
            for layer in self._layers:
                before, after = self._hooks(layer)
                handles.append(layer.module.register_forward_pre_hook(before))
                # Also after an error: a patched function must never be left behind.
                handles.append(layer.module.register_forward_hook(after, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, layer: AttentionLayer) -> tuple[Callable[..., None], Callable[..., None]]:
        boundary = LayerBoundary(layer.module, lambda call: self._hear(layer, call))
        is_open = False

        def before(module: Any, args: Any) -> None:
            nonlocal is_open
            if self._place is None or threading.get_ident() != self._thread:
                return
            self._heard = 0
            is_open = True
            boundary.open()

        def after(module: Any, args: Any, output: Any) -> None:
            nonlocal is_open
            if not is_open:
                return
            is_open = False
            boundary.close()
            self.num_layer_runs += 1
            if self._heard != 1:
                self.unseen.add(layer.name)
            if self._pending_bytes > MAX_PENDING_BYTES:
                self.digest()

        return before, after

    def _hear(self, layer: AttentionLayer, call: AttentionCall) -> None:
        """Keep one attention call: the tensors themselves, no copies."""
        self._heard += 1
        assert self._place is not None
        height, width = self._latent_size
        grid = grid_of(call.query.shape[2], height=height, width=width)
        if call.key.shape[2] < self._num_tokens:
            raise ProbeError(
                f"Expected at least {self._num_tokens} text positions, as the tokenizer counts "
                f"them; {layer.name} attends to {call.key.shape[2]}. Let the pipeline encode the "
                "prompts itself, or remove attention from the probes."
            )
        mask = call.mask
        if mask is not None and mask.shape[0] > 1:
            mask = mask[self._rows]
        kept = AttentionCall(call.query[self._rows], call.key[self._rows], mask, call.scale)
        self._pending.append(Captured(self._place, self._label(layer, grid), grid, kept))
        num_probabilities = kept.query[..., 0].numel() * kept.key.shape[2]
        # The unconditional rows stay alive with the conditional ones they share memory with.
        kept_bytes = call.query.nbytes + call.key.nbytes
        self._pending_bytes += kept_bytes + 4 * num_probabilities

    def digest(self) -> None:
        """Turn what is pending into statistics: one pass for all captures of equal form."""
        alike: dict[tuple[Any, ...], list[Captured]] = defaultdict(list)
        for captured in self._pending:
            call = captured.call
            mask_form = None if call.mask is None else (call.mask.shape, call.mask.dtype)
            form = (captured.label, call.query.shape, call.key.shape, call.scale, mask_form)
            alike[form].append(captured)
        self._pending, self._pending_bytes = [], 0
        for group in alike.values():
            device = group[0].call.query.device
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                self._digest_alike(group)

    def _digest_alike(self, group: list[Captured]) -> None:
        calls = [captured.call for captured in group]
        masks = [call.mask for call in calls if call.mask is not None]
        probabilities = text_probabilities(
            torch.stack([call.query for call in calls]),
            torch.stack([call.key for call in calls]),
            torch.stack(masks) if masks else None,
            scale=calls[0].scale,
            num_tokens=self._num_tokens,
        )
        places = [captured.place for captured in group]
        label, grid = group[0].label, group[0].grid
        statistics = attention_statistics(probabilities, grid)
        if label not in self.statistics:
            form = (grid, statistics.shape, self._num_steps, statistics.device)
            self.statistics[label] = StatisticSums(*form)
        self.statistics[label].add(statistics, torch.tensor(places, device=statistics.device))
        if self.heatmaps is not None:
            self.heatmaps.add(probabilities, grid, places)

"""The attention probe: where in the image each token of the prompt is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evaluator.errors import ConfigError, ObservationError, ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.attention_recorder import AttentionRecorder, Reading, Tally
from evaluator.probes.attention_table import (
    AttentionRows,
    attention_table,
    layer_table,
    pair_table,
    token_table,
)
from evaluator.probes.branches import BranchRows, samples_of
from evaluator.probes.daam import map_layers, narrowed
from evaluator.probes.heatmaps import HeatmapSums, heatmap_table, layer_map_table
from evaluator.probes.layers import (
    AttentionLayer,
    Grid,
    attention_layers,
    check_heads,
    family_of,
)
from evaluator.probes.noise import NoiseFamily, noise_family
from evaluator.probes.precision import parse_dtype, stored
from evaluator.probes.samples import SampleChoice
from evaluator.probes.schemas import ATTENTION_SCHEMA, ATTENTION_STATISTICS, PAIR_STATISTICS
from evaluator.probes.sequences import TextColumns, text_columns
from evaluator.probes.steps import StepChoice
from evaluator.probes.texts import check_ids, read_prompts
from evaluator.probes.tokens import TokenizedPrompt
from evaluator.probes.watch import PipelineWatch, StepCall, StepTime

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.protocols import GenerativeModel
    from evaluator.records import Prompt

LAYERS = ("groups", "all")


class AttentionProbe:
    """Where the image looks for each token, at each observed step and in each layer group.

    Exact probabilities, from the queries and keys that enter the kernel; conditional branch only.
    Cross-attention (Stable Diffusion 1, 2 and XL, PixArt, Sana) and joint attention (Stable
    Diffusion 3, Flux, Qwen-Image, Lumina 2), where image positions look at text and image alike.
    A step's maps are those of its first model evaluation (second-order samplers make several).
    """

    def __init__(
        self,
        *,
        steps: str | int | Sequence[int] = "all",
        layers: str = "groups",
        maps: int | Sequence[str] = 0,
        pairs: bool = False,
        full: int | Sequence[str] = 0,
        dtype: str = "float32",
        map_layers: Sequence[str] | None = None,
        map_heads: Sequence[int] | None = None,
    ) -> None:
        """Choose what to observe.

        `layers`: `groups` averages statistics over layers of equal block and resolution, `all`
        keeps each. `maps`: samples that also give heat maps: those at plan positions below a
        number, or those of the prompts with these keys; of all layers that DAAM takes and all
        heads, or of layers whose name or group fits one of `map_layers` (`up-16x16`,
        `down_blocks.0.*`) and of the heads numbered in `map_heads`. `pairs`: how much the maps of
        every two tokens have in common, too. `full`: samples, chosen as for `maps`, whose every
        step and layer is kept in a table of its own. `dtype` of statistics and heat maps; that of
        the full table is float32. A run writes float16, which few functions of pyarrow take as it
        is.
        """
        self.name = "attention"
        self.steps = StepChoice.parse(steps, name="probes.attention.steps")
        if layers not in LAYERS:
            raise ConfigError(f"layers: expected one of {', '.join(LAYERS)}; got {layers!r}.")
        self.layers = layers
        if not isinstance(pairs, bool):
            raise ConfigError(f"pairs: expected true or false; got {pairs!r}.")
        self.maps = SampleChoice.parse(maps, name="maps")
        self.full = SampleChoice.parse(full, name="full")
        self.dtype = parse_dtype(dtype)
        self.pairs = pairs
        if isinstance(map_layers, str):
            raise ConfigError(f"map_layers: expected a list of patterns; got {map_layers!r}.")
        self.map_layers = map_layers
        if map_heads is not None and (not map_heads or min(map_heads) < 0):
            raise ConfigError(f"map_heads: expected numbers from 0 on; got {list(map_heads)}.")
        self.map_heads = map_heads

    def check(self, model: GenerativeModel) -> None:
        """Raise what `attach` would, and ConfigError for heads that no layer has."""
        check_heads(attention_layers(model.pipeline), self.map_heads)

    @contextmanager
    def attach(
        self, model: GenerativeModel, prompts: Sequence[Prompt], positions: Sequence[int]
    ) -> Iterator[AttentionObservation]:
        """Watch one call of `model.generate(prompts, …)`; `positions` are places in the plan."""
        pipeline = model.pipeline
        layers = attention_layers(pipeline)
        observation = AttentionObservation(self, pipeline, layers, prompts, positions)
        with observation.recorder.attached(), observation.watch.attached():
            yield observation
        observation.recorder.digest()


def _group_name(layer: AttentionLayer, grid: Grid) -> str:
    """`down-8x8`, `mid-4x4`, `joint-early-64x64`: block and attention resolution."""
    return f"{layer.block}-{grid}"


def _layer_name(layer: AttentionLayer, grid: Grid) -> str:
    return layer.name


def _family_or_none(scheduler: Any) -> NoiseFamily | None:
    """Attention needs no noise level: where it is unknown, log_snr is null."""
    try:
        return noise_family(scheduler)
    except ProbeError:
        return None


class AttentionObservation:
    """What the attention layers did during one batch."""

    def __init__(
        self,
        probe: AttentionProbe,
        pipeline: Any,
        layers: Sequence[AttentionLayer],
        prompts: Sequence[Prompt],
        positions: Sequence[int],
    ) -> None:
        label = _group_name if probe.layers == "groups" else _layer_name
        self._compact = Tally(label, pairs=probe.pairs)
        self._full = Tally(_layer_name, pairs=False)
        self._full_samples = probe.full.select(prompts, positions)
        self.recorder = AttentionRecorder(layers, family_of(pipeline).order)
        family = _family_or_none(getattr(pipeline, "scheduler", None))
        # Only batches with a sample in full pay for every step.
        steps = StepChoice() if self._full_samples else probe.steps
        self.watch = PipelineWatch(pipeline, self, steps=steps, family=family)
        self._probe = probe
        self._pipeline = pipeline
        self._layers = layers
        self._prompts = prompts
        self._positions = positions
        self._steps: tuple[int, ...] = ()
        self._samples: list[int] = []
        self._tokenized: tuple[TokenizedPrompt, ...] = ()
        self._positions_of_text: list[int] = []
        self._columns = TextColumns.none()
        self._indistinct: list[bool] = []
        self._mapped: list[int] = []
        self._full_rows: list[int] = []
        self._recorded: set[int] = set()
        self._times: dict[int, StepTime] = {}

    def denoiser_starts(self, step: int, latents: Tensor, rows: BranchRows | None) -> None:
        """Record this pass if it holds the conditional branch, the first one of its step."""
        if rows is None:
            raise ProbeError(
                "Expected denoiser rows that match what encode_prompt returned, unconditional "
                "then conditional or conditional alone; they match neither. Attention cannot be "
                "told apart by prompt under these settings: remove it from the probes."
            )
        if rows.conditional is None or step in self._recorded:
            return
        if not self._samples:
            self._prepare(latents, rows.conditional)
        self._recorded.add(step)
        self._begin(step, rows.conditional)

    def _begin(self, step: int, rows: slice) -> None:
        """Record the rows that this step is observed for: all of them, or those in full alone."""
        whole = self.watch.observed.index(step)
        if step not in self._steps and not self._full_rows:
            return  # the model refused the prompts that were asked for in full
        if step not in self._steps:
            chosen = [rows.start + row for row in self._full_rows]
            columns = self._columns.of_rows(self._full_rows)
            self.recorder.begin(chosen, columns, [Reading(self._full, whole)])
            return
        readings = [Reading(self._compact, self._steps.index(step))]
        if self._full_rows:
            readings.append(Reading(self._full, whole, self._full_rows))
        self.recorder.begin(rows, self._columns, readings)

    def denoiser_ends(self, step: int, output: Tensor, rows: BranchRows | None) -> None:
        """Stop recording: the text encoder and the decoder attend too."""
        self.recorder.end()

    def stepping(self, step: int, latents: Tensor, call: StepCall | None) -> None:
        """Keep the noise level of an observed step."""
        if call is not None:
            self._times[step] = call.time

    def _prepare(self, latents: Tensor, rows: slice) -> None:
        """Tokens, samples and heat maps, as soon as the encoded texts are known."""
        encodings = self.watch.encodings
        assert encodings.conditional is not None
        num_rows, num_positions, _ = encodings.conditional.shape
        self._samples = samples_of(self._prompts, encodings.texts, num_rows)
        texts = encodings.texts
        if texts is None or len(texts) != num_rows:
            texts = tuple(self._prompts[sample].text or "" for sample in self._samples)
        arguments = encodings.arguments
        self._tokenized, given = read_prompts(self._pipeline, texts, arguments, num_positions)
        check_ids(given, encodings.ids)
        places = [[token.position for token in prompt.tokens] for prompt in self._tokenized]
        self._columns = text_columns(
            self._pipeline, self.watch.denoiser_inputs, latents, rows, places, num_positions
        )
        self._positions_of_text = self._columns.positions.tolist()
        self._indistinct = encodings.indistinct()
        mapped = self._probe.maps.select(self._prompts, self._positions)
        self._mapped = [row for row in self._rows_of(mapped) if not self._indistinct[row]]
        self._full_rows = self._rows_of(self._full_samples)
        whole = self.watch.observed
        self._steps = self._probe.steps.select(len(whole)) if self._full_samples else whole
        num_steps = len(self._steps)
        maps = self._heatmaps(num_steps) if self._mapped else None
        present = self._columns.present
        self._compact.prepare(num_steps=num_steps, present=present, heatmaps=maps)
        self._full.prepare(num_steps=len(whole), present=present[self._full_rows])

    def _heatmaps(self, num_steps: int) -> HeatmapSums:
        """Room for the maps of the mapped rows, from the layers that count."""
        chosen = map_layers(
            self._layers,
            denoiser_of(self._pipeline),
            self._columns.image,
            pixels_per_latent=getattr(self._pipeline, "vae_scale_factor", 8),
        )
        chosen = narrowed(chosen, self._layers, self._probe.map_layers)
        return HeatmapSums(self._mapped, num_steps, chosen, heads=self._probe.map_heads)

    def _rows_of(self, samples: Sequence[int]) -> list[int]:
        """Rows of the conditional branch that belong to these places in the batch."""
        return [row for row, sample in enumerate(self._samples) if sample in samples]

    def tables(self) -> Mapping[str, pa.Table]:
        """Everything that was asked for, by the name of its table; ProbeError if anything is amiss.

        `attention`, `attention_tokens` and `attention_layers`; `attention_full` with `full`;
        `attention_pairs` with `pairs`; `heatmaps` and `heatmaps_layers` with `maps`.
        """
        self._check()
        probe, compact = self._probe, self._compact
        rows = self._table_rows(compact, self._steps, range(len(self._samples)))
        tables = {
            "attention": stored(attention_table(rows), ATTENTION_STATISTICS, probe.dtype),
            "attention_tokens": token_table(self._samples, self._tokenized),
            "attention_layers": layer_table(self._samples[0], list(self.recorder.facts.values())),
        }
        if probe.full:
            whole = self._table_rows(self._full, self.watch.observed, self._full_rows)
            tables["attention_full"] = (
                attention_table(whole) if self._full_rows else ATTENTION_SCHEMA.empty_table()
            )
        if probe.pairs:
            pairs = pair_table(rows, pairs=compact.pairs)
            tables["attention_pairs"] = stored(pairs, PAIR_STATISTICS, probe.dtype)
        if probe.maps:
            mapped: dict[str, Any] = {
                "rows": self._mapped,
                "samples": self._samples,
                "prompts": self._tokenized,
                "steps": self._steps,
                "positions": self._positions_of_text,
            }
            maps = heatmap_table(compact.heatmaps, **mapped)
            by_layer = layer_map_table(compact.heatmaps, labels=compact.statistics, **mapped)
            tables["heatmaps"] = stored(maps, ("map",), probe.dtype)
            tables["heatmaps_layers"] = stored(by_layer, ("map",), probe.dtype)
        return tables

    def _table_rows(self, tally: Tally, steps: Sequence[int], rows: Sequence[int]) -> AttentionRows:
        return AttentionRows(
            statistics=tally.statistics,
            samples=[self._samples[row] for row in rows],
            prompts=[self._tokenized[row] for row in rows],
            indistinct=[self._indistinct[row] for row in rows],
            steps=steps,
            times=self._times,
            positions=self._positions_of_text,
        )

    def _check(self) -> None:
        if self.recorder.num_layer_runs == 0 or self.watch.num_calls == 0:
            raise ObservationError(
                "Expected one run of the pipeline while the attention probe was attached; no "
                "attention layer ran, or scheduler.step was never called. Generate between "
                "entering and leaving attach(), with the pipeline that the model exposes."
            )
        self.recorder.check()
        if missing := sorted(set(self.watch.observed) - self._recorded):
            raise ObservationError(
                f"Expected to observe steps {list(self.watch.observed)}; {missing} had no "
                "conditional pass. Remove attention from the probes for this pipeline."
            )

"""The attention probe: where in the image each token of the prompt is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evaluator.errors import ConfigError, ProbeError
from evaluator.probes.attention_recorder import AttentionRecorder
from evaluator.probes.attention_table import AttentionRows, attention_table
from evaluator.probes.branches import BranchRows, samples_of
from evaluator.probes.heatmaps import HeatmapSums, heatmap_table
from evaluator.probes.layers import AttentionLayer, Grid, cross_attention_layers
from evaluator.probes.noise import NoiseFamily, noise_family
from evaluator.probes.steps import StepChoice
from evaluator.probes.tokens import TokenizedPrompt, pipeline_tokenizer, tokenize
from evaluator.probes.watch import PipelineWatch, StepCall, StepTime

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.protocols import GenerativeModel
    from evaluator.records import Prompt

LAYERS = ("groups", "all")


class AttentionProbe:
    """Statistics of the cross-attention maps, for each token, observed step and layer group.

    Exact probabilities, from the queries and keys that enter the kernel; conditional branch only.
    A step's maps are those of its first model evaluation (second-order samplers make several).
    """

    def __init__(
        self,
        *,
        steps: str | int | Sequence[int] = "all",
        layers: str = "groups",
        maps: int = 0,
    ) -> None:
        """Choose what to observe.

        `layers`: `groups` averages statistics over layers of equal block and resolution, `all`
        keeps each. `maps`: samples at plan positions below it also give heat maps.
        """
        self.name = "attention"
        self.steps = StepChoice.parse(steps)
        if layers not in LAYERS:
            raise ConfigError(f"layers: expected one of {', '.join(LAYERS)}; got {layers!r}.")
        if isinstance(maps, bool) or not isinstance(maps, int) or maps < 0:
            raise ConfigError(f"maps: expected a number of samples, 0 or more; got {maps!r}.")
        self.layers = layers
        self.maps = maps

    @contextmanager
    def attach(
        self, model: GenerativeModel, prompts: Sequence[Prompt], positions: Sequence[int]
    ) -> Iterator[AttentionObservation]:
        """Watch one call of `model.generate(prompts, …)`; `positions` are places in the plan."""
        pipeline = model.pipeline
        layers = cross_attention_layers(pipeline)
        observation = AttentionObservation(self, pipeline, layers, prompts, positions)
        with (
            observation.recorder.attached(),
            observation.watch.attached(hook_denoiser=True),
        ):
            yield observation
        observation.recorder.digest()


def _group_name(layer: AttentionLayer, grid: Grid) -> str:
    """`down-8x8`, `mid-4x4`, `up-8x8`: block and attention resolution."""
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
    """What the cross-attention layers did during one batch."""

    def __init__(
        self,
        probe: AttentionProbe,
        pipeline: Any,
        layers: Sequence[AttentionLayer],
        prompts: Sequence[Prompt],
        positions: Sequence[int],
    ) -> None:
        label = _group_name if probe.layers == "groups" else _layer_name
        self.recorder = AttentionRecorder(layers, label)
        family = _family_or_none(getattr(pipeline, "scheduler", None))
        self.watch = PipelineWatch(pipeline, self, steps=probe.steps, family=family)
        self._probe = probe
        self._tokenizer = pipeline_tokenizer(pipeline)
        self._convert = getattr(pipeline, "maybe_convert_prompt", None)
        self._prompts = prompts
        self._positions = positions
        self._samples: list[int] = []
        self._tokenized: tuple[TokenizedPrompt, ...] = ()
        self._indistinct: list[bool] = []
        self._mapped: list[int] = []
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
            self._prepare()
        self._recorded.add(step)
        place = self.watch.observed.index(step)
        height, width = latents.shape[-2:]
        self.recorder.begin(place, rows.conditional, (height, width))

    def denoiser_ends(self, step: int, output: Tensor, rows: BranchRows | None) -> None:
        """Stop recording: the text encoder and the decoder attend too."""
        self.recorder.end()

    def stepping(self, step: int, latents: Tensor, call: StepCall | None) -> None:
        """Keep the noise level of an observed step."""
        if call is not None:
            self._times[step] = call.time

    def _prepare(self) -> None:
        """Tokens, samples and heat maps, as soon as the encoded texts are known."""
        encodings = self.watch.encodings
        assert encodings.conditional is not None
        num_rows, num_positions, _ = encodings.conditional.shape
        self._samples = samples_of(self._prompts, encodings.texts, num_rows)
        texts = encodings.texts
        if texts is None or len(texts) != num_rows:
            texts = tuple(self._prompts[sample].text or "" for sample in self._samples)
        if self._convert is not None:
            texts = tuple(self._convert(text, self._tokenizer) for text in texts)
        self._tokenized = tokenize(self._tokenizer, texts)
        if self._tokenized[0].num_positions != num_positions:
            raise ProbeError(
                f"Expected {self._tokenized[0].num_positions} text positions, as the tokenizer "
                f"counts them; got {num_positions}. Let the pipeline encode the prompts itself, "
                "or remove attention from the probes."
            )
        self._indistinct = encodings.indistinct()
        wanted = [position < self._probe.maps for position in self._positions]
        self._mapped = [
            row
            for row, sample in enumerate(self._samples)
            if sample < len(wanted) and wanted[sample] and not self._indistinct[row]
        ]
        num_steps = len(self.watch.observed)
        self.recorder.prepare(
            num_tokens=1 + max(prompt.tokens[-1].position for prompt in self._tokenized),
            num_steps=num_steps,
            heatmaps=HeatmapSums(self._mapped, num_steps) if self._mapped else None,
        )

    def tables(self) -> Mapping[str, pa.Table]:
        """`attention`, and `heatmaps` where maps are asked for; ProbeError if anything is amiss."""
        self._check()
        tables = {
            "attention": attention_table(
                AttentionRows(
                    statistics=self.recorder.statistics,
                    samples=self._samples,
                    prompts=self._tokenized,
                    indistinct=self._indistinct,
                    steps=self.watch.observed,
                    times=self._times,
                )
            )
        }
        if self._probe.maps:
            tables["heatmaps"] = heatmap_table(
                self.recorder.heatmaps,
                rows=self._mapped,
                samples=self._samples,
                prompts=self._tokenized,
                steps=self.watch.observed,
            )
        return tables

    def _check(self) -> None:
        recorder = self.recorder
        if recorder.unseen:
            names = sorted(recorder.unseen)
            raise ProbeError(
                f"Expected to see every cross-attention layer exactly once a pass; {len(names)} "
                f"ran unseen or attended several times, {names[0]} among them. Use the default "
                "attention processors (unet.set_default_attn_processor()), or remove attention "
                "from the probes."
            )
        if recorder.num_layer_runs == 0 or self.watch.num_calls == 0:
            raise ProbeError(
                "Expected one run of the pipeline while the attention probe was attached; no "
                "cross-attention layer ran, or scheduler.step was never called. Generate between "
                "entering and leaving attach(), with the pipeline that the model exposes."
            )
        if missing := sorted(set(self.watch.observed) - self._recorded):
            raise ProbeError(
                f"Expected to observe steps {list(self.watch.observed)}; {missing} had no "
                "conditional pass. Remove attention from the probes for this pipeline."
            )

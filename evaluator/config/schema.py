"""What a configuration file may say. Each field's docstring is its documentation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from evaluator.config.asked import FeatureConfig, MetricConfig, ReferenceConfig, SourceConfig
from evaluator.config.pipeline import DiffusersModelConfig as DiffusersModelConfig
from evaluator.config.pipeline import SchedulerConfig
from evaluator.config.sections import NumericSection, Section
from evaluator.config.sweep import SweepConfig
from evaluator.errors import InputError
from evaluator.locations import CODE, PUSH, require_mounted

KEEP_IMAGES = re.compile(r"(none|png|webp|webp:([1-9]\d?|100))\Z")


class ImagesModelConfig(Section):
    """Images that exist already, judged as if a model had made them."""

    kind: Literal["images"]
    """Images from a folder, a zip, tar shards, a Parquet file or a pack."""


class OptimalDenoiserModelConfig(Section):
    """The empirical-Bayes denoiser of a training set, which repeats what it was given."""

    kind: Literal["optimal_denoiser"]
    """Samples from training images; prompts give keys and seeds only."""
    source: str
    """The training images, in any form that `references` take."""
    limit: int | None = Field(None, ge=1, strict=True)
    """Take the first N images only."""
    scheduler: SchedulerConfig | None = None
    """Any scheduler of diffusers that predicts noise; None takes DDIM over linear betas."""

    @property
    def images(self) -> SourceConfig:
        """The training images as a source."""
        return SourceConfig(source=self.source, limit=self.limit)


class CustomModelConfig(Section):
    """Any other model, found by name or `module:attr`."""

    kind: Literal["custom"]
    """A GenerativeModel of your own."""
    target: str
    """Entry point in the group `evaluator.model`, or `module:attr`."""
    options: dict[str, Any] = Field({})
    """Keyword arguments for it."""


ModelConfig = Annotated[
    DiffusersModelConfig | ImagesModelConfig | OptimalDenoiserModelConfig | CustomModelConfig,
    Field(discriminator="kind"),
]


class SeedRange(Section):
    """Consecutive seeds, as EDM-style evaluations use them."""

    range: str
    """`first-last`, both included: `100000-109999`."""

    @field_validator("range")
    @classmethod
    def _ordered(cls, value: str) -> str:
        match = re.fullmatch(r"(\d+)-(\d+)", value)
        if match is None or not int(match[1]) <= int(match[2]) < 2**32:
            raise ValueError("expected 'first-last' with first <= last < 2**32")
        return value


class GenerationConfig(NumericSection):
    """How images are sampled."""

    steps: int = Field(50, ge=1, le=10000)
    """Denoising steps."""
    guidance_scale: float = Field(7.5, ge=0)
    """Classifier-free guidance; 1 turns it off where the pipeline says so."""
    height: int | None = Field(None, ge=8)
    """Pixels; None takes the pipeline's own."""
    width: int | None = Field(None, ge=8)
    """Pixels; None takes the pipeline's own."""
    images_per_prompt: int = Field(1, ge=1)
    """Images made from each prompt."""
    negative_prompt: str | None = None
    """For all prompts that have none of their own."""
    seed: int = Field(0, ge=0)
    """Seed of the run, from which each sample's is derived."""
    seeds: Literal["hashed"] | SeedRange = "hashed"
    """`hashed` from (run seed, key, image index), or `{range: first-last}` in plan order."""


Steps = Literal["all"] | Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], ...]


Samples = int | tuple[str, ...]


class AttentionConfig(Section):
    """Statistics of the attention to the text."""

    steps: Steps = 10
    """`all`, how many steps spread over the run, or a list of step numbers."""
    layers: Literal["groups", "all"] = "groups"
    """Average layers of one kind, depth and resolution, or keep every layer."""
    maps: Samples = 8
    """Keep heat maps of the first N samples of the plan, or of the prompts with these keys."""
    map_layers: tuple[str, ...] | None = None
    """Heat maps of these layers alone: patterns of names or groups, `up-16x16`, `up_blocks.0.*`."""
    map_heads: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Heat maps of these heads alone, counted from 0."""
    pairs: bool = False
    """Also tell how much the maps of every two tokens of a prompt have in common."""
    full: Samples = 0
    """Keep every step and layer, too, of the first N samples, or of the prompts with these keys."""
    dtype: Literal["float16", "float32"] = "float16"
    """What statistics and heat maps are stored as; those in full are float32."""

    @field_validator("maps", "full", mode="before")
    @classmethod
    def _number_or_keys(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, (list, tuple)) and all(isinstance(key, str) for key in value):
            return tuple(value)
        raise ValueError(
            "expected a number of samples, 0 or more, or a list of the prompts' keys in quotes"
        )


class LatentsConfig(Section):
    """Latent and predicted-noise statistics."""

    steps: Steps = "all"
    """`all`, how many steps spread over the run, or a list of step numbers."""


class CustomProbeConfig(Section):
    """A probe of your own."""

    target: str
    """Entry point in the group `evaluator.probe`, or `module:attr`."""
    options: dict[str, Any] = Field({})
    """Keyword arguments for it."""


class ProbesConfig(Section):
    """What watches the model while it generates."""

    attention: AttentionConfig | None = None
    """Cross-attention statistics; None: off."""
    latents: LatentsConfig | None = None
    """Latent statistics; None: off."""
    custom: tuple[CustomProbeConfig, ...] = ()
    """Further probes."""


class RuntimeConfig(NumericSection):
    """How the work is done; nothing here changes what a number means."""

    batch_size: int = Field(8, ge=1)
    """Samples a forward pass; batches are cut inside a shard and the tail is padded.

    Where the device's memory does not hold one, it goes through in halves: pixels of a run are then
    the same to about one grey level, no longer to the bit.
    """
    shard_size: int = Field(256, ge=1)
    """Samples a shard, rounded to whole prompts: about minutes of work."""
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """CPU threads a process; `auto` shares the cores among the machine's processes."""
    images: str = "png"
    """Images kept: `none`, `png`, `webp` (lossless), or `webp:<quality>`."""
    lease_seconds: float = Field(600, gt=0)
    """Seconds without progress after which another worker takes a shard over."""
    startup_seconds: float = Field(1800, gt=0)
    """The same for the first batch of a process, which may compile."""
    grace_seconds: float = Field(20, ge=0)
    """Seconds that work may go on after a signal to stop: SLURM and launchers kill after 30."""
    cache: str | None = None
    """Where packs and references are kept; None: $EVALUATOR_CACHE, or the user's cache folder."""
    num_processes: int | None = Field(None, ge=1)
    """Refuse to start with another number of processes; None takes what was launched."""
    deterministic: bool = False
    """Use deterministic GPU kernels only (slower)."""

    @field_validator("images")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if not KEEP_IMAGES.match(value):
            raise ValueError("expected 'none', 'png', 'webp' or 'webp:<quality 1 to 100>'")
        return value


class RunConfig(Section):
    """One evaluation."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the evaluation, and of its directory under `output`."""
    model: ModelConfig
    """What makes the images."""
    generation: GenerationConfig = GenerationConfig()
    """How they are sampled."""
    prompts: SourceConfig
    """What they are made from; with `kind: images`, the images themselves."""
    references: dict[str, ReferenceConfig] = Field({})
    """Real images to compare with, by name."""
    features: tuple[FeatureConfig, ...] = ()
    """What embeds the images."""
    metrics: tuple[MetricConfig, ...] = ()
    """What is computed from the features."""
    probes: ProbesConfig = ProbesConfig()
    """What watches the model."""
    runtime: RuntimeConfig = RuntimeConfig()
    """How the work is done."""
    output: str = "runs"
    """Folder under which the run directory is made; on a POSIX file system that workers share."""
    sweep: SweepConfig | None = None
    """Settings that take several values: one run for each point."""

    @field_validator("features", "metrics", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        """`inception` stands for `{name: inception}`."""
        if isinstance(value, (list, tuple)):
            return [{"name": item} if isinstance(item, str) else item for item in value]
        return value

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        names = [feature.name for feature in self.features]
        faults = [f"features: '{n}' is there twice" for n in sorted({*names}) if names.count(n) > 1]
        for metric in self.metrics:
            for named in (metric.reference, metric.held_out):
                if named is not None and named not in self.references:
                    faults.append(
                        f"metrics: '{metric.name}' names reference '{named}', "
                        f"expected one of {sorted(self.references)}"
                    )
        if getattr(self.model, "compile", False) and self.probes.attention is not None:
            faults.append(
                "probes.attention: model.compile hides the attention layers; leave one of them out"
            )
        if self.model.kind == "images":
            if self.probes != ProbesConfig():
                faults.append("probes: images that exist already have no model to watch")
            if self.generation.images_per_prompt != 1:
                faults.append("generation.images_per_prompt: expected 1 with 'kind: images'")
        try:
            require_mounted(self.output, what="output", instead=PUSH)
        except InputError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def code(self) -> list[str]:
        """Every `module:attr` that this configuration would import."""
        named = [metric.name for metric in self.metrics]
        named += [feature.kind or feature.name for feature in self.features]
        named += [probe.target for probe in self.probes.custom]
        if self.model.kind == "custom":
            named.append(self.model.target)
        return [name for name in named if CODE.match(name)]

    def identity(self) -> dict[str, Any]:
        """What makes the samples: a run directory takes no other. Where things lie is left out."""
        record = self.model_dump(mode="json", include={"model", "generation", "probes"})
        record["model"].pop("cpu_offload", None)  # where weights lie while they wait
        record["runtime"] = {"shard_size": self.runtime.shard_size, "images": self.runtime.images}
        return record

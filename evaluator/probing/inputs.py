"""The model that a verb looks into, and what else is loaded beside it, as `run` reads them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.config import RunConfig
from evaluator.config.asked import FeatureConfig, SourceConfig
from evaluator.config.pipeline import DiffusersModelConfig
from evaluator.errors import (
    ConfigError,
    EvaluatorError,
    GenerationError,
    InputError,
    ProbeError,
    SampleError,
)
from evaluator.models.arguments import prompt_faults
from evaluator.probing.attachments import Attachments, wanted_attachments
from evaluator.probing.named import ModelRequest as ModelRequest
from evaluator.probing.named import Named, open_named, require_same_weights
from evaluator.records import Prompt
from evaluator.runner.parts import build_extractor, build_model
from evaluator.runner.quiet import quiet_libraries
from evaluator.runner.surroundings import cache_folder, open_pack
from evaluator.runner.trust import Trust
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.data import Pack
    from evaluator.protocols import FeatureExtractor, GenerativeModel

NAMED = 4
"""Prompts that a note names."""
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)
"""What pipelines raise when they are given what they cannot take."""


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """A model, loaded on its device, with the configuration that it was loaded by."""

    name: str
    """What the output folder is called after."""
    model: GenerativeModel
    config: RunConfig
    device: str
    trust: Trust
    run: RunDirectory | None = None
    """The run whose model this is."""
    has_prompts: bool = False
    """Whether the configuration says which prompts."""
    attachments: tuple[str, ...] = ()
    """What every prompt brings along."""
    notes: tuple[str, ...] = ()
    """What differs from the configuration, or was chosen where nothing was said."""

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline; ProbeError where the model has none."""
        pipeline = self.model.pipeline
        if pipeline is None:
            raise ProbeError(
                f"Expected a model with a diffusers pipeline to look into; {self.name} has none. "
                "Name a pipeline folder, a hub id, or a configuration of kind diffusers."
            )
        return pipeline

    @property
    def pipelines(self) -> tuple[Any, ...]:
        """The pipeline, and the refiner's where one takes its last steps over."""
        refiner = getattr(self.model, "refiner_pipeline", None)
        return (self.pipeline,) if refiner is None else (self.pipeline, refiner)

    @property
    def batch_size(self) -> int:
        """Samples in one call of the model: `runtime.batch_size`."""
        return self.config.runtime.batch_size

    @property
    def seed(self) -> int:
        """The seed that every draw of the verb comes from."""
        return self.config.generation.seed

    @property
    def parameters(self) -> frozenset[str]:
        """What a call of the pipeline takes."""
        return frozenset(inspect.signature(self.pipeline.__call__).parameters)

    @property
    def takes_text(self) -> bool:
        """Whether the pipeline is told what to make by a text."""
        return "prompt" in self.parameters

    @property
    def takes_class(self) -> bool:
        """Whether the pipeline is told what to make by a class."""
        return "class_labels" in self.parameters

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Tensor]:
        """One (3, H, W) uint8 image a prompt, which gets the attachments that the pipeline wants.

        ConfigError for a prompt that the pipeline refuses, GenerationError where it fails or gives
        no image.
        """
        images: list[Tensor] = []
        for prompt, image in zip(prompts, self.sample(prompts, seeds), strict=True):
            if isinstance(image, SampleError):
                raise GenerationError(f"{prompt.text or prompt.key}: {image}")
            images.append(image.cpu())
        return images

    def sample(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Tensor | SampleError]:
        """As `generate`, for those who watch the sampling and need no image of it."""
        given = [
            dataclasses.replace(prompt, attachments={name: name for name in self.attachments})
            for prompt in prompts
        ]
        parameters = inspect.signature(self.pipeline.__call__).parameters
        for fault in prompt_faults(self.pipeline, parameters, given):
            if fault is not None:
                raise ConfigError(f"{self.name}: {fault}")
        try:
            return self.model.generate(given, [0] * len(given), list(seeds))
        except EvaluatorError:
            raise
        except FAILURES as error:
            raise GenerationError(self._failure(error)) from error

    def _failure(self, error: Exception) -> str:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
        remedy = "Change what it is about with --set, such as generation.height or model.arguments"
        if "memory" in said:
            remedy = "Make the batches smaller with --set runtime.batch_size=1, or choose --device"
        name = type(self.pipeline).__name__
        return f"{name}: expected a run of the pipeline, got: {said}. {remedy}."


class ProbedImages(NamedTuple):
    """Images and what was said about them, in the order of their source."""

    prompts: tuple[Prompt, ...]
    images: tuple[Tensor, ...]
    """(3, H, W) uint8 each; sizes may differ."""
    fingerprint: str
    """Hash of the content."""
    refused: tuple[str, ...]
    """Why each of the others is missing here."""
    note: str | None = None
    """Where they come from, where nobody said so."""


def load_model(request: ModelRequest, *, refines: bool = False) -> ProbedModel:
    """Load the model of a pipeline, a configuration or a run; ConfigError, InputError.

    Compiling is left out, and so is a refiner unless the verb `refines`: the notes say so.
    """
    named = open_named(request)
    config, notes = _left_out(named.config, refines=refines)
    trust = Trust(allow_code=request.allow_code, relative_to=named.relative_to)
    device = request.device or _device()
    quiet_libraries(generates=config.model.kind != "images")
    prompts = partial(_first_pack, config, trust) if named.has_prompts else None
    attachments = Attachments(dict(request.attachments), prompts)
    try:
        model = _build(config, attachments, device=device, trust=trust)
    except InputError as error:
        raise InputError(f"{error}{_elsewhere(named)}") from error
    except RuntimeError as error:
        if isinstance(error, EvaluatorError):
            raise
        if device == "cpu" or "device" not in str(error).lower():
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise GenerationError(f"the model could not be loaded onto {device}: {said}") from error
        raise ConfigError(
            f"--device: expected a device of this machine, got {device!r} ({error}); leave it out"
        ) from error
    require_same_weights(named, model.describe().get("weights_sha256"))
    attachments.find(
        wanted_attachments(model.pipeline, config.model), pipeline=type(model.pipeline).__name__
    )
    if attachments.note is not None:
        notes += (attachments.note,)
    return ProbedModel(
        config.name, model, config, device, trust, named.run, named.has_prompts,
        attachments.names, notes,
    )  # fmt: skip


def _left_out(config: RunConfig, *, refines: bool) -> tuple[RunConfig, tuple[str, ...]]:
    """The configuration without what hides the denoiser, and a note for each."""
    model = config.model
    if not isinstance(model, DiffusersModelConfig):
        return config, ()
    changes: dict[str, Any] = {}
    notes = []
    if model.compile:
        changes["compile"] = False
        notes.append("model.compile is left out: what is compiled cannot be watched")
    if model.refiner is not None and not refines:
        changes["refiner"] = None
        notes.append("the refiner is left out: this is the first pipeline's")
    changed = config.model_copy(update={"model": model.model_copy(update=changes)})
    return changed, tuple(notes)


def _build(
    config: RunConfig, attachments: Attachments, *, device: str, trust: Trust
) -> GenerativeModel:
    if not isinstance(config.model, DiffusersModelConfig):
        return build_model(config, None, device=device, trust=trust)
    from evaluator.models.diffusers import DiffusersModel

    return DiffusersModel(
        config.model, config.generation, device=device, relative_to=trust.relative_to,
        attachments=attachments,
    )  # fmt: skip


def _elsewhere(named: Named) -> str:
    """A run does not know the folder that its configuration lay in."""
    if named.run is None:
        return ""
    return (
        f" (Relative paths of the run {named.run.path} are taken from the current folder: call "
        "this from where the run was started, or give the path with --set.)"
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_pack(config: RunConfig, trust: Trust) -> Pack:
    return open_pack(config.prompts, cache_folder(config), trust)


def own_pack(probed: ProbedModel, source: SourceConfig, *, limit: int) -> Pack:
    """A source that the configuration names, its first `limit` samples."""
    count = limit if source.limit is None else min(limit, source.limit)
    reading = source.model_copy(update={"limit": count})
    try:
        return open_pack(reading, cache_folder(probed.config), probed.trust)
    except InputError as error:
        named = Named(probed.config, None, probed.run, probed.has_prompts)
        raise InputError(f"{error}{_elsewhere(named)}") from error


def first_prompts(probed: ProbedModel, count: int) -> tuple[Prompt, ...]:
    """The configuration's first prompts, for a model that is told what to make; else none."""
    if not probed.has_prompts or not (probed.takes_text or probed.takes_class):
        return ()
    return tuple(own_pack(probed, probed.config.prompts, limit=count).prompts(0, count))


def prompts_note(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """Which prompts were taken where none was given; nothing of models without text."""
    texts = [repr(prompt.text) for prompt in prompts if prompt.text is not None]
    more = ", …" if len(texts) > NAMED else ""
    return (f"prompts of the configuration: {', '.join(texts[:NAMED])}{more}",) if texts else ()


def require_start_from_noise(probed: ProbedModel) -> None:
    """ProbeError for a pipeline that starts from an image of its own."""
    if "init" in probed.attachments:
        raise ProbeError(
            f"Expected a pipeline that starts from noise, whose latents can be chosen; got "
            f"{type(probed.pipeline).__name__}, which starts from an image. Load the checkpoint as "
            "text-to-image: --set model.task=text-to-image."
        )


def load_texts(source: str, probed: ProbedModel) -> tuple[str, ...]:
    """The texts of any source of prompts that `run` packs; InputError without any."""
    texts = [p.text for p in given_pack(source, probed, limit=None).prompts() if p.text is not None]
    if not texts:
        raise InputError(f"{source}: expected prompts with a text, got none; name a file of them")
    return tuple(texts)


def given_pack(source: str, probed: ProbedModel, *, limit: int | None) -> Pack:
    """A source on the command line: its path is the user's, not the configuration's."""
    trust = Trust(allow_code=probed.trust.allow_code, relative_to=Path.cwd())
    reading = SourceConfig(source=source, limit=limit)
    return open_pack(reading, cache_folder(probed.config), trust)


def load_extractor(name: str, probed: ProbedModel, *, weights: str | None) -> FeatureExtractor:
    """An extractor by name, with the weights given here, else those of the configuration."""
    configured = {feature.name: feature for feature in probed.config.features}
    feature = configured.get(name) or FeatureConfig.model_validate({"name": name})
    if weights is not None:
        feature = feature.model_copy(update={"id": weights})
    return build_extractor(feature, device=probed.device, trust=probed.trust)

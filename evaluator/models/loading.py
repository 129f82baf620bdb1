"""A pipeline from its folder: safetensors only, no code, no watermark, nothing that censors."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ConfigError, InputError
from evaluator.models.execution import place
from evaluator.models.lora import add_loras
from evaluator.models.schedulers import swap_scheduler
from evaluator.weights import Weights, find_weights

if TYPE_CHECKING:
    from evaluator.config.pipeline import ControlNetConfig, DiffusersModelConfig

_TASKS = {
    "text-to-image": "AutoPipelineForText2Image",
    "image-to-image": "AutoPipelineForImage2Image",
    "inpainting": "AutoPipelineForInpainting",
}


_UNLOADABLE = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What diffusers and transformers raise about files that are damaged, or need another package."""


class LoadedPipeline(NamedTuple):
    """A pipeline on its device, and the hashes of all weights that went into it."""

    pipeline: Any
    weights: Weights
    added: dict[str, str]
    """SHA-256 of further weights by what they are: `controlnet`, `loras.0`."""


def load_pipeline(
    config: DiffusersModelConfig, *, device: str, relative_to: Path | None = None
) -> LoadedPipeline:
    """Load the pipeline that a configuration describes, without running any code it brings.

    Raises InputError for weights that are not there or cannot be used, ConfigError for settings
    that do not fit them.
    """
    weights = find_weights(config.id, revision=config.revision, relative_to=relative_to)
    pipeline = from_folder(weights.folder, config)
    added: dict[str, str] = {}
    if config.controlnet is not None:
        found = find_weights(
            config.controlnet.id, revision=config.controlnet.revision, relative_to=relative_to
        )
        added["controlnet"] = found.sha256
        controlnet = _load_controlnet(found.folder, config.controlnet, dtype=config.dtype)
        pipeline = _for_task(pipeline, config.task or _task_of(pipeline), controlnet=controlnet)
    elif config.task is not None:
        pipeline = _for_task(pipeline, config.task)
    # Whether SDXL marks its images depends on what else is installed.
    if getattr(pipeline, "watermark", None) is not None:
        pipeline.watermark = None
    if config.scheduler is not None:
        pipeline.scheduler = swap_scheduler(pipeline.scheduler, config.scheduler)
    hashes = add_loras(pipeline, config.loras, relative_to=relative_to)
    added |= {f"loras.{i}": sha256 for i, sha256 in enumerate(hashes)}
    if "clip_skip" in config.arguments:
        _let_layers_be_skipped(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return LoadedPipeline(place(pipeline, config, device=device), weights, added)


def _let_layers_be_skipped(pipeline: Any) -> None:
    """Let `clip_skip` find the last normalisation of Stable Diffusion's text encoder.

    diffusers looks for it in `text_encoder.text_model`, a level that transformers 5 took away.
    """
    encoder = getattr(pipeline, "text_encoder", None)
    if hasattr(encoder, "final_layer_norm") and not hasattr(encoder, "text_model"):
        vars(encoder)["text_model"] = encoder  # no submodule: it must not contain itself


def empty_denoiser(folder: Path) -> Any:
    """The network of a pipeline in a folder, without its weights; None where it has none.

    A class that diffusers does not have gives None too: loading says so.
    """
    import diffusers
    import torch

    components = _components(folder / "model_index.json", where=str(folder))
    for part in ("transformer", "unet"):
        _, name = components.get(part) or (None, None)
        chosen: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
        if inspect.isclass(chosen) and issubclass(chosen, diffusers.ModelMixin):
            loaded: Any = chosen
            with torch.device("meta"):
                return loaded.from_config(loaded.load_config(folder / part, local_files_only=True))
    return None


def starts_from_an_image(pipeline: Any, config: DiffusersModelConfig) -> bool:
    """Whether the argument `image` is one to start from; a few pipelines take one or none."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    if config.task in ("image-to-image", "inpainting"):
        return True
    return type(pipeline) not in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()


def from_folder(folder: Path, config: DiffusersModelConfig, *, where: str | None = None) -> Any:
    """The pipeline as it was saved, in the configured type; `where` names it in messages."""
    import torch
    from diffusers import DiffusionPipeline
    from safetensors import SafetensorError

    where = where or config.id
    index = folder / "model_index.json"
    if not index.is_file():
        raise InputError(
            f"{where}: expected a diffusers pipeline (model_index.json), got "
            f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}."
        )
    components = _components(index, where=where)
    # A safety checker replaces images by black ones: a score would judge it, not the model.
    without = {"safety_checker": None} if "safety_checker" in components else {}
    if "requires_safety_checker" in components:
        without["requires_safety_checker"] = False  # type: ignore[assignment]
    try:
        return DiffusionPipeline.from_pretrained(
            folder,
            dtype=getattr(torch, config.dtype),
            variant=config.variant,
            use_safetensors=True,
            local_files_only=True,
            **without,
        )
    except (*_UNLOADABLE, SafetensorError) as error:
        raise InputError(
            f"{where}: expected a pipeline that diffusers can load, got: {error}"
        ) from error


def _components(index: Path, *, where: str) -> dict[str, Any]:
    """What model_index.json says."""
    try:
        components = json.loads(index.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: expected model_index.json as JSON, got: {error}") from error
    if not isinstance(components, dict):
        raise InputError(
            f"{where}: expected a pipeline's components in model_index.json, got a "
            f"{type(components).__name__}. Save it anew with save_pretrained()."
        )
    return components


def _task_of(pipeline: Any) -> str:
    """What a checkpoint was saved for, by what its pipeline takes."""
    parameters = inspect.signature(pipeline.__call__).parameters
    if "mask_image" in parameters:
        return "inpainting"
    return "image-to-image" if "image" in parameters else "text-to-image"


def _for_task(pipeline: Any, task: str, **parts: Any) -> Any:
    """The same components in the pipeline for a task."""
    import diffusers

    with_controlnet = " with a ControlNet" if parts else ""
    try:
        made = getattr(diffusers, _TASKS[task]).from_pipe(pipeline, **parts)
    except ValueError as error:
        raise ConfigError(
            f"model.task: expected a pipeline that diffusers has for {task}{with_controlnet}, got "
            f"{type(pipeline).__name__}: {error}. Leave the task out, or use another checkpoint."
        ) from error
    if parts and "controlnet" not in made.components:
        raise ConfigError(
            f"model.controlnet: {type(made).__name__} takes no ControlNet; leave it out."
        )
    return made


def _load_controlnet(folder: Path, config: ControlNetConfig, *, dtype: str) -> Any:
    import diffusers
    import torch
    from safetensors import SafetensorError

    try:
        name = json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        name = None
    chosen: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
    is_model = inspect.isclass(chosen) and issubclass(chosen, diffusers.ModelMixin)
    if not is_model or "ControlNet" not in str(name):
        raise InputError(
            f"model.controlnet.id: {config.id}: expected a ControlNet of diffusers (config.json "
            f"with its _class_name), got {name!r}. Convert it with save_pretrained()."
        )
    try:
        return chosen.from_pretrained(
            folder, torch_dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
    except (*_UNLOADABLE, SafetensorError) as error:
        raise InputError(
            f"model.controlnet.id: {config.id}: expected weights that {name} can load, got: {error}"
        ) from error

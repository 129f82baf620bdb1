"""What a pipeline is called with: only what its signature knows, and nothing it would ignore."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from evaluator.errors import GenerationError
from evaluator.pipelines import denoiser_of

if TYPE_CHECKING:
    from evaluator.config.pipeline import DiffusersModelConfig
    from evaluator.config.schema import GenerationConfig
    from evaluator.records import Prompt

_OURS = {
    "prompt": "prompts",
    "negative_prompt": "generation.negative_prompt, or the prompts' own",
    "generator": "generation.seed",
    "num_inference_steps": "generation.steps",
    "height": "generation.height",
    "width": "generation.width",
    "num_images_per_prompt": "generation.images_per_prompt",
    "image": "the prompts' attachments",
    "mask_image": "the prompts' attachments",
    "control_image": "the prompts' attachments",
    "class_labels": "the prompts' class_label",
    "batch_size": "runtime.batch_size",
    "output_type": "nothing: the runner takes pixels",
    "return_dict": "nothing: the runner takes pixels",
}
"""Arguments that `model.arguments` must not set → what sets them."""

_FURTHER_TEXT = re.compile(r"(negative_)?prompt_\d")
"""Texts for single encoders of a pipeline that has several: one for all samples of a run."""


def guidance_argument(parameters: Mapping[str, Parameter]) -> str | None:
    """Which argument is classifier-free guidance.

    Qwen-Image keeps `guidance_scale` for distilled models to come and guides by `true_cfg_scale`,
    its later versions have nothing else; Flux has both, the latter off by default.
    """
    true = parameters.get("true_cfg_scale")
    plain = "guidance_scale" in parameters
    on = true is not None and isinstance(true.default, (int, float)) and true.default > 1
    if true is not None and (on or not plain):
        return "true_cfg_scale"
    return "guidance_scale" if plain else None


def base_arguments(
    parameters: Mapping[str, Parameter],
    config: DiffusersModelConfig,
    generation: GenerationConfig,
) -> dict[str, Any]:
    """What every call of a run has in common; the configuration's own arguments go before."""
    wanted: dict[str, Any] = {
        "num_inference_steps": generation.steps,
        "height": generation.height,
        "width": generation.width,
        # Cleaning depends on packages that may or may not be there; it is off unless asked for.
        "clean_caption": False,
    }
    if (guidance := guidance_argument(parameters)) is not None:
        wanted[guidance] = generation.guidance_scale
    wanted |= {name: value for name, value, _ in _control(config)}
    known = {k: v for k, v in wanted.items() if k in parameters and v is not None}
    return {**known, **config.arguments}


def _control(config: DiffusersModelConfig) -> list[tuple[str, float, str]]:
    """Argument, value and setting of everything that is said about a ControlNet."""
    if (controlnet := config.controlnet) is None:
        return []
    return [
        ("controlnet_conditioning_scale", controlnet.scale, "scale"),
        ("control_guidance_start", controlnet.start, "start"),
        ("control_guidance_end", controlnet.end, "end"),
    ]


def prompt_arguments(
    pipeline: Any,
    parameters: Mapping[str, Parameter],
    config: DiffusersModelConfig,
    generation: GenerationConfig,
    prompts: Sequence[Prompt],
) -> dict[str, Any]:
    """What tells the samples of a batch apart: texts, labels, or only their number."""
    if "prompt" in parameters:
        texts: dict[str, Any] = {"prompt": [prompt.text or "" for prompt in prompts]}
        further = {k: v for k, v in config.arguments.items() if _FURTHER_TEXT.fullmatch(k)}
        # Pipelines take one text for one sample only.
        texts |= {k: [v] * len(prompts) for k, v in further.items() if isinstance(v, str)}
        if "negative_prompt" in parameters:
            negatives = [p.negative_prompt or generation.negative_prompt for p in prompts]
            scale = _true_guidance(parameters, config, generation)
            if scale is not None:
                texts |= _true_negatives(parameters, negatives) if scale > 1 else {}
            elif any(name.startswith("negative") for name in further):
                texts["negative_prompt"] = [text or "" for text in negatives]
            else:
                texts |= _negatives(pipeline, negatives)
        return texts
    if "class_labels" in parameters:
        faulty = label_faults(pipeline, prompts)
        labels = [0 if f else p.class_label for p, f in zip(prompts, faulty, strict=True)]
        return {"class_labels": labels}
    return {"batch_size": len(prompts)}


def _true_guidance(
    parameters: Mapping[str, Parameter],
    config: DiffusersModelConfig,
    generation: GenerationConfig,
) -> float | None:
    """The scale of guidance by negative prompts where a pipeline has that beside another kind."""
    if "true_cfg_scale" not in parameters:
        return None
    if guidance_argument(parameters) == "true_cfg_scale":
        return float(generation.guidance_scale)
    return float(config.arguments.get("true_cfg_scale", parameters["true_cfg_scale"].default))


def _true_negatives(
    parameters: Mapping[str, Parameter], negatives: Sequence[str | None]
) -> dict[str, Any]:
    """This guidance is off, for a whole batch, unless there is a negative prompt for it.

    Qwen-Image's authors use a blank where there is none.
    """
    blank = " " if guidance_argument(parameters) == "true_cfg_scale" else ""
    return {"negative_prompt": [text or blank for text in negatives]}


def _negatives(pipeline: Any, negatives: Sequence[str | None]) -> dict[str, Any]:
    if not any(negatives):
        return {}
    zeroed = getattr(pipeline, "config", {}).get("force_zeros_for_empty_prompt", False)
    if zeroed and not all(negatives):
        raise GenerationError(
            f"{type(pipeline).__name__} treats no negative prompt differently from an empty one, "
            "for a whole batch: expected one for every prompt or for none, got "
            f"{sum(map(bool, negatives))} of {len(negatives)}. Set generation.negative_prompt, "
            "which goes to all that have none."
        )
    return {"negative_prompt": [text or "" for text in negatives]}


def prompt_faults(
    pipeline: Any, parameters: Mapping[str, Parameter], prompts: Sequence[Prompt]
) -> list[str | None]:
    """What is wrong with each prompt for this pipeline; None where nothing is."""
    if "prompt" in parameters:
        fault = "expected a prompt with a text, got none: this pipeline is text-to-image"
        return [fault if prompt.text is None else None for prompt in prompts]
    if "class_labels" in parameters:
        return label_faults(pipeline, prompts)
    return [None] * len(prompts)


def label_faults(pipeline: Any, prompts: Sequence[Prompt]) -> list[str | None]:
    """The same for class labels. One too high would stand for no class at all."""
    config = getattr(denoiser_of(pipeline), "config", {})
    classes = config.get("num_embeds_ada_norm") or config.get("num_class_embeds")
    faults: list[str | None] = []
    for label in (prompt.class_label for prompt in prompts):
        fits = label is not None and label >= 0 and (classes is None or label < classes)
        within = "" if classes is None else f" from 0 to {classes - 1}"
        faults.append(
            None if fits else f"expected a prompt with a class_label{within}, got {label}"
        )
    return faults


def argument_faults(
    pipeline: Any,
    parameters: Mapping[str, Parameter],
    config: DiffusersModelConfig,
    generation: GenerationConfig,
) -> list[str]:
    """Settings that the pipeline would ignore or does not know, all at once."""
    name = type(pipeline).__name__
    ours = {**_OURS, str(guidance_argument(parameters)): "generation.guidance_scale"}
    faults = []
    for argument, value in config.arguments.items():
        if argument not in parameters:
            faults.append(f"model.arguments.{argument}: {name} takes no such argument")
        elif argument in ours:
            faults.append(f"model.arguments.{argument}: it is set by {ours[argument]}")
        elif _FURTHER_TEXT.fullmatch(argument) and not isinstance(value, str):
            faults.append(f"model.arguments.{argument}: expected one text, got {value!r}")
        elif argument.endswith("attention_kwargs") and not isinstance(value, Mapping | None):
            faults.append(f"model.arguments.{argument}: expected names and values, got {value!r}")
        elif argument.endswith("attention_kwargs") and "scale" in (value or ()):
            faults.append(
                f"model.arguments.{argument}.scale: low-rank weights are merged when they are "
                "loaded; set the scale of each in model.loras"
            )
        elif argument == "clean_caption" and value and not _can_clean():
            faults.append(
                "model.arguments.clean_caption: needs the packages beautifulsoup4 and ftfy; "
                "install them, or leave it out"
            )
    given = set() if config.controlnet is None else config.controlnet.model_fields_set
    for argument, _, setting in _control(config):
        if argument not in parameters and setting in given:
            faults.append(f"model.controlnet.{setting}: {name} takes no {argument}; leave it out")
    if "generator" not in parameters:
        faults.append(f"model: {name} takes no generator")
    if generation.negative_prompt is not None and "negative_prompt" not in parameters:
        faults.append(f"generation.negative_prompt: {name} takes no such argument")
    scale = _true_guidance(parameters, config, generation)
    if generation.negative_prompt and scale is not None and scale <= 1:
        where = ours.get("true_cfg_scale", "model.arguments.true_cfg_scale")
        faults.append(f"generation.negative_prompt: {name} reads it only with {where} above 1")
    if _ignores_guidance(pipeline, parameters) and generation.guidance_scale > 1:
        faults.append(
            "generation.guidance_scale: this checkpoint is distilled and ignores it; set it to 0, "
            "or use model.arguments.true_cfg_scale"
        )
    return faults


def size_faults(
    pipeline: Any,
    parameters: Mapping[str, Parameter],
    generation: GenerationConfig,
    inputs: Mapping[str, str],
) -> list[str]:
    """Whether height and width are there where inputs need them, and nowhere ignored."""
    faults = []
    for name in ("height", "width"):
        given = getattr(generation, name) is not None
        if inputs and not given:
            faults.append(
                f"generation.{name}: expected the size that the attachments "
                f"{', '.join(sorted(inputs))} are brought to; set it"
            )
        elif given and not inputs and name not in parameters:
            faults.append(f"generation.{name}: {type(pipeline).__name__} takes no such argument")
    return faults


def _ignores_guidance(pipeline: Any, parameters: Mapping[str, Parameter]) -> bool:
    """Flux's guidance is an embedding, which its few-step model does without."""
    embeds = getattr(denoiser_of(pipeline), "config", {}).get("guidance_embeds")
    guides = guidance_argument(parameters) == "guidance_scale"
    return embeds is False and guides and "true_cfg_scale" in parameters


def _can_clean() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("bs4", "ftfy"))

"""`probe anatomy`: what a model is made of, and what a prompt becomes in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.errors import ConfigError
from evaluator.probes.anatomy import Anatomy, Latents, Scheduler, Tokenizer, take_apart
from evaluator.probes.first_step import FirstStep, first_step
from evaluator.probes.guidance import guidance_layout
from evaluator.probes.latent_space import image_size
from evaluator.probing.ignored import guided_by, require_asked_for
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedModel,
    first_prompts,
    load_model,
)
from evaluator.probing.named import output_place
from evaluator.probing.outputs import open_folder, provenance
from evaluator.records import Prompt
from evaluator.seeds import stream_seed

PROMPT = "a red seven on a blue background"
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True, slots=True)
class AnatomyFound:
    """What `probe anatomy` prints."""

    model: str
    prompt: str
    guidance_scale: float | None
    """None where the pipeline has no guidance."""
    anatomy: Anatomy
    notes: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """The pipeline, part by part."""
        parts = self.anatomy
        told = [line for tokenizer in parts.tokenizers for line in _tokenizer(tokenizer)]
        told += _conditions(parts)
        return [
            f"{self.model}: {parts.pipeline}",
            *_components(parts),
            "",
            *_latents(parts.latents),
            *_scheduler(parts.scheduler),
            *_guidance(parts, self.guidance_scale),
            "",
            *told,
            *[""] * bool(told),
            *(f"note: {note}" for note in self.notes),
            f"written: {self.folder}",
        ]


def probe_anatomy(
    request: ModelRequest, *, prompt: str | None = None, output: Path | None = None
) -> AnatomyFound:
    """Load a model, watch its first step, and take it apart.

    Without a prompt that of the configuration's first, else one of seven words, is followed.
    """
    place = output_place("anatomy", request, output)
    probed = load_model(request)
    require_asked_for(probed, prompt=prompt is not None, guidance=request.guidance_scale)
    followed = _own_prompt(probed) if prompt is None else prompt
    anatomy = anatomy_of(probed, followed)
    scale = probed.config.generation.guidance_scale if guided_by(probed) else None
    notes = probed.notes
    if anatomy.truncated:
        notes += ("the prompt is longer than what a text encoder reads: its end is cut off",)
    folder = open_folder("anatomy", probed.name, place)
    found = AnatomyFound(probed.name, followed, scale, anatomy, notes, folder.path)
    folder.finish(
        {
            **anatomy._asdict(),
            "guidance_sentence": anatomy.guidance.sentence(),
            "guidance_scale": scale,
            "notes": notes,
        },
        arguments={"model": request.model, "prompt": followed if probed.takes_text else None},
        provenance=provenance(probed),
        lines=found.lines(),
    )
    return found


def _own_prompt(probed: ProbedModel) -> str:
    """The configuration's first prompt, if its words tell an order."""
    for own in first_prompts(probed, 1) if probed.takes_text else ():
        if own.text and _turned(own.text) != own.text:
            return own.text
    return PROMPT


def _turned(prompt: str) -> str:
    return " ".join(reversed(prompt.split()))


def anatomy_of(probed: ProbedModel, prompt: str = PROMPT) -> Anatomy:
    """Three first steps of two samples, compared; nothing is denoised to the end."""
    turned = _turned(prompt)
    if probed.takes_text and turned == prompt:
        raise ConfigError(
            f"--prompt: expected words that read otherwise in reverse order, got {prompt!r}; "
            "give at least two different words"
        )
    seeds = [stream_seed(probed.seed, "anatomy", i) for i in range(3)]
    here = [_prompt("a", prompt, 0), _prompt("b", prompt, 0)]
    there = [_prompt("a", turned, 1), _prompt("b", turned, 1)]
    base = _watched(probed, here, seeds[:2])
    other_prompts = _watched(probed, there, seeds[:2])
    other_seed = _watched(probed, here, [seeds[2], seeds[1]])
    generation = probed.config.generation
    image: tuple[int, int] | None = image_size(probed.pipeline)
    if generation.height is not None and generation.width is not None:
        image = (generation.height, generation.width)
    layout = guidance_layout(base, other_prompts, other_seed)
    cut = probed.takes_text and probed.model.truncated(here)[0]
    return take_apart(probed.pipeline, base, layout, image=image, truncated=cut)


def _watched(probed: ProbedModel, prompts: Sequence[Prompt], seeds: Sequence[int]) -> FirstStep:
    import torch

    with torch.no_grad():
        return first_step(probed.pipeline, lambda: probed.generate(prompts, seeds))


def _prompt(key: str, text: str, class_label: int) -> Prompt:
    return Prompt(key, text, class_label=class_label)


def _components(parts: Anatomy) -> Iterator[str]:
    width = max(28, *(len(part.kind) for part in parts.components))
    for name, kind, count, dtypes, num_bytes in parts.components:
        if count is None or num_bytes is None:
            yield f"  {name:18} {kind}"
        else:
            size = ", ".join([f"{_count(count)} parameters", *dtypes, _bytes(num_bytes)])
            yield f"  {name:18} {kind:{width}} {size}"
    parameters = sum(part.num_parameters or 0 for part in parts.components)
    all_bytes = sum(part.num_bytes or 0 for part in parts.components)
    yield f"  {'all':18} {'':{width}} {_count(parameters)} parameters, {_bytes(all_bytes)}"


def _latents(latents: Latents) -> Iterator[str]:
    becomes = "" if latents.image is None else f" → image {_shape(latents.image)}"
    each = f", {latents.pixels_each} pixels a side for each" if latents.pixels_each > 1 else ""
    shape = _shape(latents.shape)
    if latents.packed:
        shape = "{} positions × {} channels (packed)".format(*latents.shape)
    yield f"latents      {shape}{becomes}{each}"
    if latents.channel_std is not None:
        yield f"             scaled by mean and std of {len(latents.channel_std)} channels"
    elif latents.pixels_each > 1:
        shift = f", shift {latents.shift_factor:g}" if latents.shift_factor else ""
        yield f"             scaling factor {latents.scaling_factor:g}{shift}"


def _scheduler(scheduler: Scheduler) -> Iterator[str]:
    yield (
        f"scheduler    {scheduler.kind} ({scheduler.family}), predicts "
        f"{scheduler.prediction_type}, init_noise_sigma {scheduler.init_noise_sigma:g}"
    )
    details = {
        "training steps": scheduler.num_train_timesteps,
        "betas": scheduler.beta_schedule,
        "spacing": scheduler.timestep_spacing,
        "order": scheduler.order if scheduler.order > 1 else None,
    }
    known = ", ".join(f"{name} {value}" for name, value in details.items() if value is not None)
    if known:
        yield f"             {known}"


def _guidance(parts: Anatomy, scale: float | None) -> Iterator[str]:
    at = "" if scale is None else f" (guidance scale {scale:g})"
    yield f"guidance     {parts.guidance.sentence()}{at}"
    if parts.guidance_embedded:
        yield "             the guidance scale is an input of the denoiser (distilled)"


def _tokenizer(tokenizer: Tokenizer) -> Iterator[str]:
    limit = "no limit" if tokenizer.max_length is None else f"at most {tokenizer.max_length} tokens"
    pad = f"pads with {tokenizer.pad_token}" if tokenizer.pad_token else "has no padding token"
    pad += " (its end of text)" if tokenizer.pad_is_end and tokenizer.pad_token else ""
    yield f"{tokenizer.name:12} {tokenizer.kind}, {tokenizer.vocabulary} pieces, {limit}, {pad}"
    positions = len(tokenizer.tokens) + tokenizer.num_padding
    padding = f"{tokenizer.num_padding} padding" if tokenizer.num_padding else "no padding"
    yield f"             {positions} positions: {' '.join(tokenizer.tokens)} + {padding}"


def _conditions(parts: Anatomy) -> Iterator[str]:
    if parts.embeddings:
        yield f"embeddings   {', '.join(map(_shape, parts.embeddings))} for two prompts"
    for name, shape in parts.conditions.items():
        yield f"denoiser     {name} {_shape(shape)}"


def _shape(shape: Sequence[Any]) -> str:
    return "×".join(map(str, shape)) or "one number"


def _count(number: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return str(number)


def _bytes(number: int) -> str:
    for unit, name in UNITS:
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} bytes"

"""A pipeline taken apart: what it holds, and what a prompt and its latents become in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.guidance import GuidanceLayout
from evaluator.probes.latent_space import LatentSpace, scale_factor
from evaluator.probes.noise import noise_family

if TYPE_CHECKING:
    from evaluator.probes.first_step import FirstStep

NO_LIMIT = 1_000_000
"""A tokenizer's length from which on it means that there is none."""
UNCONDITIONED = ("latents", "timestep", "timesteps")


class Component(NamedTuple):
    """One part of a pipeline."""

    name: str
    kind: str
    """Class, or `none` for a part that is left out."""
    num_parameters: int | None
    """None for what holds no weights."""
    dtypes: tuple[str, ...]
    num_bytes: int | None
    """Of parameters and buffers."""


class Latents(NamedTuple):
    """What the denoiser works on."""

    shape: tuple[int, ...]
    """Of one sample, as the scheduler sees it."""
    image: tuple[int, int] | None
    """Height and width of the image that it becomes."""
    pixels_each: int
    """Pixels a side for each latent of the autoencoder; 1 for a pixel model."""
    packed: bool
    """Whether patches lie in a sequence (positions, channels)."""
    scaling_factor: float
    shift_factor: float
    channel_mean: tuple[float, ...] | None
    channel_std: tuple[float, ...] | None


class Tokenizer(NamedTuple):
    """A tokenizer, and the prompt as its text encoder was given it."""

    name: str
    kind: str
    vocabulary: int
    max_length: int | None
    """None where the tokenizer sets no limit."""
    pad_token: str | None
    pad_is_end: bool
    """Whether padding is the end-of-text token, so that only the mask tells them apart."""
    tokens: tuple[str, ...]
    """What the prompt became, without the padding at its end."""
    num_padding: int
    """Padding behind it."""


class Scheduler(NamedTuple):
    """The scheduler's settings that decide what its latents mean."""

    kind: str
    family: str
    """How signal and noise are mixed (`vp`, `ve`, `dpm`, `flow`, `edm`), or `unknown`."""
    prediction_type: str
    init_noise_sigma: float
    num_train_timesteps: int | None
    beta_schedule: str | None
    timestep_spacing: str | None
    order: int


class Anatomy(NamedTuple):
    """A pipeline taken apart."""

    pipeline: str
    components: tuple[Component, ...]
    latents: Latents
    tokenizers: tuple[Tokenizer, ...]
    embeddings: tuple[tuple[int, ...], ...]
    """Shapes of what `encode_prompt` returned for two prompts."""
    conditions: dict[str, tuple[int, ...]]
    """What the denoiser was given beside latents and time: name → shape."""
    scheduler: Scheduler
    guidance: GuidanceLayout
    guidance_embedded: bool
    """Whether the guidance scale is an input of the denoiser (distilled guidance)."""
    truncated: bool
    """Whether any text encoder reads less than the whole prompt."""


def take_apart(
    pipeline: Any,
    step: FirstStep,
    guidance: GuidanceLayout,
    *,
    image: tuple[int, int] | None,
    truncated: bool = False,
) -> Anatomy:
    """Everything about a pipeline, whose first step for two prompts was watched."""
    inputs = step.calls[0].inputs if step.calls else {}
    denoiser_config = denoiser_of(pipeline).config
    return Anatomy(
        pipeline=type(pipeline).__name__,
        components=components_of(pipeline),
        latents=_latents(pipeline, step, image),
        tokenizers=tuple(
            _tokenizer(pipeline, name, ids[0].tolist()) for name, ids in step.input_ids.items()
        ),
        embeddings=step.embeddings,
        conditions={
            name: tuple(value.shape) for name, value in inputs.items() if name not in UNCONDITIONED
        },
        scheduler=scheduler_of(pipeline.scheduler),
        guidance=guidance,
        guidance_embedded=bool(
            denoiser_config.get("guidance_embeds") or denoiser_config.get("time_cond_proj_dim")
        ),
        truncated=truncated,
    )


def components_of(pipeline: Any) -> tuple[Component, ...]:
    """Every part, in the pipeline's own order."""
    parts = []
    for name, part in pipeline.components.items():
        if not hasattr(part, "parameters"):
            kind = "none" if part is None else type(part).__name__
            parts.append(Component(name, kind, None, (), None))
            continue
        weights = list(part.parameters())
        tensors = [*weights, *part.buffers()]
        dtypes = tuple(sorted({str(w.dtype).removeprefix("torch.") for w in weights}))
        num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        count = sum(weight.numel() for weight in weights)
        parts.append(Component(name, type(part).__name__, count, dtypes, num_bytes))
    return tuple(parts)


def scheduler_of(scheduler: Any) -> Scheduler:
    """The settings that decide what the latents mean."""
    config = scheduler.config
    try:
        family = noise_family(scheduler).value
    except ProbeError:
        family = "unknown"
    # flow matching knows one prediction only, and some of its schedulers do not name it
    usual = "flow_prediction" if family == "flow" else "epsilon"
    return Scheduler(
        type(scheduler).__name__,
        family,
        str(config.get("prediction_type") or usual),
        float(scheduler.init_noise_sigma) if hasattr(scheduler, "init_noise_sigma") else 1.0,
        config.get("num_train_timesteps"),
        config.get("beta_schedule"),
        config.get("timestep_spacing"),
        int(getattr(scheduler, "order", 1)),
    )


def _latents(pipeline: Any, step: FirstStep, image: tuple[int, int] | None) -> Latents:
    space = LatentSpace(pipeline)
    shape = tuple(step.sample.shape[1:])
    return Latents(
        shape,
        image,
        scale_factor(pipeline),
        len(shape) == 2,
        space.scaling_factor,
        space.shift_factor,
        None if space.channel_mean is None else tuple(map(float, space.channel_mean)),
        None if space.channel_std is None else tuple(map(float, space.channel_std)),
    )


def _tokenizer(pipeline: Any, encoder: str, ids: list[int]) -> Tokenizer:
    """The tokenizer of a text encoder, and the ids of a prompt as the encoder got them."""
    name = encoder.replace("text_encoder", "tokenizer")
    tokenizer: Any = getattr(pipeline, name, None) or getattr(pipeline, "tokenizer", None)
    if tokenizer is None:
        raise ProbeError(
            f"Expected a tokenizer for {encoder}; {type(pipeline).__name__} has none. "
            "Its prompts cannot be read."
        )
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor holds one
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    kept = len(ids)
    while kept and ids[kept - 1] == pad:
        kept -= 1
    # where padding is the end of text, the first of it is the end
    kept += pad == end and kept < len(ids)
    limit = tokenizer.model_max_length
    return Tokenizer(
        name,
        type(tokenizer).__name__,
        len(tokenizer),
        None if limit is None or limit > NO_LIMIT else int(limit),
        tokenizer.pad_token,
        pad == end,
        tuple(map(str, tokenizer.convert_ids_to_tokens(ids[:kept]))),
        len(ids) - kept,
    )

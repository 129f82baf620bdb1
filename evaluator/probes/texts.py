"""What each family's text encoders read, and which text positions the denoiser then sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.probes.tokens import Token, TokenizedPrompt, pipeline_tokenizer, tokenize

if TYPE_CHECKING:
    from torch import Tensor


class Reading(NamedTuple):
    """One text encoder's part of the text positions."""

    tokenizer: Any
    encoder: str
    """The component's name; two of them, joined by +, where they share the positions."""
    length: int
    """Tokens it reads at most."""
    kept: Sequence[int]
    """The encoder's positions that the denoiser sees, in order."""
    first: int = 0
    """The denoiser's text position of the first of them."""
    before: str = ""
    """What the pipeline puts in front of the prompt."""
    after: str = ""


def read_prompts(
    pipeline: Any, texts: Sequence[str], arguments: Mapping[str, Any], num_positions: int
) -> tuple[tuple[TokenizedPrompt, ...], dict[str, list[list[int]]]]:
    """The prompts by text position of the denoiser, and what each encoder was given, without pads.

    `arguments` are those of `encode_prompt`, `num_positions` the length of what it returned.
    """
    texts = _prepared(pipeline, texts, arguments)
    parts = []
    given: dict[str, list[list[int]]] = {}
    for reading in _readings(pipeline, arguments, num_positions):
        whole = tokenize(
            reading.tokenizer,
            texts,
            max_length=reading.length,
            before=reading.before,
            after=reading.after,
            encoder=reading.encoder,
        )
        given[reading.encoder] = [[token.id for token in prompt.tokens] for prompt in whole]
        places = {kept: reading.first + i for i, kept in enumerate(reading.kept)}
        parts.append([_placed(prompt.tokens, places) for prompt in whole])
    prompts = tuple(
        TokenizedPrompt(text, tuple(token for tokens in row for token in tokens), num_positions)
        for text, row in zip(texts, zip(*parts, strict=True), strict=True)
    )
    return prompts, given


def _placed(tokens: Sequence[Token], places: Mapping[int, int]) -> list[Token]:
    kept = [token for token in tokens if token.position in places]
    return [token._replace(position=places[token.position]) for token in kept]


def check_ids(given: Mapping[str, list[list[int]]], read: Mapping[str, Sequence[Tensor]]) -> None:
    """ProbeError unless the encoders really read these tokens.

    Encoders that did not run (embeddings from a cache) are passed over.
    """
    for names, rows in given.items():
        for encoder in names.split("+"):
            seen = [row for batch in read.get(encoder, ()) for row in batch.tolist()]
            if seen and not all(any(row == s[: len(row)] for s in seen) for row in rows):
                raise ProbeError(
                    f"Expected the tokens that {encoder} read to be those of the prompt as this "
                    "pipeline is known to write it; they are others, so that no word can be told "
                    "from another. Give all encoders the same prompt, unchanged (no prompt_2, no "
                    "prompt_3), or remove attention from the probes."
                )


def _prepared(pipeline: Any, texts: Sequence[str], arguments: Mapping[str, Any]) -> Sequence[str]:
    """The texts after the pipeline's own changes to them."""
    if hasattr(pipeline, "_text_preprocessing"):
        cleaned = bool(arguments.get("clean_caption"))
        prepared: Sequence[str] = pipeline._text_preprocessing(list(texts), clean_caption=cleaned)
        return prepared
    if (convert := getattr(pipeline, "maybe_convert_prompt", None)) is not None:
        return [convert(text, pipeline_tokenizer(pipeline)) for text in texts]
    return texts


def _readings(
    pipeline: Any, arguments: Mapping[str, Any], num_positions: int
) -> tuple[Reading, ...]:
    """Which encoder fills which of the text positions."""
    name = type(pipeline.transformer).__name__ if _has_transformer(pipeline) else "UNet"
    tokenizer = pipeline_tokenizer(pipeline)
    everything = range(num_positions)
    if name == "UNet":
        length = tokenizer.model_max_length
        if length != num_positions:
            raise _unexpected(length, num_positions)
        return (Reading(tokenizer, _reader(pipeline, tokenizer), length, everything),)
    if name == "SD3Transformer2DModel":
        return _stable_diffusion_3(pipeline, num_positions)
    if name == "FluxTransformer2DModel":
        return (Reading(pipeline.tokenizer_2, "text_encoder_2", num_positions, everything),)
    if name == "QwenImageTransformer2DModel":
        before, after = pipeline.prompt_template_encode.split("{}")
        skipped = pipeline.prompt_template_encode_start_idx
        length = pipeline.tokenizer_max_length + skipped
        kept = range(skipped, skipped + num_positions)
        return (Reading(tokenizer, "text_encoder", length, kept, before=before, after=after),)
    if name == "Lumina2Transformer2DModel":
        system = arguments.get("system_prompt")
        before = (pipeline.system_prompt if system is None else system) + " <Prompt Start> "
        return (Reading(tokenizer, "text_encoder", num_positions, everything, before=before),)
    if name == "SanaTransformer2DModel":
        return (_sana(tokenizer, arguments, num_positions),)
    return (Reading(tokenizer, "text_encoder", num_positions, everything),)


def _has_transformer(pipeline: Any) -> bool:
    return getattr(pipeline, "unet", None) is None


def _reader(pipeline: Any, tokenizer: Any) -> str:
    """Stable Diffusion XL joins two encoders along the features; its refiner has the second."""
    if getattr(pipeline, "tokenizer", None) is not tokenizer:
        return "text_encoder_2"
    has_second = getattr(pipeline, "text_encoder_2", None) is not None
    return "text_encoder+text_encoder_2" if has_second else "text_encoder"


def _stable_diffusion_3(pipeline: Any, num_positions: int) -> tuple[Reading, ...]:
    """CLIP's positions, which two encoders share along the features, then T5's."""
    clip = pipeline.tokenizer
    num_clip = min(clip.model_max_length, num_positions)
    readings = [Reading(clip, _reader(pipeline, clip), clip.model_max_length, range(num_clip))]
    num_t5 = num_positions - num_clip
    if pipeline.text_encoder_3 is not None and num_t5:
        t5 = pipeline.tokenizer_3
        readings.append(Reading(t5, "text_encoder_3", num_t5, range(num_t5), first=num_clip))
    return tuple(readings)


def _sana(tokenizer: Any, arguments: Mapping[str, Any], num_positions: int) -> Reading:
    """The first position, and the last ones of instruction and prompt together."""
    instruction = arguments.get("complex_human_instruction")
    if not instruction:
        return Reading(tokenizer, "text_encoder", num_positions, range(num_positions))
    before = "\n".join(instruction)
    length = len(tokenizer.encode(before)) + num_positions - 2
    kept = [0, *range(length - num_positions + 1, length)]
    return Reading(tokenizer, "text_encoder", length, kept, before=before)


def _unexpected(expected: int, got: int) -> ProbeError:
    return ProbeError(
        f"Expected {expected} text positions, as the tokenizer counts them; got {got}. Let the "
        "pipeline encode the prompts itself, or remove attention from the probes."
    )

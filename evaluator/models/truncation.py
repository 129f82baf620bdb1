"""Which prompts are longer than a text encoder reads, by each family's own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, NamedTuple

_UNLIMITED = 1_000_000
"""Tokenizers without a limit name an absurd one."""


class Encoded(NamedTuple):
    """How a pipeline's texts reach one of its tokenizers."""

    before: str
    """What is put in front of each text."""
    limit: int
    """Tokens that are read, those in front and special ones included."""


def truncated(
    pipeline: Any,
    parameters: Mapping[str, Parameter],
    arguments: Mapping[str, Any],
    texts: Sequence[str],
) -> list[bool]:
    """Whether any of the pipeline's encoders reads less than the whole text.

    `arguments` are those of the call; SD3 and Flux show a text to encoders of different lengths,
    and the shortest one counts.
    """
    cut = [False] * len(texts)
    for suffix in ("", "_2", "_3"):
        tokenizer = getattr(pipeline, f"tokenizer{suffix}", None)
        encoder = getattr(pipeline, f"text_encoder{suffix}", None)
        if tokenizer is None or encoder is None:
            continue
        encoded = _encoded(pipeline, tokenizer, parameters, arguments)
        if encoded.limit > _UNLIMITED:
            continue
        # Some pipelines take another text for their second and third encoder.
        own = arguments.get(f"prompt{suffix}") if suffix else None
        shown = [encoded.before + (own or text) for text in _prepared(pipeline, texts)]
        for i, ids in enumerate(tokenizer(shown, truncation=False, verbose=False).input_ids):
            cut[i] |= len(ids) > encoded.limit
    return cut


def _encoded(
    pipeline: Any,
    tokenizer: Any,
    parameters: Mapping[str, Parameter],
    arguments: Mapping[str, Any],
) -> Encoded:
    def argument(name: str) -> Any:
        return arguments.get(name, parameters[name].default)

    is_clip = "CLIP" in type(tokenizer).__name__
    if is_clip or "max_sequence_length" not in parameters:
        return Encoded("", int(tokenizer.model_max_length))
    limit = int(argument("max_sequence_length"))
    if "complex_human_instruction" in parameters and argument("complex_human_instruction"):
        # Sana: instructions in front, whose closing tokens count among the text's.
        before = "\n".join(argument("complex_human_instruction"))
        return Encoded(before, len(tokenizer.encode(before)) + limit - 2)
    if "system_prompt" in parameters:
        # Lumina 2 counts its system prompt among the tokens that it reads.
        system = argument("system_prompt")
        system = pipeline.system_prompt if system is None else system
        return Encoded(f"{system} <Prompt Start> ", limit)
    if (template := getattr(pipeline, "prompt_template_encode", None)) is not None:
        # Qwen-Image drops its template's tokens before it counts.
        return Encoded(
            template.partition("{}")[0], pipeline.prompt_template_encode_start_idx + limit
        )
    return Encoded("", limit)


def _prepared(pipeline: Any, texts: Sequence[str]) -> list[str]:
    """The texts as T5 and Gemma get them: PixArt and Sana write all in lower case."""
    if hasattr(pipeline, "_text_preprocessing"):
        return [text.lower().strip() for text in texts]
    return list(texts)

"""Which token of a prompt belongs to which word."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from evaluator.errors import ProbeError

SPECIAL = -1
"""Word index of tokens that belong to no word: begin and end of text."""


class Token(NamedTuple):
    """One position of the text encoder's input."""

    position: int
    """Column in the cross-attention's keys."""
    id: int
    text: str
    """The characters it stands for; the special token's own name for begin and end of text."""
    start: int
    """First character in the prompt; equal to `end` for special tokens."""
    end: int
    word: int
    """Index of the whitespace-separated word it starts in; `SPECIAL` for special tokens."""
    encoder: str = "text_encoder"
    """The pipeline's component that reads it."""


class TokenizedPrompt(NamedTuple):
    """A prompt as its text encoder reads it: begin of text, the words, end of text, no padding."""

    text: str
    """As the encoder reads it: some pipelines lower the case and strip spaces."""
    tokens: tuple[Token, ...]
    num_positions: int
    """Columns with padding."""

    @property
    def content(self) -> tuple[Token, ...]:
        """The tokens that belong to a word."""
        return tuple(token for token in self.tokens if token.word != SPECIAL)


def pipeline_tokenizer(pipeline: Any) -> Any:
    """The tokenizer whose positions the cross-attention's columns are.

    Stable Diffusion XL joins two text encoders along the features: both tokenizers number the
    same positions, and the first one names them.
    """
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None:
            return tokenizer
    raise ProbeError(
        f"Expected a pipeline with a tokenizer, to name the tokens; {type(pipeline).__name__} has "
        "none. Remove attention from the probes of this model."
    )


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int | None = None,
    before: str = "",
    after: str = "",
    encoder: str = "text_encoder",
) -> tuple[TokenizedPrompt, ...]:
    """Tokenize as diffusers pipelines do: padded and truncated, to `model_max_length` by default.

    `before` and `after` are what the pipeline puts around every prompt; their tokens belong to no
    word. The end of a prompt is found by the attention mask: CLIP pads with its end-of-text token.
    """
    settings = {
        "padding": "max_length",
        "max_length": max_length or tokenizer.model_max_length,
        "truncation": True,
        "return_attention_mask": True,
    }
    is_fast = bool(getattr(tokenizer, "is_fast", False))
    special_ids = _special_ids(tokenizer) if is_fast else set(tokenizer.all_special_ids)
    read = [before + text + after for text in texts]
    encoded = tokenizer(read, **settings, **({"return_offsets_mapping": True} if is_fast else {}))
    prompts = []
    for i, text in enumerate(texts):
        ids = encoded["input_ids"][i]
        kept = [position for position in range(len(ids)) if encoded["attention_mask"][i][position]]
        if is_fast:
            offsets = encoded["offset_mapping"][i]
            limits = (len(before), len(before) + len(text))
            spans = {position: _within(offsets[position], limits) for position in kept}
        else:
            inner = [position for position in kept if ids[position] not in special_ids]
            pieces = [tokenizer.convert_ids_to_tokens(ids[position]) for position in inner]
            of_words = _word_spans(tokenizer, read[i], pieces)
            limits = (len(before), len(before) + len(text))
            spans = {p: _within(s, limits) for p, s in zip(inner, of_words, strict=True)}
        words = [match.start() for match in re.finditer(r"\S+", text)]
        tokens = []
        for position in kept:
            span = (0, 0) if ids[position] in special_ids else spans[position]
            token = _token(tokenizer, text, words, position, ids[position], span)
            tokens.append(token._replace(encoder=encoder))
        prompts.append(TokenizedPrompt(text, tuple(tokens), len(ids)))
    return tuple(prompts)


def _special_ids(tokenizer: Any) -> set[int]:
    """Ids that stand for no characters.

    The unknown token stands for some, which the vocabulary lacks (T5 reads no emoji); in CLIP it
    is the end of text.
    """
    ids = set(tokenizer.all_special_ids)
    unknown = getattr(tokenizer, "unk_token_id", None)
    ends = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad")}
    return ids if unknown in ends else ids - {unknown}


def _within(span: Sequence[int], limits: tuple[int, int]) -> tuple[int, int]:
    """A span counted from the first character of the prompt; empty where it lies outside."""
    start, end = max(int(span[0]), limits[0]), min(int(span[1]), limits[1])
    return (start - limits[0], end - limits[0]) if start < end else (0, 0)


def _word_spans(tokenizer: Any, text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """The word of each piece, for tokenizers that report no offsets (transformers 4's CLIP).

    Byte-pair encoding never crosses a space: words tokenized one by one give the same pieces, of
    which truncation leaves the first.
    """
    spans: list[tuple[int, int]] = []
    expected: list[str] = []
    for match in re.finditer(r"\S+", text):
        of_word = tokenizer.tokenize(match.group())
        expected += of_word
        spans += [match.span()] * len(of_word)
    if list(pieces) != expected[: len(pieces)]:
        raise ProbeError(
            f"Expected a tokenizer whose pieces stay within words; {type(tokenizer).__name__} cuts "
            f"{text!r} otherwise and reports no offsets. Load a fast tokenizer (use_fast=True)."
        )
    return spans[: len(pieces)]


def _token(
    tokenizer: Any,
    text: str,
    words: Sequence[int],
    position: int,
    token_id: int,
    span: Sequence[int],
) -> Token:
    """One token; `words` holds the first character of every word, `span` is empty if special."""
    start, end = int(span[0]), int(span[1])
    if start == end:
        name = str(tokenizer.convert_ids_to_tokens(token_id))
        return Token(position, token_id, name, start, start, SPECIAL)
    # Some tokenizers count the space before a piece as its own.
    if text[start:end].strip():
        start += len(text[start:end]) - len(text[start:end].lstrip())
    else:
        return Token(position, token_id, text[start:end], start, end, SPECIAL)
    word = bisect.bisect_right(words, start) - 1
    return Token(position, token_id, text[start:end].rstrip(), start, end, word)

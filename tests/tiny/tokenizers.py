"""Tokenizers with a few whole words and everything else letter by letter."""

from __future__ import annotations

from typing import Any

from transformers import CLIPTokenizer, GemmaTokenizer, Qwen2Tokenizer, T5Tokenizer

NUM_POSITIONS = 12
WORDS = ("a", "red", "blue", "seven", "on", "dog", "and", "fox")
QWEN_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity,"
    " text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
"""What Qwen-Image says before a prompt; each word is one token there, 34 of them."""


def build_tokenizer(*, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's byte-pair scheme."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = (parts[-2], parts[-1])
            parts[-2:] = ["".join(pair)]
            if pair not in merges:
                merges.append(pair)
                pieces.append(parts[-1])
    tokens = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocab, merges=merges, model_max_length=NUM_POSITIONS, pad_token=pad_token
    )


def build_t5_tokenizer() -> T5Tokenizer:
    """T5's unigram scheme; a word's score beats that of its letters."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -5.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS]
    pieces += [(letter, -8.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def build_gemma_tokenizer() -> GemmaTokenizer:
    """Gemma's byte-pair scheme: spaces are pieces of words, unknown letters are bytes."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    tokens += [chr(code) for code in range(33, 127)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = ["▁", *word]
        while len(parts) > 1:
            pair = (parts[-2], parts[-1])
            parts[-2:] = ["".join(pair)]
            if pair not in merges:
                merges.append(pair)
                tokens.append(parts[-1])
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges, model_max_length=512)
    tokenizer.add_bos_token = True
    return tokenizer


def build_qwen_tokenizer() -> Any:
    """Qwen's byte-level scheme, with one token for each word of Qwen-Image's template."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: index for index, token in enumerate([*letters, *special])}
    words = [QWEN_TEMPLATE, " ".join(WORDS), *WORDS]
    plain = Qwen2Tokenizer(
        vocab=vocab, merges=[], model_max_length=1024, extra_special_tokens=special[1:]
    )
    return plain.train_new_from_iterator(words * 20, vocab_size=600, show_progress=False)

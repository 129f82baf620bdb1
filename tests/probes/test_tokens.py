import pytest

from evaluator.errors import ProbeError
from evaluator.probes.tokens import SPECIAL, pipeline_tokenizer, tokenize
from tests.tiny.tokenizers import build_gemma_tokenizer, build_qwen_tokenizer, build_t5_tokenizer


def test_tokens_know_their_characters_and_their_word(tiny):
    (prompt,) = tokenize(tiny.tokenizer(), ["A red  seven, zz"])
    assert [token.text for token in prompt.tokens] == [
        "<|startoftext|>",
        *("A", "red", "seven", ",", "z", "z"),
        "<|endoftext|>",
    ]
    assert [token.word for token in prompt.tokens] == [SPECIAL, 0, 1, 2, 2, 3, 3, SPECIAL]
    assert [prompt.text[token.start : token.end] for token in prompt.content] == [
        *("A", "red", "seven", ",", "z", "z")
    ]
    assert [token.position for token in prompt.tokens] == list(range(8))


def test_the_end_is_found_although_padding_equals_it(tiny):
    tokenizer = tiny.tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    short, empty = tokenize(tokenizer, ["a dog", ""])
    assert [token.id for token in short.tokens[-1:]] == [tokenizer.eos_token_id]
    assert len(short.tokens) == 4
    assert [token.word for token in empty.tokens] == [SPECIAL, SPECIAL]
    assert short.num_positions == empty.num_positions == tokenizer.model_max_length


def test_a_long_prompt_ends_where_the_encoder_stops_reading(tiny):
    (prompt,) = tokenize(tiny.tokenizer(), ["a red dog " * 9])
    assert len(prompt.tokens) == prompt.num_positions
    assert prompt.tokens[-1].text == "<|endoftext|>"
    assert prompt.tokens[-2].word == prompt.num_positions - 3


def test_positions_are_those_the_pipeline_encodes(tiny, shared_pipeline):
    texts = ["a red seven", "zebra"]
    ids = shared_pipeline.tokenizer(
        texts, padding="max_length", max_length=12, truncation=True
    ).input_ids
    for prompt, row in zip(tokenize(shared_pipeline.tokenizer, texts), ids, strict=True):
        assert [token.id for token in prompt.tokens] == row[: len(prompt.tokens)]


def test_characters_that_the_vocabulary_lacks_belong_to_their_word():
    tokenizer = build_t5_tokenizer()
    (prompt,) = tokenize(tokenizer, ["a 🐕\u200d🦺 dog, ré"])
    unknown = [token for token in prompt.tokens if token.id == tokenizer.unk_token_id]
    assert [(token.text, token.word) for token in unknown] == [("🐕\u200d🦺", 1), ("é", 3)]
    assert [token.word for token in prompt.tokens if token.word == SPECIAL] == [SPECIAL]


def test_zero_width_and_joined_characters_stay_within_their_word(tiny):
    text = "ri\u200bding 👩\u200d🚀"
    for tokenizer in (tiny.tokenizer(), build_gemma_tokenizer(), build_qwen_tokenizer()):
        (prompt,) = tokenize(tokenizer, [text], max_length=40)
        assert {token.word for token in prompt.content} == {0, 1}
        for token in prompt.content:
            assert text[token.start : token.end] == token.text
            assert token.word == (token.start > text.index(" "))


def test_a_pipeline_without_tokenizer_is_refused(tiny):
    with pytest.raises(ProbeError, match="tokenizer"):
        pipeline_tokenizer(tiny.unconditional("ddim"))


class WithoutOffsets:
    """A tokenizer as transformers 4 loads it: it reports no offsets."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, texts, **settings):
        assert "return_offsets_mapping" not in settings
        return self._tokenizer(texts, **settings)


def test_words_are_found_without_offsets(tiny):
    tokenizer = tiny.tokenizer()
    texts = ["A red  seven, zz", "", "a red dog " * 9]
    exact = tokenize(tokenizer, texts)
    for prompt, expected in zip(tokenize(WithoutOffsets(tokenizer), texts), exact, strict=True):
        for name in ("id", "position", "word"):
            found = [getattr(token, name) for token in prompt.tokens]
            assert found == [getattr(token, name) for token in expected.tokens]
    assert prompt.tokens[1].text == "a"


def test_pieces_across_words_are_refused_without_offsets(tiny):
    class Joining(WithoutOffsets):
        def tokenize(self, text):
            return [text.upper()]

    with pytest.raises(ProbeError, match="stay within words"):
        tokenize(Joining(tiny.tokenizer()), ["a dog"])

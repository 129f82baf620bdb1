"""Embeddings moved along a direction: exactly as far as asked, and nothing else moved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from evaluator.errors import ProbeError
from evaluator.probes.directions import (
    Shift,
    prompt_embeddings,
    shifted_prompts,
    similarity,
    slope,
)

EMBEDDINGS = {
    "base": torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]),
    "from": torch.tensor([[[0.5, 0.0], [1.0, 1.0]]]),
    "to": torch.tensor([[[4.0, 0.0], [1.0, -1.0]]]),
}


class Encoder:
    """Encodes as a pipeline does: embeddings, the negative's, a mask, ids without rows."""

    def encode_prompt(self, prompt: list[str], device: str = "cpu") -> Any:
        rows = torch.cat([EMBEDDINGS[text] for text in prompt])
        mask = torch.tensor([[1, int(text != "from")] for text in prompt])
        return rows, torch.full_like(rows, 7.0), mask, None, torch.zeros(2, 3)


def test_each_row_is_moved_by_its_own_strength():
    encoder = Encoder()
    shifts = [Shift(0.0), Shift(1.0), Shift(-0.5)]
    with shifted_prompts(encoder, "base", ("from", "to"), shifts):
        moved, negative, mask, nothing, ids = encoder.encode_prompt(["base"] * 3, device="cpu")
        other = encoder.encode_prompt(["to"])[0]
    difference = EMBEDDINGS["to"] - EMBEDDINGS["from"]
    for row, shift in zip(moved, shifts):
        torch.testing.assert_close(row, (EMBEDDINGS["base"] + shift.strength * difference)[0])
    assert (negative == 7).all()
    assert mask.tolist() == [[1, 1]] * 3, "shown: what any of the prompts shows"
    assert nothing is None
    assert torch.equal(ids, torch.zeros(2, 3))
    assert torch.equal(other, EMBEDDINGS["to"]), "another text is another call's"
    assert "encode_prompt" not in vars(encoder)


def test_a_text_of_one_encoders_own_stays_as_it_is():
    class Two(Encoder):
        def encode_prompt(
            self, prompt: list[str], prompt_2: list[str] | None = None, device: str = "cpu"
        ) -> Any:
            both = (
                super(Two, self).encode_prompt(texts)[0] for texts in (prompt, prompt_2 or prompt)
            )
            return (torch.cat(list(both), dim=2),)

    encoder = Two()
    for own, second in ((["from"], "from"), (None, "to"), (["base"], "to")):
        with shifted_prompts(encoder, "base", ("base", "to"), [Shift(1.0)]):
            moved = encoder.encode_prompt(["base"], own)[0]
        expected = torch.cat([EMBEDDINGS["to"], EMBEDDINGS[second]], dim=2)
        assert torch.equal(moved, expected)


def test_a_negative_prompt_of_the_same_text_stays_where_it_is():
    encoder = Encoder()
    with shifted_prompts(encoder, "base", ("from", "to"), [Shift(1.0)]):
        moved = encoder.encode_prompt(["base"])[0]
        negative = encoder.encode_prompt(["base"])[0]
    assert not torch.equal(moved, EMBEDDINGS["base"])
    assert torch.equal(negative, EMBEDDINGS["base"])


def test_a_prompts_own_mask_is_shown_where_a_shift_ends_at_it():
    encoder = Encoder()
    shifts = [Shift(0.0), Shift(1.0), Shift(0.5), Shift(1.0, shuffled=True)]
    with shifted_prompts(encoder, "from", ("from", "to"), shifts):
        mask = encoder.encode_prompt(["from"] * 4)[2]
    assert mask.tolist() == [[1, 0], [1, 1], [1, 1], [1, 1]]
    with shifted_prompts(encoder, "to", ("to", "from"), shifts):
        mask = encoder.encode_prompt(["to"] * 4)[2]
    assert mask.tolist() == [[1, 1], [1, 0], [1, 1], [1, 1]]
    with shifted_prompts(encoder, "from", ("base", "to"), shifts):
        mask = encoder.encode_prompt(["from"] * 4)[2]
    assert mask.tolist() == [[1, 0], [1, 1], [1, 1], [1, 1]]


def test_a_shuffled_direction_is_as_long_and_seeded():
    encoder = Encoder()
    shifts = [Shift(1.0), Shift(1.0, shuffled=True)]
    moved = []
    for seed in (3, 3, 4):
        with shifted_prompts(encoder, "base", ("from", "to"), shifts, seed=seed):
            moved.append(encoder.encode_prompt(["base"] * 2)[0] - EMBEDDINGS["base"])
    assert torch.equal(moved[0], moved[1])
    for straight, shuffled in moved:
        assert sorted(straight.flatten().tolist()) == sorted(shuffled.flatten().tolist())


def test_a_pipeline_without_text_or_never_called_is_refused():
    bare = SimpleNamespace()
    with (
        pytest.raises(
            ProbeError, match="text-to-image pipeline with encode_prompt; SimpleNamespace"
        ),
        shifted_prompts(bare, "base", ("from", "to"), [Shift(1.0)]),
    ):
        pass
    with (
        pytest.raises(ProbeError, match="encode_prompt was not called with them"),
        shifted_prompts(Encoder(), "base", ("from", "to"), [Shift(1.0)]),
    ):
        pass
    with pytest.raises(ProbeError, match="Encoder did not encode these"):
        prompt_embeddings(Encoder(), lambda: None, ["base"])


def test_prompts_of_other_lengths_are_refused():
    class Uneven(Encoder):
        def encode_prompt(self, prompt: list[str], device: str = "cpu") -> Any:
            return (torch.zeros(len(prompt), len(prompt[0]), 2),)

    encoder = Uneven()
    with (
        pytest.raises(ProbeError, match=r"encoded to one length; got \(1, 4, 2\)"),
        shifted_prompts(encoder, "base", ("from", "to"), [Shift(1.0)]),
    ):
        encoder.encode_prompt(["base"])


def test_embeddings_are_those_of_the_encoder_and_their_cosines_numpys():
    encoder = Encoder()
    texts = ["base", "from", "to"]
    found = prompt_embeddings(encoder, lambda: encoder.encode_prompt(texts), texts)
    shown = [EMBEDDINGS[text].flatten().tolist() for text in texts]
    shown[1][2:] = [0.0, 0.0]  # behind the mask of "from"
    assert found.tolist() == shown
    alike = similarity(found)
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in found] for a in found]
    np.testing.assert_allclose(alike.cosine, expected, atol=1e-12)
    # a common part makes everything alike; taken away, it does not
    lifted = similarity(found + 100.0)
    assert lifted.cosine.min() > 0.99
    np.testing.assert_allclose(lifted.centred, alike.centred, atol=1e-12)


def test_the_slope_is_that_of_least_squares():
    strengths = [-0.5, 0.0, 0.5, 1.0, 1.5]
    scores = np.random.default_rng(0).normal(size=(4, 5))
    expected = [stats.linregress(strengths, row).slope for row in scores]
    np.testing.assert_allclose(slope(strengths, scores), expected)

"""A colour's direction recolours digits, and a shuffled one does not."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from evaluator.demo.classifier import DigitsExtractor
from evaluator.demo.quality import read
from evaluator.errors import ConfigError, ProbeError
from evaluator.probes.directions import Shift, similarity
from evaluator.probing.directions import moved_images, probe_directions
from evaluator.probing.inputs import ModelRequest, ProbedModel, load_model
from evaluator.probing.similarity import embeddings_of, most_alike
from evaluator.records import Prompt
from evaluator.seeds import stream_seed
from tests.tiny import saved
from tests.tiny.unets import build_refiner

from .conftest import CLIP, DIGITS

PAIR = ("a red seven on a black background", "a blue seven on a black background")


def test_strengths_0_and_1_are_the_two_prompts_themselves(digits: ProbedModel):
    images = moved_images(digits, PAIR[0], PAIR, [Shift(0.0), Shift(1.0)], num_seeds=1)
    seed = stream_seed(digits.seed, "directions", 0)
    made = digits.model.generate([Prompt("a", text) for text in PAIR], [0, 0], [seed] * 2)
    assert (images.int() - torch.stack(made).int()).abs().max() <= 1


def test_a_refiner_is_told_the_moved_prompt_too(tmp_path: Path):
    pipeline = build_refiner()
    with torch.no_grad():
        for name, layer in pipeline.unet.named_modules():
            if name.endswith("attn2"):  # initial weights hardly hear the text
                layer.to_v.weight.mul_(20)
    pipeline.save_pretrained(tmp_path / "refiner")
    size = (
        *("generation.height=16", "generation.width=16", "generation.steps=4"),
        "generation.guidance_scale=7.5",
    )
    refiner = f"model.refiner={{id: {tmp_path / 'refiner'}, start: 0.25}}"
    model = str(saved("sdxl", tmp_path))
    request = ModelRequest(model, device="cpu", overrides=(*size, refiner))
    probed = load_model(request, refines=True)
    pair = ("a red dog", "a blue fox")
    images = moved_images(probed, pair[0], pair, [Shift(0.0), Shift(1.0)], num_seeds=1)
    seed = stream_seed(probed.seed, "directions", 0)
    made = probed.generate([Prompt("a", text) for text in pair], [seed] * 2)
    assert (images.int() - torch.stack(made).int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["pixart-alpha", "sana", "lumina2"])
@pytest.mark.parametrize("order", [1, -1])
def test_ends_are_the_prompts_themselves_where_a_mask_hides_padding(
    name: str, order: int, family: Any
):
    probed = family(name, steps=2)
    pair = ("a red", "a blue fox and a dog")[::order]
    images = moved_images(probed, pair[0], pair, [Shift(0.0), Shift(1.0)], num_seeds=1)
    seed = stream_seed(probed.seed, "directions", 0)
    made = probed.model.generate([Prompt("a", text) for text in pair], [0] * 2, [seed] * 2)
    assert (images.int() - torch.stack(made).int()).abs().max() <= 1
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "pixart-alpha", "lumina2", "qwen-image"])
def test_every_family_can_be_moved(name: str, family: Any):
    probed = family(name, steps=2)
    pair = ("a red dog", "a red fox") if name != "qwen-image" else ("a red dog", "a red red")
    shifts = [Shift(0.0), Shift(1.0), Shift(1.0, shuffled=True)]
    images = moved_images(probed, pair[0], pair, shifts, num_seeds=1)
    seed = stream_seed(probed.seed, "directions", 0)
    made = probed.model.generate(
        [Prompt("a", text) for text in (*pair, pair[0])], [0] * 3, [seed] * 3
    )
    assert (images[0].int() - made[0].int()).abs().max() <= 1
    assert (images[1].int() - made[1].int()).abs().max() <= 1
    assert not torch.equal(images[2], images[0])


def test_the_direction_of_a_colour_recolours_and_a_shuffled_one_does_not(
    call: Any, tmp_path: Path, digits: ProbedModel
):
    ended = call(
        "probe", "directions", DIGITS, "--pair", *PAIR, "--base", "a red two on a black background",
        "--seeds", 4, "--steps", 8, "--guidance", 3, "--strengths", "0,1", "--weights", CLIP,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    (found,) = record["result"]["pairs"]
    assert found["effect"]["interval"]["low"] > 0.2
    assert abs(found["shuffled_effect"]["mean"]) < 0.1
    assert found["slope"]["mean"] == pytest.approx(found["effect"]["mean"])
    assert "shuffled, at 1" in ended.out
    with (tmp_path / "out" / "similarity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    own = [row for row in rows if row["prompt"] == row["other"]]
    assert [float(row["cosine"]) for row in own] == pytest.approx([1.0] * 3)
    assert record["files"] == [
        "directions.parquet",
        "strip.png",
        "similarity.csv",
        "similarity.png",
    ]
    # an independent judge: the classifier reads the digit of the base and the colour of the pair
    images = moved_images(
        digits, "a red two on a black background", PAIR, [Shift(1.0)], num_seeds=4
    )
    seen = read(images, DigitsExtractor())
    assert sum(colour == "blue" for _, colour, _ in seen) >= 3, seen
    assert sum(digit == "two" for digit, _, _ in seen) >= 3, seen


def test_what_cannot_be_done_is_said_by_name(unconditional: Path, tmp_path: Path):
    request = ModelRequest(DIGITS, device="cpu", steps=2)
    with pytest.raises(
        ConfigError, match="one with a text side, such as clip or siglip, got 'digits'"
    ):
        probe_directions(request, pairs=[PAIR], extractor="digits", output=tmp_path / "out")
    with pytest.raises(ConfigError, match="--pair: expected two different prompts"):
        probe_directions(request, pairs=[("a", "a")], output=tmp_path / "out")
    with pytest.raises(ProbeError, match="DDPMPipeline takes no text"):
        probe_directions(
            ModelRequest(str(unconditional), device="cpu"),
            pairs=[PAIR],
            weights=CLIP,
            output=tmp_path,
        )


def test_a_list_of_prompts_is_mapped(digits: ProbedModel, prompts_file: Path, tmp_path: Path):
    request = ModelRequest(DIGITS, device="cpu", steps=1)
    found = probe_directions(
        request, pairs=[PAIR], seeds=2, strengths=(0.5,), weights=CLIP, prompts=str(prompts_file),
        output=tmp_path / "out",
    )  # fmt: skip
    assert found.prompts == tuple(prompts_file.read_text().splitlines())
    assert found.similarity.cosine.shape == (4, 4)
    assert [score.shift.strength for score in found.pairs[0].scores] == [0.0, 0.5, 1.0, 1.0]


def test_each_pair_has_its_rows_and_its_strip(call: Any, tmp_path: Path):
    other = (PAIR[0], "a red two on a black background")
    ended = call(
        "probe", "directions", DIGITS, "--pair", *PAIR, "--pair", *other, "--seeds", 2,
        "--steps", 2, "--guidance", 3, "--strengths", "1", "--weights", CLIP,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [tuple(found["pair"]) for found in record["result"]["pairs"]] == [PAIR, other]
    assert [name for name in record["files"] if name.endswith(".png")] == [
        "strip-1.png", "strip-2.png", "similarity.png",
    ]  # fmt: skip
    rows = pq.read_table(tmp_path / "out" / "directions.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 3, "pairs, seeds, and strengths 0, 1 and 1 shuffled"
    for number, found in enumerate(record["result"]["pairs"]):
        own = [row for row in rows if row["pair"] == number]
        assert {(row["from"], row["to"]) for row in own} == {tuple(found["pair"])}
        at = {
            strength: np.mean(
                [r["score"] for r in own if r["strength"] == strength and not r["shuffled"]]
            )
            for strength in (0.0, 1.0)
        }
        assert found["effect"]["mean"] == pytest.approx(at[1.0] - at[0.0])
    for pairs, said in (([PAIR, PAIR], "each pair once"), ([], "expected two prompts, got none")):
        with pytest.raises(ConfigError, match=said):
            probe_directions(ModelRequest(DIGITS), pairs=pairs, output=tmp_path / "none")
    assert call("probe", "directions", DIGITS, "--pair", "alone").status == 2


def test_a_long_list_is_encoded_in_batches_and_its_nearest_are_named(
    digits: ProbedModel, monkeypatch: pytest.MonkeyPatch
):
    texts = [f"a {colour} {digit}" for colour in ("red", "blue") for digit in ("two", "six", "one")]
    whole = embeddings_of(digits, texts)
    monkeypatch.setattr("evaluator.probing.similarity.NUM_ENCODED", 4)
    np.testing.assert_allclose(embeddings_of(digits, texts), whole, atol=1e-5)
    alike = similarity(whole)
    centred = whole - whole.mean(axis=0)
    best = max(
        itertools.combinations(range(6), 2),
        key=lambda ij: np.corrcoef(np.stack([centred[i] for i in ij]))[0, 1],
    )
    near = most_alike(texts, alike)
    assert near is not None
    assert near[:2] == tuple(texts[i] for i in best)
    assert near[3] == pytest.approx(float(cosine(centred[best[0]], centred[best[1]])))
    assert most_alike(texts[:2], similarity(whole[:2])) is None, "two are opposite without a mean"


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

"""Heat maps against the package `daam` (0.2.0): its numbers in a file, and itself where it is.

`daam.safetensors` was made by `tests.parity.daam_peer` with the versions that the package asks for
(they are in the file). Each of its maps is a sum over steps, so up to 4 here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import evaluator
from evaluator.probes import AttentionProbe
from evaluator.probes.daam import word_map
from evaluator.probes.heatmaps import ALL_STEPS
from evaluator.records import Prompt
from tests.parity.daam_peer import (
    CASES,
    PROMPT,
    WORDS,
    Case,
    digits_pipeline,
    generate,
    peer_maps,
    thinned,
    traced,
)
from tests.tiny import FAMILIES

GOLDEN = Path(__file__).parent / "daam.safetensors"
SAME_BITS = 5e-6
"""Against `daam` in this process: measured up to 1.5e-6 on sums of up to 4."""
OTHER_BITS = 2e-5
"""Against another machine's and torch's: float64 in place of float32 moves them by up to 1e-6."""
CHOICES: dict[str, dict[str, Any]] = {
    "one-head": {"map_heads": [2]},
    "one-layer": {"map_layers": ["up_blocks.1.attentions.1.*"]},
    "coarse-layers": {"map_layers": ["*-4x4"]},
    # Without guidance the package takes the first half of the heads for the unconditional branch.
    "unguided": {"map_heads": [2, 3]},
}
SAMPLE_SIZES = {8: 8, 64: 128, 96: 192}
"""Side of the package's maps → `sample_size` at four pixels a latent that gives it."""


class Model:
    """What a probe attaches to."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline


@pytest.fixture(scope="module")
def pipeline() -> Any:
    weights = Path(evaluator.__file__).parent / "demo" / "weights" / "stable-diffusion"
    return digits_pipeline(weights)


def observed(pipeline: Any, call: Any, prompt: str = PROMPT, **choice: Any) -> pa.Table:
    """Our rows of all steps together."""
    probe = AttentionProbe(maps=1, **choice)
    with probe.attach(Model(pipeline), [Prompt("0", prompt)], [0]) as observation:
        call()
    table = observation.tables()["heatmaps"]
    return table.filter(pc.equal(table["step"], ALL_STEPS))


def tensor_of(table: pa.Table) -> torch.Tensor:
    rows = table.to_pylist()
    height, width = rows[0]["height"], rows[0]["width"]
    return torch.tensor([row["map"] for row in rows]).view(-1, height, width)


def our_table(pipeline: Any, name: str, case: Case) -> pa.Table:
    pipeline.unet.register_to_config(sample_size=SAMPLE_SIZES[case.map_side])
    try:
        return observed(pipeline, lambda: generate(pipeline, case), **CHOICES.get(name, {}))
    finally:
        pipeline.unet.register_to_config(sample_size=8)


def assert_close(ours: Any, peers: torch.Tensor, tolerance: float) -> None:
    assert peers.std() > 1e-3
    torch.testing.assert_close(torch.as_tensor(ours).float(), peers, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", [name for name in CASES if name != "normalized"])
def test_every_tokens_map_is_daams(pipeline: Any, name: str) -> None:
    table = our_table(pipeline, name, CASES[name])
    maps = tensor_of(table)
    assert maps.shape[-1] == CASES[name].map_side
    assert [row["token_text"] for row in table.to_pylist()][1:-1] == PROMPT.split()
    assert_close(thinned(maps), load_file(GOLDEN)[name], OTHER_BITS)


@pytest.mark.parametrize("normalize", [False, True])
def test_every_words_map_is_daams(pipeline: Any, normalize: bool) -> None:
    table, golden = our_table(pipeline, "native", CASES["native"]), load_file(GOLDEN)
    for word in WORDS:
        expected = golden[f"{'normalized' if normalize else 'native'}: {word}"]
        assert_close(word_map(table, word, normalize=normalize), expected, OTHER_BITS)


def test_the_tolerance_tells_daams_choices_apart() -> None:
    golden = load_file(GOLDEN)
    maps = [golden[name] for name in ("native", "one-head", "one-layer", "coarse-layers")]
    for i, one in enumerate(maps):
        for other in maps[i + 1 :]:
            assert (one - other).abs().max() > 1000 * OTHER_BITS


def test_the_file_says_what_made_it() -> None:
    with safe_open(GOLDEN, "np") as file:
        made_by = file.metadata()
    assert made_by["daam"] == "0.2.0"
    assert made_by["diffusers"] == "0.21.2"
    assert GOLDEN.stat().st_size < 32_000


beside = pytest.mark.skipif(
    find_spec("daam") is None,
    reason="its file is compared instead; for itself: pip install --no-deps daam==0.2.0",
)


@beside
@pytest.mark.parametrize("name", list(CASES))
def test_daam_beside_us_gives_our_maps(pipeline: Any, name: str) -> None:
    case = CASES[name]
    maps, words = peer_maps(pipeline, case)
    table = our_table(pipeline, name, case)
    normalize = name == "normalized"
    for word, expected in words.items():
        assert_close(word_map(table, word, normalize=normalize), expected, SAME_BITS)
    if not normalize:
        assert_close(tensor_of(table), maps, SAME_BITS)
    assert_close(thinned(maps), load_file(GOLDEN)[name], OTHER_BITS)


@beside
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_daam_beside_us_gives_our_maps_of_each_family(family: str) -> None:
    pipeline = FAMILIES[family]()
    pipeline.set_progress_bar_config(disable=True)
    num_tokens = pipeline.tokenizer.model_max_length

    def call() -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipeline("a red zebra", num_inference_steps=3, generator=generator,
                        output_type="latent", height=16, width=16).images  # fmt: skip

    with traced(pipeline, map_side=8, num_tokens=num_tokens) as trace:
        call()
        peers = trace.compute_global_heat_map()
    table = observed(pipeline, call, "a red zebra")
    assert_close(tensor_of(table), peers.heat_maps, SAME_BITS)
    for word in ("a", "red", "zebra"):
        assert_close(word_map(table, word), peers.compute_word_heat_map(word).heatmap, SAME_BITS)


@beside
def test_daam_moves_the_latents_and_we_do_not(pipeline: Any) -> None:
    case = CASES["native"]
    bare = generate(pipeline, case)
    with traced(pipeline, map_side=8, num_tokens=16):
        moved = generate(pipeline, case)
    ours: list[Any] = []
    observed(pipeline, lambda: ours.append(generate(pipeline, case)))
    assert torch.equal(ours[0], bare)
    assert 0 < (moved - bare).abs().max() < 1e-4

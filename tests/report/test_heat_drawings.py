"""Heat maps by word, by step and by layer, as the report draws them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from evaluator.report import heatmaps, write_report
from evaluator.report.heatmaps import layer_caption, overall
from evaluator.report.token_steps import TokenSteps, draw_token_steps
from evaluator.store.rundir import RunDirectory


def row(word: int, token: int, text: str, value: float) -> dict[str, object]:
    return {"step": -1, "word": word, "token": token, "token_text": text, "height": 1, "width": 2,
            "map": [value, 0.0]}  # fmt: skip


def test_begin_and_end_of_text_are_no_words():
    rows = [row(-1, 0, "<|startoftext|>", 9), row(0, 1, "red", 1), row(-1, 2, "<|endoftext|>", 9)]
    ((name, values),) = overall(rows).values()
    assert name == "red"
    assert values.tolist() == [[1.0, 0.0]]


def test_a_word_that_two_encoders_read_is_named_once_and_averaged():
    rows = [row(0, 1, "ze", 1), row(0, 2, "bra", 2), row(0, 78, "zebra", 6)]
    ((name, values),) = overall(rows).values()
    assert name == "zebra"
    assert values.tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize(
    ("layer", "caption"),
    [
        ("down-8x8", "down 8x8"),
        ("joint-early-64x64", "joint-early 64x64"),
        ("up_blocks.1.attentions.0.transformer_blocks.0.attn2", "up 1.0.0"),
        ("single_transformer_blocks.7.attn", "single_transformer 7"),
    ],
)
def test_layers_have_short_captions(layer: str, caption: str):
    assert layer_caption(layer) == caption


def test_words_by_layer_are_one_picture_of_the_first_sample(
    make_run: Callable[..., RunDirectory],
):
    page = write_report(make_run(num_samples=9))
    text = page.read_text(encoding="utf-8")
    assert "Words by layer" in text
    assert "in layers down-8x8, mid-4x4, up_blocks.1.attentions.0.attn2." in text
    with Image.open(page.parent / "attention-layers.png") as layers:
        with Image.open(page.parent / "attention-steps.png") as steps:
            assert layers.height == steps.height
            assert layers.width < steps.width  # three layers, four steps
        assert np.asarray(layers).std() > 10


def test_a_file_of_layers_too_large_to_hold_is_left_out(
    make_run: Callable[..., RunDirectory], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("evaluator.report.survey.MAX_LAYER_BYTES", 10)
    page = write_report(make_run(num_samples=2))
    assert not (page.parent / "attention-layers.png").exists()
    assert "Words by layer" not in page.read_text(encoding="utf-8")


def test_steps_are_drawn_over_the_image(make_run: Callable[..., RunDirectory]):
    run = make_run(num_samples=2)
    tables = [run.read(0, f"{kind}.parquet", kind=kind) for kind in ("heatmaps", "samples")]
    grids = []
    for tar in ("images.tar", "nothing.tar"):
        found = heatmaps.HeatMaps(run.path)
        found.add(*tables, run.shard_path(0) / tar, 0)
        assert found.grid is not None
        grids.append(np.asarray(found.grid.rows[0][1][0]).astype(float))
    assert np.abs(grids[0] - grids[1]).mean() > 2


@pytest.mark.parametrize("num_steps", [1, 4, 30])
def test_title_and_scale_fit_into_a_drawing_of_few_steps(num_steps: int):
    steps = list(range(num_steps))
    grid = TokenSteps("a fox", ["a", "fox"], steps, {(t, s): 0.1 for t in (0, 1) for s in steps})
    svg = draw_token_steps(grid)
    width = float(svg.get("viewBox", "").split()[2])
    (title,) = (text for text in svg.iter("text") if text.get("class") == "title")
    assert 8 + 7.3 * len(title.text or "") < width, "at 7.3 pixels a letter, as browsers draw it"
    assert all(float(text.get("x", "0")) < width - 24 for text in svg.iter("text"))

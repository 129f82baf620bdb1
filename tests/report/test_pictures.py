"""Colours, heat maps, drawings and texts, piece by piece."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from evaluator.report.colour import heat_colours, heat_hex
from evaluator.report.heatmaps import overall, overlay
from evaluator.report.images import decode, enlarged
from evaluator.report.svg import Chart, Series, draw, inline
from evaluator.report.text import number, plain, redacted


def lightness(colours: np.ndarray) -> np.ndarray:
    """OKLab lightness of sRGB colours in 0…255."""
    linear = np.where(
        colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    cones = linear @ np.array(
        [[0.41222147, 0.2119035, 0.08830246], [0.53633254, 0.6806995, 0.28171884],
         [0.05144599, 0.10739696, 0.6299787]]
    )  # fmt: skip
    return np.asarray(np.cbrt(cones) @ np.array([0.2104542553, 0.793617785, -0.0040720468]))


def test_heat_rises_evenly_in_lightness() -> None:
    values = lightness(heat_colours(np.linspace(0, 1, 21)).astype(float))
    steps = np.diff(values)
    assert (steps > 0.02).all()
    assert steps.max() < 2 * steps.min()
    assert heat_hex(0.0) == "#090028"


def test_value_that_is_no_number_is_grey() -> None:
    assert heat_colours(np.array([np.nan])).tolist() == [[128, 128, 128]]


def test_overlay_is_brightest_where_the_map_is() -> None:
    heat = np.zeros((8, 8))
    heat[1, 6] = 0.01
    image = Image.new("RGB", (32, 32), (90, 90, 90))
    pixels = np.asarray(overlay(heat, image, 64)).sum(axis=2)
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    assert (row // 8, column // 8) == (1, 6)


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_overlay_of_nothing_is_dark(values: np.ndarray) -> None:
    assert np.asarray(overlay(values, None, 16)).max() < 50


def test_tokens_of_a_word_share_one_map() -> None:
    base = {"step": -1, "word": 0, "height": 1, "width": 2}
    rows = [
        {**base, "token": 2, "token_text": "back", "map": [1.0, 0.0]},
        {**base, "token": 3, "token_text": "ground</w>", "map": [0.0, 1.0]},
    ]
    word, values = overall(rows)[0]
    assert word == "background"
    assert values.tolist() == [[0.5, 0.5]]


def test_small_images_grow_by_whole_pixels() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    grown = np.asarray(enlarged(image, 64))
    assert (grown[::8, ::8] == np.asarray(image)).all()
    assert (grown[3::8, 5::8] == np.asarray(image)).all()


def test_images_beyond_the_limits_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, "PNG")
    assert decode(out.getvalue()) is not None
    monkeypatch.setattr("evaluator.report.images.MAX_PIXELS", 1000)
    assert decode(out.getvalue()) is None
    assert decode(b"no image") is None
    assert decode(out.getvalue()[:60]) is None


@pytest.mark.parametrize(
    "series",
    [
        Series("flat", [0.0, 1.0], [5.0, 5.0]),
        Series("one", [3.0], [0.0], [0.0], [0.0]),
        Series("gaps", [0.0, 1.0, 2.0], [1.0, float("nan"), float("-inf")]),
        Series("none", [0.0], [float("nan")]),
        Series("huge", [0.0, 1.0], [1e9, -1e9]),
        Series("tiny", [0.0, 1.0], [1e-9, 2e-9]),
    ],
    ids=lambda s: s.name,
)
def test_any_series_can_be_drawn(series: Series) -> None:
    chart = Chart("any", "A <title>", "said", "x", "y", [series])
    drawn = inline(draw(chart))
    assert "A &lt;title&gt;" in drawn
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_ticks_say_what_they_stand_at() -> None:
    series = Series("s", [0.0, 1.0], [0.9, 1.02])
    drawn = draw(Chart("t", "t", "t", "x", "y", [series]))
    labels = [element.text or "" for element in drawn.iter("text")]
    assert "0.925" in labels


@pytest.mark.parametrize(
    ("value", "said"),
    [(12.3456, "12.346"), (0.00123, "0.001230"), (-1.5, "−1.5000"), (3e-9, "3.000e−09"),
     (None, "—"), (float("nan"), "—"), (float("inf"), "∞"), (31234.5, "31234.5"), (0.0, "0.000")],
)  # fmt: skip
def test_numbers_show_five_digits(value: float | None, said: str) -> None:
    assert number(value) == said


def test_plain_text_keeps_other_scripts_and_drops_tricks() -> None:
    assert plain("ein Bär, 红色的七, 🎈") == "ein Bär, 红色的七, 🎈"
    assert plain("a\u202eb\x00c\r\nd\x1b[1me") == "abc de"
    assert plain("x" * 50, limit=10) == "x" * 9 + "…"


def test_secrets_are_redacted_and_settings_are_not() -> None:
    text = redacted(
        "HF_TOKEN: abc\nmax_tokens: 77\ntokenizer: clip\ntoken:\n  - x: 1\n"
        "url: https://me:pw@host/x\nfile: https://b/x.tar?X-Signature=1&token=abc"
    )
    assert "abc" not in text
    assert "pw" not in text
    assert "max_tokens: 77" in text
    assert "tokenizer: clip" in text
    assert "- x: 1" in text

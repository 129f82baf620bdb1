"""Words against words: the right numbers in the right cells, and words for those who see none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

from evaluator.report import write_report
from evaluator.report.word_pairs import (
    MAX_WORDS,
    NUM_PROMPTS,
    PairGrid,
    WordPairs,
    draw_pairs,
    pair_grid,
)
from evaluator.store.rundir import RunDirectory
from tests.report.conftest import HOSTILE, pairs_table, samples_table

SVG = "{http://www.w3.org/2000/svg}"


def rows(words: list[str], values: dict[tuple[int, int], list[float | None]]) -> pa.Table:
    """Several rows, say of steps, for each pair of words."""
    return pa.Table.from_pylist([
        {"token": one + 1, "other": other + 1, "word": one, "other_word": other,
         "token_text": words[one], "other_text": words[other],
         "soft_iou": value, "cosine": value, "js": None if value is None else 1 - value}
        for (one, other), several in values.items()
        for value in several
    ])  # fmt: skip


def test_cells_are_means_over_rows_and_symmetric() -> None:
    table = rows(["a", "red", "dog"], {(0, 1): [0.2, 0.4], (0, 2): [0.1, None], (1, 2): [0.9]})
    grid = pair_grid(table, "a red dog")
    assert grid is not None
    assert grid.words == ["a", "red", "dog"]
    overlap = grid.values["soft_iou"]
    assert overlap[0, 1] == pytest.approx(0.3)
    assert overlap[0, 2] == pytest.approx(0.1), "what is not known does not count"
    np.testing.assert_array_equal(overlap, overlap.T)
    assert np.isnan(np.diag(overlap)).all()
    assert grid.values["js"][1, 2] == pytest.approx(0.1)


def test_a_word_of_several_tokens_is_one_row() -> None:
    table = pa.Table.from_pylist([
        {"token": 1, "other": token, "word": 0, "other_word": 1, "token_text": "red",
         "other_text": text, "soft_iou": value, "cosine": value, "js": value}
        for token, text, value in ((2, "back", 0.2), (3, "ground</w>", 0.6))
    ])  # fmt: skip
    grid = pair_grid(table, "")
    assert grid is not None
    assert grid.words == ["red", "background"]
    assert grid.values["cosine"][0, 1] == pytest.approx(0.4)


def test_pairs_within_one_word_are_no_grid() -> None:
    table = rows(["red"], {(0, 0): [0.7]})
    assert pair_grid(table, "red") is None
    assert pair_grid(table.slice(0, 0), "red") is None
    assert pair_grid(rows(["red", "end"], {(0, -1): [0.5]}), "red") is None, "no word: the end"


def test_every_cell_says_its_words_and_number() -> None:
    table = rows(["a", "dog", "a"], {(0, 1): [0.25], (0, 2): [0.5], (1, 2): [0.75]})
    grid = pair_grid(table, "a dog a")
    assert grid is not None
    svg = draw_pairs(grid, "pairs-0")
    told = [title.text for title in svg.iter("title")]
    assert told[0] == "a dog a"
    assert "a, a (2): 0.50000" in told, "repeated words are told apart"
    assert len(told) == 1 + 3 * 6, "six cells of each of three measures"
    description = svg.findtext("desc") or ""
    assert "“dog” and “a (2)” (0.75) overlap most, “a” and “dog” (0.25) least" in description


def test_agreement_is_bright_for_similarities_and_distances_alike() -> None:
    table = rows(["a", "b", "c"], {(0, 1): [0.9], (0, 2): [0.1], (1, 2): [0.5]})
    grid = pair_grid(table, "")
    assert grid is not None
    svg = draw_pairs(grid, "p")
    fills = [box.get("fill") for box in svg.iter("rect")]
    assert fills[:6] == fills[6:12] == fills[12:]


def test_long_prompts_lose_words_and_say_so() -> None:
    words = [f"w{i}" for i in range(MAX_WORDS + 3)]
    pairs = {(i, j): [0.01 * i + 0.02 * j] for i in range(len(words)) for j in range(i)}
    grid = pair_grid(rows(words, {(j, i): value for (i, j), value in pairs.items()}), "long")
    assert grid is not None
    assert len(grid.words) == MAX_WORDS
    svg = draw_pairs(grid, "p")
    assert "3 further words are left out." in (svg.findtext("desc") or "")
    assert not [t for t in svg.iter("text") if t.get("class") in ("on-dark", "on-bright")]


def test_cells_without_a_number_are_left_empty() -> None:
    nothing = np.full((2, 2), np.nan)
    grid = PairGrid("", ["a", "b"], 0, dict.fromkeys(("soft_iou", "cosine", "js"), nothing))
    assert list(draw_pairs(grid, "p").iter("rect")) == []


def test_the_first_prompts_are_kept_and_no_more() -> None:
    kept = WordPairs()
    for start in (0, 8):
        positions = range(start, start + 8)
        kept.add(pairs_table(positions), samples_table(positions))
    assert kept.full
    assert len(kept.grids) == NUM_PROMPTS
    assert kept.grids[0].prompt == "a red zero on a black background"


def test_the_page_shows_them_and_hostile_words_stay_words(
    make_run: Callable[..., RunDirectory],
) -> None:
    folder = write_report(make_run(num_samples=4, pairs=True)).parent
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "From attention_pairs.parquet" in page
    assert page.count("<script>") == 1
    assert HOSTILE not in page
    for path in sorted(folder.glob("pairs-*.svg")):
        root = ET.fromstring(Path(path).read_text(encoding="utf-8"))
        assert root.find(f"{SVG}desc") is not None
        assert not list(root.iter(f"{SVG}script"))
    assert len(list(folder.glob("pairs-*.svg"))) == 4

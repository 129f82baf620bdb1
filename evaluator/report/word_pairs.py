"""How much two words of a prompt look at the same places: a matrix for each measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.report.colour import heat_hex
from evaluator.report.svg import canvas, element, text
from evaluator.report.text import number, plain

NUM_PROMPTS = 4
MAX_WORDS = 14
MAX_NUMBERED = 9
"""Words up to which every cell holds its number; above that the number is its tooltip."""
COLUMNS = ("key", "image_index", "token", "other", "word", "other_word", "token_text", "other_text",
           "soft_iou", "cosine", "js")  # fmt: skip
_MEASURES = {
    "soft_iou": "Soft IoU: 1 for the same places",
    "cosine": "Cosine: 1 for the same places",
    "js": "Jensen–Shannon: 0 for the same places",
}
_PLACES = {"soft_iou": 2, "cosine": 2, "js": 3}
_DISTANCES = ("js",)
"""Measures that are low where words agree; bright is agreement in every matrix."""
_LETTER, _WIDTH, _GAP = 6.3, 330.0, 16.0

Matrix = NDArray[np.float64]


class PairGrid(NamedTuple):
    """One sample's words against each other."""

    prompt: str
    words: list[str]
    left_out: int
    """Words beyond `MAX_WORDS`."""
    values: dict[str, Matrix]
    """Measure → (W, W) symmetric, mean over steps, layers and tokens; NaN where there is none."""


@dataclass
class WordPairs:
    """The first prompts of the plan that have pairs."""

    grids: list[PairGrid] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether no more prompts are wanted."""
        return len(self.grids) >= NUM_PROMPTS

    def add(self, pairs: pa.Table, samples: pa.Table) -> None:
        """Add prompts of one shard from its tables `attention_pairs` and `samples`."""
        if not set(COLUMNS) <= set(pairs.column_names):
            return
        having = set(pc.unique(pairs.column("key")).to_pylist())
        prompts: dict[str, tuple[int, str]] = {}
        columns = [samples.column(name).to_pylist() for name in ("key", "image_index", "prompt")]
        for key, index, prompt in zip(*columns, strict=True):
            if key in having and len(self.grids) + len(prompts) < NUM_PROMPTS:
                prompts.setdefault(key, (index, plain(prompt or "", limit=300)))
        for key, (index, prompt) in prompts.items():
            same = pc.and_(
                pc.equal(pairs.column("key"), key), pc.equal(pairs.column("image_index"), index)
            )
            if (grid := pair_grid(pairs.filter(same), prompt)) is not None:
                self.grids.append(grid)


def pair_grid(pairs: pa.Table, prompt: str) -> PairGrid | None:
    """The matrices of one sample's rows; None where it has no pair of different words."""
    means = pairs.group_by(["word", "other_word"], use_threads=False)
    rows = means.aggregate([(measure, "mean") for measure in _MEASURES]).to_pylist()
    rows = [row for row in rows if -1 not in (row["word"], row["other_word"])]
    rows = [row for row in rows if row["word"] != row["other_word"]]
    places = sorted({row[name] for row in rows for name in ("word", "other_word")})
    if not places:
        return None
    kept = {word: i for i, word in enumerate(places[:MAX_WORDS])}
    values = {measure: np.full((len(kept), len(kept)), np.nan) for measure in _MEASURES}
    for row in rows:
        one, other = kept.get(row["word"]), kept.get(row["other_word"])
        if one is None or other is None:
            continue
        for measure, matrix in values.items():
            value = row[f"{measure}_mean"]
            matrix[one, other] = matrix[other, one] = math.nan if value is None else value
    names = _names(pairs)
    words = _distinct([names.get(word, f"word {word}") for word in kept])
    return PairGrid(prompt, words, len(places) - len(kept), values)


def _distinct(words: Sequence[str]) -> list[str]:
    """Repeated words with a number: `a`, `a (2)`."""
    counts = [words[: i + 1].count(word) for i, word in enumerate(words)]
    return [word if n == 1 else f"{word} ({n})" for word, n in zip(words, counts, strict=True)]


def _names(pairs: pa.Table) -> dict[int, str]:
    """Word → the text of its tokens."""
    found: dict[int, dict[int, str]] = {}
    if not {"token", "other"} <= set(pairs.column_names):
        return {}
    for word, token, says in (
        ("word", "token", "token_text"),
        ("other_word", "other", "other_text"),
    ):
        told = pairs.select([word, token, says]).group_by([word, token, says], use_threads=False)
        for row in told.aggregate([]).to_pylist():
            found.setdefault(row[word], {})[row[token]] = row[says] or ""
    joined = {
        word: "".join(part for _, part in sorted(parts.items())) for word, parts in found.items()
    }
    return {
        word: plain(says.replace("</w>", "").strip("▁Ġ"), limit=16) or f"word {word}"
        for word, says in joined.items()
    }


def draw_pairs(grid: PairGrid, slug: str) -> ET.Element:
    """The three matrices side by side; cells hold their numbers where there is room."""
    left = 14 + _LETTER * max(len(word) for word in grid.words)
    matrix = min(_WIDTH, 44.0 * len(grid.words))
    panel = left + max(matrix, _LETTER * max(len(says) for says in _MEASURES.values()))
    cell = matrix / len(grid.words)
    top = 52 + 0.72 * _LETTER * max(len(word) for word in grid.words)
    height = top + cell * len(grid.words) + 14
    title = plain(grid.prompt, limit=100) or "Words that share their places"
    svg = canvas(slug, title, _said(grid), 3 * panel + 2 * _GAP + 40, height)
    text(svg, 8, 18, title, kind="title")
    for i, (measure, says) in enumerate(_MEASURES.items()):
        x = i * (panel + _GAP)
        text(svg, x + left, 38, says)
        _labels(svg, grid.words, x + left, top, cell)
        _matrix(svg, grid, measure, x + left, top, cell)
    return svg


def _said(grid: PairGrid) -> str:
    more = f" {grid.left_out} further words are left out." if grid.left_out else ""
    overlap = grid.values["soft_iou"]
    said = f"Mean over steps and layers, for the prompt: {grid.prompt}.{more}"
    if np.isfinite(overlap).any():
        ends = [
            np.unravel_index(find(overlap), overlap.shape) for find in (np.nanargmax, np.nanargmin)
        ]
        most, least = (
            f"“{grid.words[i]}” and “{grid.words[j]}” ({number(float(overlap[i, j]), places=2)})"
            for i, j in ends
        )
        said += f" By soft IoU {most} overlap most, {least} least."
    return said


def _labels(svg: ET.Element, words: Sequence[str], x: float, y: float, cell: float) -> None:
    """The words beside the rows, and aslant over the columns."""
    for i, word in enumerate(words):
        text(svg, x - 6, y + (i + 0.5) * cell + 4, word, anchor="end")
        place = (x + (i + 0.5) * cell + 3, y - 6)
        label = text(svg, *place, word)
        label.set("transform", f"rotate(-45 {place[0]:.2f} {place[1]:.2f})")


def _matrix(svg: ET.Element, grid: PairGrid, measure: str, x: float, y: float, cell: float) -> None:
    """Cells from the least agreement of these words (dark) to the most (bright)."""
    words, values = grid.words, grid.values[measure]
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        value = float(values[i, j])
        share = (value - low) / (high - low) if high > low else 0.5
        share = 1 - share if measure in _DISTANCES else share
        size = {"width": cell - 1, "height": cell - 1}
        box = element(svg, "rect", "cell", x=x + j * cell, y=y + i * cell, **size)
        box.set("fill", heat_hex(share))
        ET.SubElement(box, "title").text = plain(f"{words[i]}, {words[j]}: {number(value)}")
        if len(words) <= MAX_NUMBERED:
            kind = "on-bright" if share > 0.62 else "on-dark"
            middle = (x + (j + 0.5) * cell - 0.5, y + (i + 0.5) * cell + 4)
            shown = number(value, places=_PLACES[measure])
            text(svg, *middle, shown, kind=kind, anchor="middle")

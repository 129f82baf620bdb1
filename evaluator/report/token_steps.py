"""One prompt's tokens against steps: how sharply each token is attended to, as it happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluator.report.colour import heat_hex
from evaluator.report.svg import canvas, element, text
from evaluator.report.text import number, plain

MIN_WIDTH = 460.0
"""Pixels: as wide as other charts, so that letters are as large as theirs, and titles fit."""
MAX_TOKENS = 24
MAX_STEPS = 40
MAX_LAYERS = 80
FULL_COLUMNS = ("key", "image_index", "step", "layer", "word", "sharpness")


class TokenSteps(NamedTuple):
    """Sharpness at each step: of a prompt's tokens over layers, or in layers over its words."""

    prompt: str
    tokens: list[str]
    """Or layers: what the rows are."""
    steps: list[int]
    values: dict[tuple[int, int], float]
    """(row, step) → sharpness."""
    num_left_out: int = 0
    """Rows beyond the last."""


def token_steps(attention: pa.Table, samples: pa.Table) -> TokenSteps | None:
    """The first sample of the shard that has attention rows; None where there is none."""
    if not {"key", "image_index", "step", "token", "sharpness"} <= set(attention.column_names):
        return None
    rows = _first(attention)
    names = {row["token"]: row.get("token_text") or str(row["token"]) for row in rows}
    tokens = sorted(names)
    said = [plain(names[t].replace("</w>", ""), limit=20) or str(t) for t in tokens]
    return _grid(rows, "token", tokens[:MAX_TOKENS], said, samples) if rows else None


def layer_steps(full: pa.Table, samples: pa.Table) -> TokenSteps | None:
    """The first sample of `attention_full`: each layer, over the words of the prompt."""
    if not {*FULL_COLUMNS} <= set(full.column_names):
        return None
    rows = _first(full.filter(pc.greater_equal(full.column("word"), 0)))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    names = [plain(layer, limit=60) for layer in layers]
    if not rows:
        return None
    grid = _grid(rows, "layer", layers[:MAX_LAYERS], names, samples)
    return grid._replace(num_left_out=len(layers) - len(grid.tokens))


def _first(attention: pa.Table) -> list[dict[str, Any]]:
    """The rows of the first sample that have a sharpness."""
    known = attention.filter(pc.is_finite(attention.column("sharpness")))
    if not known.num_rows:
        return []
    key, index = (known.column(name)[0] for name in ("key", "image_index"))
    same = pc.and_(pc.equal(known.column("key"), key), pc.equal(known.column("image_index"), index))
    rows: list[dict[str, Any]] = known.filter(same).to_pylist()
    return rows


def _grid(
    rows: Sequence[dict[str, Any]],
    kind: str,
    chosen: Sequence[Any],
    names: Sequence[str],
    samples: pa.Table,
) -> TokenSteps:
    """Means by row and step, at evenly spaced steps of a long schedule."""
    steps = sorted({row["step"] for row in rows})
    places = np.unique(np.linspace(0, len(steps) - 1, MAX_STEPS).round().astype(int))
    steps = [steps[i] for i in places]
    cells: dict[tuple[int, int], list[float]] = {}
    lines, columns = {each: i for i, each in enumerate(chosen)}, set(steps)
    for row in rows:
        if row[kind] in lines and row["step"] in columns:
            cells.setdefault((lines[row[kind]], row["step"]), []).append(row["sharpness"])
    values = {cell: float(np.mean(found)) for cell, found in cells.items()}
    prompt = _prompt(samples, rows[0]["key"])
    return TokenSteps(prompt, list(names[: len(chosen)]), steps, values)


def _prompt(samples: pa.Table, key: str) -> str:
    found = samples.filter(pc.equal(samples.column("key"), key)).column("prompt")
    return plain(found[0].as_py() or "", limit=300) if len(found) else ""


def draw_token_steps(grid: TokenSteps) -> ET.Element:
    """Tokens by step."""
    said = f"Mean over layer groups, for the prompt: {grid.prompt}"
    return _draw(grid, "token-steps", "Sharpness of attention by token and step", said)


def draw_layer_steps(grid: TokenSteps) -> ET.Element:
    """Layers by step."""
    said = f"Every layer and step, mean over the words of the prompt: {grid.prompt}"
    if grid.num_left_out:
        said += f" ({grid.num_left_out} further layers are left out)"
    return _draw(grid, "layer-steps", "Sharpness of attention by layer and step", said)


def _draw(grid: TokenSteps, slug: str, title: str, description: str) -> ET.Element:
    """A matrix of coloured cells, with the values as tooltips."""
    left = 20 + 6.6 * max(len(token) for token in grid.tokens)
    cell_width, cell_height = min(44.0, max(14.0, 560 / len(grid.steps))), 18.0
    scale = left + 50
    width = max(left + cell_width * len(grid.steps) + 12, scale + 192, MIN_WIDTH)
    bottom = 30 + cell_height * len(grid.tokens)
    svg = canvas(slug, title, description, width, bottom + 66)
    text(svg, 8, 18, title, kind="title")
    top = max(grid.values.values(), default=0.0) or 1.0
    low = min(0.0, *grid.values.values())
    for row, token in enumerate(grid.tokens):
        y = 30 + row * cell_height
        text(svg, left - 6, y + 13, token, anchor="end")
        for column, step in enumerate(grid.steps):
            value = grid.values.get((row, step))
            if value is None:
                continue
            x = left + column * cell_width
            size = {"width": cell_width - 1, "height": cell_height - 1}
            cell = element(svg, "rect", "cell", x=x, y=y, **size)
            cell.set("fill", heat_hex((value - low) / (top - low)))
            says = f"{token}, step {step}: {number(value)}"
            ET.SubElement(cell, "title").text = plain(says)
    every = max(1, int(np.ceil(len(grid.steps) * 22 / (cell_width * len(grid.steps)))))
    for column, step in enumerate(grid.steps):
        if column % every == 0:
            text(svg, left + (column + 0.5) * cell_width, bottom + 14, str(step), anchor="middle")
    text(svg, left, bottom + 34, "step")
    _scale(svg, scale, bottom + 25, low, top)
    return svg


def _scale(svg: ET.Element, x: float, y: float, low: float, high: float) -> None:
    """The colours from lowest to highest, with the two values."""
    text(svg, x, y + 9, number(low, places=2))
    for i in range(20):
        swatch = element(svg, "rect", "cell", x=x + 30 + 5 * i, y=y, width=5.5, height=11)
        swatch.set("fill", heat_hex(i / 19))
    text(svg, x + 138, y + 9, number(high, places=2))

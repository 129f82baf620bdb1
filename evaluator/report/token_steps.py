"""One prompt's tokens against steps: how sharply each token is attended to, as it happens."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluator.report.colour import heat_hex
from evaluator.report.svg import canvas, element, text
from evaluator.report.text import number, plain

MAX_TOKENS = 24
MAX_STEPS = 40


class TokenSteps(NamedTuple):
    """Sharpness of each token of a prompt at each step, averaged over layers."""

    prompt: str
    tokens: list[str]
    steps: list[int]
    values: dict[tuple[int, int], float]
    """(row of the token, step) → sharpness."""


def token_steps(attention: pa.Table, samples: pa.Table) -> TokenSteps | None:
    """The first sample of the shard that has attention rows; None where there is none."""
    if not {"key", "image_index", "step", "token", "sharpness"} <= set(attention.column_names):
        return None
    known = attention.filter(pc.is_finite(attention.column("sharpness")))
    if not known.num_rows:
        return None
    first = known.slice(0, 1).to_pylist()[0]
    same = pc.equal(known.column("key"), first["key"])
    same = pc.and_(same, pc.equal(known.column("image_index"), first["image_index"]))
    rows = known.filter(same).to_pylist()
    steps = sorted({row["step"] for row in rows})
    chosen = np.unique(np.linspace(0, len(steps) - 1, MAX_STEPS).round().astype(int))
    steps = [steps[i] for i in chosen]
    tokens = sorted({row["token"] for row in rows})[:MAX_TOKENS]
    names = {row["token"]: row.get("token_text") or str(row["token"]) for row in rows}
    cells: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        if row["token"] in tokens and row["step"] in steps:
            cells.setdefault((tokens.index(row["token"]), row["step"]), []).append(row["sharpness"])
    values = {cell: float(np.mean(found)) for cell, found in cells.items()}
    return TokenSteps(
        prompt=_prompt(samples, first["key"]),
        tokens=[plain(names[t].replace("</w>", ""), limit=20) or str(t) for t in tokens],
        steps=steps,
        values=values,
    )


def _prompt(samples: pa.Table, key: str) -> str:
    found = samples.filter(pc.equal(samples.column("key"), key)).column("prompt")
    return plain(found[0].as_py() or "", limit=300) if len(found) else ""


def draw_token_steps(grid: TokenSteps) -> ET.Element:
    """A matrix of coloured cells, with the values as tooltips."""
    left = 20 + 6.6 * max(len(token) for token in grid.tokens)
    cell_width, cell_height = min(44.0, max(14.0, 560 / len(grid.steps))), 18.0
    width = max(left + cell_width * len(grid.steps) + 12, 300.0)
    bottom = 30 + cell_height * len(grid.tokens)
    title = "Sharpness of attention by token and step"
    description = f"Mean over layer groups, for the prompt: {grid.prompt}"
    svg = canvas("token-steps", title, description, width, bottom + 66)
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
    _scale(svg, left + 50, bottom + 25, low, top)
    return svg


def _scale(svg: ET.Element, x: float, y: float, low: float, high: float) -> None:
    """The colours from lowest to highest, with the two values."""
    text(svg, x, y + 9, number(low, places=2))
    for i in range(20):
        swatch = element(svg, "rect", "cell", x=x + 30 + 5 * i, y=y, width=5.5, height=11)
        swatch.set("fill", heat_hex(i / 19))
    text(svg, x + 138, y + 9, number(high, places=2))

"""The table of cosines between prompts, in a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from evaluator.probes.directions import Similarity
from evaluator.probing.outputs import ProbeFolder
from evaluator.probing.similarity import write_similarity


def test_no_prompt_becomes_a_formula_or_an_escape_sequence(tmp_path: Path) -> None:
    cosine = np.array([[1.0, -0.5], [-0.5, 1.0]])
    prompts = ["=cmd|'/c calc'!A1", "a \x1b[31mred one"]
    write_similarity(ProbeFolder(tmp_path, verb="directions"), prompts, Similarity(cosine, cosine))
    with (tmp_path / "similarity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["'=cmd|'/c calc'!A1"] * 2 + ["a red one"] * 2
    assert [float(row["cosine"]) for row in rows] == [1.0, -0.5, -0.5, 1.0]

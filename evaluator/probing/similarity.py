"""The map of a list of prompts: how alike a model's text encoders take them to be."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluator.errors import ConfigError
from evaluator.probes.directions import Similarity, prompt_embeddings
from evaluator.probing.inputs import ProbedModel, load_texts
from evaluator.probing.outputs import ProbeFolder
from evaluator.probing.pictures import number_map
from evaluator.records import Prompt
from evaluator.text import formula_safe, visible, without_escapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_ENCODED = 64
"""Prompts encoded at once for the map."""
NUM_MAPPED = 60
"""Prompts in the picture of the map; the table has all."""
MAX_COMPARED = 1000
"""Prompts in a map: a million cosines."""


def most_alike(prompts: Sequence[str], alike: Similarity) -> tuple[str, str, float, float] | None:
    """The two prompts with the largest cosine without the common mean; None for fewer than 3.

    Of two, the centred embeddings are opposite whatever they are.
    """
    if len(prompts) < 3:
        return None
    rows, columns = np.triu_indices(len(prompts), 1)
    best = int(np.argmax(np.nan_to_num(alike.centred[rows, columns], nan=-2.0)))
    i, j = int(rows[best]), int(columns[best])
    return prompts[i], prompts[j], float(alike.cosine[i, j]), float(alike.centred[i, j])


def compared_prompts(
    probed: ProbedModel, pairs: Sequence[tuple[str, str]], base: str | None, prompts: str | None
) -> tuple[str, ...]:
    """The prompts of the similarity map: those of a list, else the pairs and the base."""
    listed = () if prompts is None else load_texts(prompts, probed)
    told = [] if base is None else [base]
    told += [text for pair in pairs for text in pair]
    compared = tuple(dict.fromkeys(listed or told))
    if len(compared) > MAX_COMPARED:
        raise ConfigError(
            f"--prompts: expected at most {MAX_COMPARED} different prompts for a map, got "
            f"{len(compared)}; give a shorter list"
        )
    return compared


def embeddings_of(probed: ProbedModel, texts: Sequence[str]) -> NDArray[np.float64]:
    """(P, D): of P prompts, encoded in batches; shorter ones end in zeros."""
    found = []
    for start in range(0, len(texts), NUM_ENCODED):
        part = texts[start : start + NUM_ENCODED]
        prompts = [Prompt(f"prompt-{i}", text) for i, text in enumerate(part)]
        seeds = [0] * len(part)
        found.append(
            prompt_embeddings(
                probed.pipeline,
                lambda prompts=prompts, seeds=seeds: probed.generate(prompts, seeds),  # type: ignore[misc]
                part,
            )
        )
    width = max(part.shape[1] for part in found)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in found])


def write_similarity(folder: ProbeFolder, prompts: Sequence[str], alike: Similarity) -> None:
    """Similarities as a list and as a map."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["prompt", "other", "cosine", "centred"])
    cells = [formula_safe(visible(without_escapes(prompt))) for prompt in prompts]
    for i, prompt in enumerate(cells):
        for j, other in enumerate(cells):
            writer.writerow([prompt, other, float(alike.cosine[i, j]), float(alike.centred[i, j])])
    folder.write("similarity.csv", text.getvalue().encode())
    # without their mean two embeddings are opposite, whatever they are
    drawn = alike.centred if len(prompts) > 2 else alike.cosine
    title = "cosine of text embeddings"
    if len(prompts) > 2:
        title += ", their mean taken away"
    if len(prompts) > NUM_MAPPED:
        title += f"; the first {NUM_MAPPED} of {len(prompts)}"
    shown = drawn[:NUM_MAPPED, :NUM_MAPPED]
    picture = number_map(shown, labels=prompts[:NUM_MAPPED], title=title)
    folder.picture("similarity.png", picture)

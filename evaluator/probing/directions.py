"""`probe directions`: what happens along the difference of two prompts' embeddings."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.errors import ConfigError, GenerationError, SampleError
from evaluator.probes.directions import (
    Shift,
    Similarity,
    prompt_embeddings,
    shifted_prompts,
    similarity,
    slope,
)
from evaluator.probing.averages import Average, average, spoken
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedModel,
    embed_images,
    load_extractor,
    load_model,
    load_texts,
)
from evaluator.probing.outputs import ProbeFolder, open_folder, provenance
from evaluator.probing.pictures import image_grid, number_map
from evaluator.probing.progress import Progress
from evaluator.protocols import TextExtractor
from evaluator.records import Prompt
from evaluator.seeds import stream_seed

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor

STRENGTHS = (-0.5, 0.0, 0.5, 1.0, 1.5)
NUM_SHOWN = 4
"""Seeds in the picture."""


class StrengthScore(NamedTuple):
    """How far images lie along the pair at one strength."""

    shift: Shift
    score: Average
    """cos(image, second prompt) − cos(image, first prompt), over seeds."""


@dataclass(frozen=True, slots=True)
class DirectionsFound:
    """What `probe directions` prints."""

    model: str
    base: str
    pair: tuple[str, str]
    extractor: str
    num_seeds: int
    scores: tuple[StrengthScore, ...]
    slope: Average
    """Change of the score for one unit of strength."""
    effect: Average
    """Score at strength 1 minus that at 0, seed by seed."""
    shuffled_effect: Average
    """The same with the direction's entries shuffled."""
    prompts: tuple[str, ...]
    similarity: Similarity
    folder: Path

    def lines(self) -> list[str]:
        """One line a strength, then the effect beside that of a shuffled direction."""
        first, second = self.pair
        lines = [
            f"{self.model}: {self.base!r} + strength · ({second!r} − {first!r})",
            f"{self.num_seeds} seeds, {self.extractor} cosine to {second!r} minus to {first!r}:",
        ]
        for shift, score in self.scores:
            name = "shuffled" if shift.shuffled else "strength"
            lines.append(f"  {name} {shift.strength:5.2f}   {spoken(score, '+.4f')}")
        lines += [
            f"  slope            {spoken(self.slope, '+.4f')}",
            f"  effect at 1      {spoken(self.effect, '+.4f')}",
            f"  shuffled, at 1   {spoken(self.shuffled_effect, '+.4f')}",
        ]
        return [*lines, f"written: {self.folder}"]


def probe_directions(
    request: ModelRequest,
    *,
    pair: tuple[str, str],
    base: str | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seeds: int = 8,
    extractor: str = "clip",
    weights: str | None = None,
    prompts: str | None = None,
    output: Path | None = None,
) -> DirectionsFound:
    """Move `base` (else the pair's first prompt) along the pair, and measure where images go."""
    if pair[0] == pair[1]:
        raise ConfigError(f"--pair: expected two different prompts, got {pair[0]!r} twice")
    probed = load_model(request)
    judge = load_extractor(extractor, probed, weights=weights)
    if not isinstance(judge, TextExtractor):
        raise ConfigError(
            f"--extractor: expected one with a text side, such as clip or siglip, got {extractor!r}"
        )
    start = base if base is not None else pair[0]
    shifts = [Shift(s) for s in sorted({*strengths, 0.0, 1.0})] + [Shift(1.0, shuffled=True)]
    compared = _compared(probed, pair, start, prompts)
    alike = similarity(_embeddings(probed, compared))
    images = moved_images(probed, start, pair, shifts, num_seeds=seeds)
    texts = judge.embed_text(list(pair))[0].double().numpy()
    scores = _scores(embed_images(judge, images), texts).reshape(seeds, len(shifts))
    places = {shift: i for i, shift in enumerate(shifts)}
    at_zero, at_one = scores[:, places[Shift(0.0)]], scores[:, places[Shift(1.0)]]
    folder = open_folder("directions", probed.name, output)
    found = DirectionsFound(
        probed.name,
        start,
        pair,
        judge.name,
        seeds,
        tuple(StrengthScore(shift, average(scores[:, i])) for i, shift in enumerate(shifts)),
        average(slope([shift.strength for shift in shifts[:-1]], scores[:, :-1])),
        average(at_one - at_zero),
        average(scores[:, -1] - at_zero),
        compared,
        alike,
        folder.path,
    )
    _write(folder, found, images, scores, shifts)
    arguments = {
        "model": request.model, "pair": pair, "base": start, "strengths": strengths,
        "seeds": seeds, "extractor": extractor, "prompts": prompts,
    }  # fmt: skip
    folder.finish(found, arguments=arguments, provenance=provenance(probed, extractor=judge))
    return found


def moved_images(
    probed: ProbedModel,
    base: str,
    pair: tuple[str, str],
    shifts: Sequence[Shift],
    *,
    num_seeds: int,
) -> Tensor:
    """Every seed at every shift: (seeds · shifts, 3, H, W) uint8, a seed's shifts together."""
    import torch

    jobs = [
        (stream_seed(probed.seed, "directions", seed), shift)
        for seed in range(num_seeds)
        for shift in shifts
    ]
    shuffle = stream_seed(probed.seed, "directions", "shuffled")
    progress = Progress("directions", len(jobs))
    images: list[Tensor] = []
    for start in range(0, len(jobs), probed.batch_size):
        part = jobs[start : start + probed.batch_size]
        count = len(part)
        moved = [shift for _, shift in part]
        with (
            torch.no_grad(),
            shifted_prompts(probed.pipeline, base, pair, moved, seed=shuffle),
        ):
            made = probed.model.generate(
                [Prompt("direction", base)] * count, [0] * count, [seed for seed, _ in part]
            )
        for image in made:
            if isinstance(image, SampleError):
                raise GenerationError(f"{base}: {image}")
            images.append(image)
        progress.advance(count)
    return torch.stack(images)


def _compared(
    probed: ProbedModel, pair: tuple[str, str], base: str, prompts: str | None
) -> tuple[str, ...]:
    """The prompts of the similarity map: those of a list, else the pair and the base."""
    listed = () if prompts is None else load_texts(prompts, probed)
    return tuple(dict.fromkeys(listed or (base, *pair)))


def _embeddings(probed: ProbedModel, texts: Sequence[str]) -> NDArray[np.float64]:
    prompts = [Prompt(f"prompt-{i}", text) for i, text in enumerate(texts)]
    return prompt_embeddings(
        probed.pipeline,
        lambda: probed.model.generate(prompts, [0] * len(prompts), [0] * len(prompts)),
        texts,
    )


def _scores(images: NDArray[np.float64], texts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) cosine to the second text minus cosine to the first."""
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    scores: NDArray[np.float64] = images @ (texts[1] - texts[0])
    return scores


def _write(
    folder: ProbeFolder,
    found: DirectionsFound,
    images: Tensor,
    scores: NDArray[np.float64],
    shifts: Sequence[Shift],
) -> None:
    """Scores as a table, images as a strip a seed, similarities as a list and a map."""
    folder.table("directions.parquet", _table(scores, shifts))
    count = min(NUM_SHOWN, found.num_seeds)
    rows = [list(images[i * len(shifts) : (i + 1) * len(shifts)]) for i in range(count)]
    heads = [f"{s.strength:g}{' shuffled' if s.shuffled else ''}" for s in shifts]
    first, second = found.pair
    title = f"{found.base} + strength · ({second} − {first})"
    labels = [f"seed {i}" for i in range(count)]
    folder.picture(
        "strip.png", image_grid(rows, title=title, row_labels=labels, column_labels=heads)
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["prompt", "other", "cosine", "centred"])
    alike = found.similarity
    for i, prompt in enumerate(found.prompts):
        for j, other in enumerate(found.prompts):
            writer.writerow([prompt, other, float(alike.cosine[i, j]), float(alike.centred[i, j])])
    folder.write("similarity.csv", text.getvalue().encode())
    title = "cosine of text embeddings, their mean taken away"
    folder.picture("similarity.png", number_map(alike.centred, labels=found.prompts, title=title))


def _table(scores: NDArray[np.float64], shifts: Sequence[Shift]) -> pa.Table:
    import pyarrow as pa

    count = len(scores)
    return pa.table(
        {
            "seed": [seed for seed in range(count) for _ in shifts],
            "strength": [shift.strength for _ in range(count) for shift in shifts],
            "shuffled": [shift.shuffled for _ in range(count) for shift in shifts],
            "score": scores.reshape(-1).tolist(),
        }
    )

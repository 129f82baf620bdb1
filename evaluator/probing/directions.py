"""`probe directions`: what happens along the difference of two prompts' embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.errors import ConfigError, ProbeError
from evaluator.probes.directions import (
    Shift,
    Similarity,
    shifted_prompts,
    similarity,
    slope,
)
from evaluator.probing.averages import Average, average, spoken
from evaluator.probing.images import embed_images
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedModel,
    load_extractor,
    load_model,
)
from evaluator.probing.named import output_place
from evaluator.probing.outputs import ProbeFolder, open_folder, provenance
from evaluator.probing.pictures import image_grid
from evaluator.probing.progress import Progress
from evaluator.probing.similarity import (
    compared_prompts,
    embeddings_of,
    most_alike,
    write_similarity,
)
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


class PairFound(NamedTuple):
    """What happened along one pair."""

    base: str
    pair: tuple[str, str]
    scores: tuple[StrengthScore, ...]
    slope: Average
    """Change of the score for one unit of strength."""
    effect: Average
    """Score at strength 1 minus that at 0, seed by seed."""
    shuffled_effect: Average
    """The same with the direction's entries shuffled."""

    def lines(self) -> list[str]:
        """One line a strength, then the effect beside that of a shuffled direction."""
        first, second = self.pair
        lines = [f"{self.base!r} + strength · ({second!r} − {first!r}):"]
        for shift, score in self.scores:
            name = "shuffled" if shift.shuffled else "strength"
            lines.append(f"  {name} {shift.strength:5.2f}   {spoken(score, '+.4f')}")
        return [
            *lines,
            f"  slope            {spoken(self.slope, '+.4f')}",
            f"  effect at 1      {spoken(self.effect, '+.4f')}",
            f"  shuffled, at 1   {spoken(self.shuffled_effect, '+.4f')}",
        ]


@dataclass(frozen=True, slots=True)
class DirectionsFound:
    """What `probe directions` prints."""

    model: str
    extractor: str
    num_seeds: int
    pairs: tuple[PairFound, ...]
    prompts: tuple[str, ...]
    similarity: Similarity
    notes: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """Pair by pair, then which prompts of the map are the most alike."""
        lines = [
            f"{self.model}: {self.num_seeds} seeds, {self.extractor} cosine to a pair's second "
            "prompt minus to its first"
        ]
        for found in self.pairs:
            lines += found.lines()
        if (near := most_alike(self.prompts, self.similarity)) is not None:
            first, second, cosine, centred = near
            lines.append(
                f"most alike of {len(self.prompts)} prompts: {first!r} and {second!r} (cosine "
                f"{cosine:.3f}, {centred:.3f} without their common mean)"
            )
        lines += [f"note: {note}" for note in self.notes]
        return [*lines, f"written: {self.folder}"]


class Moved(NamedTuple):
    """One pair's images and their scores."""

    found: PairFound
    images: Tensor
    """(seeds · shifts, 3, H, W) uint8."""
    scores: NDArray[np.float64]
    """(seeds, shifts)."""


def probe_directions(
    request: ModelRequest,
    *,
    pairs: Sequence[tuple[str, str]],
    base: str | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seeds: int = 8,
    extractor: str = "clip",
    weights: str | None = None,
    prompts: str | None = None,
    output: Path | None = None,
) -> DirectionsFound:
    """Move `base` (else a pair's first prompt) along each pair, and measure where images go."""
    place = output_place("directions", request, output)
    _require_pairs(pairs, seeds)
    probed = load_model(request, refines=True)
    if not probed.takes_text:
        raise ProbeError(
            f"Expected a text-to-image pipeline; {type(probed.pipeline).__name__} takes no text. "
            "It has no text embeddings to move."
        )
    judge = load_extractor(extractor, probed, weights=weights)
    if not isinstance(judge, TextExtractor):
        raise ConfigError(
            f"--extractor: expected one with a text side, such as clip or siglip, got {extractor!r}"
        )
    compared = compared_prompts(probed, pairs, base, prompts)
    alike = similarity(embeddings_of(probed, compared))
    shifts = [Shift(s) for s in sorted({*strengths, 0.0, 1.0})] + [Shift(1.0, shuffled=True)]
    progress = Progress("directions", len(pairs) * seeds * len(shifts))
    moved = []
    for pair in pairs:
        start = pair[0] if base is None else base
        images = moved_images(probed, start, pair, shifts, num_seeds=seeds, progress=progress)
        texts = judge.embed_text(list(pair))[0].cpu().double().numpy()
        scores = _scores(embed_images(judge, images), texts).reshape(seeds, len(shifts))
        moved.append(Moved(_found(start, pair, shifts, scores), images, scores))
    folder = open_folder("directions", probed.name, place)
    found = DirectionsFound(
        probed.name, judge.name, seeds, tuple(item.found for item in moved), compared, alike,
        probed.notes, folder.path,
    )  # fmt: skip
    folder.table("directions.parquet", _table(moved, shifts))
    _draw_strips(folder, moved, shifts, seeds)
    write_similarity(folder, compared, alike)
    arguments = {
        "model": request.model, "pairs": pairs, "base": base, "strengths": strengths,
        "seeds": seeds, "extractor": extractor, "prompts": prompts,
    }  # fmt: skip
    folder.finish(found, arguments=arguments, provenance=provenance(probed, extractor=judge))
    return found


def _require_pairs(pairs: Sequence[tuple[str, str]], seeds: int) -> None:
    if not pairs:
        raise ConfigError("--pair: expected two prompts, got none; it may be repeated")
    for first, second in pairs:
        if first == second:
            raise ConfigError(f"--pair: expected two different prompts, got {first!r} twice")
    if len(set(pairs)) < len(pairs):
        raise ConfigError("--pair: expected each pair once, got one twice; leave it out")
    if seeds < 2:
        raise ConfigError(f"--seeds: expected at least 2, for an interval, got {seeds}")


def _found(
    base: str, pair: tuple[str, str], shifts: Sequence[Shift], scores: NDArray[np.float64]
) -> PairFound:
    """What (seeds, shifts) scores say about one pair; the shuffled direction comes last."""
    places = {shift: i for i, shift in enumerate(shifts)}
    at_zero, at_one = scores[:, places[Shift(0.0)]], scores[:, places[Shift(1.0)]]
    return PairFound(
        base,
        pair,
        tuple(StrengthScore(shift, average(scores[:, i])) for i, shift in enumerate(shifts)),
        average(slope([shift.strength for shift in shifts[:-1]], scores[:, :-1])),
        average(at_one - at_zero),
        average(scores[:, -1] - at_zero),
    )


def moved_images(
    probed: ProbedModel,
    base: str,
    pair: tuple[str, str],
    shifts: Sequence[Shift],
    *,
    num_seeds: int,
    progress: Progress | None = None,
) -> Tensor:
    """Every seed at every shift: (seeds · shifts, 3, H, W) uint8, a seed's shifts together."""
    import torch

    jobs = [
        (stream_seed(probed.seed, "directions", seed), shift)
        for seed in range(num_seeds)
        for shift in shifts
    ]
    shuffle = stream_seed(probed.seed, "directions", "shuffled")
    images: list[Tensor] = []
    for start in range(0, len(jobs), probed.batch_size):
        part = jobs[start : start + probed.batch_size]
        count = len(part)
        moved = [shift for _, shift in part]
        with torch.no_grad(), ExitStack() as stack:
            for pipeline in probed.pipelines:
                stack.enter_context(shifted_prompts(pipeline, base, pair, moved, seed=shuffle))
            images += probed.generate([Prompt("direction", base)] * count, [s for s, _ in part])
        if progress is not None:
            progress.advance(count)
    return torch.stack(images)


def _scores(images: NDArray[np.float64], texts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) cosine to the second text minus cosine to the first."""
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    scores: NDArray[np.float64] = images @ (texts[1] - texts[0])
    return scores


def _draw_strips(
    folder: ProbeFolder, moved: Sequence[Moved], shifts: Sequence[Shift], num_seeds: int
) -> None:
    """`strip.png`; of several pairs `strip-1.png` and so on, in their order."""
    count = min(NUM_SHOWN, num_seeds)
    heads = [f"{s.strength:g}{' shuffled' if s.shuffled else ''}" for s in shifts]
    for number, item in enumerate(moved, 1):
        rows = [list(item.images[i * len(shifts) : (i + 1) * len(shifts)]) for i in range(count)]
        first, second = item.found.pair
        picture = image_grid(
            rows,
            title=f"{item.found.base} + strength · ({second} − {first})",
            row_labels=[f"seed {i}" for i in range(count)],
            column_labels=heads,
        )
        name = "strip.png" if len(moved) == 1 else f"strip-{number}.png"
        caption = f"One row a seed, moved from “{first}” to “{second}” by the strength above it."
        folder.picture(name, picture, caption=caption)


def _table(moved: Sequence[Moved], shifts: Sequence[Shift]) -> pa.Table:
    """One row a pair, seed and shift."""
    import pyarrow as pa

    rows = [
        {
            "pair": number,
            "from": item.found.pair[0],
            "to": item.found.pair[1],
            "seed": seed,
            "strength": shift.strength,
            "shuffled": shift.shuffled,
            "score": float(item.scores[seed, place]),
        }
        for number, item in enumerate(moved)
        for seed in range(len(item.scores))
        for place, shift in enumerate(shifts)
    ]
    return pa.Table.from_pylist(rows)

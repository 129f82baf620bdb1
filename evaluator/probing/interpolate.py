"""`probe interpolate`: how smoothly images change between two seeds, or two images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.errors import ConfigError
from evaluator.probes.interpolation import JUMP_FACTOR, MIN_STEPS, PathSmoothness, path_smoothness
from evaluator.probing.averages import Average, average, spoken
from evaluator.probing.ignored import chosen_extractor, require_asked_for
from evaluator.probing.images import embed_images, load_images
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedImages,
    ProbedModel,
    load_model,
    prompts_note,
    require_start_from_noise,
)
from evaluator.probing.named import output_place
from evaluator.probing.outputs import ProbeFolder, open_folder, provenance
from evaluator.probing.paths import (
    MODES,
    Ends,
    Walk,
    chosen_strength,
    first_step_of,
    image_ends,
    path_prompts,
    seed_ends,
    walk,
)
from evaluator.probing.pictures import image_grid
from evaluator.probing.progress import Progress
from evaluator.records import Prompt
from evaluator.seeds import stream_seed
from evaluator.text import count_of

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from evaluator.protocols import FeatureExtractor

PIXELS = "pixels"
"""The feature space that needs no extractor: values in [0, 1]."""


class Walked(NamedTuple):
    """One pair of ends, walked one way."""

    pair: int
    mode: str
    walk: Walk
    smoothness: dict[str, PathSmoothness]
    """By feature space."""


class Summary(NamedTuple):
    """All pairs, one way of walking, one feature space."""

    mode: str
    space: str
    norm_ratio: float
    """Mean norm of the middle latents over that of their ends."""
    ratio: Average
    """Path length over distance of the ends, with its interval over pairs."""
    largest_step: float
    """Mean of the longest step over the median one."""
    num_jumps: int


@dataclass(frozen=True, slots=True)
class InterpolateFound:
    """What `probe interpolate` prints."""

    model: str
    between: str
    num_pairs: int
    num_frames: int
    summaries: tuple[Summary, ...]
    differences: dict[str, Average]
    """Feature space → length / distance of the circle minus that of the line, pair by pair."""
    notes: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """One line a way of walking and a feature space."""
        pairs = f"{count_of(self.num_pairs, 'pair')} of {self.between}"
        head = f"{'path':6} {'features':10} {'mid norm':>8} {'length / distance':>26}"
        lines = [
            f"{self.model}: {pairs}, {count_of(self.num_frames, 'image')} each",
            f"{head} {'largest step':>14} {'jumps':>6}",
        ]
        for found in self.summaries:
            path = f"{found.mode:6} {found.space:10} {found.norm_ratio:8.3f}"
            largest = f"{found.largest_step:.1f} medians"
            lines.append(
                f"{path} {spoken(found.ratio, '.2f'):>26} {largest:>14} {found.num_jumps:6}"
            )
        for space, difference in self.differences.items():
            lines.append(f"slerp − lerp in {space}: {spoken(difference, '+.2f')}")
        rule = f"a jump is a step longer than {JUMP_FACTOR:g} median steps of its path"
        notes = [f"note: {note}" for note in self.notes]
        return [*lines, rule, *notes, f"written: {self.folder}"]


def probe_interpolate(
    request: ModelRequest,
    *,
    images: str | None = None,
    prompt: str | None = None,
    class_label: int | None = None,
    pairs: int = 4,
    frames: int = 9,
    strength: float | None = None,
    extractor: str | None = None,
    weights: str | None = None,
    output: Path | None = None,
) -> InterpolateFound:
    """Walk between seeds, or between consecutive images of a source at a noise `strength`.

    Between seeds, a pair takes the prompt given, else one of the configuration's first.
    """
    place = output_place("interpolate", request, output)
    if frames < 3:
        raise ConfigError(f"--frames: expected at least 3, the ends and one between, got {frames}")
    strength = chosen_strength(strength, between_images=images is not None)
    probed = load_model(request, refines=True)
    require_start_from_noise(probed)
    require_asked_for(
        probed, prompt=prompt is not None, class_label=class_label is not None,
        guidance=request.guidance_scale,
    )  # fmt: skip
    judge = chosen_extractor(extractor, probed, weights=weights)
    shown = None if images is None else load_images(images, probed, limit=2 * pairs)
    begin = 0 if strength is None else first_step_of(probed, strength)
    told = path_prompts(probed, shown, prompt, class_label, pairs)
    steps = np.linspace(0.0, 1.0, frames).tolist()
    paths = _walks(probed, shown, told, judge, steps=steps, begin=begin)
    folder = open_folder("interpolate", probed.name, place)
    folder.table("interpolate.parquet", _table(paths, steps))
    _draw(folder, probed, paths, shown, steps)
    summaries, differences = _summaries(paths), _differences(paths)
    notes = _notes(probed, shown, frames, [] if prompt is not None else told)
    arguments = {
        "model": request.model, "images": images, "prompts": [p.text for p in told],
        "pairs": pairs, "frames": frames, "strength": strength,
        "extractor": extractor,
    }  # fmt: skip
    between = "seeds" if strength is None else f"images at strength {strength:g}"
    found = InterpolateFound(
        probed.name, between, len(told), frames, summaries, differences, notes, folder.path
    )
    folder.finish(
        {
            "summaries": summaries,
            "differences": differences,
            "jump_factor": JUMP_FACTOR,
            "notes": notes,
        },
        arguments=arguments,
        provenance=provenance(probed, images=shown, extractor=judge),
        lines=found.lines(),
    )
    return found


def _walks(
    probed: ProbedModel,
    shown: ProbedImages | None,
    told: Sequence[Prompt],
    judge: FeatureExtractor | None,
    *,
    steps: Sequence[float],
    begin: int,
) -> list[Walked]:
    """Every pair's walks, one for each mode; `steps` are the places on a path, from 0 to 1."""
    progress = Progress("interpolate", len(told) * len(MODES))
    paths = []
    for pair, prompt in enumerate(told):
        ends = _ends(probed, shown, prompt, pair)
        for mode in MODES:
            walked = walk(probed, prompt, ends, mode=mode, weights=steps, begin=begin)
            paths.append(Walked(pair, mode, walked, _smoothness(walked.images, judge)))
            progress.advance()
    return paths


def _notes(
    probed: ProbedModel, shown: ProbedImages | None, frames: int, told: Sequence[Prompt]
) -> tuple[str, ...]:
    notes = list(probed.notes)
    if frames <= MIN_STEPS:
        notes.append(f"no jump is looked for among fewer than {MIN_STEPS} steps; raise --frames")
    notes += prompts_note(told) if shown is None else ()
    notes += [f"left out {line}" for line in (shown.refused if shown is not None else ())]
    return tuple(notes)


def _ends(probed: ProbedModel, shown: ProbedImages | None, prompt: Prompt, pair: int) -> Ends:
    if shown is None:
        seeds = [stream_seed(probed.seed, "interpolate", pair, end) for end in range(2)]
        return seed_ends(probed, prompt, seeds)
    two = shown.images[2 * pair : 2 * pair + 2]
    return image_ends(probed, two, seed=stream_seed(probed.seed, "interpolate", pair))


def _smoothness(images: Tensor, judge: FeatureExtractor | None) -> dict[str, PathSmoothness]:
    """Of the images' own values, and of an extractor's features."""
    found = {PIXELS: path_smoothness(images.double().flatten(1).numpy() / 255)}
    if judge is not None:
        found[judge.name] = path_smoothness(embed_images(judge, images))
    return found


def _summaries(paths: Sequence[Walked]) -> tuple[Summary, ...]:
    found = []
    for space in paths[0].smoothness:
        for mode in MODES:
            walked = [path for path in paths if path.mode == mode]
            smooth = [path.smoothness[space] for path in walked]
            largest = [item.largest_step for item in smooth if math.isfinite(item.largest_step)]
            found.append(
                Summary(
                    mode,
                    space,
                    float(np.mean([path.walk.norm_ratio for path in walked])),
                    average([item.ratio for item in smooth], least=1.0),
                    float(np.mean(largest)) if largest else math.nan,
                    sum(len(item.jumps) for item in smooth),
                )
            )
    return tuple(found)


def _differences(paths: Sequence[Walked]) -> dict[str, Average]:
    found = {}
    for space in paths[0].smoothness:
        ratios = {
            mode: [path.smoothness[space].ratio for path in paths if path.mode == mode]
            for mode in MODES
        }
        pairs = zip(ratios["slerp"], ratios["lerp"], strict=True)
        found[space] = average([circle - line for circle, line in pairs])
    return found


def _table(paths: Sequence[Walked], weights: Sequence[float]) -> pa.Table:
    """One row a step: the distance from the image before it, in each feature space."""
    import pyarrow as pa

    rows = []
    for path in paths:
        for i in range(len(weights) - 1):
            row = {"pair": path.pair, "mode": path.mode, "step": i, "weight": weights[i + 1]}
            for space, smooth in path.smoothness.items():
                row[f"distance_{space}"] = smooth.steps[i]
                row[f"jump_{space}"] = i in smooth.jumps
            rows.append(row)
    return pa.Table.from_pylist(rows)


def _draw(
    folder: ProbeFolder,
    probed: ProbedModel,
    paths: Sequence[Walked],
    shown: ProbedImages | None,
    weights: Sequence[float],
) -> None:
    """A strip a path; between images, with the images themselves at its ends."""
    heads = [f"{weight:.2f}" for weight in weights]
    rows = []
    for path in paths:
        strip = list(path.walk.images)
        if shown is not None:
            first, last = shown.images[2 * path.pair : 2 * path.pair + 2]
            strip = [first, *strip, last]
        rows.append(strip)
    if shown is not None:
        heads = ["image", *heads, "image"]
    picture = image_grid(
        rows,
        title=f"{probed.name}: from one end to the other",
        row_labels=[f"pair {path.pair}, {path.mode}" for path in paths],
        column_labels=heads,
    )
    folder.picture("strip.png", picture)

"""`probe ood`: how unusual images are among a reference set, in latents or in features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluator.errors import ConfigError, InputError
from evaluator.probes.latent_space import LatentSpace
from evaluator.probes.outliers import (
    FEW,
    SCORES,
    Auroc,
    Floats,
    auroc,
    fit_reference,
    p_values,
    reference_warnings,
    split_reference,
)
from evaluator.probing.ignored import chosen_extractor
from evaluator.probing.images import (
    chosen_images,
    embed_images,
    encode_images,
    fit_images,
    images_size,
    keeps_images,
    kept_images,
    load_images,
)
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedImages,
    ProbedModel,
    load_model,
)
from evaluator.probing.named import output_place
from evaluator.probing.outputs import open_folder, provenance
from evaluator.probing.pictures import image_grid
from evaluator.seeds import stream_seed
from evaluator.text import count_of

if TYPE_CHECKING:
    import pyarrow as pa

    from evaluator.protocols import FeatureExtractor

BATCH_SIZE = 16
"""Images encoded at once."""
LEAST = 8
"""Reference images without which there is nothing to fit to, or to calibrate with."""
LEVEL = 0.05
"""Images with a p-value of at most this count as flagged."""
NUM_SHOWN = 8
"""Images in each row of the picture."""


class Scored(NamedTuple):
    """One set of images with its scores."""

    name: str
    """`held-out`, `images` or `outliers`."""
    given: ProbedImages
    scores: dict[str, Floats]
    p_values: dict[str, Floats]


@dataclass(frozen=True, slots=True)
class ScoreFound:
    """What one score says."""

    name: str
    flagged: float | None
    """Share of the images that it flags; about 5 % of images like the reference."""
    auroc: Auroc | None
    """How well it tells the outliers from held-out reference images."""


@dataclass(frozen=True, slots=True)
class OodFound:
    """What `probe ood` prints."""

    model: str
    space: str
    """`latents`, `pixels`, or an extractor's name."""
    dim: int
    num_fitted: int
    num_held_out: int
    num_images: int
    num_outliers: int
    scores: tuple[ScoreFound, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """The scores side by side, and what makes them doubtful."""
        lines = [
            f"{self.model}: {count_of(self.num_images, 'image')} and "
            f"{count_of(self.num_outliers, 'outlier')} in "
            f"{self.space} ({self.dim} dimensions), against {self.num_fitted} reference images; "
            f"{self.num_held_out} more calibrate",
            f"  {'score':12} {'flagged at 5 %':>14}   AUROC of the outliers (95 %)",
        ]
        for score in self.scores:
            flagged = "–" if score.flagged is None else f"{100 * score.flagged:.1f} %"
            area = "–"
            if score.auroc is not None:
                area = "{:.3f} [{:.3f}, {:.3f}]".format(*score.auroc)
            lines.append(f"  {score.name:12} {flagged:>14}   {area}")
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += [f"note: {note}" for note in self.notes]
        return [*lines, f"written: {self.folder}"]


def probe_ood(
    request: ModelRequest,
    *,
    reference: str | None = None,
    images: str | None = None,
    outliers: str | None = None,
    limit: int = 2000,
    extractor: str | None = None,
    weights: str | None = None,
    output: Path | None = None,
) -> OodFound:
    """Score images, outliers or both in the model's latents, or in an extractor's features.

    A fifth of the reference, drawn by the seed, fits nothing: what it scores is what is usual.
    Of a run, its first reference with images is the reference, and without `images` those that it
    kept are scored; beside outliers it may have kept none.
    """
    place = output_place("ood", request, output)
    asked = {"images": images, "outliers": outliers}
    probed = load_model(request)
    if images is None and outliers is None and probed.run is None:
        raise ConfigError("--images: expected images to score, got none; or give --outliers")
    judge = chosen_extractor(extractor, probed, weights=weights)
    usual = chosen_images(reference, probed, limit=limit, option="--reference")
    if len(usual.images) < LEAST:
        raise InputError(
            f"--reference: expected at least {LEAST} images, got {len(usual.images)}; give more "
            f"or raise --limit: below {FEW} no score is steady"
        )
    sets = _sets(probed, images, outliers, limit=limit)
    scored, num_fitted, dim = _score(probed, judge, usual, sets)
    found = tuple(_found(name, scored) for name in SCORES)
    warnings = [*reference_warnings(num_fitted, dim), *_repeated(usual, sets)]
    for given in (usual, *sets.values()):
        warnings += [f"left out {line}" for line in given.refused]
    folder = open_folder("ood", probed.name, place)
    result = OodFound(
        model=probed.name,
        space=_space(probed) if extractor is None else extractor,
        dim=dim,
        num_fitted=num_fitted,
        num_held_out=len(scored[0].given.images),
        num_images=len(sets["images"].images) if "images" in sets else 0,
        num_outliers=len(sets["outliers"].images) if "outliers" in sets else 0,
        scores=found,
        warnings=tuple(warnings),
        notes=(*probed.notes, *_told(usual, sets)),
        folder=folder.path,
    )
    folder.table("ood.parquet", _table(scored))
    folder.picture("ood.png", _picture(scored[1], _best(found)))
    arguments = {"reference": reference, **asked, "limit": limit, "extractor": extractor}
    made_from = provenance(probed, images=usual, extractor=judge)
    folder.finish(result, arguments=arguments, provenance=made_from)
    return result


def _sets(
    probed: ProbedModel, images: str | None, outliers: str | None, *, limit: int
) -> dict[str, ProbedImages]:
    """The images, given or kept by the run, then the outliers, as far as there are any."""
    sets = {}
    if images is not None:
        sets["images"] = load_images(images, probed, limit=limit)
    elif probed.run is not None and (outliers is None or keeps_images(probed.run)):
        sets["images"] = kept_images(probed.run, limit=limit)
    if outliers is not None:
        sets["outliers"] = load_images(outliers, probed, limit=limit)
    return sets


def _score(
    probed: ProbedModel,
    judge: FeatureExtractor | None,
    usual: ProbedImages,
    sets: dict[str, ProbedImages],
) -> tuple[list[Scored], int, int]:
    """The held-out part of the reference, then each set; how many fitted, and dimensions."""
    features = _features(usual, probed, judge)
    generator = np.random.default_rng(stream_seed(probed.seed, "ood reference"))
    parts = split_reference(len(features), generator)
    fitted = fit_reference(features[parts.fitted])
    calibration = fitted.scores(features[parts.held_out])
    rest = ProbedImages(
        tuple(usual.prompts[i] for i in parts.held_out),
        tuple(usual.images[i] for i in parts.held_out),
        usual.fingerprint,
        (),
    )
    nothing = {name: np.full(len(parts.held_out), np.nan) for name in SCORES}
    scored = [Scored("held-out", rest, calibration, nothing)]
    for name, given in sets.items():
        scores = fitted.scores(_features(given, probed, judge))
        chances = {score: p_values(calibration[score], scores[score]) for score in SCORES}
        scored.append(Scored(name, given, scores, chances))
    return scored, len(parts.fitted), features.shape[1]


def _features(given: ProbedImages, probed: ProbedModel, judge: FeatureExtractor | None) -> Floats:
    """(N, D) float64: what an extractor makes of the images, else the model's latents."""
    import torch

    if judge is not None:
        height, width = images_size(probed)
        return embed_images(judge, fit_images(given.images, height=height, width=width))
    space = LatentSpace(probed.pipeline)
    found = []
    for start in range(0, len(given.images), BATCH_SIZE):
        _, latents = encode_images(probed, space, given.images[start : start + BATCH_SIZE])
        found.append(latents.flatten(1).cpu().to(torch.float64))
    features: Floats = torch.cat(found).numpy()
    return features


def _told(usual: ProbedImages, sets: dict[str, ProbedImages]) -> list[str]:
    """Where the images come from that nobody named."""
    named = {"reference": usual, **sets}
    return [f"{name}: {given.note}" for name, given in named.items() if given.note is not None]


def _found(name: str, scored: list[Scored]) -> ScoreFound:
    by_name = {item.name: item for item in scored}
    flagged, area = None, None
    if "images" in by_name:
        flagged = float((by_name["images"].p_values[name] <= LEVEL).mean())
    if "outliers" in by_name and len(by_name["outliers"].given.images) > 1:
        area = auroc(by_name["held-out"].scores[name], by_name["outliers"].scores[name])
    return ScoreFound(name, flagged, area)


def _best(found: tuple[ScoreFound, ...]) -> str:
    """The score that tells the outliers best; without any the neighbours', which assumes least."""
    known = [score for score in found if score.auroc is not None]
    if not known:
        return "neighbours"
    return max(known, key=lambda score: score.auroc.value if score.auroc else 0.0).name


def _repeated(usual: ProbedImages, sets: dict[str, ProbedImages]) -> list[str]:
    """A line for each set that holds reference images: they are not unusual by construction."""

    def digests(given: ProbedImages) -> list[str]:
        return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in given.images]

    known, lines = set(digests(usual)), []
    for name, given in sets.items():
        count = sum(digest in known for digest in digests(given))
        if count:
            lines.append(f"{count} of the {name} are among the reference: leave them out of one")
    return lines


def _table(scored: list[Scored]) -> pa.Table:
    """One row for each image scored."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "set": [item.name for item in scored for _ in item.given.prompts],
        "key": [prompt.key for item in scored for prompt in item.given.prompts],
    }
    for name in SCORES:
        columns[name] = np.concatenate([item.scores[name] for item in scored])
        chances = np.concatenate([item.p_values[name] for item in scored])
        columns[f"{name}_p"] = pa.array(chances, from_pandas=True)
    return pa.table(columns)


def _picture(item: Scored, score: str) -> Any:
    """The most and the least unusual images of a set, by one score."""
    order = np.argsort(-item.scores[score], kind="stable")
    rows = [order[:NUM_SHOWN], order[::-1][:NUM_SHOWN]]
    return image_grid(
        [[item.given.images[i] for i in row] for row in rows],
        title=f"{item.name} by {score}",
        row_labels=["most unusual", "least unusual"],
    )


def _space(probed: ProbedModel) -> str:
    return "pixels" if LatentSpace(probed.pipeline).is_pixels else "latents"

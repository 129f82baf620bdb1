"""What the page says of single samples: the gallery with its data, and the spread of scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from evaluator.report.details import Details
from evaluator.report.distributions import (
    Distribution,
    bins_csv,
    distributions,
    draw_histogram,
    spreads_csv,
)
from evaluator.report.frame import Drawing, chart_rules, inline_json
from evaluator.report.gallery import CRISP, PAGE_SIZE, Gallery, Picture
from evaluator.report.listing import MAX_TAG_VALUES, choices, listing
from evaluator.report.nearest import NearestPictures
from evaluator.report.survey import Survey
from evaluator.report.svg import inline, standalone
from evaluator.store.rundir import RunDirectory

MAX_CHOICES = 200
"""Values of a tag up to which the gallery can be filtered by it."""

SPREADS, BINS = "distributions.csv", "histograms.csv"


class GalleryText(NamedTuple):
    """The gallery, fit to show."""

    num_listed: int
    says: str
    none: str
    """Said instead where there is no sample."""
    pictures: Sequence[Picture]
    """The first page."""
    tags: dict[str, Sequence[str]]
    scores: Sequence[str]
    sources: str
    files: Sequence[str]
    data: Markup
    """Everything for the script, as JSON."""


class SpreadText(NamedTuple):
    """One score's histogram, and its means by group."""

    found: Distribution
    drawing: Drawing
    source: str


def gallery_text(
    found: Survey, gallery: Gallery, details: Details, nearest: NearestPictures, inside: Any
) -> GalleryText:
    """The gallery's words and data; `inside` maps file names to pictures that are in the page."""
    samples, written = found.samples, gallery.written
    record = listing(samples, found.scores)
    for i, (shown, near) in enumerate(zip(nearest.found, found.scores.nearest, strict=True)):
        record["nearest"][i] |= shown.record(i, near.said)
    record |= {
        "page_size": PAGE_SIZE,
        "first_batches": found.first_batches,
        "thumbnails": spans(sorted(written)),
        "crisp": [place for place, size in sorted(written.items()) if max(size) <= CRISP],
        "large": sorted(gallery.large),
        "details": details.record(),
        "inside": inside,
    }
    return GalleryText(
        num_listed=samples.num_rows,
        says=_says(found, gallery, details),
        none="No shard is committed yet.",
        pictures=gallery.first_page(samples),
        tags=dict(choices(samples, MAX_CHOICES)),
        scores=[score["name"] for score in record["scores"]],
        sources=_sources(record),
        files=["samples.png"] if gallery.sheet else [],
        data=inline_json(record),
    )


def spans(positions: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as first number and count of each run of neighbours."""
    found: list[list[int]] = []
    for place in positions:
        if found and place == found[-1][0] + found[-1][1]:
            found[-1][1] += 1
        else:
            found.append([place, 1])
    return found


def _says(found: Survey, gallery: Gallery, details: Details) -> str:
    samples, num = found.samples, found.samples.num_rows
    able = int(samples.there.sum())
    said = [f"All {num:,} committed samples are listed."]
    if samples.num_left_out:
        said = [f"The first {num:,} of {num + samples.num_left_out:,} committed samples are listed"
                ", all of them are in the numbers."]  # fmt: skip
    written = len(gallery.written)
    if not found.kept_images:
        said.append("No images.tar in the committed shards: this run did not keep its images.")
    elif written == 0:
        said.append("No image could be read from the committed shards, or none was asked for.")
    elif written < able:
        said.append(
            f"{written:,} of {able:,} images have a picture here: flawed ones, both ends of each "
            "score, and the first of the plan; --thumbnails N shows more."
        )
    if details.curves and len(details.curves) < able:
        said.append(f"{len(details.curves):,} samples have curves of their latents.")
    if details.more_maps:
        said.append(f"Heat maps by step are drawn for the first {len(details.maps):,} that have.")
    if samples.tags_left_out:
        said.append(
            f"Tags with more than {MAX_TAG_VALUES:,} values, or beyond the twelfth, are left out: "
            f"{len(samples.tags_left_out)}."
        )
    if found.scores.left_out:
        said.append(f"{len(found.scores.left_out)} further scores are left out.")
    return " ".join(said)


def _sources(record: dict[str, Any]) -> str:
    tables = sorted({score["file"] for score in record["scores"]})
    said = "Images from images.tar, texts from samples.parquet of the committed shards"
    return f"{said}, scores from {', '.join(tables)}." if tables else f"{said}."


def spread_texts(folder: Path, run: RunDirectory, found: Survey) -> list[SpreadText]:
    """Write the histograms and their tables, and return them for the page."""
    keys = run.plan_column("key").combine_chunks().dictionary_encode()
    prompts = np.asarray(pc.cast(keys.indices, "int64").to_numpy(), dtype=np.int64)
    spread = distributions(found.samples, found.scores, prompts)
    if not spread:
        return []
    (folder / SPREADS).write_text(spreads_csv(spread), encoding="utf-8")
    (folder / BINS).write_text(bins_csv(spread), encoding="utf-8")
    texts = []
    for i, each in enumerate(spread):
        svg, name = draw_histogram(each, f"histogram-{i:02d}"), f"histogram-{i:02d}.svg"
        (folder / name).write_text(standalone(svg, chart_rules()), encoding="utf-8")
        drawing = Drawing(Markup(inline(svg)), name, svg.findtext("desc") or "")  # noqa: S704
        texts.append(SpreadText(each, drawing, f"{each.score.file}, {each.score.column}"))
    return texts

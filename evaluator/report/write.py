"""Writing every file of a run's report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from evaluator.report.chart_tables import write_curves
from evaluator.report.chosen import choose
from evaluator.report.compose import compose, summary, troubles, write_sheets
from evaluator.report.details import Details
from evaluator.report.explore import gallery_text, spread_texts
from evaluator.report.gallery import DEFAULT_THUMBNAILS, Gallery
from evaluator.report.listing import captions
from evaluator.report.nearest import FOLDER as NEAREST
from evaluator.report.nearest import NearestPictures
from evaluator.report.origin import read_origin
from evaluator.report.page import render
from evaluator.report.probe_charts import DRAWN
from evaluator.report.probe_folders import read_probes
from evaluator.report.replaced import PAGE, replaced
from evaluator.report.results import as_csv, as_markdown, read_metrics
from evaluator.report.single import MAX_BYTES, alone, pictures_inside
from evaluator.report.survey import survey
from evaluator.store.rundir import RunDirectory

SINGLE_THUMBNAILS = 300
"""Samples with pictures in a page that holds them itself, where nothing else is asked for."""

MAX_DETAILED = 2000
"""Samples whose latents and heat maps are shown."""

PICTURES = ("thumbs", "images", "maps", NEAREST)
"""Folders with the pictures that the gallery's script asks for."""


def write(
    run: RunDirectory,
    output: Path | None,
    *,
    thumbnails: int | None,
    single_file: bool,
    say: Callable[[str], None] | None,
) -> Path:
    """See `evaluator.report.write_report`."""
    final = (run.path / "report" if output is None else output).resolve()
    with replaced(final) as aside:
        default = SINGLE_THUMBNAILS if single_file else DEFAULT_THUMBNAILS
        number = default if thumbnails is None else thumbnails
        missing = fill(run, aside, thumbnails=number, single_file=single_file)
    if say is not None:
        for line in missing:
            say(line)
    return final / PAGE


def fill(run: RunDirectory, folder: Path, *, thumbnails: int, single_file: bool) -> list[str]:
    """Write every file of the report into an empty folder; returns what is missing or damaged."""
    metrics = read_metrics(run.path)
    origin = read_origin(run)
    found = survey(run, folder)
    gallery, details = Gallery(folder), Details(folder)
    chosen = choose(found.samples, found.scores, thumbnails)
    gallery.write(run, chosen)
    nearest = NearestPictures(folder)
    first = dict.fromkeys((*sorted(chosen.large), *chosen.pictures))
    nearest.write(run, found.scores.nearest, metrics.results, list(first))
    detailed = choose(found.samples, found.scores, min(thumbnails or MAX_DETAILED, MAX_DETAILED))
    details.write(run, detailed.pictures, found.say)
    write_sheets(folder, found, gallery, captions(found.samples, (p for p, _ in gallery.sheet)))
    headline, remarks = summary(found.census, metrics)
    markdown = as_markdown(origin.title, metrics.results, [headline, *remarks])
    (folder / "results.md").write_text(markdown, encoding="utf-8")
    (folder / "results.csv").write_text(as_csv(metrics.results), encoding="utf-8")
    write_curves(folder, found.attention, found.latents)
    probes = read_probes(run.path, origin.made_from, folder, drawn=tuple(DRAWN))
    spreads = spread_texts(folder, run, found)
    inside, beyond = pictures_inside(folder, *PICTURES) if single_file else (None, 0)
    if beyond:
        found.say(f"{beyond:,} pictures are left out: a single file holds {MAX_BYTES >> 20} MiB")
    texts = gallery_text(found, gallery, details, nearest, inside)
    parts = (folder, origin, metrics, found, probes, texts, spreads)
    page = render(compose(*parts, single=single_file))
    if inside is not None:
        page = alone(page, folder, inside)
        _empty(folder)
    (folder / PAGE).write_text(page, encoding="utf-8")
    return troubles(found, metrics)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

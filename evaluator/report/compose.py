"""From what was found to what is shown: the figures' files, and the sentences around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from markupsafe import Markup
from PIL import Image

from evaluator.report.census import Census, Timings
from evaluator.report.charts import attention_charts, latent_charts, schedule_charts, timing_bars
from evaluator.report.claim_chart import draw_claims
from evaluator.report.claims import FILE as CLAIMS_FILE
from evaluator.report.claims import as_json, claims_found
from evaluator.report.explore import GalleryText, SpreadText
from evaluator.report.frame import Drawing, chart_rules
from evaluator.report.gallery import SHEET_SIDE, Gallery
from evaluator.report.groups import group_tables
from evaluator.report.heatmaps import SIDE, TILE, layer_caption
from evaluator.report.origin import Origin
from evaluator.report.page import ClaimsText, GridText, Page, ProbeText, SlowSamplesText
from evaluator.report.probe_charts import component_bars, components, probe_charts
from evaluator.report.probe_folders import ProbeResult, ProbeResults
from evaluator.report.results import Metrics
from evaluator.report.scores import OF_BATCH
from evaluator.report.sheet import Row, Tile, grid, write_sheet
from evaluator.report.survey import Survey
from evaluator.report.svg import Chart, draw, inline, standalone
from evaluator.report.token_steps import draw_layer_steps, draw_token_steps
from evaluator.report.word_pairs import draw_pairs
from evaluator.text import count_of

_SECTIONS = (
    *("results", "groups", "samples", "distributions", "attention", "claims", "latents"),
    *("schedule", "probes", "timings", "provenance", "faults"),
)


MAX_REASONS = 5
"""Reasons for which samples have no attention that the page names."""
NUM_SLOWEST = 10
"""Shards in the table of the slowest."""


def compose(
    folder: Path,
    origin: Origin,
    metrics: Metrics,
    found: Survey,
    probes: ProbeResults,
    gallery: GalleryText,
    spreads: Sequence[SpreadText],
    *,
    single: bool,
) -> Page:
    """Write every figure into `folder` and return the page that shows them."""
    headline, remarks = summary(found.census, metrics)
    tokens = draw_token_steps(found.tokens) if found.tokens else None
    full = draw_layer_steps(found.full) if found.full else None
    bars = timing_bars(found.timings) if found.timings.by_stage else None
    groups = group_tables(metrics.results)
    sampled = f" (every {found.every}th shard)" if found.every > 1 else ""
    schedule = schedule_charts(found.schedule) if found.schedule is not None else []
    return Page(
        title=origin.title,
        subtitle=origin.model,
        all_there=found.census.complete and not found.census.errors and not found.faults,
        headline=headline,
        remarks=remarks,
        sections=_sections(groups=bool(groups), faults=bool(found.faults)),
        results=[result for result in metrics.results if not result.group],
        interval_title=_interval_title(metrics),
        no_results=metrics.trouble,
        groups=groups,
        gallery=gallery,
        spreads=spreads,
        slowest=found.timings.slowest(NUM_SLOWEST),
        slow_samples=_slow_samples(found.timings),
        failed=found.census.failed,
        num_errors=found.census.errors,
        heat=found.heat.samples,
        no_heat=_no_heat(found),
        attention_unseen=_unseen(found, sampled),
        grid=_grid_text(found) if found.heat.grid else None,
        layers=_layers_text(found) if found.heat.layers else None,
        tokens=_written(folder, tokens, "token-steps.svg") if tokens is not None else None,
        full=_written(folder, full, "layer-steps.svg") if full is not None else None,
        attention_charts=_drawn(folder, attention_charts(found.attention)),
        attention_extent=f"{found.attention.prompts:,} prompts{sampled}",
        pairs=_pairs(folder, found),
        claims=_claims(folder, found),
        latent_charts=_drawn(folder, latent_charts(found.latents)),
        latent_extent=_latent_extent(found) + sampled,
        latent_warnings=[str(collapse)] if (collapse := found.noise.finding()) else [],
        schedule_charts=_drawn(folder, schedule),
        schedule_says=found.schedule_says,
        probes=[_probe(folder, i, result) for i, result in enumerate(probes.complete)],
        probe_faults=probes.faults,
        timings=_written(folder, bars, "timings.svg") if bars is not None else None,
        workers=sorted(found.timings.by_worker.items()),
        provenance=origin.provenance,
        config=origin.config,
        faults=found.faults,
        single=single,
    )


def _sections(*, groups: bool, faults: bool) -> list[tuple[str, str]]:
    """Those that every page has, and those that there is something for."""
    there = {"groups": groups, "faults": faults}
    return [(name, name.capitalize()) for name in _SECTIONS if there.get(name, True)]


def _no_heat(found: Survey) -> str:
    if found.attention.unseen:
        return "No heat maps: none were asked for, or of samples without attention alone."
    return "No heatmaps.parquet in the committed shards: no heat maps were asked for."


def _unseen(found: Survey, sampled: str) -> list[str]:
    """How many samples have no attention, and why: their rows hold the reason alone."""
    return [
        f"no attention of {count_of(count, 'sample')}{sampled}: {why}"
        for why, count in found.attention.unseen.most_common(MAX_REASONS)
    ]


def _slow_samples(timings: Timings) -> SlowSamplesText:
    known = timings.batches
    return SlowSamplesText(
        known.found(), known.num_batches, known.num_shards, len(timings.by_shard), OF_BATCH
    )


def _pairs(folder: Path, found: Survey) -> list[Drawing]:
    drawings = [draw_pairs(grid, f"pairs-{i}") for i, grid in enumerate(found.pairs.grids)]
    return [_written(folder, svg, f"pairs-{i}.svg") for i, svg in enumerate(drawings)]


def _claims(folder: Path, found: Survey) -> ClaimsText | None:
    """Compute the claims, and write their numbers and their drawing beside the page."""
    claims = claims_found(found.claims)
    if claims is None:
        return None
    (folder / CLAIMS_FILE).write_text(as_json(claims, found.census.planned), encoding="utf-8")
    shards = count_of(claims.num_shards, "shard")
    extent = f"{count_of(claims.num_prompts, 'prompt')} of {shards}"
    if claims.num_shards < found.census.num_committed_shards or claims.sampled:
        extent += ", evenly spaced over the run"
    drawing = _written(folder, draw_claims(claims), "claims.svg")
    return ClaimsText(drawing, claims.claims, claims.kinds, extent, CLAIMS_FILE)


def _probe(folder: Path, number: int, result: ProbeResult) -> ProbeText:
    slug = f"probe-{number:02d}"
    charts = _drawn(folder, probe_charts(result, slug))
    if (bars := component_bars(result, slug)) is not None:
        charts.append(_written(folder, bars, f"{slug}-parameters.svg"))
    return ProbeText(result, charts, components(result))


def write_sheets(folder: Path, found: Survey, gallery: Gallery, prompts: Mapping[int, str]) -> None:
    """Contact sheets of the samples, of their heat maps, and of one prompt's words by step."""
    heat, steps = found.heat.samples, found.heat.grid
    if gallery.sheet:
        tiles = [Tile(image, prompts.get(place, "")) for place, image in gallery.sheet]
        write_sheet(folder / "samples.png", grid(tiles, 8), side=SHEET_SIDE, lines=2)
    if heat:
        rows = []
        for sample in heat:
            first = [Tile(sample.picture, "image")] if sample.picture else []
            words = [Tile(word.picture, word.word) for word in sample.words]
            rows.append(Row(sample.prompt or f"sample {sample.position}", [*first, *words]))
        write_sheet(folder / "attention.png", rows, side=SIDE)
    if steps:
        captions = [f"step {step}" for step in steps.steps]
        _write_grid(folder / "attention-steps.png", steps.rows, captions)
    if (layers := found.heat.layers) is not None:
        captions = [layer_caption(layer) for layer in layers.layers]
        _write_grid(folder / "attention-layers.png", layers.rows, captions)


def _write_grid(
    path: Path, rows: Sequence[tuple[str, Sequence[Image.Image]]], captions: Sequence[str]
) -> None:
    """A line of pictures for each word; the captions stand under the last."""
    lines = [Row(word, [Tile(picture, "") for picture in line]) for word, line in rows]
    word, line = rows[-1]
    lines[-1] = Row(word, [Tile(p, c) for p, c in zip(line, captions, strict=True)])
    write_sheet(path, lines, side=TILE, lines=2, margin=110)


def summary(census: Census, metrics: Metrics) -> tuple[str, list[str]]:
    """The banner: how much is there, then what a reader must know."""
    done = f"{census.committed:,} of {census.planned:,} planned samples are committed"
    headline = f"Complete: {done}." if census.complete else f"Incomplete: {done}."
    remarks = []
    if not census.complete:
        shards = f"{census.num_committed_shards:,} of {count_of(census.num_shards, 'shard')}"
        remarks.append(f"{shards} are there; run the same command again for the rest.")
    have = count_of(census.errors, "sample has", "samples have")
    remarks.append(f"{have} an error.")
    if census.truncated:
        was = count_of(census.truncated, "prompt was", "prompts were")
        remarks.append(f"{was} truncated by the text encoder.")
    for flaw, said in (("black", "entirely black"), ("non_finite", "not finite (NaN, infinity)")):
        if count := metrics.samples.get(flaw, 0):
            remarks.append(f"{count_of(count, 'image is', 'images are')} {said}.")
    counted = metrics.samples.get("committed", census.committed)
    if metrics.results and counted != census.committed:
        remarks.append(f"The numbers are from {counted:,} committed samples: aggregate again.")
    if not metrics.results:
        remarks.append(metrics.trouble)
    return headline, remarks


def troubles(found: Survey, metrics: Metrics) -> list[str]:
    """What whoever asks for a report is told beside the page; nothing where all is well."""
    counted = metrics.samples.get("committed", found.census.committed)
    fresh = metrics.results and counted == found.census.committed
    if found.census.complete and fresh and not found.faults:
        return []
    headline, remarks = summary(found.census, metrics)
    return [" ".join((headline, *remarks)), *found.faults]


def _interval_title(metrics: Metrics) -> str:
    levels = {result.interval.level for result in metrics.results if result.interval}
    return f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "Interval"


def _latent_extent(found: Survey) -> str:
    extent = f"{found.latents.samples:,} samples"
    if found.latents.nonfinite:
        extent += f", {found.latents.nonfinite:,} values not finite"
    return extent


def _grid_text(found: Survey) -> GridText:
    steps = found.heat.grid
    assert steps is not None
    words = ", ".join(f"“{word}”" for word, _ in steps.rows)
    return GridText(steps.prompt, words, ", ".join(str(step) for step in steps.steps))


def _layers_text(found: Survey) -> GridText:
    layers = found.heat.layers
    assert layers is not None
    words = ", ".join(f"“{word}”" for word, _ in layers.rows)
    return GridText(layers.prompt, words, ", ".join(layers.layers))


def _drawn(folder: Path, charts: Sequence[Chart]) -> list[Drawing]:
    return [_written(folder, draw(c), f"{c.slug}.svg", c.description) for c in charts]


def _written(folder: Path, svg: ET.Element, name: str, description: str = "") -> Drawing:
    """Write a drawing beside the page, and return it for the page."""
    (folder / name).write_text(standalone(svg, chart_rules()), encoding="utf-8")
    says = description or svg.findtext("desc") or ""
    return Drawing(Markup(inline(svg)), name, says)  # noqa: S704  (ElementTree escaped it)

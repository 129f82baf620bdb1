"""The page of a run: what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evaluator.report.batches import SlowBatch
from evaluator.report.census import FailedSample, Work, Worker
from evaluator.report.claims import PairKind, Told
from evaluator.report.explore import GalleryText, SpreadText
from evaluator.report.frame import PAPER, TABLES, Drawing, render_page
from evaluator.report.groups import GroupTable
from evaluator.report.heatmaps import HeatSample
from evaluator.report.probe_charts import FactTable
from evaluator.report.probe_folders import ProbeResult
from evaluator.report.results import Result


class ClaimsText(NamedTuple):
    """The claims about attention, fit to show."""

    drawing: Drawing
    told: Sequence[Told]
    kinds: Sequence[PairKind]
    extent: str
    file: str


class ProbeText(NamedTuple):
    """One folder of a verb, with its charts."""

    found: ProbeResult
    charts: Sequence[Drawing]
    facts: FactTable | None


class GridText(NamedTuple):
    """What is said of a picture of words by step or by layer."""

    prompt: str
    words: str
    columns: str


class SlowSamplesText(NamedTuple):
    """The batches whose samples took longest."""

    batches: Sequence[SlowBatch]
    num_batches: int
    """Of which they are the slowest."""
    num_shards: int
    """Whose batches are known; of the others only `timings` of the whole shard."""
    num_timed_shards: int
    score: str
    """What the gallery calls their seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything on the page. Texts are fit to show; the template escapes them."""

    title: str
    subtitle: str
    all_there: bool
    headline: str
    remarks: Sequence[str]
    sections: Sequence[tuple[str, str]]
    results: Sequence[Result]
    interval_title: str
    no_results: str
    groups: Sequence[GroupTable]
    gallery: GalleryText
    spreads: Sequence[SpreadText]
    slowest: Sequence[tuple[int, Work, str]]
    slow_samples: SlowSamplesText
    failed: Sequence[FailedSample]
    num_errors: int
    heat: Sequence[HeatSample]
    no_heat: str
    grid: GridText | None
    layers: GridText | None
    tokens: Drawing | None
    full: Drawing | None
    attention_charts: Sequence[Drawing]
    attention_extent: str
    attention_unseen: Sequence[str]
    pairs: Sequence[Drawing]
    claims: ClaimsText | None
    latent_charts: Sequence[Drawing]
    latent_extent: str
    latent_warnings: Sequence[str]
    schedule_charts: Sequence[Drawing]
    schedule_says: Sequence[str] | None
    probes: Sequence[ProbeText]
    probe_faults: Sequence[str]
    timings: Drawing | None
    workers: Sequence[tuple[Worker, Work]]
    provenance: Sequence[tuple[str, str]]
    config: str
    faults: Sequence[str]
    single: bool
    """Whether the page holds its pictures itself, and nothing lies beside it."""


def render(page: Page) -> str:
    """The page of a run as HTML."""
    return render_page(
        "page.html.j2",
        scripts=(TABLES, PAPER, "gallery.js"),
        styles=("gallery.css",),
        title=page.title,
        subtitle=page.subtitle,
        sections=page.sections,
        page=page,
        gallery=page.gallery,
    )

"""The page: what it shows, the template that shows it, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from evaluator import __version__
from evaluator.report.census import FailedSample, Work, Worker
from evaluator.report.claims import PairKind, Told
from evaluator.report.gallery import Picture
from evaluator.report.heatmaps import HeatSample
from evaluator.report.probe_charts import FactTable
from evaluator.report.probe_folders import ProbeResult
from evaluator.report.results import Result
from evaluator.report.text import number

GENERATOR = "evaluator report"
"""How a report is told from other folders when it is to be replaced."""


class Drawing(NamedTuple):
    """A figure that stands in the page and in a file beside it."""

    svg: Markup
    file: str
    description: str


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
    pictures: Sequence[Picture]
    no_pictures: str
    failed: Sequence[FailedSample]
    num_errors: int
    heat: Sequence[HeatSample]
    no_heat: str
    grid: GridText | None
    layers: GridText | None
    tokens: Drawing | None
    attention_charts: Sequence[Drawing]
    attention_extent: str
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


def asset(name: str) -> str:
    """A file of this package."""
    return resources.files("evaluator.report").joinpath(name).read_text(encoding="utf-8")


def chart_rules() -> str:
    """Style of charts, in the page and in files of their own."""
    return asset("chart.css")


def render(page: Page) -> str:
    """The page as HTML that works from `file://` and loads nothing but pictures beside it."""
    style, script = asset("page.css") + chart_rules(), asset("page.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["number"] = number
    template = environment.from_string(asset("page.html.j2"))
    return template.render(
        page=page,
        policy=policy(style, script),
        generator=GENERATOR,
        version=__version__,
        style=Markup(style),  # noqa: S704  (a file of this package)
        script=Markup(script),  # noqa: S704
    )


def policy(style: str, script: str | None) -> str:
    """Content security policy: these two texts and pictures beside the page; nothing else."""
    scripts = "'none'" if script is None else _hash(script)
    return (
        "default-src 'none'; img-src 'self' data: file:; "
        f"style-src {_hash(style)}; script-src {scripts}; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

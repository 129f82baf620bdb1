"""A comparison as rows of text: what the page's tables show, fit to show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from evaluator.comparison.records import Comparison, Difference, Pairing, RunFacts
from evaluator.report.comparison_charts import draw_interval, signed
from evaluator.report.svg import inline
from evaluator.report.text import number, plain, redacted
from evaluator.text import count_of

_MARKS = {"better": "▲", "worse": "▼", "different": "◆", "not comparable": "⚠"}
_TONES = {"better": "up", "worse": "down", "not comparable": "partial"}
_ARROWS = {True: ("↑", "higher is better"), False: ("↓", "lower is better"), None: ("", "")}


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One number of both runs, and what to think of its difference."""

    name: str
    group: str
    """Tag and value; empty of all pairs."""
    arrow: str
    direction: str
    given: Difference
    """The numbers, by which the table sorts."""
    difference: str
    interval: str
    svg: Markup | None
    verdict: str
    tone: str
    why: str
    details: Sequence[str]
    warnings: Sequence[str]


class AgreementRow(NamedTuple):
    """A pass/fail score: four counts and McNemar's p."""

    name: str
    both: int
    only_baseline: int
    only_other: int
    neither: int
    p: float
    mid_p: float


class FactRow(NamedTuple):
    """One setting or fact of every run; `differs` where they do not agree."""

    name: str
    values: Sequence[str]
    differs: bool


def difference_rows(pairing: Pairing, *, grouped: bool) -> list[DifferenceRow]:
    """The numbers of all pairs, or those of groups."""
    differences = pairing.grouped if grouped else pairing.overall
    stem = f"{pairing.letter.lower()}-{'group' if grouped else 'metric'}"
    return [_difference_row(f"{stem}-{i}", each) for i, each in enumerate(differences)]


def _difference_row(slug: str, given: Difference) -> DifferenceRow:
    svg = draw_interval(slug, given)
    arrow, direction = _ARROWS[given.higher_is_better]
    span = given.interval
    return DifferenceRow(
        name=plain(given.name, limit=200),
        group="" if given.group is None else plain("=".join(given.group), limit=200),
        arrow=arrow,
        direction=direction,
        given=given,
        difference=signed(given.difference),
        interval=f"{signed(span.low)} to {signed(span.high)}" if span else "—",
        svg=None if svg is None else Markup(inline(svg)),  # noqa: S704  (ElementTree escaped it)
        verdict=f"{_MARKS.get(given.verdict, '')} {given.verdict}".strip(),
        tone=_TONES.get(given.verdict, ""),
        why=plain(given.why, limit=500),
        details=_details(given),
        warnings=[plain(warning, limit=500) for warning in given.warnings],
    )


def _details(given: Difference) -> list[str]:
    pairs = f"{count_of(given.n, 'pair')} of {count_of(given.num_prompts, 'prompt')}"
    said = [pairs if given.num_prompts else count_of(given.n, "pair")]
    if given.interval:
        said.append(f"interval: {given.interval.covers}, {given.interval.method}")
    if given.p is not None:
        corrected = f", corrected over {count_of(given.family, 'test')}" if given.family else ""
        said.append(f"p: {given.test or 'permutation'}{corrected}")
    if given.extractor:
        fingerprint = f" {given.fingerprint[:8]}" if given.fingerprint else ""
        said.append(f"extractor: {given.extractor}{fingerprint}")
    if given.reference:
        said.append(f"reference: {given.reference}")
    return [plain(each, limit=500) for each in said]


def shown_p(p: float | None) -> str:
    """A p-value for people."""
    if p is None or math.isnan(p):
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def agreement_rows(pairing: Pairing) -> list[AgreementRow]:
    """McNemar's tables of the pass/fail scores, groups included."""
    return [
        AgreementRow(plain(each.title, limit=200), *each.agreement)
        for each in pairing.differences
        if each.agreement is not None
    ]


def headline(pairing: Pairing) -> str:
    """What became of the numbers of all pairs, in one sentence."""
    counts = Counter[str](each.verdict for each in pairing.overall)
    words = ("better", "worse", "different", "no difference found", "not tested", "not comparable")
    said = [f"{counts[word]} {word}" for word in words if counts[word]]
    return ", ".join(said) + "." if said else "No number could be compared."


def fact_rows(comparison: Comparison) -> list[FactRow]:
    """Where the runs' numbers come from, one column a run."""
    runs = comparison.runs
    rows = [(title, [_shown(getattr(run, name)) for run in runs]) for name, title in _FACTS]
    rows.append(("size", [_size(run) for run in runs]))
    rows.append(("samples", [f"{run.n:,} of {run.n_expected:,}" for run in runs]))
    for extractor in sorted({name for run in runs for name in run.fingerprints}):
        marks = [_shown((run.fingerprints.get(extractor) or "")[:16]) for run in runs]
        rows.append((f"fingerprint of {plain(extractor, limit=100)}", marks))
    return [fact_row(name, values) for name, values in rows]


_FACTS = (
    ("name", "name"), ("path", "directory"), ("model", "model"), ("revision", "revision"),
    ("scheduler", "scheduler"), ("steps", "steps"), ("guidance_scale", "guidance scale"),
    ("dtype", "dtype"), ("seed", "seed"), ("images_per_prompt", "images per prompt"),
)  # fmt: skip


def fact_row(name: str, values: Sequence[str]) -> FactRow:
    """A row that says whether its values differ."""
    return FactRow(name, values, len(set(values)) > 1)


def provenance_rows(runs: Sequence[Iterable[tuple[str, str]]]) -> list[FactRow]:
    """The leaves of every run's provenance.json side by side."""
    tables: list[Mapping[str, str]] = [dict(run) for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    return [fact_row(name, [table.get(name, "—") for table in tables]) for name in names]


def setting_rows(pairing: Pairing) -> list[FactRow]:
    """What is set differently in the two runs."""
    rows = []
    for name, *values in pairing.settings:
        lines = [redacted(f"{plain(name, limit=200)}: {plain(v, limit=500)}") for v in values]
        rows.append(fact_row(plain(name, limit=200), [line.partition(": ")[2] for line in lines]))
    return rows


def run_label(run: RunFacts) -> str:
    """`A: name`."""
    return f"{run.letter}: {plain(run.name, limit=48)}"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return number(value) if value != int(value) else str(int(value))
    return "—" if value is None or value == "" else redacted(plain(value, limit=500))


def _size(run: RunFacts) -> str:
    known = run.width is not None and run.height is not None
    return f"{run.width} × {run.height}" if known else "—"

"""The page of a comparison: what differs between runs, by how much, and in which pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from evaluator.compare.records import Changed, Comparison, Movers, Pairing
from evaluator.report.beside import page_folder
from evaluator.report.comparison_charts import draw_histogram, signed
from evaluator.report.comparison_rows import (
    AgreementRow,
    DifferenceRow,
    FactRow,
    agreement_rows,
    difference_rows,
    fact_rows,
    headline,
    provenance_rows,
    run_label,
    setting_rows,
    shown_p,
)
from evaluator.report.frame import TABLES, Drawing, chart_rules, render_page
from evaluator.report.images import SampleId
from evaluator.report.origin import read_origin
from evaluator.report.paired_pictures import FOLDER, PairedPictures, SamplePicture
from evaluator.report.svg import inline, standalone
from evaluator.report.text import number, plain
from evaluator.report.write import PAGE
from evaluator.store.rundir import RunDirectory

GENERATOR = "evaluator compare"
RECORD = "comparison.json"
SAMPLES = "samples.parquet"
NUM_SHOWN = 60
"""Pairs shown with their pictures, for each score and each way."""


@dataclass(frozen=True, slots=True)
class PairCard:
    """One pair of samples that changed much, with its pictures."""

    prompt: str
    key: str
    image_index: int
    baseline: str
    other: str
    difference: str
    pictures: Sequence[tuple[str, SamplePicture | None]]
    """Label of the run and its picture: the baseline's, then the other run's."""

    @property
    def maps(self) -> Sequence[tuple[str, SamplePicture]]:
        """Runs with heat maps of this sample; empty unless both have them."""
        having = [(label, shown) for label, shown in self.pictures if shown and shown.words]
        return having if len(having) == len(self.pictures) else ()


@dataclass(frozen=True, slots=True)
class ChangedSection:
    """The pairs whose score changed most."""

    name: str
    ways: Sequence[tuple[str, Sequence[PairCard], int]]
    """What the way is called, the pairs shown, and how many there are."""
    histogram: Drawing | None


@dataclass(frozen=True, slots=True)
class PairingPart:
    """One run against the baseline, fit to show."""

    letter: str
    slug: str
    labels: tuple[str, str]
    extent: str
    headline: str
    refusals: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    metrics: Sequence[DifferenceRow]
    groups: Sequence[DifferenceRow]
    agreements: Sequence[AgreementRow]
    changed: Sequence[ChangedSection]
    settings: Sequence[FactRow]


def write_comparison(comparison: Comparison, runs: Sequence[RunDirectory], folder: Path) -> Path:
    """Write the page of a comparison into `folder` and return its path.

    `runs` are those of the comparison, in its order; their pictures and heat maps are read, their
    numbers are not. The folder may hold the comparison's own files (comparison.json,
    samples.parquet), which stay; samples.parquet gives the histograms. The page is written aside
    and swapped in. Raises RunDirectoryError when something else is in the folder.
    """
    frame = {"record": RECORD, "generator": GENERATOR}
    with page_folder(folder, **frame, own={FOLDER}) as aside:
        _fill(comparison, runs, data=folder, aside=aside)
    return folder.resolve() / PAGE


def _fill(comparison: Comparison, runs: Sequence[RunDirectory], *, data: Path, aside: Path) -> None:
    pictures = PairedPictures(aside)
    for facts, run in zip(comparison.runs, runs, strict=True):
        pictures.write(facts.letter, run, _wanted(comparison, facts.letter))
    samples = _read_samples(data / SAMPLES)
    parts = [_part(comparison, each, pictures, samples, aside) for each in comparison.pairings]
    page = render_page(
        "comparison.html.j2",
        scripts=(TABLES, "comparison.js"),
        styles=("comparison.css",),
        generator=GENERATOR,
        title=" against ".join(plain(run.name, limit=80) for run in reversed(comparison.runs)),
        subtitle="A is the baseline. A difference is the other run's value minus the baseline's.",
        sections=_sections(parts),
        labels=[run_label(run) for run in comparison.runs],
        parts=parts,
        level=f"{100 * comparison.level:g} %",
        permutations=comparison.permutations,
        tag=plain(comparison.tag or "", limit=100),
        facts=fact_rows(comparison),
        provenance=provenance_rows([read_origin(run).provenance for run in runs]),
        files=[name for name in (RECORD, SAMPLES) if (data / name).is_file()],
        faults=pictures.faults,
        shown_p=shown_p,
    )
    (aside / PAGE).write_text(page, encoding="utf-8")


def _sections(parts: Sequence[PairingPart]) -> list[tuple[str, str]]:
    sections = [("limits", "What could not be compared")]
    several = len(parts) > 1
    for part in parts:
        names = [("metrics", "Metrics")]
        names += [("agreement", "Pass or fail")] if part.agreements else []
        names += [("groups", "Groups")] if part.groups else []
        names += [("changed", "What changed most")]
        before = f"{part.letter}: " if several else ""
        sections += [(f"{name}-{part.slug}", f"{before}{title}") for name, title in names]
    return [*sections, ("provenance", "Provenance")]


def _part(
    comparison: Comparison,
    pairing: Pairing,
    pictures: PairedPictures,
    samples: pa.Table | None,
    aside: Path,
) -> PairingPart:
    baseline, other = comparison.runs[0], comparison.run(pairing.letter)
    labels = (run_label(baseline), run_label(other))
    changed = [
        _changed(i, movers, pairing, labels, pictures, samples, aside)
        for i, movers in enumerate(pairing.movers)
    ]
    without = pairing.only_baseline + pairing.only_other
    extent = f"{pairing.n:,} pairs of {pairing.num_prompts:,} prompts"
    if without:
        extent += (
            f"; without a partner: {pairing.only_baseline:,} in A, "
            f"{pairing.only_other:,} in {pairing.letter}"
        )
    return PairingPart(
        letter=pairing.letter,
        slug=pairing.letter.lower(),
        labels=labels,
        extent=f"{extent}.",
        headline=headline(pairing),
        refusals=[(plain(r.subject, limit=200), plain(r.why)) for r in pairing.refusals],
        warnings=[plain(warning) for warning in pairing.warnings],
        metrics=difference_rows(pairing, grouped=False),
        groups=difference_rows(pairing, grouped=True),
        agreements=agreement_rows(pairing),
        changed=changed,
        settings=setting_rows(pairing),
    )


def _changed(
    number_: int,
    movers: Movers,
    pairing: Pairing,
    labels: tuple[str, str],
    pictures: PairedPictures,
    samples: pa.Table | None,
    aside: Path,
) -> ChangedSection:
    letters = ("A", pairing.letter)
    directed = movers.higher_is_better is not None
    titles = ("Got better", "Got worse") if directed else ("Rose", "Fell")
    ways = []
    for title, pairs in zip(titles, (movers.improved, movers.worsened), strict=True):
        shown = [_card(pair, letters, labels, pictures) for pair in pairs[:NUM_SHOWN]]
        ways.append((title, shown, len(pairs)))
    slug = f"histogram-{pairing.letter.lower()}-{number_}"
    histogram = _histogram(slug, movers, pairing.letter, samples, aside)
    return ChangedSection(plain(movers.name, limit=200), ways, histogram)


def _card(
    pair: Changed, letters: tuple[str, str], labels: tuple[str, str], pictures: PairedPictures
) -> PairCard:
    sample = SampleId(pair.key, pair.image_index)
    found = [pictures.find(letter, sample) for letter in letters]
    return PairCard(
        prompt=plain(pair.prompt, limit=300),
        key=plain(pair.key, limit=200),
        image_index=pair.image_index,
        baseline=number(pair.baseline),
        other=number(pair.other),
        difference=signed(pair.difference),
        pictures=list(zip(labels, found, strict=True)),
    )


def _wanted(comparison: Comparison, letter: str) -> list[SampleId]:
    """The samples whose pictures of this run the page shows."""
    baseline = letter == comparison.runs[0].letter
    return [
        SampleId(pair.key, pair.image_index)
        for pairing in comparison.pairings
        if baseline or pairing.letter == letter
        for movers in pairing.movers
        for pairs in (movers.rose, movers.fell)
        for pair in pairs[:NUM_SHOWN]
    ]


def _read_samples(path: Path) -> pa.Table | None:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None


def _histogram(
    slug: str, movers: Movers, letter: str, samples: pa.Table | None, aside: Path
) -> Drawing | None:
    """The differences of every pair, as samples.parquet has them."""
    column = f"{movers.name}_difference"
    if samples is None or column not in samples.column_names:
        return None
    values = [v for v in samples.column(column).to_pylist() if isinstance(v, int | float)]
    title = f"{plain(movers.name, limit=60)}: differences of single pairs"
    svg = draw_histogram(
        slug, title, values, letters=f"{letter} − A", higher_is_better=movers.higher_is_better
    )
    if svg is None:
        return None
    (aside / f"{slug}.svg").write_text(standalone(svg, chart_rules()), encoding="utf-8")
    return Drawing(Markup(inline(svg)), f"{slug}.svg", svg.findtext("desc") or "")  # noqa: S704

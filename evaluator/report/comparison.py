"""The page of a comparison: what differs between runs, by how much, and in which pictures."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator.comparison.records import Comparison, Pairing
from evaluator.report.beside import OWN, page_folder
from evaluator.report.comparison_pairs import (
    ChangedSection,
    PairCard,
    PairDrawer,
    PairScores,
    maps_wanted,
    wanted_samples,
    watched_samples,
)
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
from evaluator.report.frame import PAPER, TABLES, render_page
from evaluator.report.images import SampleId
from evaluator.report.origin import read_origin
from evaluator.report.paired_pictures import PairedPictures
from evaluator.report.replaced import PAGE
from evaluator.report.single import alone
from evaluator.report.text import plain
from evaluator.store.rundir import RunDirectory
from evaluator.text import count_of

GENERATOR = "evaluator compare"
RECORD = "comparison.json"
SAMPLES = "samples.parquet"


@dataclass(frozen=True, slots=True)
class PairingPart:
    """One run against the baseline, fit to show."""

    letter: str
    slug: str
    labels: tuple[str, str]
    extent: str
    headline: str
    refusals: Sequence[tuple[str, str]]
    num_refused: int
    """Of these, what no number stands for: the headline counts the others."""
    warnings: Sequence[str]
    metrics: Sequence[DifferenceRow]
    groups: Sequence[DifferenceRow]
    agreements: Sequence[AgreementRow]
    changed: Sequence[ChangedSection]
    watched: Sequence[PairCard]
    maps_wanted: str
    """What to add to the command of a run for the heat maps of the pairs that changed most."""
    settings: Sequence[FactRow]


def write_comparison(
    comparison: Comparison,
    runs: Sequence[RunDirectory],
    folder: Path,
    *,
    single_file: bool = False,
) -> Path:
    """Write the page of a comparison into `folder` and return its path.

    `runs` are those of the comparison, in its order; their pictures and heat maps are read, their
    numbers are not. The folder may hold the comparison's own files (comparison.json,
    samples.parquet), which stay; samples.parquet gives the histograms. `single_file` puts the
    pictures into the page, which then can be sent alone. The page is written aside and moved in.
    Raises RunDirectoryError when something else is in the folder.
    """
    with page_folder(folder, record=RECORD, generator=GENERATOR) as aside:
        page = _fill(comparison, runs, data=folder, aside=aside)
        if single_file:
            page = alone(page, aside, {})
            for name in OWN:
                shutil.rmtree(aside / name, ignore_errors=True)
        (aside / PAGE).write_text(page, encoding="utf-8")
    return folder.resolve() / PAGE


def _fill(comparison: Comparison, runs: Sequence[RunDirectory], *, data: Path, aside: Path) -> str:
    """Write pictures and drawings, and return the page that shows them."""
    pictures = PairedPictures(aside)
    scores = PairScores(data / SAMPLES)
    opened = dict(zip((facts.letter for facts in comparison.runs), runs, strict=True))
    watched = {
        each.letter: watched_samples(each, opened["A"], opened[each.letter], scores)
        for each in comparison.pairings
    }
    for letter, run in opened.items():
        pictures.write(letter, run, wanted_samples(comparison, letter, watched))
    drawer = PairDrawer(pictures, scores, aside)
    parts = [_part(comparison, each, drawer, watched[each.letter]) for each in comparison.pairings]
    return render_page(
        "comparison.html.j2",
        scripts=(TABLES, PAPER, "comparison.js"),
        styles=("comparison.css",),
        generator=GENERATOR,
        title=_title(comparison),
        subtitle="A is the baseline. A difference is the other run's value minus the baseline's.",
        sections=_sections(parts),
        labels=[run_label(run) for run in comparison.runs],
        parts=parts,
        level=f"{100 * comparison.level:g} %",
        permutations=comparison.permutations,
        told=[plain(each) for each in comparison.told],
        chosen=comparison.chosen is not None and bool(comparison.chosen.told),
        tag=plain(comparison.tag or "", limit=100),
        facts=fact_rows(comparison),
        provenance=provenance_rows([read_origin(run).provenance for run in runs]),
        files=[name for name in (RECORD, SAMPLES) if (data / name).is_file()],
        faults=pictures.faults,
        shown_p=shown_p,
    )


def _title(comparison: Comparison) -> str:
    """`b and c against a`."""
    baseline, *others = (plain(run.name, limit=80) for run in comparison.runs)
    return f"{' and '.join(others)} against {baseline}"


def _sections(parts: Sequence[PairingPart]) -> list[tuple[str, str]]:
    sections = [("limits", "What could not be compared")]
    several = len(parts) > 1
    for part in parts:
        names = [("metrics", "Metrics")]
        names += [("agreement", "Pass or fail")] if part.agreements else []
        names += [("groups", "Groups")] if part.groups else []
        names += [("changed", "What changed most")]
        names += [("attention", "Attention")] if part.watched else []
        before = f"{part.letter}: " if several else ""
        sections += [(f"{name}-{part.slug}", f"{before}{title}") for name, title in names]
    return [*sections, ("provenance", "Provenance")]


def _part(
    comparison: Comparison, pairing: Pairing, drawer: PairDrawer, watched: Sequence[SampleId]
) -> PairingPart:
    baseline, other = comparison.runs[0], comparison.run(pairing.letter)
    labels = (run_label(baseline), run_label(other))
    without = pairing.only_baseline + pairing.only_other
    extent = f"{count_of(pairing.n, 'pair')} of {count_of(pairing.num_prompts, 'prompt')}"
    if without:
        extent += (
            f"; without a partner: {pairing.only_baseline:,} in A, "
            f"{pairing.only_other:,} in {pairing.letter}"
        )
    changed = drawer.changed(pairing, labels)
    return PairingPart(
        letter=pairing.letter,
        slug=pairing.letter.lower(),
        labels=labels,
        extent=f"{extent}.",
        headline=headline(pairing),
        refusals=[(plain(r.subject, limit=200), plain(r.why)) for r in pairing.not_compared],
        num_refused=len(pairing.refusals),
        warnings=[plain(warning) for warning in pairing.warnings],
        metrics=difference_rows(pairing, grouped=False),
        groups=difference_rows(pairing, grouped=True),
        agreements=agreement_rows(pairing),
        changed=changed,
        watched=drawer.watched(pairing, labels, watched),
        maps_wanted=maps_wanted(changed),
        settings=setting_rows(pairing),
    )

"""Pairs of samples on the page of a comparison: which are shown, their scores, their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup

from evaluator.comparison.records import Changed, Comparison, Movers, Pairing
from evaluator.records import SAFE_KEY
from evaluator.report.beside import DRAWINGS
from evaluator.report.comparison_charts import draw_histogram, signed
from evaluator.report.frame import Drawing, chart_rules
from evaluator.report.images import SampleId
from evaluator.report.paired_pictures import PairedPictures, SamplePicture, samples_with_maps
from evaluator.report.svg import inline, standalone
from evaluator.report.text import number, plain
from evaluator.store.rundir import RunDirectory

NUM_SHOWN = 60
"""Pairs shown with their pictures, for each score and each way."""

NUM_WATCHED = 4
"""Pairs whose heat maps are shown in full."""


@dataclass(frozen=True, slots=True)
class PairCard:
    """One pair of samples that changed much, with its pictures."""

    prompt: str
    key: str
    image_index: int
    score: str
    """The metric whose score this is; empty where there is none."""
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


NUM_KEYS = 20
"""Keys named, of the prompts whose heat maps were not kept."""


def maps_wanted(sections: Sequence[ChangedSection]) -> str:
    """How to keep the heat maps of the pairs that changed most; empty where all were kept.

    It will be pasted into a shell: a key that no pack would have is not named.
    """
    cards = [card for section in sections for _, shown, _ in section.ways for card in shown]
    lacking = (card.key for card in cards if not card.maps)
    keys = [key for key in dict.fromkeys(lacking) if SAFE_KEY.match(key)]
    if not keys:
        return ""
    named = ",".join(keys[:NUM_KEYS])
    return f"--set 'probes.attention.maps=[{named}]'"


class PairScores:
    """The scores of every pair, as samples.parquet beside comparison.json has them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _columns(self) -> frozenset[str]:
        try:
            return frozenset(pq.read_schema(self._path).names)
        except (OSError, pa.ArrowException):
            return frozenset()

    def of(self, name: str, letter: str) -> list[Changed]:
        """Pairs of a run with the baseline that have a difference of this score, without prompts.

        Empty where the table is not there, or does not have this score.
        """
        parts = [f"{name}_{end}" for end in ("baseline", "other", "difference")]
        columns = ["key", "image_index", "run", *parts]
        if not self._columns.issuperset(columns):
            return []
        table = pq.read_table(self._path, columns=columns)
        kept = pc.and_(pc.equal(table.column("run"), letter), pc.is_finite(table.column(parts[2])))
        rows = table.filter(kept).select(["key", "image_index", *parts])
        values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        return [Changed(key, index, "", a, b, by) for key, index, a, b, by in values]


def wanted_samples(
    comparison: Comparison, letter: str, watched: Mapping[str, Sequence[SampleId]]
) -> list[SampleId]:
    """The samples whose pictures of this run the page shows."""
    baseline = letter == comparison.runs[0].letter
    pairings = [each for each in comparison.pairings if baseline or each.letter == letter]
    moved = [
        SampleId(pair.key, pair.image_index)
        for pairing in pairings
        for movers in pairing.movers
        for pairs in (movers.rose, movers.fell)
        for pair in pairs[:NUM_SHOWN]
    ]
    return [*moved, *(sample for each in pairings for sample in watched[each.letter])]


def watched_samples(
    pairing: Pairing, baseline: RunDirectory, other: RunDirectory, scores: PairScores
) -> list[SampleId]:
    """Samples with heat maps in both runs: those whose first score changed most, else the first."""
    if not pairing.n:
        return []
    theirs = set(samples_with_maps(other))
    both = [sample for sample in samples_with_maps(baseline) if sample in theirs]
    if not both or not pairing.movers:
        return both[:NUM_WATCHED]
    changes = {
        SampleId(pair.key, pair.image_index): abs(pair.difference)
        for pair in scores.of(pairing.movers[0].name, pairing.letter)
    }
    return sorted(both, key=lambda sample: -changes.get(sample, 0.0))[:NUM_WATCHED]


@dataclass(frozen=True, slots=True)
class PairDrawer:
    """From pairs to what the page shows of them."""

    pictures: PairedPictures
    scores: PairScores
    folder: Path
    """The page's folder."""

    def changed(self, pairing: Pairing, labels: tuple[str, str]) -> list[ChangedSection]:
        """The pairs whose score changed most, by score."""
        return [self._changed(i, each, pairing, labels) for i, each in enumerate(pairing.movers)]

    def watched(
        self, pairing: Pairing, labels: tuple[str, str], samples: Sequence[SampleId]
    ) -> list[PairCard]:
        """Pairs with the heat maps of both; what the maps cannot be read of is left out."""
        name = pairing.movers[0].name if pairing.movers else ""
        known = {SampleId(p.key, p.image_index): p for p in self.scores.of(name, pairing.letter)}
        cards = []
        for sample in samples:
            nothing = Changed(*sample, "", float("nan"), float("nan"), float("nan"))
            pair = known.get(sample, nothing)
            cards.append(self._card(pair, name if sample in known else "", pairing.letter, labels))
        return [card for card in cards if card.maps]

    def _changed(
        self, place: int, movers: Movers, pairing: Pairing, labels: tuple[str, str]
    ) -> ChangedSection:
        directed = movers.higher_is_better is not None
        titles = ("Got better", "Got worse") if directed else ("Rose", "Fell")
        name = plain(movers.name, limit=200)
        ways = []
        for title, pairs in zip(titles, (movers.improved, movers.worsened), strict=True):
            shown = [self._card(p, name, pairing.letter, labels) for p in pairs[:NUM_SHOWN]]
            ways.append((title, shown, len(pairs)))
        slug = f"histogram-{pairing.letter.lower()}-{place}"
        return ChangedSection(name, ways, self._histogram(slug, movers, pairing.letter))

    def _card(self, pair: Changed, score: str, letter: str, labels: tuple[str, str]) -> PairCard:
        sample = SampleId(pair.key, pair.image_index)
        found = [self.pictures.find(each, sample) for each in ("A", letter)]
        return PairCard(
            prompt=plain(pair.prompt or self.pictures.prompts.get(sample, ""), limit=300),
            key=plain(pair.key, limit=200),
            image_index=pair.image_index,
            score=plain(score, limit=200),
            baseline=number(pair.baseline),
            other=number(pair.other),
            difference=signed(pair.difference),
            pictures=list(zip(labels, found, strict=True)),
        )

    def _histogram(self, slug: str, movers: Movers, letter: str) -> Drawing | None:
        """The differences of every pair."""
        values = [pair.difference for pair in self.scores.of(movers.name, letter)]
        title = f"{plain(movers.name, limit=60)}: differences of single pairs"
        svg = draw_histogram(
            slug, title, values, letters=f"{letter} − A", higher_is_better=movers.higher_is_better
        )
        if svg is None:
            return None
        file = f"{DRAWINGS}/{slug}.svg"
        (self.folder / DRAWINGS).mkdir(exist_ok=True)
        (self.folder / file).write_text(standalone(svg, chart_rules()), encoding="utf-8")
        said = svg.findtext("desc") or ""
        return Drawing(Markup(inline(svg)), file, said)  # noqa: S704  (ElementTree escaped it)

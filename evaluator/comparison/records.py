"""What `compare` found out, as it lies in comparison.json. Imports nothing heavy.

The first run is the baseline, A; each other run (B, C, …) is compared with it. A difference is
always the other run's value minus the baseline's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from evaluator.comparison.notebook import as_html, as_text
from evaluator.comparison.numbers import Agreement as Agreement
from evaluator.comparison.numbers import Changed as Changed
from evaluator.comparison.numbers import Difference as Difference
from evaluator.comparison.numbers import Movers as Movers
from evaluator.comparison.numbers import Span as Span
from evaluator.comparison.numbers import Verdict as Verdict
from evaluator.comparison.numbers import difference_of, movers_of
from evaluator.errors import InputError

FORMAT = 1
"""Version of comparison.json."""


class Refusal(NamedTuple):
    """Something that was not compared, because a number would mislead or there is none."""

    subject: str
    """A metric's name, or `samples`, or `runs`."""
    why: str
    """Expected, then got, then how to mend it."""


class Chosen(NamedTuple):
    """Metrics that were chosen by name: the others count in no correction."""

    names: tuple[str, ...]
    """Names of metrics or numbers, as they were asked for. Untrusted."""
    metrics: int
    """How many of the runs' metrics they are."""
    of: int
    """How many metrics the runs were asked for."""

    @property
    def told(self) -> str:
        """What a reader of the p values should know, in one sentence; empty where all are there."""
        if self.metrics == self.of:
            return ""
        return (
            f"{self.metrics} of {self.of} metrics were chosen ({', '.join(self.names)}): Holm's "
            "correction is over the tests of these alone, which holds only if they were chosen "
            "before the others' numbers were seen"
        )


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run: where its numbers come from. Every string is untrusted."""

    letter: str
    """`A` for the baseline, then `B`, `C`, … ."""
    name: str
    """Name of the run; where two have one name, with as much of the path as tells them apart."""
    path: str
    """Its directory."""
    model: str
    """Kind and id of the model."""
    revision: str | None
    """Pinned revision, or the first digits of its weights' hash."""
    scheduler: str | None
    steps: int | None
    guidance_scale: float | None
    height: int | None
    width: int | None
    dtype: str | None
    seed: str | None
    """Seed of the run, and how samples' seeds come from it where that is not the usual way."""
    images_per_prompt: int | None
    n: int
    """Samples that are there."""
    n_expected: int
    """Samples planned."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Extractor → fingerprint of its features."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """One run compared with the baseline."""

    letter: str
    """The other run's letter."""
    n: int
    """Pairs of samples: the same key and image index in both runs, and an image in both."""
    num_prompts: int
    """Prompts of those pairs."""
    only_baseline: int
    """Samples with an image in the baseline and without a partner."""
    only_other: int
    """Samples with an image in the other run and without a partner."""
    settings: tuple[tuple[str, str, str], ...] = ()
    """What is set differently: name, value in the baseline, value in the other run."""
    refusals: tuple[Refusal, ...] = ()
    """What was not compared, and why; to be said first."""
    warnings: tuple[str, ...] = ()
    """What a reader of every number should know."""
    differences: tuple[Difference, ...] = ()
    """The numbers, in the order of the baseline's metrics; those of groups after their metric."""
    movers: tuple[Movers, ...] = ()
    """The samples that changed most, for each per-sample score."""

    @property
    def overall(self) -> tuple[Difference, ...]:
        """The numbers of all pairs."""
        return tuple(each for each in self.differences if each.group is None)

    @property
    def grouped(self) -> tuple[Difference, ...]:
        """The numbers of groups."""
        return tuple(each for each in self.differences if each.group is not None)

    @property
    def not_compared(self) -> tuple[Refusal, ...]:
        """The refusals, and the numbers that could not be computed, each for the same reason once.

        Whatever shows a pairing says them before any number.
        """
        failed = [each for each in self.differences if each.verdict == "not comparable"]
        first = {(each.name, each.why): each for each in reversed(failed)}
        named = (Refusal(each.title, each.why) for each in failed if each in first.values())
        return (*self.refusals, *named)


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Runs on the same prompts, each compared with the first."""

    runs: tuple[RunFacts, ...]
    """The baseline, then the others."""
    pairings: tuple[Pairing, ...]
    """One for each other run, in their order."""
    tag: str | None = None
    """The tag whose values are groups."""
    level: float = 0.95
    """Confidence of the intervals; a difference is found where the adjusted p is at most 1 minus
    this."""
    permutations: int = 0
    """Sign flips drawn, where they were too many to enumerate."""
    chosen: Chosen | None = None
    """What was chosen; None where everything that the runs share is compared."""

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def exit_status(self) -> int:
        """0 all compared, 1 something could not be, 2 nothing could."""
        if not any(_compared(pairing) for pairing in self.pairings):
            return 2
        whole = all(
            not pairing.refusals
            and all(each.verdict != "not comparable" for each in pairing.differences)
            for pairing in self.pairings
        )
        return 0 if whole else 1

    @property
    def told(self) -> tuple[str, ...]:
        """What a reader of every p value should know."""
        said = [self.chosen.told] if self.chosen is not None and self.chosen.told else []
        if len(self.runs) > 2:
            letters = ", ".join(run.letter for run in self.runs[1:])
            said.append(
                f"{letters} are compared with A and not with each other; Holm's correction is over "
                "the tests of all of them together"
            )
        return tuple(said)

    def run(self, letter: str) -> RunFacts:
        """The run with this letter."""
        return next(run for run in self.runs if run.letter == letter)

    def __repr__(self) -> str:
        return as_text(self)

    def record(self) -> dict[str, Any]:
        """What comparison.json holds."""
        pairings = [_pairing_record(pairing) for pairing in self.pairings]
        return {
            "format": FORMAT,
            "runs": [{**asdict(run), "fingerprints": dict(run.fingerprints)} for run in self.runs],
            "pairings": pairings,
            "tag": self.tag,
            "level": self.level,
            "permutations": self.permutations,
            "chosen": None if self.chosen is None else self.chosen._asdict(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Comparison:
        """The inverse of `record`; raises InputError on anything else."""
        try:
            found = record["format"]
            if found != FORMAT:
                raise InputError(
                    f"comparison.json: expected format {FORMAT}, got {found}; compare again with "
                    "this evaluator, or read it with the one that wrote it"
                )
            return cls(
                tuple(RunFacts(**run) for run in record["runs"]),
                tuple(_pairing(pairing) for pairing in record["pairings"]),
                record["tag"],
                record["level"],
                record["permutations"],
                _chosen(record.get("chosen")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"comparison.json: expected what `compare` writes, got another record ({error!r}); "
                "compare again"
            ) from error


def _chosen(record: Mapping[str, Any] | None) -> Chosen | None:
    """What was chosen; comparisons of an earlier version do not say."""
    if record is None:
        return None
    return Chosen(**{**record, "names": tuple(record["names"])})


def _compared(pairing: Pairing) -> bool:
    return any(each.verdict != "not comparable" for each in pairing.differences)


def _pairing_record(pairing: Pairing) -> dict[str, Any]:
    record = asdict(pairing)
    record["refusals"] = [refusal._asdict() for refusal in pairing.refusals]
    for each, difference in zip(record["differences"], pairing.differences, strict=True):
        for name in ("interval", "agreement"):
            value = getattr(difference, name)
            each[name] = None if value is None else value._asdict()
    return record


def _pairing(record: Mapping[str, Any]) -> Pairing:
    given = dict(record)
    given["settings"] = tuple(tuple(row) for row in record["settings"])
    given["refusals"] = tuple(Refusal(**refusal) for refusal in record["refusals"])
    given["warnings"] = tuple(record["warnings"])
    given["differences"] = tuple(difference_of(each) for each in record["differences"])
    given["movers"] = tuple(movers_of(each) for each in record["movers"])
    return Pairing(**given)

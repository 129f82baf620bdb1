"""What `compare` found out, as it lies in comparison.json. Imports nothing heavy.

The first run is the baseline, A; each other run (B, C, …) is compared with it. A difference is
always the other run's value minus the baseline's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from evaluator.errors import InputError

FORMAT = 1
"""Version of comparison.json."""

Verdict = Literal[
    "better", "worse", "different", "no difference found", "not tested", "not comparable"
]
"""About the other run. `different` is said of a number of which neither direction is better."""


class Span(NamedTuple):
    """A confidence interval of a difference."""

    low: float
    high: float
    level: float
    """Confidence, such as 0.95."""
    method: str
    """How it was computed."""
    covers: str
    """What lies inside with that confidence, in words."""


class Agreement(NamedTuple):
    """Pass/fail scores of the pairs: four counts, and McNemar's test of the two that differ."""

    both: int
    """Pairs in which both samples pass."""
    only_baseline: int
    """Pairs in which only the baseline's sample passes."""
    only_other: int
    """Pairs in which only the other run's sample passes."""
    neither: int
    """Pairs in which no sample passes."""
    p: float
    """Exact, two-sided. It takes samples as independent: with several images of a prompt, the
    permutation p of the same metric, which flips whole prompts, is the one to trust."""
    mid_p: float
    """The mid-p variant: less conservative."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number in both runs, computed from the paired samples alone."""

    name: str
    """The number's name, as in metrics.json: `fid`, `clip_score`."""
    higher_is_better: bool | None
    """Direction; None where neither is better."""
    baseline: float | None
    """Value in the baseline; None where it could not be computed."""
    other: float | None
    """Value in the other run."""
    difference: float | None
    """`other` minus `baseline`."""
    n: int
    """Paired samples that both values stand on."""
    num_prompts: int
    """Their prompts."""
    verdict: Verdict
    """What to think of it; `why` says the reason in words."""
    why: str
    """One sentence."""
    interval: Span | None = None
    """Interval of the difference; None where there is none, and `warnings` says why."""
    p: float | None = None
    """Permutation p of no difference, two-sided; None where the number has no test."""
    p_adjusted: float | None = None
    """The same after Holm's correction over `family` tests."""
    family: int = 0
    """How many tests were corrected for together: metrics, times runs, times groups."""
    test: str = ""
    """How `p` was computed."""
    extractor: str | None = None
    """Extractor of the features or scores."""
    fingerprint: str | None = None
    """Fingerprint of its features, the same in both runs."""
    reference: str | None = None
    """Name of the reference in the baseline; both runs are compared with the same samples."""
    group: tuple[str, str] | None = None
    """Tag and value of the samples that the number is about; None: all pairs."""
    agreement: Agreement | None = None
    """Counts of a pass/fail score."""
    warnings: tuple[str, ...] = ()
    """Sentences to be shown next to the number."""

    @property
    def title(self) -> str:
        """The name, with the group: `fid [region=Africa]`."""
        return self.name if self.group is None else f"{self.name} [{'='.join(self.group)}]"


@dataclass(frozen=True, slots=True)
class Changed:
    """One pair of samples whose scores differ much."""

    key: str
    """Key of the prompt. Never part of a path."""
    image_index: int
    """Which of the prompt's images."""
    prompt: str
    """Text of the prompt; empty without one. Untrusted."""
    baseline: float
    """Score in the baseline."""
    other: float
    """Score in the other run."""
    difference: float
    """`other` minus `baseline`."""


@dataclass(frozen=True, slots=True)
class Movers:
    """The pairs whose score changed most, both ways."""

    name: str
    """The metric whose per-sample score this is."""
    higher_is_better: bool | None
    """Direction of the score."""
    rose: tuple[Changed, ...]
    """Largest rise first; differences are above 0."""
    fell: tuple[Changed, ...]
    """Largest fall first; differences are below 0."""

    @property
    def improved(self) -> tuple[Changed, ...]:
        """Those that got better; those that rose where neither direction is better."""
        return self.fell if self.higher_is_better is False else self.rose

    @property
    def worsened(self) -> tuple[Changed, ...]:
        """Those that got worse."""
        return self.rose if self.higher_is_better is False else self.fell


class Refusal(NamedTuple):
    """Something that was not compared, because a number would mislead or there is none."""

    subject: str
    """A metric's name, or `samples`, or `runs`."""
    why: str
    """Expected, then got, then how to mend it."""


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


@dataclass(frozen=True, slots=True)
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

    def run(self, letter: str) -> RunFacts:
        """The run with this letter."""
        return next(run for run in self.runs if run.letter == letter)

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
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"comparison.json: expected what `compare` writes, got another record ({error!r}); "
                "compare again"
            ) from error


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
    given["differences"] = tuple(_difference(each) for each in record["differences"])
    given["movers"] = tuple(_movers(each) for each in record["movers"])
    return Pairing(**given)


def _difference(record: Mapping[str, Any]) -> Difference:
    given = dict(record)
    if given["verdict"] not in get_args(Verdict):
        raise TypeError(f"verdict {given['verdict']!r}")
    given["interval"] = None if record["interval"] is None else Span(**record["interval"])
    given["agreement"] = None if record["agreement"] is None else Agreement(**record["agreement"])
    given["group"] = None if record["group"] is None else tuple(record["group"])
    given["warnings"] = tuple(record["warnings"])
    return Difference(**given)


def _movers(record: Mapping[str, Any]) -> Movers:
    rose, fell = (_changed(record[name]) for name in ("rose", "fell"))
    return Movers(record["name"], record["higher_is_better"], rose, fell)


def _changed(rows: Sequence[Mapping[str, Any]]) -> tuple[Changed, ...]:
    return tuple(Changed(**row) for row in rows)

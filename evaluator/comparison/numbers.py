"""One number in two runs, and the samples that it changed for: the smallest of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

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


def difference_of(record: Mapping[str, Any]) -> Difference:
    """The inverse of `asdict`; raises KeyError or TypeError on anything else."""
    given = dict(record)
    if given["verdict"] not in get_args(Verdict):
        raise TypeError(f"verdict {given['verdict']!r}")
    given["interval"] = None if record["interval"] is None else Span(**record["interval"])
    given["agreement"] = None if record["agreement"] is None else Agreement(**record["agreement"])
    given["group"] = None if record["group"] is None else tuple(record["group"])
    given["warnings"] = tuple(record["warnings"])
    return Difference(**given)


def movers_of(record: Mapping[str, Any]) -> Movers:
    """The inverse of `asdict`; raises KeyError or TypeError on anything else."""
    rose, fell = (_changed(record[name]) for name in ("rose", "fell"))
    return Movers(record["name"], record["higher_is_better"], rose, fell)


def _changed(rows: Sequence[Mapping[str, Any]]) -> tuple[Changed, ...]:
    return tuple(Changed(**row) for row in rows)

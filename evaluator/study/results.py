"""What a study found: `study-results.json`, and the same as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluator.metrics.intervals import Interval
from evaluator.report.text import number, plain
from evaluator.statistics.agreement import Agreement, Share
from evaluator.text import count_of

FORMAT = 1
"""Version of study-results.json."""


@dataclass(frozen=True, slots=True)
class PairResult:
    """Two runs against each other; repeated trials do not count."""

    first: str
    second: str
    wins: int
    """Answers for the first."""
    losses: int
    ties: int
    n: int
    n_expected: int
    win_rate: float | None
    """Of the first, ties as half wins; None without answers."""
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run over all its answers."""

    name: str
    path: str
    n: int
    n_expected: int
    score: float | None
    """Pairs: win rate against the other runs, ties as half wins. Else: share of its images that
    were taken for real."""
    interval: Interval | None
    strength: float | None = None
    """Bradley-Terry log-odds against the average of its tier."""
    strength_interval: Interval | None = None
    elo: float | None = None
    """The strength as 1000 + 400 log10(odds)."""
    elo_interval: Interval | None = None
    tier: int | None = None
    """Strengths compare within a tier only; 0 is the first."""


@dataclass(frozen=True, slots=True)
class RaterResult:
    """One rater."""

    name: str
    n: int
    n_expected: int
    repeats: int
    """Repeated items that were answered twice."""
    same_again: float | None
    """Share of these that were answered alike."""
    first_side: float | None
    """Share of left (or real) among the answers that chose."""
    median_seconds: float | None
    checks: int
    """Attention checks that were answered."""
    checks_failed: int
    """Of these, those in which the spoilt image was not seen to be worse."""
    share_right: float | None = None
    """Of real-or-generated: share of right answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResults:
    """Everything that was found."""

    study: str
    kind: str
    question: str
    n: int
    """Answers, repeated trials included."""
    n_expected: int
    runs: tuple[RunResult, ...]
    pairs: tuple[PairResult, ...]
    raters: tuple[RaterResult, ...]
    accuracy: Share | None
    """Real-or-generated: share of right answers, tested against one half."""
    real: RunResult | None
    """Real-or-generated: the real images, and the share of them that were taken for real."""
    agreement: Agreement
    """Krippendorff's alpha between raters."""
    self_agreement: Agreement | None
    """Cohen's kappa between the first and the second answer to repeated items."""
    same_again: Share | None
    """Share of repeated items that were answered alike."""
    bias: Share | None
    """Share of left (or real) among the answers that chose, tested against one half."""
    warnings: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """What study-results.json holds."""
        return {"format": FORMAT, **asdict(self)}


def results_lines(found: StudyResults) -> list[str]:
    """The results as tables and a few sentences, fit for a terminal."""
    lines = [f"{plain(found.question)} ({found.kind}, study {found.study})", ""]
    lines += _columns(_run_rows(found))
    if len(found.pairs) > 1:
        lines += ["", *_columns(_pair_rows(found))]
    lines += ["", *_sentences(found)]
    return lines + [f"warning: {line}" for line in found.warnings]


def _run_rows(found: StudyResults) -> list[tuple[str, ...]]:
    many = len({run.tier for run in found.runs}) > 1
    rows: list[tuple[str, ...]] = [
        ("run", "win rate", "95 % interval", "Elo", "95 % interval", "tier" if many else "", "n")
    ]
    if found.kind != "pairs":
        rows = [("images of", "taken for real", "95 % interval", "", "", "", "n")]
    for run in (*found.runs, *([found.real] if found.real else [])):
        rows.append((
            plain(run.name, limit=40), percent(run.score), span(run.interval),
            "" if run.tier is None else number(run.elo, places=0),
            "" if run.elo_interval is None else _between(run.elo_interval, places=0),
            str(run.tier) if many and run.tier is not None else "",
            f"{run.n}/{run.n_expected}",
        ))  # fmt: skip
    return rows


def _pair_rows(found: StudyResults) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("pair", "win rate of first", "95 % interval", "won/lost/same", "n")
    ]
    for pair in found.pairs:
        rows.append((
            f"{plain(pair.first, limit=30)} : {plain(pair.second, limit=30)}",
            percent(pair.win_rate), span(pair.interval),
            f"{pair.wins}/{pair.losses}/{pair.ties}", f"{pair.n}/{pair.n_expected}",
        ))  # fmt: skip
    return rows


def _sentences(found: StudyResults) -> list[str]:
    """What stands below the tables: shares, coefficients, how many answers."""
    lines = []
    if found.accuracy is not None:
        lines.append(f"right answers: {_share(found.accuracy)}; chance gives 50.0 %")
    lines.append(f"agreement between raters (Krippendorff's alpha): {_agreement(found.agreement)}")
    if found.same_again is not None:
        lines.append(f"same answer when asked again: {_share(found.same_again, test=False)}")
    if found.self_agreement is not None:
        lines.append(f"  beyond chance (Cohen's kappa): {_agreement(found.self_agreement)}")
    if found.bias is not None:
        what = "left among choices" if found.kind == "pairs" else "real among answers"
        lines.append(f"{what}: {_share(found.bias)}")
    answered = sum(1 for rater in found.raters if rater.n)
    given = f"{found.n:,}/{count_of(found.n_expected, 'answer')}"
    lines.append(f"{given} of {answered}/{count_of(len(found.raters), 'rater')}")
    return lines


def percent(value: float | None) -> str:
    """A share in per cent."""
    return "—" if value is None else f"{100.0 * value:.1f} %"


def span(interval: Interval | None) -> str:
    """An interval of a share."""
    if interval is None:
        return "—"
    return f"{100.0 * interval.low:.1f} to {100.0 * interval.high:.1f}"


def _share(share: Share, *, test: bool = True) -> str:
    said = percent(share.value) + (f" [{span(share.interval)}]" if share.interval else "")
    if test and share.p_value is not None:
        said += f", p {p_text(share.p_value)}"
    return f"{said} (n {share.n})"


def p_text(p_value: float) -> str:
    """A p value behind the letter: `= 0.012`, `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


def _agreement(found: Agreement) -> str:
    if found.value is None:
        return f"— ({found.remark})"
    said = number(found.value, places=2)
    if found.interval is not None:
        said += f" [{_between(found.interval, places=2)}]"
    items = count_of(found.num_items, "item")
    return f"{said} ({items}{'; ' + found.remark if found.remark else ''})"


def _between(interval: Interval, *, places: int) -> str:
    return f"{number(interval.low, places=places)} to {number(interval.high, places=places)}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, the first to the left and numbers to the right; empty columns go."""
    used = [k for k in range(len(rows[0])) if any(row[k] for row in rows)]
    widths = [max(len(row[k]) for row in rows) for k in used]
    return [
        "  ".join(
            row[k].ljust(width) if k == 0 else row[k].rjust(width)
            for k, width in zip(used, widths, strict=True)
        ).rstrip()
        for row in rows
    ]

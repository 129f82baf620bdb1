"""What a leaderboard says: rows, columns, cells, standings, and how far its order can be trusted.

```
Board
├── rows        a run (measured) or somebody's published numbers (cited)
├── columns     a metric with all that its values must share to be ranked together
├── cells       one value of one row, with its interval and the range of ranks it may have
├── standings   mean win rate of each measured row, and how it holds against chance and choice
├── robustness  how alike the rankings by single metrics, by groups and by resamples are
└── remarks     what could not be read or compared, in sentences
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
"""Version of leaderboard.json."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval as the run, or the source of a cited row, states it."""

    low: float
    high: float
    level: float = 0.95
    """Confidence, such as 0.95."""
    method: str = ""
    """How it was found; empty where a source does not say."""
    covers: str = ""
    """What lies inside with that confidence, in words."""


@dataclass(frozen=True, slots=True)
class RankRange:
    """The ranks that a run may have: 1 is best. Ranges of one column hold all at once."""

    low: int
    """1 + how many runs are better beyond noise."""
    high: int
    """`among` - how many runs are worse beyond noise."""
    among: int
    """How many runs are ranked in this column."""

    @property
    def shown(self) -> str:
        """`2` or `1–3`."""
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a measured row was made with; None where its run does not say."""

    kind: str | None = None
    """Kind of model: `diffusers`, `images`, `optimal_denoiser`, `module:attr`."""
    model: str | None = None
    """Hub id, folder, or source of the images."""
    revision: str | None = None
    """Pinned commit."""
    weights: str | None = None
    """SHA-256 of the weights, or fingerprint of the model where it has none."""
    scheduler: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
    dtype: str | None = None
    images_per_prompt: int | None = None
    seed: int | None = None
    prompts: str | None = None
    """Fingerprint of the prompts."""
    evaluator: str | None = None
    """Version of the evaluator that planned the run."""


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a cited row comes from."""

    source: str
    """Paper, page or report: an address or a reference in words."""
    protocol: str = ""
    """How the source measured, in its words."""
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One run, or one row of a citation file."""

    name: str
    """Distinct on this board: the run's name, with its path where two have the same."""
    path: str | None
    """The run directory; None for a cited row."""
    provenance: Provenance
    """Empty for a cited row."""
    citation: Citation | None
    """None for a measured row."""
    n: int | None
    """Samples made, or what a source states."""
    n_expected: int | None
    """Samples planned; None for a cited row."""
    warnings: tuple[str, ...] = ()
    """What a reader should know about the whole row."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of model and generation (`generation.steps`) in which the measured rows differ."""

    @property
    def measured(self) -> bool:
        """Whether it was measured here; else it is cited."""
        return self.citation is None


@dataclass(frozen=True, slots=True)
class Column:
    """One metric, with all that values must share to stand in one ranking."""

    id: str
    """Distinct on this board: the metric's name, with a number where it has several columns."""
    metric: str
    """Name of the number: `fid`, `clip_score`."""
    label: str
    """The name, and what sets this column apart from others of the same metric."""
    higher_is_better: bool | None
    """Direction; None where neither is better, and then nothing is ranked."""
    extractor: str | None
    """Extractor or judge whose features, logits or scores the metric takes."""
    fingerprint: str | None
    """Fingerprint of that extractor or judge."""
    reference: str | None
    """Name of the reference, if the metric has one."""
    reference_content: str | None
    """Fingerprint of the reference's content; None where the runs do not say it."""
    reference_n: int | None
    options: Mapping[str, Any]
    """Options of the metric that the configurations set, such as k."""
    compared: str
    """How differences were judged: `paired by prompt`, `paired by groups of prompts`, `from the
    intervals`, or why not at all."""
    n: int | None
    """Generated samples of the ranked cells: of sets, they share it; of means, the most."""
    n_ranked: int
    """How many runs are ranked here."""
    cited_only: bool = False
    """No run measured it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row's value in one column."""

    row: str
    """Name of the row."""
    column: str
    """Id of the column."""
    value: float | None
    interval: Interval | None
    n: int | None
    n_expected: int | None
    rank: RankRange | None
    """None where it is not ranked, and then `reason` says why."""
    place: int | None
    """Rank by the bare values: 1 + how many ranked values are better."""
    reason: str = ""
    """Why it is not ranked: not comparable, no interval, cited; empty where it is."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a measured row stands over all metrics."""

    row: str
    place: int
    """1 + how many rows have a higher mean win rate."""
    win_rate: float
    """Share of the other runs that it beats (a tie is half), averaged over metrics. Columns of one
    quantity, such as KID over subsets and over all samples, count once."""
    low: float
    """Lower end of the 95 % interval of the win rate over resamples."""
    high: float
    num_metrics: int
    """Over how many metrics."""
    first: float
    """Share of resamples in which it is first (ties share)."""
    keeps: float
    """Share of resamples in which it keeps its place."""
    place_low: int
    """Best place when any one metric is left out."""
    place_high: int
    """Worst place when any one metric is left out."""
    by_metric: Mapping[str, float] = field(default_factory=dict)
    """Column id → share of the other runs that it beats there."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Kendall's tau-b between the rankings of two columns."""

    first: str
    second: str
    tau: float | None
    """From -1 (reversed) to 1 (the same); None with fewer than two runs in both."""
    n: int
    """Runs ranked in both."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The order of the runs under another choice: without one metric, or in one group."""

    name: str
    """`without fid`, `region=Africa`."""
    order: tuple[str, ...]
    """Rows from the highest mean win rate to the lowest; equal ones by name."""
    win_rates: Mapping[str, float]
    tau: float | None
    """Kendall's tau-b with the order over everything."""


@dataclass(frozen=True, slots=True)
class Robustness:
    """How far the order over all metrics depends on metrics, groups and chance."""

    between_metrics: tuple[Agreement, ...]
    left_out: tuple[Variant, ...]
    """The order without each metric."""
    groups: tuple[Variant, ...]
    """The order in each group of samples that all metrics.json share."""
    num_resamples: int
    tau: float | None
    """Mean of Kendall's tau-b between the order and that of a resample."""
    tau_low: float | None
    """2.5th percentile of that tau."""


@dataclass(frozen=True, slots=True)
class Board:
    """A whole leaderboard; `record` is what leaderboard.json holds."""

    rows: tuple[Row, ...]
    """Measured rows in order of the sort, then cited ones."""
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    standings: tuple[Standing, ...]
    """Of measured rows with at least one rank, best first."""
    robustness: Robustness | None
    """None with fewer than two ranked runs."""
    remarks: tuple[str, ...]
    """What could not be read or compared, and what the ranks mean."""
    level: float = 0.95
    """Confidence with which all rank ranges of one column hold together."""
    sort: str = "mean win rate"
    """What the rows are sorted by: that, or the id of a column."""
    faults: tuple[str, ...] = ()
    """What was named and gave nothing: no run, a damaged one, a broken citation file."""

    def cell(self, row: str, column: str) -> Cell | None:
        """The cell of a row and a column; None where there is no value at all."""
        found = (c for c in self.cells if c.row == row and c.column == column)
        return next(found, None)

    def record(self) -> dict[str, Any]:
        """What leaderboard.json holds."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Board:
        """The inverse of `record`; raises KeyError or TypeError on anything else."""
        robustness = record["robustness"]
        return cls(
            rows=tuple(_row(each) for each in record["rows"]),
            columns=tuple(Column(**each) for each in record["columns"]),
            cells=tuple(_cell(each) for each in record["cells"]),
            standings=tuple(Standing(**each) for each in record["standings"]),
            robustness=None if robustness is None else _robustness(robustness),
            remarks=tuple(record["remarks"]),
            level=record["level"],
            sort=record["sort"],
            faults=tuple(record["faults"]),
        )


def _row(record: Mapping[str, Any]) -> Row:
    citation = record["citation"]
    return Row(**{
        **record,
        "provenance": Provenance(**record["provenance"]),
        "citation": None if citation is None else Citation(**citation),
        "warnings": tuple(record["warnings"]),
    })  # fmt: skip


def _cell(record: Mapping[str, Any]) -> Cell:
    interval, rank = record["interval"], record["rank"]
    return Cell(**{
        **record,
        "interval": None if interval is None else Interval(**interval),
        "rank": None if rank is None else RankRange(**rank),
        "warnings": tuple(record["warnings"]),
    })  # fmt: skip


def _robustness(record: Mapping[str, Any]) -> Robustness:
    def variants(name: str) -> tuple[Variant, ...]:
        return tuple(Variant(**{**each, "order": tuple(each["order"])}) for each in record[name])

    return Robustness(**{
        **record,
        "between_metrics": tuple(Agreement(**each) for each in record["between_metrics"]),
        "left_out": variants("left_out"),
        "groups": variants("groups"),
    })  # fmt: skip

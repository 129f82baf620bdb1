"""`evaluator.compare(a, b)`: a comparison from Python, of runs by path or opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from evaluator.comparison.records import Comparison


class Located(Protocol):
    """A run that was opened: it says where it is."""

    @property
    def path(self) -> Path:
        """The run directory."""
        ...


def compare(
    *runs: str | Path | Located,
    by: str | None = None,
    metrics: str | Sequence[str] | None = None,
    permutations: int | None = None,
    changed: int | None = None,
    level: float = 0.95,
) -> Comparison:
    """Compare runs, by path or opened, with the first of them, on the samples that they share.

    `by` is a tag of the prompts, each value of which is compared too; `metrics` names one
    or more metrics or numbers (None: all that the runs share); `permutations` are drawn where sign
    flips are too many to enumerate; `changed` samples that changed most are named, each way. Raises
    ConfigError or RunDirectoryError where paths or names are wrong; what cannot be compared is a
    refusal of its pairing.
    """
    from evaluator.comparison.engine import compare_runs
    from evaluator.comparison.pairing import CHANGED, Request
    from evaluator.statistics.paired import PERMUTATIONS

    paths = [Path(run) if isinstance(run, str | Path) else run.path for run in runs]
    named = [metrics] if isinstance(metrics, str) else metrics
    names = None if named is None else tuple(named)
    drawn = PERMUTATIONS if permutations is None else permutations
    most = CHANGED if changed is None else changed
    return compare_runs(paths, Request(by, names, drawn, most, level)).comparison

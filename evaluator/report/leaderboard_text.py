"""A leaderboard in words: cells, provenance and robustness as the terminal and Markdown show them.

All text that others wrote is stripped of control characters and secrets here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from evaluator.leaderboard import Board, Cell, Column, Interval, Row, Variant
from evaluator.report.text import decimals, number, plain, redacted

ARROWS = {True: " ↑", False: " ↓", None: ""}
DIRECTIONS = {True: "higher is better", False: "lower is better", None: ""}

PROVENANCE = (
    ("model", "model"), ("revision", "revision"), ("weights", "weights"),
    ("scheduler", "scheduler"), ("steps", "steps"), ("guidance_scale", "guidance"),
    ("size", "size"), ("dtype", "dtype"), ("images_per_prompt", "images a prompt"),
    ("seed", "seed"), ("n", "n / expected"),
)  # fmt: skip
"""Field and title of each column that says what a row was made with."""

SAME_ORDER = 1.0 - 1e-9
"""A tau from which on two orders are the same."""


@lru_cache(maxsize=10_000)
def said(text: str, *, limit: int | None = None) -> str:
    """Text that others wrote, on one line, fit to show."""
    return redacted(plain(text, limit=limit))


def grid(board: Board) -> Mapping[tuple[str, str], Cell]:
    """(row, column) → cell: for those who look at many."""
    return {(cell.row, cell.column): cell for cell in board.cells}


def title_of(column: Column) -> str:
    """The column's label with its arrow."""
    return said(column.label) + ARROWS[column.higher_is_better]


def spread(value: float, interval: Interval | None) -> str:
    """`± half-width` where the interval is centred on the value, `(low – high)` elsewhere."""
    if interval is None:
        return ""
    places = decimals(value)
    below, above = value - interval.low, interval.high - value
    if below > 0 and abs(below - above) <= 0.02 * below:
        return "± " + number((below + above) / 2, places=places)
    low, high = (number(end, places=places) for end in (interval.low, interval.high))
    return f"({low} – {high})"


def shown(cell: Cell | None) -> str:
    """`2.6229 ± 0.5053 [2–3]`: value, interval, ranks; a dash where there is no value."""
    if cell is None or cell.value is None:
        return "—"
    rank = "" if cell.rank is None else f"[{cell.rank.shown}]"
    return " ".join(
        part for part in (number(cell.value), spread(cell.value, cell.interval), rank) if part
    )


def percent(share: float) -> str:
    """`76 %`."""
    return f"{100 * share:.0f} %"


def made_with(row: Row, field: str) -> str:
    """One field of `PROVENANCE` of a row; empty where it is not known."""
    p = row.provenance
    if field == "size":
        return f"{p.height}×{p.width}" if p.height and p.width else ""
    if field == "n":
        n = "?" if row.n is None else f"{row.n:,}"
        return n if row.n_expected is None else f"{n} / {row.n_expected:,}"
    value: Any = getattr(p, field)
    if value is None:
        return ""
    if field in ("weights", "revision"):
        return said(value)[:12]
    return said(f"{value:g}" if isinstance(value, float) else str(value), limit=80)


def ranks_meaning(board: Board) -> list[str]:
    """What the ranges in brackets and the win rates say."""
    if not board.standings:
        return []
    return [
        f"[2–3]: the ranks that a run may have. With {percent(board.level)} confidence all ranges "
        "of one column hold together, over prompts and noise drawn like these (of many columns, up "
        "to one in twenty may err); runs that share a rank are not told apart by this metric.",
        "win rate: share of the other runs that a run beats, averaged over its metrics, and what "
        "95 % of the resamples give (prompts are drawn anew, for numbers of sets groups of them; "
        "numbers that are not paired are drawn from their intervals).",
    ]


def unranked(board: Board) -> list[str]:
    """Which values are not ranked, and why; one line a reason and column."""
    labels = {column.id: said(column.label) for column in board.columns}
    measured = {row.name for row in board.rows if row.measured}
    found: dict[tuple[str, str], list[str]] = {}
    for cell in board.cells:
        if cell.rank is None and cell.reason and cell.row in measured:
            found.setdefault((cell.column, cell.reason), []).append(said(cell.row))
    lines: dict[str, None] = {}
    for (column, reason), rows in found.items():
        lines[f"{labels[column]}, not ranked: {_several(rows)}: {said(reason)}"] = None
    return list(lines)


def row_warnings(board: Board) -> list[str]:
    """What is to be known about whole rows."""
    return [f"{said(row.name)}: {said(w)}" for row in board.rows for w in row.warnings]


def robustness_lines(board: Board) -> list[str]:
    """How far the order can be trusted, in sentences."""
    found = board.robustness
    if found is None or len(board.standings) < 2:
        return []
    first, *_ = board.standings
    lines = [
        f"{said(first.row)} is first in {percent(first.first)} of {found.num_resamples:,} resamples"
        + (
            ""
            if found.tau is None
            else f"; their orders agree with this one by a mean tau of {found.tau:.2f}"
        )
    ]
    lines += _variants("leaving out any one metric", found.left_out)
    lines += _variants("in any one group", found.groups)
    defined = [a for a in found.between_metrics if a.tau is not None]
    if defined:
        worst = min(defined, key=lambda a: a.tau or 0.0)
        labels = {column.id: said(column.label) for column in board.columns}
        lines.append(
            f"the metrics that agree least: {labels[worst.first]} and {labels[worst.second]}, "
            f"tau {number(worst.tau, places=2)} over {worst.n} runs"
        )
    return lines


def _variants(where: str, variants: Sequence[Variant]) -> list[str]:
    """Which variants change the order, or that none does."""
    if not variants:
        return []
    other = [v for v in variants if v.tau is None or v.tau < SAME_ORDER]
    if not other:
        return [f"{where} leaves the order as it is"]
    return [
        f"{said(v.name)}: {_order(v)}"
        + ("" if v.tau is None else f", tau {number(v.tau, places=2)} with the order above")
        for v in other
    ]


def _order(variant: Variant) -> str:
    """`a > b = c`: the first five, with ties."""
    text = ""
    for before, name in zip((None, *variant.order), variant.order[:5], strict=False):
        if before is not None:
            tied = variant.win_rates[before] - variant.win_rates[name] < 1e-12
            text += " = " if tied else " > "
        text += said(name)
    return text + (" > …" if len(variant.order) > 5 else "")


def _several(names: Sequence[str]) -> str:
    shown_names = ", ".join(names[:5])
    return shown_names if len(names) <= 5 else f"{shown_names} and {len(names) - 5} more"

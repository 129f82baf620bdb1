"""A comparison and a leaderboard with every kind of entry, and with hostile names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from evaluator.comparison.records import (
    Agreement,
    Changed,
    Comparison,
    Difference,
    Movers,
    Pairing,
    Refusal,
    RunFacts,
    Span,
)
from evaluator.leaderboard.records import Agreement as RankAgreement
from evaluator.leaderboard.records import (
    Board,
    Cell,
    Citation,
    Column,
    Interval,
    Provenance,
    RankRange,
    Robustness,
    Row,
    Standing,
    Variant,
)
from tests.report.conftest import HOSTILE, prompt

EVIL = f"{HOSTILE}\x1b[31mevil\x07"


def facts(letter: str, path: Path, **changes: object) -> RunFacts:
    run = RunFacts(
        letter=letter, name="digits", path=str(path), model="diffusers some/model",
        revision="a" * 40, scheduler="DDIMScheduler", steps=20, guidance_scale=3.0, height=32,
        width=32, dtype="float32", seed="0", images_per_prompt=1, n=19, n_expected=20,
        fingerprints={"clip": "afff3444", "digits": "bfa3bcfe"},
    )  # fmt: skip
    return replace(run, **changes)  # type: ignore[arg-type]


def difference(name: str, value: float | None, **changes: object) -> Difference:
    """`value` ± 0.5, on top of 10."""
    span = None if value is None else Span(value - 0.5, value + 0.5, 0.95, "bootstrap", "the mean")
    other = None if value is None else 10 + value
    record = Difference(
        name=name, higher_is_better=True, baseline=10.0, other=other, difference=value, n=19,
        num_prompts=19, verdict="no difference found", why="The interval holds zero.",
        interval=span, p=0.4, p_adjusted=0.8, family=4, test="sign flips", extractor="clip",
        fingerprint="afff3444", reference=None,
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def moved(i: int, by: float) -> Changed:
    return Changed(f"k{i:04d}", 0, prompt(i), 90.0, 90.0 + by, by)


def pairing(letter: str) -> Pairing:
    counts = Agreement(9, 1, 7, 2, 0.0703, 0.0391)
    return Pairing(
        letter=letter, n=19, num_prompts=19, only_baseline=0, only_other=1,
        settings=(("generation.guidance_scale", "3.0", "1.0"), (EVIL, EVIL, "fine")),
        refusals=(Refusal("kd_digits", f"expected one fingerprint, got two ({EVIL})"),),
        warnings=("Seeds differ.",),
        differences=(
            difference("clip_score", 1.5, verdict="better", p=0.0002, p_adjusted=0.0006),
            difference("clip_score", -0.2, group=("colour", "red")),
            difference("clip_score", -1.2, group=("colour", EVIL), verdict="worse"),
            difference("fd_digits", 2.5, higher_is_better=False, verdict="worse", p=None,
                       p_adjusted=None, extractor="digits", reference="real"),
            difference("correct", 0.31, agreement=counts),
            difference(EVIL, None, verdict="not comparable", interval=None, baseline=None,
                       warnings=(EVIL,)),
        ),
        movers=(
            Movers("clip_score", True, (moved(1, 4.0), moved(0, 3.0)), (moved(2, -2.5),)),
            Movers("odd", None, (moved(4, 1.0),), ()),
        ),
    )  # fmt: skip


def pair_scores() -> pa.Table:
    """samples.parquet as `compare` writes it: more pairs got better than worse."""
    rows = [
        {"key": f"k{i:04d}", "image_index": 0, "run": "B", "clip_score_baseline": 90.0,
         "clip_score_other": 90.0 + by, "clip_score_difference": by}
        for i, by in enumerate(np.linspace(-2.5, 4.0, 20).tolist())
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def comparison(paths: list[Path]) -> Comparison:
    """The first run against each of the others."""
    runs = [facts(letter, path) for letter, path in zip("ABC", paths)]
    runs[1] = replace(runs[1], name=f"digits {EVIL}", guidance_scale=1.0)
    pairings = tuple(pairing(run.letter) for run in runs[1:])
    return Comparison(tuple(runs), pairings, tag="colour", permutations=10_000)


def column(metric: str, better: bool | None, **changes: object) -> Column:
    record = Column(
        id=metric, metric=metric, label=metric, higher_is_better=better, extractor="clip",
        fingerprint="afff3444", reference="real", reference_content="c" * 64, reference_n=359,
        options={"k": 5}, compared="paired by prompt", n=718, n_ranked=2,
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def cell(row: str, column: str, value: float, rank: tuple[int, int] | None = None) -> Cell:
    """`value` ± 0.5; without a rank it says why."""
    span = Interval(value - 0.5, value + 0.5)
    ranks = None if rank is None else RankRange(*rank, among=2)
    reason = "" if rank else f"expected the reference of the other runs, got another ({EVIL})"
    return Cell(row, column, value, span, 718, 718, ranks, rank[0] if rank else None, reason)


def board(folder: Path) -> Board:
    """Two runs, one of them with a report, and a cited row."""
    (folder / "run" / "report").mkdir(parents=True)
    (folder / "run" / "report" / "index.html").write_text("<!DOCTYPE html><title>a run</title>")
    made = Provenance(
        kind="diffusers", model=EVIL, revision="b" * 40, steps=20, width=32, height=32
    )
    rows = (
        Row("digits", str(folder / "run"), made, None, 718, 718, settings={"steps": 20}),
        Row(EVIL, str(folder / "gone"), made, None, 700, 718, warnings=(EVIL,)),
        Row("a paper", None, Provenance(), Citation("https://example.org/p", "zero-shot"), 30_000, None),
        Row("another", None, Provenance(), Citation(f"javascript:alert(1) {EVIL}"), None, None),
    )  # fmt: skip
    cells = (
        cell("digits", "fd_digits", 2.5, (1, 1)), cell(EVIL, "fd_digits", 12.5, (2, 2)),
        cell("digits", "clip_score", 93.9, (1, 2)), cell(EVIL, "clip_score", 94.1, (1, 2)),
        cell("a paper", "fd_digits", 3.5), cell("another", "fid 2", 9.0), cell(EVIL, EVIL, 1e9),
    )  # fmt: skip
    columns = (
        column("fd_digits", False), column("clip_score", True),
        column("fid 2", False, cited_only=True, n_ranked=0),
        column(EVIL, None, n_ranked=0, compared="neither direction is better", fingerprint=None),
    )  # fmt: skip
    standings = (
        Standing("digits", 1, 0.75, 0.6, 0.8, 2, 0.7, 0.9, 1, 1, {"fd_digits": 1.0}),
        Standing(EVIL, 2, 0.25, 0.2, 0.4, 2, 0.3, 0.9, 2, 2, {"fd_digits": 0.0}),
    )
    variant = Variant(f"without {EVIL}", ("digits", EVIL), {"digits": 1.0, EVIL: 0.0}, 1.0)
    robustness = Robustness(
        (RankAgreement("fd_digits", "clip_score", -1.0, 2),), (variant,), (variant,), 1000, 0.8, 0.5
    )
    remarks = (f"{EVIL} could not be read.",)
    return Board(rows, columns, cells, standings, robustness, remarks, faults=(f"row 3: {EVIL}",))

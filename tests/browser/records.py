"""A comparison and a leaderboard with every kind of entry, and with hostile names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluator.compare.records import (
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


def comparison(paths: list[Path]) -> Comparison:
    """The first run against each of the others."""
    runs = [facts(letter, path) for letter, path in zip("ABC", paths)]
    runs[1] = replace(runs[1], name=f"digits {EVIL}", guidance_scale=1.0)
    pairings = tuple(pairing(run.letter) for run in runs[1:])
    return Comparison(tuple(runs), pairings, tag="colour", permutations=10_000)

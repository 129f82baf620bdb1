"""What is ranked together, and what is not: said of the cell, with both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluator.leaderboard import Board, Cell, leaderboard
from tests.leaderboard.synthetic import MeanNumber, SetNumber, make_run

FEW = 50
"""Resamples where a test is not about them."""


def scores(seed: int, shift: float = 0.0, n: int = 100) -> np.ndarray:
    hardness = np.random.default_rng(99).normal(size=n)
    return hardness + shift + 0.2 * np.random.default_rng(seed).normal(size=n)


def board_of(*runs: Path) -> Board:
    return leaderboard(list(runs), num_resamples=FEW)


def cell(board: Board, row: str, column: str) -> Cell:
    found = board.cell(row, column)
    assert found is not None
    return found


def test_means_over_the_same_prompts_are_told_apart_within_their_intervals(tmp_path: Path) -> None:
    """Their intervals overlap widely; prompt by prompt one is better on almost all."""
    runs = [make_run(tmp_path / n, [MeanNumber("clip_score", scores(i, shift))])
            for i, (n, shift) in enumerate({"a": 0.0, "b": 0.01, "c": 0.12}.items())]  # fmt: skip
    board = board_of(*runs)
    (column,) = board.columns
    assert (column.compared, column.n_ranked) == ("paired by prompt", 3)
    first, second = cell(board, "c", "clip_score"), cell(board, "b", "clip_score")
    assert first.interval
    assert second.value is not None
    assert first.interval.low < second.value < first.interval.high
    shown = {c.row: c.rank.shown for c in board.cells if c.rank}
    assert shown == {"a": "2–3", "b": "2–3", "c": "1"}
    assert {c.row: c.place for c in board.cells}["c"] == 1


def test_without_scores_of_samples_means_are_compared_by_their_intervals(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / n, [MeanNumber("clip_score", scores(i, shift), table=n != "b")])
            for i, (n, shift) in enumerate({"a": 0.0, "b": 0.01, "c": 0.2}.items())]  # fmt: skip
    board = board_of(*runs)
    assert board.columns[0].compared == "from the intervals"
    assert {c.rank.shown for c in board.cells if c.rank} == {"1–3"}
    (remark,) = board.remarks
    assert "no scores of single samples that give the number in " in remark
    assert str(runs[1]) in remark
    assert "evaluator aggregate" in remark


def test_scores_that_are_not_those_of_the_number_are_not_taken(tmp_path: Path) -> None:
    """A table of an older aggregation says another mean than metrics.json."""
    runs = [
        make_run(tmp_path / n, [MeanNumber("clip_score", scores(i))]) for i, n in enumerate("ab")
    ]
    text = (runs[1] / "metrics.json").read_text()
    value = float(np.mean(scores(1)))
    assert str(value) in text
    (runs[1] / "metrics.json").write_text(
        text.replace(f'"value": {value}', f'"value": {value + 0.01}')
    )
    assert board_of(*runs).columns[0].compared == "from the intervals"


def test_samples_that_some_runs_lack_do_not_keep_them_from_being_paired(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [MeanNumber("clip_score", scores(0, 0.2, 300))], num_prompts=300)
    b = make_run(tmp_path / "b", [MeanNumber("clip_score", scores(1, 0.0, 300))], num_prompts=300)
    c = make_run(tmp_path / "c", [MeanNumber("clip_score", scores(2, 0.0, 300))], num_prompts=300)
    import pyarrow.parquet as pq

    from evaluator.leaderboard.samples import PromptNumbers, influence_of, tables_of

    table = pq.read_table(b / "metrics/clip_score.parquet")
    shorter = table.slice(2).replace_schema_metadata(table.schema.metadata)
    pq.write_table(shorter, b / "metrics/clip_score.parquet")
    prompts = PromptNumbers()
    value = float(np.mean(scores(1, 0.0, 300)[2:]))
    whole = influence_of(tables_of(a)["clip_score"], float(np.mean(scores(0, 0.2, 300))), prompts)
    part = influence_of(tables_of(b)["clip_score"], value, prompts)
    assert whole is not None
    assert part is not None
    assert len(whole) == len(part) == 300
    assert (part[:2] == 0).all()
    assert part[2:].any()
    assert c.is_dir()


def test_sets_are_told_apart_when_their_errors_allow_it(tmp_path: Path) -> None:
    values = {"a": 10.0, "b": 10.3, "c": 20.0}
    runs = [make_run(tmp_path / n, [SetNumber("fid", v)]) for n, v in values.items()]
    board = board_of(*runs)
    assert board.columns[0].compared == "from the intervals"
    assert {c.row: c.rank.shown for c in board.cells if c.rank} == {
        "a": "1–2",
        "b": "1–2",
        "c": "3",
    }


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            {"fingerprint": "9" * 64},
            "another fingerprint of the extractor (99999999, not ffffffff)",
        ),
        ({"options": {"groups": 10}}, "other options (groups=10, not groups=20)"),
        ({"n": 60}, "60 of 100 samples"),
    ],
)
def test_a_number_that_answers_another_question_is_not_ranked(
    tmp_path: Path, other: dict[str, object], reason: str
) -> None:
    runs = [make_run(tmp_path / n, [SetNumber("fid", 10.0)]) for n in "ab"]
    runs.append(make_run(tmp_path / "c", [SetNumber("fid", 1.0, **other)]))  # type: ignore[arg-type]
    board = board_of(*runs)
    apart = cell(board, "c", "fid")
    assert apart.rank is None
    assert apart.reason == f"not comparable: {reason}"
    assert apart.value == 1.0
    assert board.columns[0].n_ranked == 2
    assert [s.row for s in board.standings] == ["a", "b"]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"prompts": "7" * 64}, "other prompts (77777777, not aaaaaaaa)"),
        ({"reference": "8" * 64}, "another reference (88888888, not bbbbbbbb)"),
        ({"num_prompts": 90}, "90 samples, not 100; the value depends on their number"),
    ],
)
def test_a_run_under_other_conditions_is_not_ranked(
    tmp_path: Path, setting: dict[str, object], reason: str
) -> None:
    runs = [make_run(tmp_path / n, [SetNumber("fid", 10.0)]) for n in "ab"]
    runs.append(make_run(tmp_path / "c", [SetNumber("fid", 1.0)], **setting))  # type: ignore[arg-type]
    apart = cell(board_of(*runs), "c", "fid")
    assert (apart.rank, apart.reason) == (None, f"not comparable: {reason}")


def test_few_samples_with_an_error_keep_no_run_from_its_rank(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", [SetNumber("fid", 10.0)], num_prompts=1000)
    b = make_run(tmp_path / "b", [SetNumber("fid", 12.0, n=995)], num_prompts=1000, errors=5)
    board = board_of(a, b)
    assert board.columns[0].n_ranked == 2
    assert board.rows[1].warnings == ("in no number: 5 samples with an error",)


def test_more_images_of_a_prompt_change_a_set_but_not_a_mean(tmp_path: Path) -> None:
    fid, twice = SetNumber("fid", 10.0), np.repeat(scores(1), 2)
    a = make_run(tmp_path / "a", [fid, MeanNumber("clip_score", scores(0))])
    b = make_run(tmp_path / "b", [fid, MeanNumber("clip_score", twice)], images=2)
    c = make_run(tmp_path / "c", [fid, MeanNumber("clip_score", scores(2))])
    board = board_of(a, b, c)
    assert cell(board, "b", "fid").reason.startswith("not comparable: 200 samples, not 100")
    assert board.columns[1].n_ranked == 3
    assert board.columns[1].compared == "paired by prompt"


def test_a_question_that_two_runs_answer_has_a_column_of_its_own(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / n, [SetNumber("fid", 10.0)]) for n in "abc"]
    runs += [make_run(tmp_path / n, [SetNumber("fid", 5.0)], reference="8" * 64) for n in "de"]
    board = board_of(*runs)
    assert [(c.id, c.label, c.n_ranked) for c in board.columns] == [
        ("fid#1", "fid [against real bbbbbbbb]", 3),
        ("fid#2", "fid [against real 88888888]", 2),
    ]


def test_what_a_configuration_calls_its_reference_does_not_matter(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / n, [SetNumber("fid", 10.0)]) for n in "ab"]
    runs.append(make_run(tmp_path / "c", [SetNumber("fid", 10.0)], called="coco"))
    assert board_of(*runs).columns[0].n_ranked == 3


def test_images_made_elsewhere_are_ranked_in_sets_whatever_their_prompts(tmp_path: Path) -> None:
    images = {"kind": "images", "id": None}
    runs = [
        make_run(tmp_path / n, [SetNumber("fid", v)], model=images, prompts=n * 64)
        for n, v in {"1": 10.0, "2": 20.0}.items()
    ]
    runs.append(make_run(tmp_path / "made", [SetNumber("fid", 30.0)]))
    board = board_of(*runs)
    assert [c.rank.shown for c in board.cells if c.rank] == ["1", "2", "3"]
    assert board.rows[0].provenance.steps is None
    assert board.rows[0].provenance.model == "prompts.txt"


def test_numbers_without_interval_direction_or_value_are_shown_and_not_ranked(
    tmp_path: Path,
) -> None:
    for name in "ab":
        make_run(
            tmp_path / name,
            [
                SetNumber("fid", 1.0, reach=None),
                SetNumber("kid", 1.0, higher_is_better=None),
                SetNumber("vendi_inception", None),
            ],
        )
    board = board_of(tmp_path)
    reasons = {(c.column, c.reason) for c in board.cells}
    assert reasons == {
        ("fid", "no interval: its noise is not known"),
        ("kid", "neither direction is better"),
        ("vendi_inception", "no value: it did not work"),
    }
    assert board.standings == ()
    assert board.robustness is None


def test_one_run_alone_has_no_rank(tmp_path: Path) -> None:
    board = board_of(make_run(tmp_path / "a", [SetNumber("fid", 10.0)]))
    assert cell(board, "a", "fid").reason == "no other run to be ranked with"
    assert board.standings == ()


def test_the_order_in_which_runs_are_given_changes_nothing(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / n, [SetNumber("fid", 10.0 + i), MeanNumber("clip_score", scores(i))])
        for i, n in enumerate("abcd")
    ]
    assert board_of(*runs) == board_of(*reversed(runs))


def test_images_made_elsewhere_are_ranked_in_means_with_a_remark(tmp_path: Path) -> None:
    for i, name in enumerate("ab"):
        numbers = [MeanNumber("clip_score", scores(i))]
        make_run(tmp_path / name, numbers, model={"kind": "images"}, prompts=f"{i}" * 64)
    board = board_of(tmp_path)
    assert (board.columns[0].compared, board.columns[0].n_ranked) == ("from the intervals", 2)
    assert "made elsewhere; whether for the same prompts is not known" in board.remarks[0]

"""Reading a study back: answers in, `study-results.json` and `answers.parquet` out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluator.durable import replacing, write_atomically
from evaluator.study.analysis import analyse
from evaluator.study.answers import Answer, find_answers, read_answers
from evaluator.study.records import Study, read_study
from evaluator.study.results import StudyResults

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS_FILE = "study-results.json"
TABLE_FILE = "answers.parquet"


class ReadStudy(NamedTuple):
    """A study with its answers."""

    study: Study
    answers: list[Answer]
    results: StudyResults


def read_back(folder: Path, given: Sequence[Path] = ()) -> ReadStudy:
    """The answers of a study, and what they say; writes both beside `study.json`.

    `given` are files of answers; without any, those in `answers/`.
    """
    study = read_study(folder)
    answers = read_answers(study, find_answers(folder, given))
    results = analyse(study, answers)
    write_table(answers_table(study, answers), folder / TABLE_FILE)
    content = json.dumps(results.record(), indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / RESULTS_FILE, content.encode())
    return ReadStudy(study, answers, results)


def answers_table(study: Study, answers: Sequence[Answer]) -> pa.Table:
    """One row an answer, decoded: what was shown where, and what was said of it.

    `left` and `right` are names of runs (a single image stands on the left), `preferred` is the
    run that was chosen, null for no difference; of single images it is null.
    """
    import pyarrow as pa

    rows = []
    for one in answers:
        images = [study.sources[shown.source].name for shown in one.item.images]
        sides = images[::-1] if one.trial.swapped else images
        pair = study.kind == "pairs"
        rows.append({
            "key": one.item.images[0].key, "image_index": one.item.images[0].image_index,
            "rater": one.rater, "trial": one.number, "item": one.trial.item,
            "repeat": one.trial.repeat, "check": one.item.check,
            "left": sides[0], "right": sides[1] if pair else None, "answer": one.answer,
            "preferred": images[one.choice] if pair and one.choice is not None else None,
            "seconds": one.seconds,
        })  # fmt: skip
    text, number = pa.string(), pa.int32()
    schema = pa.schema([
        ("key", text), ("image_index", number), ("rater", text), ("trial", number),
        ("item", number), ("repeat", pa.bool_()), ("check", pa.bool_()),
        ("left", text), ("right", text), ("answer", text), ("preferred", text),
        ("seconds", pa.float64()),
    ])  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)


def write_table(table: pa.Table, path: Path) -> None:
    """Replace the table of answers."""
    from evaluator.store import schemas

    with replacing(path) as aside:
        schemas.write_table(table, aside, kind="study_answers")

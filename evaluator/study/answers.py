"""Answers that raters sent: files from strangers, taken only where they answer this study."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.errors import InputError
from evaluator.report.text import plain
from evaluator.study.forms import ANSWERS_FORMAT, ANSWERS_VERSION
from evaluator.study.records import LEFT, TIE, Item, Study, Trial
from evaluator.text import count_of

MAX_BYTES = 4 * 2**20
"""Of a file of answers: some 60 bytes an answer, so this is far above any form."""

MAX_FAULTS = 50
"""Faults that are listed; the rest is counted."""

MAX_SECONDS = 30 * 24 * 3600.0
"""A question that was open longer was not being looked at."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, decoded."""

    rater: str
    number: int
    """Of the trial on the rater's form, from 1."""
    trial: Trial
    item: Item
    answer: str
    seconds: float | None

    @property
    def choice(self) -> int | None:
        """Of a pair: 0 for the item's first image, 1 for its second, None for no difference."""
        if self.answer == TIE:
            return None
        return int((self.answer == LEFT) == self.trial.swapped)

    @property
    def score(self) -> float:
        """Of a pair: 1 where the first image was chosen, 0 for the second, a half for a tie."""
        return 0.5 if self.choice is None else 1.0 - self.choice


def find_answers(folder: Path, given: Sequence[Path]) -> list[Path]:
    """The files given; without any, those in the study's own `answers/`. InputError for none."""
    from evaluator.study.records import ANSWERS

    found = list(given) or sorted((folder / ANSWERS).glob("*.json"))
    if not found:
        raise InputError(
            f"{folder}: expected files of answers, got none; put what raters saved into "
            f"{folder / ANSWERS}, or name the files"
        )
    return found


def read_answers(study: Study, paths: Sequence[Path]) -> list[Answer]:
    """Every answer of every file, by rater and trial; InputError with the faults of all files."""
    faults: list[str] = []
    found: dict[str, list[Answer]] = {}
    whose: dict[str, Path] = {}
    for path in paths:
        said: list[str] = []
        answers = _read_file(study, path, said)
        faults += [f"{plain(path, limit=300)}: {line}" for line in said]
        if answers is None:
            continue
        rater, given = answers
        if rater in whose:
            faults.append(
                f"{plain(path, limit=300)}: expected one file of each rater, got {rater} again "
                f"(also {plain(whose[rater], limit=300)}); keep one of them"
            )
        whose.setdefault(rater, path)
        found.setdefault(rater, given)
    if faults:
        shown = faults[:MAX_FAULTS] + [f"… and {len(faults) - MAX_FAULTS} more"] * (
            len(faults) > MAX_FAULTS
        )
        raise InputError(
            f"expected answers of the study {study.id}, got {count_of(len(faults), 'fault')}; "
            "nothing was counted. Mend or leave out the files:\n  - " + "\n  - ".join(shown)
        )
    order = [rater.name for rater in study.raters]
    return [one for name in order for one in sorted(found.get(name, []), key=lambda a: a.number)]


def _read_file(study: Study, path: Path, faults: list[str]) -> tuple[str, list[Answer]] | None:
    """The rater and the answers of a file; what is wrong goes to `faults`."""
    record = _load(path, faults)
    if record is None:
        return None
    if record.get("format") != ANSWERS_FORMAT or record.get("version") != ANSWERS_VERSION:
        faults.append(
            f"expected {ANSWERS_FORMAT!r} of version {ANSWERS_VERSION}, got "
            f"{_said(record.get('format'))} of version {_said(record.get('version'))}; take the "
            "file that the form saved"
        )
        return None
    if record.get("study") != study.id:
        faults.append(
            f"expected answers of the study {study.id}, got those of the study "
            f"{_said(record.get('study'))}; read them with its own folder"
        )
        return None
    rater = next((r for r in study.raters if r.name == record.get("rater")), None)
    if rater is None:
        names = f"{study.raters[0].name} to {study.raters[-1].name}"
        faults.append(f"expected a rater from {names}, got {_said(record.get('rater'))}")
        return None
    unknown = sorted(set(record) - {"format", "version", "study", "rater", "answers"})
    if unknown:
        faults.append(f"expected nothing but a form's answers, got also {_said(unknown)}")
    answers = record.get("answers")
    if not isinstance(answers, list):
        faults.append(f"answers: expected a list, got {_said(answers)}")
        return None
    return rater.name, list(_decoded(study, rater.name, rater.trials, answers, faults))


def _load(path: Path, faults: list[str]) -> Mapping[str, Any] | None:
    """The JSON object of a file of bounded size."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            faults.append(
                f"expected at most {MAX_BYTES // 2**20} MiB, got more; no form has so much"
            )
            return None
        record = json.loads(content, parse_constant=_refuse, object_pairs_hook=_once)
    except OSError as error:
        faults.append(f"expected a file of answers, got {error.strerror or error}")
        return None
    except (ValueError, RecursionError) as error:
        faults.append(f"expected JSON, got something else ({plain(error, limit=120)})")
        return None
    if not isinstance(record, Mapping):
        faults.append(f"expected a JSON object, got {_said(record)}")
        return None
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _decoded(
    study: Study, rater: str, trials: Sequence[Trial], answers: list[Any], faults: list[str]
) -> Iterator[Answer]:
    """The answers that are answers to a trial of this rater, each trial once."""
    seen: set[int] = set()
    for place, one in enumerate(answers):
        where = f"answers[{place}]"
        if not isinstance(one, Mapping) or set(one) - {"trial", "answer", "seconds"}:
            faults.append(f"{where}: expected trial, answer and seconds, got {_said(one)}")
            continue
        number, answer, seconds = one.get("trial"), one.get("answer"), one.get("seconds")
        if type(number) is not int or not 1 <= number <= len(trials):
            faults.append(f"{where}: expected a trial from 1 to {len(trials)}, got {_said(number)}")
            continue
        if number in seen:
            faults.append(f"{where}: expected each trial once, got {number} again")
            continue
        seen.add(number)
        if answer not in study.answers_allowed:
            allowed = ", ".join(study.answers_allowed)
            faults.append(f"{where}: expected one of {allowed}, got {_said(answer)}")
        elif not _is_duration(seconds):
            faults.append(f"{where}: expected seconds from 0 to 30 days, got {_said(seconds)}")
        else:
            trial = trials[number - 1]
            took = None if seconds is None else float(seconds)
            yield Answer(rater, number, trial, study.items[trial.item], answer, took)


def _is_duration(seconds: Any) -> bool:
    if seconds is None:
        return True
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return False
    return (isinstance(seconds, int) or math.isfinite(seconds)) and 0 <= seconds <= MAX_SECONDS


def _said(value: Any) -> str:
    """What a file said, short and on one line."""
    try:
        return plain(repr(value), limit=80)
    except (ValueError, RecursionError):
        return type(value).__name__

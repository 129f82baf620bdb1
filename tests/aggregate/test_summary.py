"""metrics.json of others: what is read is what was written, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluator.aggregate.stored import read_numbers, stored_summary
from evaluator.aggregate.summary import Counts, MetricRecord, Summary
from evaluator.errors import NumbersError

NUMBER = MetricRecord(
    "fid", 1.5, 10, 12, False,
    {"low": 1.0, "high": 2.0, "level": 0.95, "method": "jackknife", "covers": "FD at this n"},
    "clip", "0" * 64, {"name": "real", "n": 9}, ["few"], {"n_reference": 9.0}, {"tag": "value"},
)  # fmt: skip
SUMMARY = Summary(Counts(12, 12, 2, 0), (NUMBER,), ("k: failed",), "digest")


def test_numbers_are_read_as_they_were_written() -> None:
    assert Summary.from_record(json.loads(json.dumps(SUMMARY.record()))) == SUMMARY


@pytest.mark.parametrize(
    "damage",
    [
        {"name": None}, {"value": "1.5"}, {"value": 10**400}, {"value": float("nan")}, {"n": []},
        {"n": -1}, {"n_expected": 2**70}, {"n": True}, {"higher_is_better": "yes"},
        {"interval": {"low": 2.0, "high": 1.0, "level": 0.95}}, {"interval": [1.0, 2.0]},
        {"interval": {**(NUMBER.interval or {}), "high": 10**400}}, {"extractor": 1},
        {"reference": float("inf")}, {"reference": {"name": 1}}, {"reference": {"n": "9"}},
        {"warnings": 5}, {"warnings": [[]]}, {"details": []}, {"group": {"tag": 1}},
        {"replicates": []}, {"more": 1},
        {"name": "\ud800"}, {"extractor": "\udfff"},
    ],
)  # fmt: skip
def test_a_number_that_is_none_of_ours_is_refused(damage: dict[str, Any]) -> None:
    record = SUMMARY.record()
    record["metrics"][0] |= damage
    with pytest.raises((TypeError, ValueError)):
        Summary.from_record(record)


def test_counts_that_are_none_are_refused() -> None:
    record = SUMMARY.record()
    record["samples"]["planned"] = 10**400
    with pytest.raises(ValueError, match="expected whole numbers"):
        Summary.from_record(record)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            None,
            r"got no such file: this run has not been aggregated yet\. The same `evaluator run`",
        ),
        (b"{", r"got a file that cannot be read \(Expecting property name.*`evaluator aggregate"),
        (b"\xff\xfe", r"got a file that cannot be read \("),
        (b"[" * 100_000, r"got a file that cannot be read \("),
        (b"[]", r"got a file that does not hold them \(expected its format and .*`evaluator agg"),
        (b'{"format": 1, "metrics": {}}', r"does not hold them \(expected its format and"),
        (b'{"format": "1", "metrics": []}', r"does not hold them \(expected its format and"),
        (b'{"format": true, "metrics": []}', r"does not hold them \(expected its format and"),
        (b'{"format": 2}', r"or older, got 2\. Use the evaluator that wrote it\.$"),
    ],
)
def test_numbers_that_cannot_be_had_are_told_with_what_to_do(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(NumbersError, match=rf"/metrics\.json: expected .*{reason}") as caught:
        read_numbers(tmp_path)
    assert str(caught.value) == f"{tmp_path}/{caught.value.reason}"
    assert stored_summary(tmp_path) is None


def test_what_is_sound_is_read_beside_what_is_damaged(tmp_path: Path) -> None:
    record = SUMMARY.record()
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    assert read_numbers(tmp_path).summary() == stored_summary(tmp_path) == SUMMARY
    record["metrics"] += [7, {**record["metrics"][0], "n": -1}]
    record["samples"] |= {"errors": "2", "black": True}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    stored = read_numbers(tmp_path)
    assert (stored.sound(), len(stored.entries)) == ([NUMBER], 3)
    assert stored.samples == {"planned": 12, "committed": 12, "truncated": 0, "non_finite": 0}
    with pytest.raises(NumbersError, match="got a file that does not hold them"):
        stored.summary()
    assert stored_summary(tmp_path) is None

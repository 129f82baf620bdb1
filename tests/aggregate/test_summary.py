"""metrics.json of others: what is read is what was written, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evaluator.aggregate.summary import Counts, MetricRecord, Summary

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

"""The records of a comparison come back from JSON as they were, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evaluator.cli.compare_table import comparison_table
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
from evaluator.errors import InputError

SPAN = Span(-0.5, 1.5, 0.95, "paired t", "the mean difference")
FOUND = Difference(
    "clip_score", True, 30.0, 30.5, 0.5, 40, 20, "better", "found", SPAN, 0.01, 0.02, 2, "flips",
    "clip", "ab12", None, ("colour", "red"), Agreement(1, 2, 3, 4, 0.5, 0.4), ("few",),
)  # fmt: skip
MISSING = Difference("fid", False, None, None, None, 0, 0, "not comparable", "other references")
CHANGED = Changed("a", 1, "<script>", 1.0, 3.0, 2.0)
RUN = RunFacts(
    "A", "a", "/a", "images", None, None, 20, 3.0, 32, None, "float32", "0", 2, 40, 40, {"c": "ab"}
)
PAIRING = Pairing(
    "B", 40, 20, 0, 1, (("steps", "20", "10"),), (Refusal("fid", "no"),), ("w",),
    (FOUND, MISSING), (Movers("clip_score", True, (CHANGED,), ()),),
)  # fmt: skip
COMPARISON = Comparison((RUN, replace(RUN, letter="B")), (PAIRING,), "colour", 0.95, 9_999)


def test_a_comparison_comes_back_from_json_as_it_was():
    text = json.dumps(COMPARISON.record(), allow_nan=False)
    assert Comparison.from_record(json.loads(text)) == COMPARISON


def test_other_records_are_refused_with_what_is_wrong():
    record = json.loads(json.dumps(COMPARISON.record()))
    with pytest.raises(InputError, match="expected format 1, got 7"):
        Comparison.from_record({**record, "format": 7})
    with pytest.raises(InputError, match="expected what `compare` writes.*'runs'"):
        Comparison.from_record({name: part for name, part in record.items() if name != "runs"})
    record["pairings"][0]["differences"][0]["verdict"] = "superb"
    with pytest.raises(InputError, match="superb"):
        Comparison.from_record(record)


def test_the_exit_status_says_how_much_could_be_compared():
    whole = replace(PAIRING, refusals=(), differences=(FOUND,))
    nothing = replace(PAIRING, differences=(MISSING,))
    assert replace(COMPARISON, pairings=(whole,)).exit_status == 0
    assert COMPARISON.exit_status == 1
    assert replace(COMPARISON, pairings=(whole, nothing)).exit_status == 1
    assert replace(COMPARISON, pairings=(nothing,)).exit_status == 2


def test_numbers_that_could_not_be_computed_are_said_first_and_once_of_their_groups():
    red, blue = (replace(MISSING, group=("colour", name)) for name in ("red", "blue"))
    other = replace(red, why="one prompt")
    found = replace(PAIRING, differences=(FOUND, MISSING, red, blue, other)).not_compared
    assert found == (
        Refusal("fid", "no"), Refusal("fid", "other references"),
        Refusal(red.title, "one prompt"),
    )  # fmt: skip
    assert replace(PAIRING, refusals=(), differences=(FOUND,)).not_compared == ()
    text = repr(replace(COMPARISON, pairings=(replace(PAIRING, refusals=()),)))
    assert text.index("not compared: fid: other references") < text.index("clip_score")


def test_what_fell_is_an_improvement_where_lower_is_better():
    rise, fall = CHANGED, replace(CHANGED, difference=-2.0)
    movers = Movers("score", False, (rise,), (fall,))
    assert (movers.improved, movers.worsened) == ((fall,), (rise,))
    movers = replace(movers, higher_is_better=None)
    assert (movers.improved, movers.worsened) == ((rise,), (fall,))


@pytest.mark.parametrize(
    ("low", "family", "said"), [(0.1, 8, True), (-0.1, 8, False), (0.1, 1, False)]
)
def test_no_difference_beside_an_interval_without_0_is_explained(low, family, said):
    found = replace(
        FOUND, verdict="no difference found", interval=SPAN._replace(low=low), family=family,
        p=0.018, p_adjusted=0.12,
    )  # fmt: skip
    pairing = replace(PAIRING, differences=(found,))
    text = comparison_table(replace(COMPARISON, pairings=(pairing,)))
    why = "this interval alone leaves out 0: p is 0.02 before Holm's correction over 8 tests"
    assert (why in text) == said

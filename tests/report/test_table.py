"""Results in a terminal."""

from __future__ import annotations

from typing import Any

from evaluator.report import results_table


def test_columns_line_up(metrics: list[dict[str, Any]]) -> None:
    lines = results_table(metrics, width=None).splitlines()
    header, first = lines[0], lines[2]
    assert "95 % interval" in header
    end = header.index("value") + len("value")
    assert first[:end].endswith("12.346")
    assert first.startswith("fd_digits ↓")
    assert "19 / 20" in first
    assert first.endswith("digits bfa3bcfe")


def test_symmetric_interval_is_a_half_width(metrics: list[dict[str, Any]]) -> None:
    text = results_table(metrics, width=None)
    assert "± 0.200" in text
    assert "11.500 – 13.100" in text, "an interval that is not centred keeps its bounds"


def test_warnings_stand_beneath_their_number(metrics: list[dict[str, Any]]) -> None:
    lines = results_table(metrics, width=None).splitlines()
    assert lines[3] == "  ! 19 samples: below 10,000"


def test_control_characters_never_reach_the_terminal() -> None:
    hostile = {"name": "a\x1b]0;owned\x07b\x9b31m\u202ec\n", "value": 1.0, "warnings": ["\x1b[2J!"]}
    text = results_table([hostile], width=80)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text.replace("\n", ""))
    assert "\u202e" not in text
    assert text.splitlines()[2].startswith("ab31mc ")


def test_narrow_terminal_drops_the_extractor_and_wraps_warnings(
    metrics: list[dict[str, Any]],
) -> None:
    long = [{**metrics[0], "warnings": ["word " * 40]}]
    lines = results_table(long, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "digits" not in lines[2].removeprefix("fd_digits")


def test_missing_value_is_a_dash(metrics: list[dict[str, Any]]) -> None:
    assert "—" in results_table(metrics[2:], width=None)
    assert results_table([], width=None) == "no metrics"


def test_a_warning_that_neighbours_share_is_said_once_beneath_the_last() -> None:
    rows = [{"name": name, "value": 1.0, "warnings": ["few samples"]} for name in "abc"]
    lines = results_table([*rows, {"name": "d", "value": 1.0, "warnings": []}]).splitlines()
    assert [line for line in lines if "!" in line] == ["  ! the 3 above: few samples"]
    assert lines.index("  ! the 3 above: few samples") == 5


def test_numbers_of_one_name_are_told_apart_by_their_reference() -> None:
    twice = [{"name": "fid", "value": 1.0, "reference": {"name": n, "n": 9}} for n in ("a", "b")]
    lines = results_table(twice, width=None).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["fid against a", "fid against b"]
    assert "against" not in results_table(twice[:1], width=None)

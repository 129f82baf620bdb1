"""`evaluator.compare(a, b)` from Python."""

from __future__ import annotations

import pytest

import evaluator
from evaluator import compare, open_run
from evaluator.comparison.records import Comparison
from evaluator.errors import ConfigError
from tests.small_runs import build_run


def test_runs_are_compared_by_path_or_opened(tmp_path):
    for name, offset in (("a", 0.0), ("b", 0.125)):
        build_run(tmp_path / name, name=name, offset=offset)
    found = evaluator.compare(tmp_path / "a", open_run(tmp_path / "b"), permutations=99)
    assert isinstance(found, Comparison)
    assert [run.name for run in found.runs] == ["a", "b"]
    assert found.pairings[0].n == 11
    assert compare(str(tmp_path / "a"), tmp_path / "b", permutations=99) == found


def test_a_comparison_is_shown_in_a_notebook_and_escaped(tmp_path):
    build_run(tmp_path / "<script>a")
    build_run(tmp_path / "b", offset=0.125)
    html = compare(tmp_path / "<script>a", tmp_path / "b", permutations=99)._repr_html_()
    assert "<script" not in html
    assert "A: &lt;script&gt;a (11 of 12 samples)" in html
    assert "B against A: 11 pairs of 6 prompts" in html
    assert "<td>clip_score ↑</td>" in html


def test_a_comparison_shows_itself_in_a_terminal_without_control_characters(tmp_path):
    build_run(tmp_path / "a", name="a\x1b[31m")
    build_run(tmp_path / "b", offset=0.125)
    lines = repr(compare(tmp_path / "a", tmp_path / "b", permutations=99)).splitlines()
    assert lines[0] == "Comparison"
    assert lines[1] == "  A: a (11 of 12 samples)"
    assert "B against A: 11 pairs of 6 prompts" in lines
    (titles,) = (line for line in lines if line.startswith("  metric"))
    (score,) = (line for line in lines if line.startswith("  clip_score"))
    assert titles.split()[-3:] == ["p", "(Holm)", "verdict"]
    assert score.index("clip_score") == titles.index("metric")
    assert titles.index("verdict") == len(score) - len(score.split("  ")[-1])


def test_one_metric_may_be_named_without_a_list_and_no_name_is_refused(tmp_path):
    for name, offset in (("a", 0.0), ("b", 0.125)):
        build_run(tmp_path / name, name=name, offset=offset)
    one = compare(tmp_path / "a", tmp_path / "b", metrics="clip_score", permutations=99)
    assert one == compare(tmp_path / "a", tmp_path / "b", metrics=["clip_score"], permutations=99)
    assert one.pairings[0].overall
    with pytest.raises(ConfigError, match="--metrics: expected names of metrics, got none"):
        compare(tmp_path / "a", tmp_path / "b", metrics=[])


def test_one_run_alone_is_refused(tmp_path):
    build_run(tmp_path / "a")
    with pytest.raises(ConfigError, match="expected 2 to 26 runs"):
        compare(tmp_path / "a")

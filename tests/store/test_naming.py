"""Runs that stand side by side have names that tell them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.store.naming import distinct_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/one/run", "/x/two/run", "/x/three"], ["one/run", "two/run", "three"]),
        (["/a/b/run", "/c/b/run"], ["a/b/run", "c/b/run"]),
        (["/a/run", "/b"], ["run", "b"]),
        ([], []),
    ],
)
def test_equal_names_take_as_much_of_their_paths_as_it_takes(paths, names):
    assert distinct_names([(Path(path).name, Path(path)) for path in paths]) == names


def test_names_of_configurations_are_kept_where_they_differ():
    assert distinct_names([("sd15", Path("/a/run")), ("sdxl", Path("/b/run"))]) == ["sd15", "sdxl"]


def test_an_end_of_a_path_that_is_anothers_name_is_told_from_it():
    runs = [("sd", Path("/a/x")), ("sd", Path("/a/y")), ("x", Path("/b/z"))]
    names = distinct_names(runs)
    assert names == ["x (/a/x)", "y (/a/y)", "x (/b/z)"]


def test_the_order_does_not_matter():
    runs = [("sd", Path("/a/run")), ("sd", Path("/b/run")), ("other", Path("/c"))]
    assert distinct_names(runs[::-1]) == distinct_names(runs)[::-1]

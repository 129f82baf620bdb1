"""The page of a comparison says what is missing, and is the same whenever it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evaluator.comparison.records import Comparison, Movers
from evaluator.errors import RunDirectoryError
from evaluator.report.comparison import write_comparison
from evaluator.report.comparison_pairs import PairScores
from evaluator.store.rundir import RunDirectory
from tests.browser.records import comparison, moved, pair_scores
from tests.report.conftest import HOSTILE, Recipe, build

Pair = tuple[Comparison, list[RunDirectory]]


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Pair]:
    """Two runs from one recipe, and their comparison."""

    def make(**changes: Any) -> Pair:
        runs = [build(tmp_path / name, Recipe(**changes)) for name in "ab"]
        return comparison([run.path for run in runs]), runs

    return make


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_writing_again_gives_the_same_bytes_and_keeps_the_data(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    found, runs = pair()
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparison.json").write_text(json.dumps(found.record()))
    pq.write_table(pair_scores(), out / "samples.parquet")
    page = write_comparison(found, runs, out)
    first = files(out)
    assert page == out / "index.html"
    assert {"comparison.json", "samples.parquet", "drawings/histogram-b-0.svg"} < set(first)
    write_comparison(found, runs, out)
    assert files(out) == first


def test_no_file_is_named_after_a_key_or_a_run(pair: Callable[..., Pair], tmp_path: Path) -> None:
    found, runs = pair()
    write_comparison(found, runs, tmp_path / "out")
    names = set(files(tmp_path / "out")) - {"index.html"}
    assert names
    assert all(name.startswith(("pictures/a-00", "pictures/b-00")) for name in names)


def test_runs_without_images_are_compared_all_the_same(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    found, runs = pair(images=False, probes=False)
    page = write_comparison(found, runs, tmp_path / "out").read_text()
    assert page.count("no image kept") == 2 * 4
    assert "heat map of" not in page
    assert "differences of single pairs" not in page  # no samples.parquet, no histogram


def test_pairs_without_heat_maps_say_how_to_keep_them(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    found, runs = pair()
    page = write_comparison(found, runs, tmp_path / "all").read_text()
    assert page.count("Where each word looks</summary>") == 4  # every pair has its maps
    assert "probes.attention.maps" not in page
    evil = replace(moved(16, -1.0), key="k'; touch x; '")
    late = (Movers("clip_score", True, (moved(17, 4.0), moved(0, 3.0)), (moved(15, -2.0), evil)),)
    found = replace(found, pairings=tuple(replace(p, movers=late) for p in found.pairings))
    page = write_comparison(found, runs, tmp_path / "some").read_text()
    assert re.findall(r"attention.maps=\[(.*?)\]", page) == ["k0015"]  # the only one without


def test_a_number_that_could_not_be_computed_is_told_before_any_number(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    found, runs = pair()
    bare = [replace(p, refusals=(), warnings=()) for p in found.pairings]
    failed = [
        replace(
            p,
            differences=tuple(
                replace(each, why="its features are lost")
                if each.verdict == "not comparable"
                else each
                for each in p.differences
            ),
        )
        for p in bare
    ]
    page = write_comparison(
        replace(found, pairings=tuple(failed)), runs, tmp_path / "o"
    ).read_text()
    (limits,) = re.findall(r'<section id="limits".*?</section>', page, re.DOTALL)
    assert "its features are lost" in limits
    assert "Nothing: every number" not in limits


def test_a_page_without_changed_pairs_does_not_say_that_there_is_no_score(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    found, runs = pair()
    still = replace(found, pairings=tuple(replace(p, movers=()) for p in found.pairings))
    page = write_comparison(still, runs, tmp_path / "out").read_text()
    assert "none differs, or none was asked for" in page


def test_one_file_holds_every_picture_and_leads_nowhere(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    found, runs = pair()
    write_comparison(found, runs, tmp_path / "out")
    beside = (tmp_path / "out" / "index.html").read_text()
    page = write_comparison(found, runs, tmp_path / "out", single_file=True).read_text()
    assert set(files(tmp_path / "out")) == {"index.html"}
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) == beside.count("<img ") > 20
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(address.startswith("#") for address in re.findall(r'<a [^>]*href="([^"]*)"', page))


def test_runs_that_lost_shards_show_the_rest(pair: Callable[..., Pair], tmp_path: Path) -> None:
    found, runs = pair(missing_shards=(0,))
    page = write_comparison(found, runs, tmp_path / "out").read_text()
    assert page.count("no image kept") == 2 * 4  # the pairs that changed were all of that shard
    assert "heat map of" in page


def test_a_folder_of_something_else_is_refused(pair: Callable[..., Pair], tmp_path: Path) -> None:
    found, runs = pair(images=False, probes=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match="`evaluator compare` wrote, got other files"):
        write_comparison(found, runs, tmp_path / "mine")
    assert files(tmp_path / "mine") == {"thesis.tex": b"years of work"}


def test_secrets_of_the_runs_stay_out(pair: Callable[..., Pair], tmp_path: Path) -> None:
    found, runs = pair(images=False, probes=False)
    page = write_comparison(found, runs, tmp_path / "out").read_text()
    assert "sk-hidden" not in page
    assert "api_key" in page
    assert HOSTILE not in page


def test_scores_of_other_runs_and_of_no_number_are_left_out(tmp_path: Path) -> None:
    table = pair_scores()
    rows = table.to_pylist()
    rows[0]["run"] = "C"
    rows[1]["clip_score_difference"] = None
    rows[2]["clip_score_difference"] = float("nan")
    pq.write_table(table.from_pylist(rows), tmp_path / "samples.parquet")
    scores = PairScores(tmp_path / "samples.parquet")
    assert [pair.key for pair in scores.of("clip_score", "B")] == [
        f"k{i:04d}" for i in range(3, 20)
    ]
    assert scores.of("nothing", "B") == []
    assert PairScores(tmp_path / "none.parquet").of("clip_score", "B") == []

"""A report can always be written, says what is missing, and replaces only a report."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from evaluator.errors import RunDirectoryError, StorageError
from evaluator.report import replaced, write_report
from evaluator.store.rundir import RunDirectory

Make = Callable[..., RunDirectory]


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def html(index: Path) -> str:
    return index.read_text(encoding="utf-8")


def test_default_place_is_inside_the_run(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False)
    assert write_report(run) == (run.path / "report" / "index.html").resolve()


def test_says_plainly_what_is_missing(make_run: Make) -> None:
    run = make_run(missing_shards=(1,), images=False, probes=False, timings=False, metrics=False)
    page = html(write_report(run))
    assert "Incomplete: 12 of 20 planned samples are committed." in page
    assert "2 of 3 shards are there" in page
    assert "this run has not been aggregated yet" in page
    assert "this run did not keep its images" in page
    for name in ("heatmaps", "attention", "latents", "schedule", "timings"):
        assert f"No {name}.parquet" in page


def test_run_without_any_shard(make_run: Make) -> None:
    page = html(write_report(make_run(missing_shards=(0, 1, 2), probes=False, metrics=False)))
    assert "Incomplete: 0 of 20 planned" in page
    assert "No shard is committed yet." in page


def test_numbers_older_than_the_shards_are_called_so(make_run: Make) -> None:
    run = make_run(missing_shards=(2,), probes=False)
    assert "The numbers are from 20 committed samples: aggregate again." in html(write_report(run))


def test_whoever_asks_is_told_what_is_missing_and_nothing_of_a_whole_run(make_run: Make) -> None:
    said: list[str] = []
    run = make_run()
    write_report(run, say=said.append)
    assert said == []
    shutil.rmtree(run.shard_path(2))
    damaged = run.shard_path(1) / "latents.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    write_report(run, say=said.append)
    assert said[0].startswith("Incomplete: ")
    assert said[0].endswith("The numbers are from 20 committed samples: aggregate again.")
    assert "latents.parquet: expected the table" in said[1]


def test_damaged_table_is_named_and_the_rest_is_shown(make_run: Make) -> None:
    run = make_run()
    damaged = run.shard_path(1) / "latents.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    page = html(write_report(run))
    assert "Files that could not be read" in page
    assert "latents.parquet" in page
    assert "latents-std.svg" in page, "the other shards' latents"


def test_damaged_metrics_become_a_sentence(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False)
    for content, said in (
        (b"{", "metrics.json: expected numbers, got a file that cannot be read"),
        (b"[" * 100_000, "got a file that cannot be read"),
        (b"[]", "does not hold them (expected its format and a list of metrics)"),
        (json.dumps({"format": 99, "metrics": []}).encode(), "expected format 1 or older, got 99"),
        (json.dumps({"format": 1, "metrics": [3, {}]}).encode(), "? / ?"),
    ):
        run.write("metrics.json", content)
        assert said in html(write_report(run))


def test_rewriting_gives_the_same_files_and_leaves_nothing_else(make_run: Make) -> None:
    run = make_run(num_samples=9)
    first = files(write_report(run).parent)
    assert files(write_report(run).parent) == first
    assert not list(run.path.glob(".*"))


def test_old_files_do_not_survive_a_new_report(make_run: Make) -> None:
    run = make_run(num_samples=3)
    folder = write_report(run).parent
    drawn = {path.name for path in folder.glob("latents-*.svg")}
    assert drawn
    for index in range(run.num_shards):
        (run.shard_path(index) / "latents.parquet").unlink()
    write_report(run)
    assert not drawn & {path.name for path in folder.iterdir()}


def test_files_of_others_in_the_folder_are_kept(make_run: Make, tmp_path: Path) -> None:
    run = make_run(num_samples=3, probes=False)
    folder = write_report(run).parent
    ours = set(files(folder))
    (folder / "notes").mkdir()
    (folder / "notes" / "thesis.svg").write_text("years of work")
    (folder / "thumbs" / "mine.webp").write_bytes(b"mine")
    (folder / "thesis").symlink_to(tmp_path)
    for _ in range(2):
        write_report(run)
        assert replaced.foreign(folder) == ["notes/thesis.svg", "thesis", "thumbs/mine.webp"]
    assert (folder / "notes" / "thesis.svg").read_text() == "years of work"
    assert (folder / "thesis").readlink() == tmp_path
    assert ours < set(files(folder))
    write_report(run, single_file=True)
    assert set(files(folder)) == {"index.html", "notes/thesis.svg", "thumbs/mine.webp"}


def older_report(final: Path) -> None:
    """A report that lists its page alone."""
    with replaced.replaced(final) as aside:
        (aside / "index.html").write_text('<meta name="referrer"> content="evaluator report"')


def newer_report(final: Path, name: str) -> None:
    """One that takes its place, and has a file besides."""
    with replaced.replaced(final) as aside:
        (aside / "index.html").write_text('<meta name="referrer">')
        (aside / name).write_text("drawn")


def test_a_file_of_others_under_a_name_of_the_report_is_kept_beside_it(tmp_path: Path) -> None:
    final = tmp_path / "report"
    older_report(final)
    (final / "latents.svg").write_text("mine")
    newer_report(final, "latents.svg")
    assert (final / "latents.svg").read_text() == "drawn"
    assert (final / "latents.svg.kept1").read_text() == "mine"


def test_a_folder_of_others_under_a_name_of_the_report_is_kept_beside_it(tmp_path: Path) -> None:
    final = tmp_path / "report"
    older_report(final)
    (final / "drawn" / "drawn").mkdir(parents=True)
    for name in ("a", "drawn/b", "drawn/drawn"):
        (final / "drawn" / name).with_suffix(".txt").write_text("mine")
    newer_report(final, "drawn")
    assert (final / "drawn").read_text() == "drawn"
    kept = {f"drawn.kept1/{name}" for name in ("a.txt", "drawn/b.txt", "drawn/drawn.txt")}
    assert set(files(tmp_path)) == {f"report/{n}" for n in ("index.html", "drawn", *kept)}


def test_files_of_others_that_cannot_be_moved_are_told_where_they_lie(tmp_path: Path) -> None:
    final, name = tmp_path / "report", "x" * 252  # no room for `.kept1` in a file's name
    older_report(final)
    (final / name).write_text("mine")
    message = r"report: the report is written, .* \(File name too long\): they lie in (.*)\. Move"
    with pytest.raises(StorageError, match=message) as caught:
        newer_report(final, name)
    told = re.search(message, str(caught.value))
    assert told is not None
    assert (Path(told[1]) / name).read_text() == "mine"
    assert (final / name).read_text() == "drawn"


@pytest.mark.parametrize("listed", ["5", "{", "null", "[" * 100_000])
def test_a_damaged_list_of_files_is_as_none(tmp_path: Path, listed: str) -> None:
    final = tmp_path / "report"
    final.mkdir()
    (final / "index.html").write_text(
        f'<meta content="evaluator report"><meta name="evaluator-files" content="{listed}">'
    )
    with replaced.replaced(final) as aside:
        (aside / "index.html").write_text('<meta name="referrer">')
    assert set(files(tmp_path)) == {"report/index.html"}


def test_reports_written_at_once_all_succeed_and_the_last_stays_whole(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False, images=False)
    alone = files(write_report(run).parent)
    with ThreadPoolExecutor(4) as pool:
        pages = [each.result() for each in [pool.submit(write_report, run) for _ in range(8)]]
    assert {str(page) for page in pages} == {str((run.path / "report" / "index.html").resolve())}
    assert files(run.path / "report") == alone
    assert not list(run.path.glob(".*"))


def test_folders_swapped_at_once_are_never_mixed(tmp_path: Path) -> None:
    final = tmp_path / "report"

    def put(number: int) -> None:
        aside = tmp_path / f".{number}.aside"
        aside.mkdir()
        for name in ("a", "b"):
            (aside / name).write_text(str(number))
        replaced.swap(aside, final)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(put, range(150)))
    assert (final / "a").read_text() == (final / "b").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_failed_writing_leaves_the_old_report(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(num_samples=3, probes=False)
    before = files(write_report(run).parent)

    def fail(*_: object) -> None:
        raise RuntimeError("stopped half way")

    monkeypatch.setattr("evaluator.report.write.render", fail)
    with pytest.raises(RuntimeError, match="half way"):
        write_report(run)
    assert files(run.path / "report") == before
    assert not list(run.path.glob(".*"))


def test_other_folders_are_never_replaced(make_run: Make, tmp_path: Path) -> None:
    run = make_run(num_samples=3, probes=False)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "index.html").write_text("<p>years of work</p>")
    for taken in (thesis, run.path, thesis / "index.html"):
        with pytest.raises(RunDirectoryError, match="something else"):
            write_report(run, taken)
    assert (thesis / "index.html").read_text() == "<p>years of work</p>"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write_report(run, empty).is_file()


def test_swap_restores_the_old_folder_when_the_new_one_is_gone(tmp_path: Path) -> None:
    final = tmp_path / "report"
    final.mkdir()
    (final / "index.html").write_text("old")
    with pytest.raises(FileNotFoundError):
        replaced.swap(tmp_path / ".report.gone.aside", final)
    assert (final / "index.html").read_text() == "old"


def test_csv_has_full_numbers_and_no_formulas(full_report: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((full_report / "results.csv").read_text())))
    assert float(rows[0]["value"]) == 12.3456
    assert rows[0]["direction"] == "lower is better"
    assert rows[2]["metric"] == "'@SUM(A1)"
    assert rows[2]["value"] == ""
    for row in rows:
        for name in ("metric", "extractor", "fingerprint", "reference", "warnings", "interval"):
            assert not row[name].startswith(("=", "+", "-", "@")), row


def test_the_points_of_all_curves_lie_beside_the_page(full_report: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((full_report / "curves.csv").read_text())))
    charts = {row["chart"] for row in rows}
    assert {"attention-sharpness", "latents-std"} <= charts
    assert all((full_report / f"{chart}.svg").is_file() for chart in charts)
    assert (full_report / "index.html").read_text().count('href="curves.csv"') == 2


def test_markdown_table_cannot_be_broken_by_its_cells(full_report: Path) -> None:
    lines = (full_report / "results.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert {line.replace(r"\|", "").count("|") for line in table} == {7}
    assert any(line.startswith("| clip\\_score ↑ | 93.700 |") for line in table)


def test_needs_no_torch_and_imports_at_once() -> None:
    code = (
        "import sys, evaluator.report; heavy = {'torch', 'PIL', 'pyarrow', 'jinja2', 'yaml'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "import evaluator.report.write; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("prompts", "title"),
    [("{limit: 24}", "digits, the first 24 prompts"), ("{limit: 1}", "digits, the first 1 prompt"),
     ("{limit: null}", "digits"), ("none", "digits")],
)  # fmt: skip
def test_the_heading_says_the_limit(make_run: Make, prompts: str, title: str) -> None:
    run = make_run(num_samples=3, probes=False)
    (run.path / "init" / "config.yaml").write_text(f"name: digits\nprompts: {prompts}\n")
    assert f"<h1>{title}</h1>" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "config",
    [
        "name: 2001-99-99",
        "[" * 5000 + "]" * 5000,
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghij"))
        + "\nmodel: {id: *j, kind: *j}\n",
    ],
    ids=["no date", "deep", "vast"],
)
def test_settings_that_are_none_leave_a_report(make_run: Make, config: str) -> None:
    run = make_run(num_samples=3, probes=False)
    (run.path / "init" / "config.yaml").write_text(config)
    page = write_report(run).read_text(encoding="utf-8")
    assert f"<h1>{run.path.name}</h1>" in page
    assert config.replace("&", "&amp;")[:40] in page

"""What cannot be compared is said first, by name, and never as a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evaluator.comparison.folder import default_folder, read_comparison
from evaluator.errors import InputError
from tests.comparison.synthetic import Toy, key_of, make_run
from tests.conftest import Ended

Compare = Callable[..., tuple[Ended, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reference, runs `a` and `b`, and others that differ from them in one way."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "real", Toy(prompts=40, images=1, seed=99, first=1000, metrics=()))
    toy = Toy(prompts=16, reference=folder / "real")
    others = {key_of(1): "other", key_of(2): "other"}
    changes = {
        "a": {},
        "b": {"seed": 1},
        "texts": {"content": others, "text": {key_of(1): "another", key_of(2): "another"}},
        "all-texts": {
            "content": {key_of(i): "other" for i in range(16)},
            "text": {key_of(i): "another" for i in range(16)},
        },
        "tagged-otherwise": {"content": others},
        "elsewhere": {"first": 500},
        "fingerprint": {"fingerprint": "cd" * 32},
        "reference": {"reference_content": "other images"},
        "options": {"metrics": ("fd_toy", {"name": "kd_toy", "degree": 2}, "clip_score_toy")},
        "few": {"metrics": ("clip_score_toy",)},
        "unfinished": {"committed": 2},
        "failed": {"failed": [key_of(0)]},
    }
    for name, change in changes.items():
        make_run(folder / name, toy.changed(**change))
    return folder


@pytest.fixture
def compared(runs: Path, tmp_path: Path, call: Callable[..., Ended]) -> Compare:
    """Compare runs of the folder by name; the ending, and all that was printed on one line."""

    def run(*names: str, options: tuple[object, ...] = ()) -> tuple[Ended, str]:
        paths = [runs / name for name in names]
        ended = call("compare", *paths, "--output", tmp_path / "out", *options)
        return ended, " ".join((ended.out + ended.err).split())

    return run


def test_all_compared_is_status_0_and_both_files_are_written(compared, tmp_path):
    ended, said = compared("a", "b")
    assert ended.status == 0
    assert "B against A: 32 pairs of 16 prompts; differs in seed 0 → 1" in said
    assert "no difference found" in said
    comparison = read_comparison(tmp_path / "out")
    assert comparison.exit_status == 0
    table = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert table.column_names[:3] == ["key", "image_index", "run"]
    assert table.num_rows == 32
    difference = table.column("clip_score_toy_difference").to_numpy()
    found = next(d for d in comparison.pairings[0].differences if d.name == "clip_score_toy")
    assert difference.mean() == pytest.approx(found.difference, rel=1e-12)
    assert compared("a", "b")[0].status == 0  # an earlier comparison is replaced


def test_other_prompts_under_the_same_keys_are_left_out(compared):
    ended, said = compared("a", "texts")
    assert ended.status == 1
    assert (
        "not compared: samples: expected the same prompts under the same keys, got others in B for "
        "4 of 32 samples (p-00001, p-00002), which are left out" in said
    )
    assert "28 pairs of 14 prompts" in said


def test_the_same_texts_with_other_tags_are_compared_with_a_warning(compared):
    ended, said = compared("a", "tagged-otherwise")
    assert ended.status == 0
    assert "the prompts of 4 samples have the same text in both runs and differ elsewhere" in said
    assert "32 pairs of 16 prompts" in said


def test_runs_without_a_prompt_in_common_are_not_compared(compared):
    ended, said = compared("a", "elsewhere")
    assert ended.status == 2
    assert "expected prompts of the same keys in both, got none: A has p-00000, …, B has" in said


def test_of_other_prompts_under_every_key_nothing_is_compared_and_nothing_else_is_said(compared):
    ended, said = compared("a", "all-texts")
    assert ended.status != 0
    assert "0 pairs of 0 prompts not compared: samples: " in said
    assert "compared on the 0" not in said


def test_other_features_are_refused_for_every_metric(compared):
    ended, said = compared("a", "fingerprint")
    assert ended.status == 2
    assert (
        "not compared: clip_score_toy: expected features of one extractor, got 'toy' with "
        "fingerprint abababab in A and cdcdcdcd in B" in said
    )


def test_another_reference_is_refused_by_name_and_means_are_compared(compared):
    ended, said = compared("a", "reference")
    assert ended.status == 1
    assert (
        "not compared: fd_toy: expected one reference for both, got 'real' in A and 'real' in B, "
        "which differ in content or features" in said
    )
    assert "clip_score_toy ↑" in said


def test_other_options_are_refused_with_both_values(compared):
    ended, said = compared("a", "options")
    assert ended.status == 1
    assert "kd_toy: expected the same options, got degree 3 in A and 2 in B" in said


def test_a_metric_of_one_run_alone_is_named(compared):
    ended, said = compared("a", "few")
    assert ended.status == 1
    assert "not compared: fd_toy: expected it of both runs, got none of B: add it to B's" in said
    ended, said = compared("few", "a")
    assert "not compared: fd_toy: expected it of both runs, got none of A" in said


def test_of_an_unfinished_run_what_is_there_is_compared_with_a_warning(compared):
    ended, said = compared("a", "unfinished")
    assert ended.status == 0
    assert "B is incomplete: 20 of 32 samples are there" in said
    assert "nothing was asked of B yet: it is taken to be asked what the other was" in said
    assert "20 pairs of 10 prompts" in said
    assert compared("unfinished", "a")[0].status == 0
    ended, said = compared("unfinished", "a", options=("--metrics", "clip_score_toy"))
    assert ended.status == 0


def test_two_unfinished_runs_cannot_be_compared(compared, runs, tmp_path, call):
    make_run(tmp_path / "other", Toy(prompts=16, committed=1))
    ended = call("compare", runs / "unfinished", tmp_path / "other", "--output", tmp_path / "out")
    assert ended.status == 2
    assert "expected asked.json" in " ".join(ended.out.split())


def test_samples_without_an_image_are_left_out_of_both(compared):
    ended, said = compared("a", "failed")
    assert ended.status == 0
    assert "B: 2 samples have no image, as the model failed" in said
    assert (
        "the 30 samples that both have, so that n is equal: 2 of A and 0 of B have no partner"
        in said
    )


@pytest.mark.parametrize("damage", ["metrics.json", "newer", "broken", "deep"])
def test_without_numbers_of_its_own_a_run_is_computed_from_its_tables(
    compared, runs, tmp_path, call, damage
):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "b", copy)
    path = copy / "metrics.json"
    path.unlink()
    if damage != "metrics.json":
        newer = json.loads((runs / "b" / "metrics.json").read_bytes()) | {"format": 9}
        text = {"newer": json.dumps(newer), "broken": "{", "deep": "[" * 100_000}
        path.write_text(text[damage])
    ended = call("compare", runs / "a", copy, "--output", tmp_path / "out")
    assert ended.status == 0
    first, second = (text.out.split("metric ")[1].split("comparison:")[0]
                     for text in (ended, compared("a", "b")[0]))  # fmt: skip
    assert first == second


@pytest.mark.parametrize("name", ["init/plan.parquet", "asked.json", "samples.parquet"])
def test_a_damaged_run_is_said_and_the_others_are_compared(runs, tmp_path, call, name):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "b", copy)
    damaged = copy / name if name != "samples.parquet" else copy / "shards/00001" / name
    damaged.write_bytes(b"{}")
    ended = call("compare", runs / "a", copy, runs / "b", "--output", tmp_path / "out")
    said = " ".join(ended.out.split())
    assert ended.status == 1
    assert "not compared: run B: " in said
    assert "C against A: 32 pairs" in said
    assert call("compare", copy, runs / "a", "--output", tmp_path / "out").status == 2


@pytest.mark.parametrize("content", [None, "{"])
def test_settings_that_cannot_be_read_are_said_and_not_called_different(
    runs, tmp_path, call, content
):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "b", copy)
    config = copy / "init" / "config.yaml"
    config.unlink()
    if content is not None:
        config.write_text(content)
    ended = call("compare", runs / "a", copy, "--output", tmp_path / "out")
    said = " ".join(ended.out.split())
    assert ended.status == 0
    assert "init/config.yaml of B cannot be read: its settings are not known" in said
    assert "differs in" not in said


def test_wrong_paths_are_all_said_at_once(runs, tmp_path, call):
    ended = call("compare", runs / "a", tmp_path / "none", tmp_path, runs / "a")
    assert ended.status == 2
    assert ended.err.count("expected a run directory") == 2
    assert "expected different runs, got" in ended.err
    one = call("compare", runs / "a")
    assert one.status == 2
    assert "expected 2 to 26 runs, the baseline first, got 1" in one.err


def test_wrong_names_of_metrics_are_refused_with_a_near_miss(compared):
    ended, said = compared("a", "b", options=("--metrics", "clip_scor_toy"))
    assert ended.status == 2
    assert "got 'clip_scor_toy'; did you mean 'clip_score_toy'?" in said


def test_a_folder_with_other_files_is_not_written_into(compared, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    ended, said = compared("a", "b")
    assert ended.status == 2
    assert "expected a new or empty folder, or one with a comparison" in said


def test_json_goes_to_standard_output_alone(compared):
    ended, _ = compared("a", "b", options=("--json", "-"))
    assert json.loads(ended.out)["runs"][1]["letter"] == "B"
    assert "verdict" in ended.err


def test_what_is_said_of_a_metric_is_not_said_again_of_each_group(compared):
    ended, said = compared("a", "b", options=("--by", "colour", "--metrics", "fd_toy"))
    assert ended.status == 0
    assert "fd_toy [colour=red] ↓" in said
    assert "fd_toy [colour=blue] ↓" in said
    assert said.count("generated samples: below 10000") == 1


def test_untrusted_texts_stay_texts(runs, tmp_path, call):
    evil = "\x1b[31m<script>alert(1)</script>"
    toy = Toy(prompts=16, reference=runs / "real", text={key_of(n): evil for n in range(16)})
    make_run(tmp_path / "x", toy)
    make_run(tmp_path / "y", toy.changed(seed=1))
    ended = call("compare", tmp_path / "x", tmp_path / "y", "--output", tmp_path / "out")
    assert ended.status == 0
    assert "<script>" in ended.out
    assert "\x1b" not in ended.out


def test_names_become_a_folder_without_leaving_this_one():
    assert default_folder(["one/run", "../../etc"]) == Path("compare-one-run-etc")
    assert len(default_folder(["x" * 300, "y"]).name) <= 120


def test_a_folder_without_a_comparison_is_said(tmp_path):
    with pytest.raises(InputError, match=r"expected comparison.json, which `evaluator compare`"):
        read_comparison(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [{"fingerprints": 1.5}, {"fingerprints": {"a": 1}}, {"request": 2.5}, {"references": []}],
)
def test_what_was_asked_may_be_damaged_in_any_way(compared, runs, tmp_path, damage):
    shutil.copytree(runs / "b", runs / "damaged-asked", dirs_exist_ok=True)
    path = runs / "damaged-asked" / "asked.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | damage))
    ended, said = compared("a", "damaged-asked")
    assert ended.status != 0
    assert "expected asked.json" in said


def test_settings_that_are_no_finite_numbers_are_not_known(compared, runs, tmp_path):
    shutil.copytree(runs / "b", runs / "endless", dirs_exist_ok=True)
    path = runs / "endless" / "init" / "config.yaml"
    path.write_text(path.read_text() + "\ngeneration: {guidance_scale: .inf}\n")
    ended, _ = compared("a", "endless")
    assert ended.status == 0
    assert read_comparison(tmp_path / "out").runs[1].guidance_scale is None


def test_a_table_that_is_a_link_is_replaced_and_not_followed(compared, tmp_path):
    assert compared("a", "b")[0].status == 0
    mine, table = tmp_path / "mine.txt", tmp_path / "out" / "samples.parquet"
    mine.write_text("mine")
    table.unlink()
    table.symlink_to(mine)
    assert compared("a", "b")[0].status == 0
    assert mine.read_text() == "mine"
    assert not table.is_symlink()

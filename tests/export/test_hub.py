"""Files for the Hugging Face hub, read back by huggingface_hub."""

from __future__ import annotations

import logging
import shutil

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, parse_eval_result_entries

from evaluator.errors import ConfigError, EvaluatorError, IncompleteError, InputError
from evaluator.export.options import ExportOptions
from evaluator.export.write import export_runs
from evaluator.runs import find_runs
from tests.small_runs import CONFIG, FINGERPRINT, METRICS, build_run

DATASET = ExportOptions(dataset="some-org/some-data")


def test_evaluation_results_are_as_kept_and_read_back(hostile_run, tmp_path, golden):
    exported = export_runs(find_runs([hostile_run]), "eval-results", tmp_path, DATASET)
    [path] = exported.files
    assert path.parent == tmp_path / ".eval_results"
    assert exported.warnings == (
        '=1+1: <script>alert("a")</script>, "b" # ../../c: @SUM(A1) has no value and is left out',
    )
    golden("eval_results.yaml", path.read_text())
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert [(entry.task_id, entry.value) for entry in entries] == [
        (record["name"], record["value"])
        for record in METRICS[:2]  # no groups, no gaps
    ]
    assert {entry.dataset_id for entry in entries} == {"some-org/some-data"}
    assert {entry.date for entry in entries} == {"2026-01-02T03:04:05Z"}
    assert entries[0].notes.startswith(
        "4 steps, guidance scale 3, seed 0; n = 11 of 12; 95 % interval 11.500 – 13.250; features clip"
    )
    assert "\x1b" not in path.read_text()


def test_a_model_card_is_as_kept_and_read_back(hostile_run, tmp_path, golden):
    [path] = export_runs(find_runs([hostile_run]), "model-card", tmp_path, DATASET).files
    golden("README.md", path.read_text())
    card = ModelCard.load(path)
    assert card.data.model_name == "some-model"
    results = card.data.eval_results
    assert [(r.metric_type, r.metric_value) for r in results] == [
        (record["name"], record["value"]) for record in METRICS[:2]
    ]
    for result, record in zip(results, METRICS[:2], strict=True):
        interval, reference = record["interval"], record["reference"] or {}
        assert result.metric_args == {
            "n": record["n"], "n_expected": record["n_expected"],
            "interval_low": interval["low"], "interval_high": interval["high"],
            "interval_level": interval["level"], "extractor": "clip", "fingerprint": FINGERPRINT,
            **({"reference": reference["name"], "reference_n": reference["n"]} if reference else {}),
        }  # fmt: skip
        assert result.dataset_type == "some-org/some-data"
    assert "12 of 12 samples: 4 steps, guidance scale 3, seed 0." in card.text
    for markup in ("<script", "<b>", "\x1b", "hf_verysecret", "token=abc"):
        assert markup not in path.read_text()


def test_a_run_whose_settings_cannot_be_read_is_published_without_them(tmp_path):
    run = build_run(tmp_path / "run").path
    (run / "init" / "config.yaml").write_text("- no settings")
    [path] = export_runs(find_runs([run]), "eval-results", tmp_path, DATASET).files
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert entries[0].notes.startswith("n = 11 of 12")


def test_a_card_that_is_there_keeps_its_text_and_the_results_of_others(small_run, tmp_path):
    other = EvalResult("text-to-image", "other/data", "Other", "fid", 7.5)
    card = ModelCard("---\nlicense: mit\n---\n# Mine\n\nWritten by hand.\n")
    card.data.model_name, card.data.eval_results = "mine", [other]
    card.save(tmp_path / "README.md")
    runs = find_runs([small_run])
    export_runs(runs, "model-card", tmp_path, DATASET)
    first = (tmp_path / "README.md").read_text()
    export_runs(find_runs([small_run]), "model-card", tmp_path, DATASET)
    assert (tmp_path / "README.md").read_text() == first
    again = ModelCard.load(tmp_path / "README.md")
    assert "Written by hand." in again.text
    assert again.data.license == "mit"
    assert again.data.model_name == "mine"
    assert {r.metric_type for r in again.data.eval_results} == {"fid", "fd_clip", "clip_score"}
    assert len(again.data.eval_results) == 3


def test_results_of_another_model_on_a_card_are_not_replaced(small_run, tmp_path):
    [path] = export_runs(find_runs([small_run]), "model-card", tmp_path, DATASET).files
    before = path.read_bytes()
    other = ExportOptions(dataset="some-org/some-data", model="an_other")
    message = "README.md: expected no results, or those of 'an_other', got results of 'some-model'"
    with pytest.raises(ConfigError, match=message + r"\. Name another --output, .*: --model\."):
        export_runs(find_runs([small_run]), "model-card", tmp_path, other)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["# Mine\n", "\n\nno heading", ""])
def test_a_readme_without_metadata_becomes_a_card_without_a_warning(
    small_run, tmp_path, caplog, monkeypatch, text
):
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    (tmp_path / "README.md").write_text(text)
    [path] = export_runs(find_runs([small_run]), "model-card", tmp_path, DATASET).files
    assert caplog.records == []
    assert text.strip() in ModelCard.load(path).text


def test_two_runs_of_one_model_are_told_apart_on_its_card(tmp_path):
    for name in ("a", "b"):
        build_run(tmp_path / "runs" / name, name=name)
    [path] = export_runs(find_runs([tmp_path / "runs"]), "model-card", tmp_path, DATASET).files
    names = [result.metric_name for result in ModelCard.load(path).data.eval_results]
    assert names == ["fd_clip (a)", "clip_score (a)", "fd_clip (b)", "clip_score (b)"]


def test_runs_of_two_models_have_no_common_card(tmp_path, monkeypatch):
    build_run(tmp_path / "runs" / "a", name="a")
    monkeypatch.setitem(CONFIG, "model", {"kind": "diffusers", "id": "another/model"})
    build_run(tmp_path / "runs" / "b", name="b")
    with pytest.raises(ConfigError, match="got a: some-org/some-model, b: another/model"):
        export_runs(find_runs([tmp_path / "runs"]), "model-card", tmp_path, DATASET)


@pytest.mark.parametrize("target", ["eval-results", "model-card"])
def test_numbers_of_an_incomplete_run_are_published_only_when_allowed(tmp_path, target):
    build_run(tmp_path / "run", missing=[1])
    with pytest.raises(IncompleteError, match="got 8 of 12 samples.*--allow-incomplete"):
        export_runs(find_runs([tmp_path / "run"]), target, tmp_path / "out", DATASET)
    whole = build_run(tmp_path / "later")
    shutil.rmtree(whole.shard_path(1))  # its metrics.json still counts all of them
    with pytest.raises(IncompleteError, match="got 8 of 12 samples.*--allow-incomplete"):
        export_runs(find_runs([whole.path]), target, tmp_path / "out", DATASET)
    assert not (tmp_path / "out").exists()
    allowed = ExportOptions(dataset="some-org/some-data", allow_incomplete=True)
    exported = export_runs(find_runs([tmp_path / "run"]), target, tmp_path / "out", allowed)
    assert "incomplete, 8 of 12 samples" in exported.warnings[0]


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("eval-results", {}, "--dataset: expected the id of a data set on the hub.*got none"),
        ("eval-results", {"dataset": "no-owner"}, "got 'no-owner'"),
        ("eval-results", {"dataset": "a/b c"}, "got 'a/b c'"),
        ("csv", {"dataset": "a/b"}, "--dataset: expected with --to eval-results or model-card, got"),
        ("wandb", {"allow_incomplete": True}, "--allow-incomplete: expected with"),
        ("trackio", {"project": "../up"}, "--project: expected letters.*'up' would do"),
        ("excel", {}, "--to: expected one of csv, json"),
    ],
)  # fmt: skip
def test_options_that_are_missing_wrong_or_without_effect_are_refused(
    small_run, tmp_path, target, options, message
):
    with pytest.raises(ConfigError, match=message):
        export_runs(find_runs([small_run]), target, tmp_path / "out", ExportOptions(**options))
    assert not (tmp_path / "out").exists()


def test_an_unknown_number_is_told_with_the_nearest(small_run, tmp_path):
    options = ExportOptions(dataset="a/b", metrics=("clip_scor",))
    with pytest.raises(InputError, match="Did you mean 'clip_score'"):
        export_runs(find_runs([small_run]), "eval-results", tmp_path, options)
    options = ExportOptions(dataset="a/b", metrics=("clip_score",))
    [path] = export_runs(find_runs([small_run]), "eval-results", tmp_path, options).files
    assert [entry["dataset"]["task_id"] for entry in yaml.safe_load(path.read_text())] == [
        "clip_score"
    ]


@pytest.mark.parametrize("target", ["eval-results", "model-card", "tensorboard"])
def test_without_numbers_there_is_nothing_to_publish(tmp_path, target):
    build_run(tmp_path / "run", metrics=False)
    options = DATASET if target != "tensorboard" else None
    with pytest.raises(EvaluatorError, match="expected numbers, got none.\n.*no such file"):
        export_runs(find_runs([tmp_path / "run"]), target, tmp_path / "out", options)


def test_the_verb_says_where_the_files_are_and_what_is_missing(call, tmp_path):
    build_run(tmp_path / "run", missing=[1])
    ended = call("export", tmp_path / "run", "--to", "csv", "--output", tmp_path / "out")
    assert ended.status == 0
    assert ended.out.splitlines() == [f"{tmp_path}/out/{n}.csv" for n in ("results", "samples")]
    assert ended.err == (
        "warning: small: incomplete, 8 of 12 samples; a number says how many it stands on\n"
    )
    ended = call("export", tmp_path / "run", "--to", "eval-results", "--dataset", "a/b")
    assert ended.status == 3
    assert "expected a complete run" in ended.err
    ended = call("export", tmp_path / "run", "--to", "csv", "--dataset", "a/b")
    assert ended.status == 2
    ended = call("export", tmp_path / "nothing", "--to", "csv")
    assert (ended.status, "got nothing there" in ended.err) == (2, True)

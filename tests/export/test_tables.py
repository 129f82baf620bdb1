"""CSV, JSON and Parquet of runs: as kept, read back by what reads them, safe in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import math

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from evaluator.errors import CorruptShardError, EvaluatorError, StorageError
from evaluator.export.csv_tables import as_csv
from evaluator.export.json_tables import as_json, as_lines
from evaluator.export.tidy import RESULTS
from evaluator.export.write import export_runs
from evaluator.runs import find_runs, open_run
from tests.small_runs import HOSTILE_NAME, METRICS, PROMPTS, build_run


@pytest.mark.parametrize(
    ("target", "files"),
    [("csv", ["results.csv", "samples.csv"]), ("json", ["results.json", "samples.jsonl"])],
)
def test_tables_are_as_kept(hostile_run, tmp_path, golden, target, files):
    exported = export_runs(find_runs([hostile_run]), target, tmp_path / "out")
    assert [path.name for path in exported.files] == files
    assert exported.exit_status == 0
    assert not exported.warnings
    for path in exported.files:
        golden(path.name, path.read_text())


def test_no_cell_of_text_can_become_a_formula_or_an_escape_sequence(hostile_run, tmp_path):
    export_runs(find_runs([hostile_run]), "csv", tmp_path)
    num_text = 0
    for name in ("results.csv", "samples.csv"):
        for row in csv.reader(io.StringIO((tmp_path / name).read_text())):
            for cell in row:
                assert "\x1b" not in cell
                assert "\u202e" not in cell
                try:
                    float(cell)
                except ValueError:
                    num_text += 1
                    assert not cell.strip().startswith(("=", "+", "-", "@", "|", "%"))
    assert num_text > 50


def test_numbers_of_csv_are_exact_and_samples_carry_their_scores(hostile_run, tmp_path):
    export_runs(find_runs([hostile_run]), "csv", tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert [float(row["value"]) for row in rows if row["value"]] == [
        record["value"] for record in METRICS if record["value"] is not None
    ]
    samples = list(csv.DictReader(io.StringIO((tmp_path / "samples.csv").read_text())))
    assert [float(row["clip.text_cosine"]) for row in samples[:2]] == [0.25, 0.265625]
    assert samples[6]["realism"] == ""
    assert {row["run"] for row in samples} == {
        "'" + '=1+1: <script>alert("a")</script>, "b" # ../../c'
    }
    table = pa.csv.read_csv(  # another reader, with line breaks in cells
        tmp_path / "samples.csv", parse_options=pa.csv.ParseOptions(newlines_in_values=True)
    )
    assert table.num_rows == 12
    assert table.column("clip.text_cosine").null_count == 1


def test_json_is_strict_and_holds_texts_as_they_are(hostile_run, tmp_path):
    export_runs(find_runs([hostile_run]), "json", tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    whole = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert whole["runs"][0]["complete"] is True
    assert whole["results"][0]["details"] == {"n_reference": 359.0}
    assert whole["results"][2]["tag_value"] == "=x <i>"
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines][::2] == list(PROMPTS)


def test_parquet_has_types_and_is_read_by_another_engine(hostile_run, tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="NOT TESTED: reading Parquet with DuckDB")
    export_runs(find_runs([hostile_run]), "parquet", tmp_path)
    results = pq.read_table(tmp_path / "results.parquet")
    assert results.schema.equals(RESULTS)
    assert results.column("warnings").to_pylist()[0] == METRICS[0]["warnings"]
    found = duckdb.sql(
        f"SELECT prompt, tags['region'] AS region, \"clip.text_cosine\" AS cosine"
        f" FROM '{tmp_path / 'samples.parquet'}'"
    ).fetchall()
    assert [row[0] for row in found][::2] == list(PROMPTS)
    assert found[0][1:] == ("=x <i>", 0.25)


def test_several_runs_share_one_table_and_lack_what_they_lack(tmp_path):
    build_run(tmp_path / "runs" / "a", name="a")
    build_run(tmp_path / "runs" / "b", name="b", missing=[2], metrics=False)
    exported = export_runs(find_runs([tmp_path / "runs"]), "parquet", tmp_path / "out")
    assert exported.warnings == (
        "b: incomplete, 8 of 12 samples; a number says how many it stands on",
    )
    [left_out] = exported.left_out
    assert left_out.startswith("b: no numbers: ")
    assert "evaluator aggregate RUN" in left_out
    assert exported.exit_status == 1
    samples = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert samples.column("run").to_pylist() == ["a"] * 12 + ["b"] * 8
    assert samples.column("realism").to_pylist()[12:] == [None] * 8
    assert set(pq.read_table(tmp_path / "out" / "results.parquet").column("run").to_pylist()) == {
        "a"
    }


def test_a_run_whose_settings_are_lost_is_exported_by_its_folder_s_name(tmp_path):
    build_run(tmp_path / "run")
    (tmp_path / "run" / "init" / "config.yaml").unlink()
    export_runs(find_runs([tmp_path / "run"]), "parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "samples.parquet").column("run")[0].as_py() == "run"


def test_a_place_that_cannot_be_written_is_named(small_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not create .*/file"):
        export_runs(find_runs([small_run]), "csv", tmp_path / "file")


def test_exporting_again_gives_the_same_bytes(small_run, tmp_path):
    for target in ("csv", "json", "parquet"):
        made = [
            {path.name: path.read_bytes() for path in export_runs(runs, target, folder).files}
            for folder in (tmp_path / "one", tmp_path / "two")
            for runs in [find_runs([small_run])]
        ]
        assert made[0] == made[1]


def test_values_that_a_format_lacks_are_left_empty():
    table = pa.table(
        {"=a": [math.nan, math.inf, 0.1], "b": [True, None, False], "c": [[1], [], None]}
    )
    assert as_csv(table) == "'=a,b,c\n,true,[1]\n,,\n0.1,false,\n"
    assert as_lines(table).splitlines()[0] == '{"=a": null, "b": true, "c": [1]}'
    assert as_json({"a": (1, math.nan)}) == '{"a": [1, null]}'


@pytest.mark.parametrize("hidden", ["=1", " =1", "\t=1", "\r=1", "\x00=1", "\u200b=1", "＝1", "@x"])
def test_signs_that_hide_are_found(hidden):
    [_, cell] = csv.reader(io.StringIO(as_csv(pa.table({"text": [hidden]}))))
    assert cell[0].startswith("'"), hidden


def test_the_name_of_the_hostile_run_is_hostile():
    assert HOSTILE_NAME.startswith("=")


@pytest.mark.parametrize("target", ["csv", "tensorboard", "eval-results"])
def test_a_run_without_its_plan_is_left_out_and_the_others_go(tmp_path, target, call):
    for name in "ab":
        build_run(tmp_path / name, name=name)
    (tmp_path / "b" / "init" / "plan.parquet").unlink()
    ended = call("export", tmp_path / "a", tmp_path / "b", "--to", target, "--output", tmp_path / "o",
                 *(["--dataset", "x/y"] if target == "eval-results" else []))  # fmt: skip
    assert ended.status == 1
    assert "left out: b: could not read" in ended.err
    assert "plan.parquet" in ended.err
    assert len(ended.out.splitlines()) >= 2
    alone = call("export", tmp_path / "b", "--to", target, "--output", tmp_path / "p",
                 *(["--dataset", "x/y"] if target == "eval-results" else []))  # fmt: skip
    assert alone.status == 1
    assert "could not read" in alone.err


@pytest.mark.parametrize("target", ["csv", "json", "parquet", "tensorboard"])
def test_a_damaged_run_is_left_out_with_its_reason_and_the_others_go(tmp_path, target):
    for name in ("whole", "broken"):
        build_run(tmp_path / name, name=name)
    (tmp_path / "broken" / "shards" / "00001" / "samples.parquet").unlink()
    runs = find_runs([tmp_path / "whole", tmp_path / "broken"])
    exported = export_runs(runs, target, tmp_path / "out")
    assert exported.exit_status == 1
    [said] = exported.left_out
    assert said.startswith("broken: ")
    assert "expected a file that was committed" in said
    assert len(exported.files) == (1 if target == "tensorboard" else 2)
    with pytest.raises(CorruptShardError, match="expected a file that was committed"):
        export_runs(find_runs([tmp_path / "broken"]), target, tmp_path / "other")


@pytest.mark.parametrize("damage", [{"warnings": 5}, {"reference": 1.5}, {"n": []}])
@pytest.mark.parametrize("target", ["csv", "parquet", "model-card"])
def test_damaged_numbers_are_said_and_the_samples_are_exported(tmp_path, target, damage):
    run = build_run(tmp_path / "run")
    path = run.path / "metrics.json"
    record = json.loads(path.read_bytes())
    record["metrics"][0] |= damage
    path.write_text(json.dumps(record))
    runs, folder = {"run": open_run(run.path)}, tmp_path / "out"
    if target == "model-card":
        with pytest.raises(EvaluatorError, match="expected numbers, got none"):
            export_runs(runs, target, folder)
    else:
        found = export_runs(runs, target, folder)
        assert "samples" in [path.stem for path in found.files]
        assert "does not hold them" in found.left_out[0]

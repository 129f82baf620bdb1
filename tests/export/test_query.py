"""SQL over the tables of runs: right answers, nothing else readable, plain errors."""

from __future__ import annotations

import csv
import io
import json

import pyarrow.parquet as pq
import pytest

from evaluator.errors import ConfigError, CorruptShardError
from evaluator.export.json_tables import as_lines
from evaluator.export.parquet_tables import write_parquet
from evaluator.export.query import Query, shown
from evaluator.runs import find_runs
from tests.small_runs import FAILED, PROMPTS, build_run

duckdb = pytest.importorskip("duckdb", reason="NOT TESTED: queries; pip install -e '.[test]'")


@pytest.fixture
def database(small_run):
    return Query(find_runs([small_run]))


def test_every_table_is_a_view(database):
    assert list(database.views) == [
        "attention", "features_clip", "latents", "metrics", "plan", "samples", "schedule",
        "scores_realism", "timings",
    ]  # fmt: skip
    columns = dict(database.tables())
    assert "features FLOAT[3]" in columns["features_clip"]
    assert "mass FLOAT" in columns["attention"]
    assert "warnings VARCHAR[]" in columns["metrics"]


@pytest.mark.parametrize("value", ["DATE '20000-01-01'", "TIMESTAMP '290000-01-01'"])
def test_a_date_beyond_pythons_is_refused_with_the_remedy(database, tmp_path, value):
    found = database.run(f"SELECT {value} AS late")
    with pytest.raises(ConfigError, match="CAST it to VARCHAR in the SELECT, or write --parquet"):
        shown(found, limit=1)
    with pytest.raises(ConfigError, match="CAST it to VARCHAR"):
        as_lines(found)
    write_parquet(found, tmp_path / "late.parquet")
    assert pq.read_table(tmp_path / "late.parquet").equals(found)
    [[text]] = shown(database.run(f"SELECT CAST({value} AS VARCHAR) AS late"), limit=1)
    assert text.startswith(value.split("'")[1])


def test_a_join_over_shards_gives_what_python_computes(database):
    found = database.run(
        "SELECT s.prompt, avg(f.text_cosine) AS cosine, max(r.realism) AS realism"
        " FROM samples s JOIN features_clip f USING (key, image_index)"
        " LEFT JOIN scores_realism r USING (key, image_index) GROUP BY s.key, s.prompt ORDER BY s.key"
    ).to_pylist()
    for i, row in enumerate(found):
        places = [p for p in (2 * i, 2 * i + 1) if p != FAILED]
        assert row["prompt"] == PROMPTS[i]
        assert row["cosine"] == pytest.approx(sum(0.25 + p / 64 for p in places) / len(places))
        judged = [0.5 + p / 16 for p in places if p not in (6, 7)]
        assert row["realism"] == (max(judged) if judged else None)


def test_half_precision_tags_and_steps_can_be_asked_for(database):
    [row] = database.run("SELECT sum(mass) s FROM attention WHERE step = 2").to_pylist()
    assert row["s"] == 12 * 0.375
    [row] = database.run(
        "SELECT count(*) n FROM samples WHERE tags['region'] = '=x <i>'"
    ).to_pylist()
    assert row["n"] == 12


def test_only_the_tables_that_a_query_names_are_opened(tmp_path):
    directory = build_run(tmp_path / "run")
    for index in directory.committed():
        (directory.shard_path(index) / "attention.parquet").write_bytes(b"damaged")
    database = Query(find_runs([tmp_path / "run"]))
    assert database.run("SELECT count(*) n FROM samples").to_pylist() == [{"n": 12}]
    with pytest.raises(CorruptShardError, match=r"attention\.parquet: .*got a damaged file"):
        database.run("SELECT count(*) FROM attention")


def test_damage_that_only_reading_shows_is_told_with_the_remedy(tmp_path):
    build_run(tmp_path / "run")
    path = tmp_path / "run" / "shards" / "00002" / "latents.parquet"
    content = bytearray(path.read_bytes())
    for place in range(20, 200):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptShardError, match="status RUN --verify"):
        Query(find_runs([tmp_path / "run"])).run("SELECT * FROM latents")


def test_a_table_of_an_older_schema_is_null_where_it_lacks_a_column(tmp_path):
    directory = build_run(tmp_path / "run")
    path = directory.shard_path(0) / "samples.parquet"
    old = pq.read_table(path)
    note = {"evaluator.schema": json.dumps({"kind": "samples", "version": 1})}
    pq.write_table(old.drop_columns(["flaw"]).replace_schema_metadata(note), path)
    database = Query(find_runs([tmp_path / "run"]))
    assert database.run("SELECT count(*) n FROM samples WHERE flaw IS NULL").to_pylist() == [
        {"n": 12}
    ]
    note = {"evaluator.schema": json.dumps({"kind": "samples", "version": 99})}
    pq.write_table(old.replace_schema_metadata(note), path)
    with pytest.raises(CorruptShardError, match="got version 99. A newer evaluator"):
        Query(find_runs([tmp_path / "run"])).run("SELECT * FROM samples")


def test_a_run_in_which_nothing_was_made_has_its_plan(tmp_path):
    build_run(tmp_path / "run", missing=[0, 1, 2], metrics=False)
    database = Query(find_runs([tmp_path / "run"]))
    assert list(database.views) == ["metrics", "plan"]
    assert database.run("SELECT count(*) n FROM plan").to_pylist() == [{"n": 12}]
    assert database.run("SELECT * FROM metrics").num_rows == 0
    with pytest.raises(ConfigError, match="got 'samples'. There are metrics, plan"):
        database.run("SELECT * FROM samples")


def test_of_several_runs_a_column_says_which(tmp_path):
    build_run(tmp_path / "a", name='it\'s "one"')
    build_run(tmp_path / "b", name="two", missing=[2], offset=1.0)
    database = Query(find_runs([tmp_path]))
    found = database.run(
        "SELECT run, count(*) n, round(avg(text_cosine), 3) m FROM features_clip GROUP BY run"
        " ORDER BY run"
    ).to_pylist()
    first = [0.25 + p / 64 for p in range(12) if p != FAILED]
    second = [1.25 + p / 64 for p in range(8) if p != FAILED]
    assert found == [
        {"run": 'it\'s "one"', "n": 12, "m": pytest.approx(sum(first) / 11, abs=1e-3)},
        {"run": "two", "n": 8, "m": pytest.approx(sum(second) / 7, abs=1e-3)},
    ]


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM read_csv('{secret}', header = false)",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_blob('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
        "SELECT * FROM query_table('{secret}')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "COPY samples TO '{folder}/written.csv'",
        "FROM query('COPY samples TO ''{folder}/written.csv''')",
        "EXPLAIN ANALYZE COPY samples TO '{folder}/written.csv'",
        "EXPORT DATABASE '{folder}/written'",
        "ATTACH '{folder}/written.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT 1; SET lock_configuration = false",
        "PRAGMA enable_profiling",
        "SELECT * FROM enable_logging(storage='file', storage_path='{folder}/log')",
        "SELECT * FROM enable_profiling(save_location='{folder}/profile.json')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM 'http://127.0.0.1:9/x.csv'",
        "SELECT * FROM read_duckdb('{secret}')",
        "SELECT * FROM json_execute_serialized_sql("
        "json_serialize_sql('SELECT * FROM read_text(''{secret}'')'))",
        "SELECT * FROM arrow_scan(NULL, NULL, NULL)",
        "SELECT * FROM pandas_scan(NULL)",
        "WITH x AS (DELETE FROM plan RETURNING *) SELECT * FROM x",
        "SELECT * FROM query('SELECT 1; INSTALL httpfs')",
        "SELECT getenv('HOME')",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW samples",
        "SELECT * FROM runs",  # a variable of a caller
        "SELECT * FROM database",
    ],
)
def test_a_query_reads_nothing_but_the_tables_and_writes_nothing(database, tmp_path, attack):
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as told:
        database.run(attack.format(secret=secret, folder=tmp_path))
    assert "a secret" not in str(told.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM smaples", "got 'smaples'. Did you mean samples. There are attention, "),
        ("SELECT promt FROM samples", '"promt" not found.*\n.*"prompt"'),
        ("SELECT (", "syntax error"),
        (
            "SELECT CAST(if(range > 500000, 'x', '1') AS INT) FROM range(600000)",
            "convert string 'x'",
        ),
        ("", "expected one SELECT, got nothing"),
        ("SELECT 1; SELECT 2", "expected one SELECT, got SELECT, SELECT"),
        ("UPDATE samples SET seed = 0", "expected one SELECT, got UPDATE"),
    ],
)
def test_a_mistake_is_told_with_what_there_is(database, sql, message):
    with pytest.raises(ConfigError, match=message):
        database.run(sql)


def test_the_verb_prints_a_table_without_escape_sequences(call, hostile_run):
    ended = call("query", hostile_run, "SELECT key, prompt FROM samples ORDER BY key", "--rows", 6)
    assert ended.status == 0
    assert all(character.isprintable() or character == "\n" for character in ended.out)
    assert "… 6 more rows" in ended.out
    assert len(ended.out.splitlines()) == 2 + 6 + 1


def test_without_sql_the_tables_are_listed(call, small_run):
    ended = call("query", small_run)
    assert ended.status == 0
    assert "features_clip\n  key VARCHAR\n" in ended.out


def test_results_go_to_files_that_are_read_back(call, small_run, tmp_path):
    sql = "SELECT key, prompt, seed, tags FROM samples WHERE image_index = 0 ORDER BY key"
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("csv", "json", "parquet")}
    options = [part for kind, path in paths.items() for part in (f"--{kind}", path)]
    assert call("query", small_run, sql, *options).status == 0
    rows = pq.read_table(paths["parquet"]).to_pylist()
    assert [row["prompt"] for row in rows] == list(PROMPTS)
    lines = [json.loads(line) for line in paths["json"].read_text().splitlines()]
    assert [line["prompt"] for line in lines] == list(PROMPTS)
    assert lines[0]["tags"] == {"region": "=x <i>"}
    cells = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
    assert cells[0]["prompt"] == "'" + PROMPTS[0]
    assert [int(cell["seed"]) for cell in cells] == [row["seed"] for row in rows]
    piped = call("query", small_run, sql, "--csv", "-")
    assert piped.out == paths["csv"].read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELECT 1"], "expected runs and then a SELECT"),
        (["{run}", "SELECT * FROM nothing"], "got 'nothing'"),
        (["{run}/nothing", "SELECT 1"], "expected a run directory"),
    ],
)
def test_bad_usage_ends_with_status_2(call, small_run, arguments, message):
    ended = call("query", *(part.format(run=small_run) for part in arguments))
    assert ended.status == 2
    assert message in ended.err


@pytest.mark.parametrize("shard", [0, 1])
def test_a_table_that_was_lost_from_a_shard_is_an_error_and_no_smaller_answer(tmp_path, shard):
    directory = build_run(tmp_path / "run")
    (directory.shard_path(shard) / "samples.parquet").unlink()
    with pytest.raises(CorruptShardError, match="expected a file that was committed"):
        Query(find_runs([directory.path])).run("SELECT count(*) FROM samples")


def test_a_run_without_numbers_is_named_where_numbers_are_asked_for(tmp_path, call):
    build_run(tmp_path / "a")
    build_run(tmp_path / "b", metrics=False)
    ended = call("query", tmp_path, "SELECT DISTINCT run FROM metrics", "--csv", "-")
    assert ended.out == "run\na\n"
    assert "warning: b: in metrics it has no rows: " in ended.err
    assert "metrics.json: expected numbers, got no such file" in ended.err
    assert call("query", tmp_path, "SELECT count(*) FROM plan").err == ""


def test_an_answer_from_an_incomplete_run_says_so(tmp_path, capsys):
    from evaluator.cli.query import query

    build_run(tmp_path / "run", name="half", missing=[1])
    query([str(tmp_path / "run"), "SELECT count(*) AS num FROM samples"], csv="-")
    printed = capsys.readouterr()
    assert printed.out == "num\n8\n"
    assert printed.err == "warning: half: incomplete, 8 of 12 samples are in its tables\n"

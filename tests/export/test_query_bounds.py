"""A query ends: by Ctrl-C at once, after its time, at its size; and its columns have names."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from evaluator.errors import ConfigError
from evaluator.export.bounded import fetch
from evaluator.export.query import Query
from evaluator.runs import find_runs

duckdb = pytest.importorskip("duckdb", reason="NOT TESTED: queries; pip install -e '.[test]'")


@pytest.fixture
def database(small_run):
    return Query(find_runs([small_run]))


ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range != b.range"


def test_a_query_that_does_not_end_is_given_up_and_the_next_one_runs(database):
    with pytest.raises(ConfigError, match="within 0.2 s, got none yet. Ask for less"):
        database.run(ENDLESS, seconds=0.2)
    with pytest.raises(ConfigError, match="within 0.2 s"):
        database.run("SELECT count(*) FROM " + ", ".join(f"latents l{i}" for i in range(9)),
                     seconds=0.2)  # fmt: skip
    assert database.run("SELECT count(*) n FROM samples").to_pylist() == [{"n": 12}]


def test_ctrl_c_ends_a_query_without_a_traceback(call, small_run, request):
    # A shell starts what runs in its background with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    interrupt = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    ended = call("query", small_run, ENDLESS, "--timeout", 300)
    interrupt.join()
    assert (ended.status, ended.out) == (130, "")


def test_a_result_larger_than_memory_is_refused():
    connection = duckdb.connect(":memory:")
    with pytest.raises(ConfigError, match="at most 0.25 GiB, got more. Name fewer columns"):
        fetch(connection, "SELECT * FROM range(100000000000)", max_bytes=2**28)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM summary(samples)",
        "SELECT 'é', * FROM \"Summary\" (samples)",
        "SELECT * FROM summary /* of */ -- all\n (samples)",
    ],
)
def test_a_function_that_does_not_end_is_refused_by_name(database, sql):
    with pytest.raises(ConfigError, match="SUMMARIZE samples, or SUMMARIZE SELECT"):
        database.run(sql)
    assert database.run("SELECT 'summary(samples)' AS summary").num_rows == 1
    rows = database.run("SUMMARIZE samples").to_pylist()
    assert {"key", "seed"} <= {row["column_name"] for row in rows}


def test_columns_of_one_name_are_told_apart(call, small_run):
    sql = "SELECT a.key, b.key, 1 AS key_1 FROM samples a, samples b WHERE a.key < b.key LIMIT 1"
    assert call("query", small_run, sql).out.split()[:3] == ["key", "key_2", "key_1"]
    row = json.loads(call("query", small_run, sql, "--json", "-").out)
    assert row["key"] < row["key_2"]
    assert row["key_1"] == 1

"""Tables on a terminal: never wider than it, and what was left out is named."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.report.fitted import fitted
from evaluator.report.table import aligned, columns_of
from tests.small_runs import build_run

WORDS = st.text("abc 数é", min_size=1, max_size=40).map(str.strip).filter(bool)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=4), st.integers(30, 120))
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int) -> None:
    titles = ("one", "two", "three")
    text = fitted(titles, rows, [["a note " * 9]] * len(rows), width=width)
    assert all(columns_of(line) <= width for line in text.splitlines())
    assert text.startswith("one")
    if fitted(titles, rows, [[]] * len(rows), width=None) == text:
        assert "left out" not in text


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_a_table_that_has_room_is_as_it_was(rows: list[tuple[str, ...]]) -> None:
    whole = aligned(("one", "two"), rows, [[]] * len(rows))
    assert fitted(("one", "two"), rows, [[]] * len(rows), width=None) == whole
    widest = max(map(columns_of, whole.splitlines()))
    assert fitted(("one", "two"), rows, [[]] * len(rows), width=widest) == whole


def test_texts_are_shortened_before_columns_go_and_numbers_never() -> None:
    titles, row = ("name", "prompt", "value", "seed"), ("a", "word " * 12, "0.123456", "12345678")
    text = fitted(titles, [row], [[]], width=50, rigid=(2, 3))
    assert text.splitlines()[0].split() == list(titles)
    assert "0.123456  12345678" in text
    assert "word wor…" in text
    narrow = fitted(titles, [row], [[]], width=36, rigid=(2, 3), elsewhere="ask for fewer")
    assert narrow.splitlines()[0].split() == ["name", "prompt", "value"]
    assert "left out to fit 36 columns: seed; ask for fewer" in narrow.replace("\n ", "")
    chosen = fitted(titles, [row], [[]], width=30, rigid=(2, 3), drop=(1, 2))
    assert chosen.splitlines()[0].split() == ["name", "value", "seed"]


def on_terminal(columns: int, *arguments: object) -> list[str]:
    """What a command prints where its output is a terminal so wide."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    words = [sys.executable, "-m", "evaluator", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, env=environment, check=True)
    assert done.stderr == b""
    os.close(theirs)
    printed = b""
    with suppress(OSError):  # how a terminal says that nothing is left
        while more := os.read(ours, 65536):
            printed += more
    os.close(ours)
    return printed.decode().replace("\r", "").splitlines()


def test_a_verb_fits_its_table_to_the_terminal_and_prints_whole_lines_elsewhere(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    pytest.importorskip("duckdb", reason="NOT TESTED: queries; pip install -e '.[test]'")
    build_run(tmp_path / "run")
    sql = "SELECT * FROM samples ORDER BY key LIMIT 2"
    shown = on_terminal(70, "query", tmp_path / "run", sql)
    assert max(map(columns_of, shown)) <= 70
    assert shown[0].startswith("key")
    assert shown[4].startswith("left out to fit 70 columns: ")
    whole = call("query", tmp_path / "run", sql).out
    assert "left out" not in whole
    assert max(map(columns_of, whole.splitlines())) > 100

"""Text that others wrote, made fit to show or to hand on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluator import text


@given(st.text(max_size=60))
@example("0\r\x1b\r0")
def test_plain_text_is_one_line_that_is_all_visible(said):
    shown = text.plain(said)
    assert all(c.isprintable() or c in "\u200c\u200d" for c in shown)
    assert shown == shown.strip() == text.plain(shown)


@given(st.text(max_size=40))
def test_a_formula_safe_cell_starts_no_formula(said):
    safe = text.formula_safe(said)
    assert not safe.lstrip().startswith(tuple("=+-@|%＝＋－＠"))
    assert safe.removeprefix("'") == said.removeprefix("'")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (30_000, "30,000 files")]
)
def test_a_count_goes_with_its_noun(count, said):
    assert text.count_of(count, "file") == said
    assert text.count_of(count, "x", "files") == said.replace("1 file", "1 x")


@given(st.text(max_size=200))
def test_a_file_name_is_one_safe_part_of_a_path(said):
    name = text.file_name(said)
    assert PurePosixPath(name).parts == (name,)
    assert name not in (".", "..")
    assert not name.startswith((".", "-"))
    assert name.isascii()
    assert 0 < len(name) <= 100
    assert text.file_name(name) == name


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "—"), (float("nan"), "—"), (0.0, "0.000"), (12.34567, "12.346"), (-0.5, "−0.50000"),
     (1e-7, "1.000e−07"), (2.5e8, "2.500e+08"), (float("-inf"), "−∞")],
)  # fmt: skip
def test_numbers_show_about_five_digits(value, shown):
    assert text.number(value) == shown


def test_secrets_are_left_out_wherever_they_are():
    settings = {
        "model": {"hub_token": "hf_x", "api-key": "k", "tokenizer": "clip", "password": None},
        "sources": ["https://u:p@host/file", "s3://bucket/x?X-Amz-Signature=abc&token=1"],
        "max_tokens": 77,
    }
    assert text.without_secrets(settings) == {
        "model": {
            "hub_token": "(redacted)", "api-key": "(redacted)", "tokenizer": "clip",
            "password": None,
        },
        "sources": ["https://(redacted)@host/file", "s3://bucket/x?(redacted)"],
        "max_tokens": 77,
    }  # fmt: skip
    lines = text.redacted("hub_token: hf_x\nsource: https://u:p@host/file\ntokenizer: clip")
    assert lines == "hub_token: (redacted)\nsource: https://(redacted)@host/file\ntokenizer: clip"


@pytest.mark.parametrize("piece", ["x", "a://b?", "token-"])
def test_a_long_word_of_others_takes_time_in_proportion_to_its_length(piece):
    """100 kB of one word once took minutes: here the system ends it after 20 s."""
    code = (
        "import resource; from evaluator import text; "
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 20)); "
        f"text.redacted(text.plain({piece!r} * (100_000 // len({piece!r}))))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

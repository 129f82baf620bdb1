"""The data of the digits world: reproducible, split cleanly, captioned truthfully."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluator.demo.digits import (
    BACKGROUNDS,
    COLOURS,
    PAIRS,
    RGB,
    TEST_PARQUET,
    WORDS,
    DigitSet,
    all_captions,
    caption,
    load,
    tint,
    write_parquet,
)
from evaluator.records import is_safe_key

pytest.importorskip("sklearn", reason="regenerating the digits needs scikit-learn")


@pytest.fixture(scope="module")
def train() -> DigitSet:
    return load("train")


@pytest.fixture(scope="module")
def test() -> DigitSet:
    return load("test")


def test_caption_names_colour_digit_and_background() -> None:
    assert caption(7, "red", "blue") == "a red seven on a blue background"


def test_tints_never_use_one_colour_twice() -> None:
    assert all(colour != background for colour, background in PAIRS)
    assert len(PAIRS) == 22
    assert len(set(all_captions())) == 220


def test_tint_paints_stroke_and_ground() -> None:
    ink = np.zeros((32, 32), dtype=np.float32)
    ink[0, 0] = 1.0
    image = tint(ink, "yellow", "grey")
    assert image.shape == (3, 32, 32)
    assert image.dtype == np.uint8
    assert tuple(image[:, 0, 0]) == RGB["yellow"]
    assert tuple(image[:, 5, 5]) == RGB["grey"]


def test_splits_are_disjoint_and_complete(train: DigitSet, test: DigitSet) -> None:
    assert not set(train.keys) & set(test.keys)
    assert len(set(train.keys) | set(test.keys)) == 1797
    assert all(is_safe_key(key) for key in train.keys + test.keys)


def test_split_holds_out_a_fifth_of_every_digit(train: DigitSet, test: DigitSet) -> None:
    held_out, kept = Counter(test.digits), Counter(train.digits)
    for digit in range(10):
        assert held_out[digit] == round(0.2 * (held_out[digit] + kept[digit]))


def test_every_tint_occurs_in_both_splits(train: DigitSet, test: DigitSet) -> None:
    for digits in (train, test):
        assert set(zip(digits.colours, digits.backgrounds, strict=True)) == set(PAIRS)


def test_parquet_is_written_with_equal_bytes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "one.parquet", "test")
    write_parquet(tmp_path / "two.parquet", "test")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_shipped_parquet_is_what_the_code_makes(tmp_path: Path, test: DigitSet) -> None:
    path = tmp_path / "test.parquet"
    write_parquet(path, "test")
    shipped, made = pq.read_table(TEST_PARQUET), pq.read_table(path)
    assert shipped.drop_columns("image").equals(made.drop_columns("image"))
    pixels = [np.asarray(Image.open(io.BytesIO(b))) for b in shipped["image"].to_pylist()]
    np.testing.assert_array_equal(np.stack(pixels).transpose(0, 3, 1, 2), test.images)
    # Another pyarrow or zlib may encode the same table in other bytes.
    written_by = [pq.read_metadata(p).created_by for p in (TEST_PARQUET, path)]
    if written_by[0] == written_by[1] and shipped.equals(made):
        assert TEST_PARQUET.read_bytes() == path.read_bytes()


def test_shipped_parquet_has_the_columns_that_pack_reads() -> None:
    table = pq.read_table(TEST_PARQUET)
    assert table.column_names == ["key", "image", "text", "digit", "colour", "background"]
    for row in table.drop_columns("image").to_pylist():
        assert (
            row["text"] == f"a {row['colour']} {row['digit']} on a {row['background']} background"
        )
        assert row["digit"] in WORDS
        assert row["colour"] in COLOURS
        assert row["background"] in BACKGROUNDS

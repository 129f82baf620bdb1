"""The index of a pack: a part of it is the same as of the whole, and no more is read."""

from __future__ import annotations

import hashlib
import pickle
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evaluator.data.index import (
    PACKED,
    ROWS_IN_GROUP,
    Row,
    index_fingerprint,
    read_index,
    rows_table,
    write_index,
)
from evaluator.data.packs import Pack
from evaluator.errors import InputError

NUM_ROWS = 2 * ROWS_IN_GROUP + 1000


def row(number: int, *, key: str | None = None, part: str = "json") -> Row:
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return Row(
        key or f"{number:07d}", part, "00000.tar", 512 * number, 90, sha256, f"line {number}"
    )


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of many prompts: one row each."""
    folder = tmp_path_factory.mktemp("index")
    rows = rows_table(row(number) for number in range(NUM_ROWS))
    write_index(folder, rows, kind=PACKED, tars={"00000.tar": 10**9})
    return folder / "index.parquet"


def was_read_whole(pack: Pack) -> bool:
    return "table" in vars(pack.index)


def test_a_part_is_what_it_is_in_the_whole_and_nothing_else_is_read(prompts: Path) -> None:
    part, whole = (Pack(prompts.parent, read_index(prompts), root=prompts.parent) for _ in range(2))
    assert whole.index.table.num_rows == NUM_ROWS
    draw = random.Random(0)
    ends = [draw.sample(range(NUM_ROWS + 1), 2) for _ in range(8)]
    size = ROWS_IN_GROUP
    for start, stop in (*map(sorted, ends), (size - 1, size + 1), (size, size), (0, NUM_ROWS)):
        assert part.rows(range(start, stop)) == whole.rows(range(start, stop))
        assert list(part.key_slices[start:stop]) == list(whole.keys[start:stop])
    assert part.key_slices[-1] == whole.keys[-1]
    assert len(part.key_slices) == part.num_samples == len(whole.keys) == NUM_ROWS
    assert part.fingerprint == index_fingerprint(whole.index.table)
    assert not was_read_whole(part)
    assert pickle.loads(pickle.dumps(part)).rows(range(3)) == whole.rows(range(3))
    assert part.prefix(5).keys == whole.keys[:5]
    assert part.prefix(5).fingerprint == index_fingerprint(whole.index.table.slice(0, 5))


def test_damage_is_found_where_it_is_read(prompts: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    content = bytearray(prompts.read_bytes())
    column = pq.read_metadata(prompts).row_group(1).column(5)
    begin = column.dictionary_page_offset or column.data_page_offset
    content[begin + column.total_compressed_size // 2] ^= 0x10
    path.write_bytes(bytes(content))
    index = read_index(path)
    assert len(index.rows(range(10))) == 10
    with pytest.raises(InputError, match="expected the index of a pack"):
        index.rows(range(ROWS_IN_GROUP, ROWS_IN_GROUP + 1))
    with pytest.raises(InputError, match="expected the index of a pack"):
        _ = index.table


def test_an_unsafe_key_is_refused_where_it_is_read(tmp_path: Path) -> None:
    rows = [*(row(number) for number in range(ROWS_IN_GROUP)), row(9, key="../a")]
    write_index(tmp_path, rows_table(rows), kind=PACKED, tars={"00000.tar": 10**9})
    index = read_index(tmp_path / "index.parquet")
    assert len(index.rows(range(10))) == 10
    with pytest.raises(InputError, match=r"got the unsafe key '\.\./a'"):
        index.rows(range(ROWS_IN_GROUP - 1, ROWS_IN_GROUP + 1))
    with pytest.raises(InputError, match=r"got the unsafe key '\.\./a'"):
        _ = index.table


def test_samples_with_several_rows_are_read_whole(tmp_path: Path) -> None:
    rows = [row(n, key=f"{n // 2:04d}", part=("json", "png")[n % 2]) for n in range(8)]
    write_index(tmp_path, rows_table(rows), kind=PACKED, tars={"00000.tar": 10**9})
    index = read_index(tmp_path / "index.parquet")
    assert index.rows(range(1, 3)) == [rows[2:4], rows[4:6]]
    assert index.num_samples == 4


def test_an_index_of_an_older_release_is_read_too(prompts: Path, tmp_path: Path) -> None:
    table = pq.read_table(prompts).slice(0, 50)
    about = {
        name: value
        for name, value in table.schema.metadata.items()
        if name not in (b"evaluator.samples", b"evaluator.fingerprint")
    }
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "index.parquet")
    pack = Pack(tmp_path, read_index(tmp_path / "index.parquet"), root=tmp_path)
    assert pack.keys == tuple(f"{number:07d}" for number in range(50))
    assert pack.fingerprint == index_fingerprint(table)

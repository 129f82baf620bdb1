from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.data import parse_member, read_image_tar, sample_name, write_image_tar
from evaluator.errors import CorruptShardError, StorageError

ITEMS = [(sample_name("b", 1), "png", b"one"), (sample_name("a__0001", 0), "webp", b"two" * 300)]


@given(st.from_regex(r"[A-Za-z0-9_-]{1,200}", fullmatch=True), st.integers(0, 20_000))
def test_names_of_kept_images_can_be_read_back(key: str, image_index: int) -> None:
    assert parse_member(sample_name(key, image_index)) == (key, image_index)


@pytest.mark.parametrize("name", ["a", "a__1", "a__00001", "__0001", "a.b__0001", "a__0001\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name such as"):
        parse_member(name)


def test_images_come_back_in_order_and_bytes_repeat(tmp_path: Path) -> None:
    assert write_image_tar(tmp_path / "1.tar", iter(ITEMS)) == 2
    write_image_tar(tmp_path / "2.tar", ITEMS)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert list(read_image_tar(tmp_path / "1.tar")) == [(key, data) for key, _, data in ITEMS]


def test_an_empty_tar_of_images_is_sound(tmp_path: Path) -> None:
    assert write_image_tar(tmp_path / "1.tar", []) == 0
    assert list(read_image_tar(tmp_path / "1.tar")) == []


@pytest.mark.parametrize("size", [0, 3, 512, 1024, 1500, 2048])
def test_a_cut_tar_of_images_is_corrupt(tmp_path: Path, size: int) -> None:
    path = tmp_path / "images.tar"
    write_image_tar(path, ITEMS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptShardError, match=r"images\.tar: "):
        list(read_image_tar(path))


def test_a_missing_tar_of_images_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptShardError, match="No such file"):
        list(read_image_tar(tmp_path / "images.tar"))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_image_tar(tmp_path / "images.tar", ITEMS)
    with pytest.raises(StorageError, match="could not be written"):
        write_image_tar(tmp_path / "images.tar", [])
    with pytest.raises(AssertionError, match="written already"):
        write_image_tar(tmp_path / "twice.tar", [ITEMS[0], ITEMS[0]])

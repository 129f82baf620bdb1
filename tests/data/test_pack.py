import json
import os
import pickle
from pathlib import Path

import pytest

from evaluator.data import Pack, PackOptions, open_pack, pack
from evaluator.data.webdata import secure_webdataset
from evaluator.errors import CorruptShardError, InputError, StorageError


@pytest.fixture
def source(make_folder, make_picture) -> Path:
    files = {f"{i}.png": make_picture(i) for i in range(7)}
    return make_folder({**files, **{f"{i}.txt": f"text {i}" for i in range(7)}})


@pytest.fixture
def packed(source: Path, tmp_path: Path) -> Pack:
    return pack(source, tmp_path / "out", options=PackOptions(samples_per_tar=3))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_source_gives_the_same_bytes(source: Path, packed: Pack, tmp_path: Path) -> None:
    os.utime(source / "3.png", (1, 1))
    again = pack(source, tmp_path / "again", options=PackOptions(samples_per_tar=3))
    assert tree(tmp_path / "again") == tree(packed.root)
    assert list(tree(packed.root)) == ["00000.tar", "00001.tar", "00002.tar", "index.parquet"]
    assert again.fingerprint == packed.fingerprint


def test_tars_are_also_bounded_by_bytes(source: Path, tmp_path: Path) -> None:
    found = pack(source, tmp_path / "small", options=PackOptions(bytes_per_tar=1))
    assert len(found.index.tars) == 7


def test_the_fingerprint_is_of_the_content_not_of_the_cut(
    source: Path, packed: Pack, tmp_path: Path
) -> None:
    assert pack(source, tmp_path / "one").fingerprint == packed.fingerprint
    (source / "3.txt").write_text("another text")
    other = pack(source, tmp_path / "other")
    assert other.fingerprint != packed.fingerprint
    differ = [a != b for a, b in zip(other.content_hashes(), packed.content_hashes(), strict=True)]
    assert differ == [False] * 3 + [True] + [False] * 3


def test_webdataset_reads_the_same_keys_and_bytes(packed: Pack) -> None:
    wds = secure_webdataset()
    keys = []
    for tar in sorted(packed.index.tars):
        url = str(packed.root / tar)
        for sample in wds.WebDataset(
            url, shardshuffle=False, nodesplitter=None, workersplitter=None
        ):
            keys.append(sample["__key__"])
            assert sample["png"] == packed.read(sample["__key__"], "png")
            assert json.loads(sample["json"])["key"] == sample["__key__"]
    assert tuple(keys) == packed.keys


def test_webdataset_is_imported_with_pickles_and_pipes_switched_off() -> None:
    assert secure_webdataset().utils.enforce_security is True
    assert os.environ["WDS_SECURE"] == "1"


def test_prompts_are_read_by_slices(packed: Pack) -> None:
    assert [p.text for p in packed.prompts(2, 5)] == ["text 2", "text 3", "text 4"]
    assert [p.key for p in packed.prompts()] == list(packed.keys)
    assert packed.prompts(5, 5) == []
    assert packed.prompt("6").text == "text 6"


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (0, 1), (1, 2), (2, 6), (6, 7), (3, 3)])
def test_streaming_a_slice_gives_what_reading_by_offset_gives(
    packed: Pack, start: int, stop: int
) -> None:
    streamed = list(packed.stream(start, stop))
    assert tuple(sample.key for sample in streamed) == packed.keys[start:stop]
    for sample in streamed:
        assert tuple(sample.parts) == packed.parts(sample.key)
        for part, data in sample.parts.items():
            assert data == packed.read(sample.key, part)


def test_a_prefix_is_the_pack_of_the_first_samples(packed: Pack) -> None:
    first = packed.prefix(2)
    assert first.keys == ("0", "1")
    assert [p.text for p in first.prompts()] == ["text 0", "text 1"]
    assert first.content_hashes() == packed.content_hashes()[:2]
    assert first.fingerprint != packed.fingerprint
    assert list(first.index.tars) == ["00000.tar"]
    assert packed.prefix(100).fingerprint == packed.fingerprint
    with pytest.raises(InputError, match="expected a limit of at least 1, got 0"):
        packed.prefix(0)


def test_a_pack_can_be_sent_to_another_process(packed: Pack) -> None:
    again = pickle.loads(pickle.dumps(packed))
    assert again.read("1", "png") == packed.read("1", "png")


def test_a_pack_can_be_moved(packed: Pack, tmp_path: Path) -> None:
    packed.root.rename(tmp_path / "moved")
    moved = open_pack(tmp_path / "moved")
    moved.verify()
    assert moved.fingerprint == packed.fingerprint


def test_long_keys_fit_into_the_tar(tmp_path: Path) -> None:
    key = "k" * 200
    (tmp_path / "p.jsonl").write_text(json.dumps({"key": key, "text": "x"}))
    found = pack(tmp_path / "p.jsonl", tmp_path / "out")
    assert found.prompt(key).text == "x"
    assert [sample.key for sample in found.stream()] == [key]


def test_changed_bytes_are_noticed_with_tar_and_key(packed: Pack) -> None:
    tar = packed.root / "00001.tar"
    row = packed.rows(range(4, 5))[0][1]
    data = bytearray(tar.read_bytes())
    data[row.offset + 3] ^= 1
    tar.write_bytes(data)
    for read in (lambda: packed.read("4", "png"), lambda: list(packed.stream(3))):
        with pytest.raises(CorruptShardError, match=r"00001\.tar: .* packed bytes of '4'"):
            read()


def test_a_cut_or_missing_tar_is_noticed(packed: Pack) -> None:
    tar = packed.root / "00002.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    for check in (packed.verify, lambda: list(packed.stream(6))):
        with pytest.raises(CorruptShardError, match=r"00002\.tar: expected \d+ bytes, got"):
            check()
    tar.unlink()
    for check in (packed.verify, lambda: packed.read("6", "png"), lambda: list(packed.stream(6))):
        with pytest.raises(InputError, match=r"00002\.tar: expected a tar of the pack"):
            check()


def test_unknown_keys_and_parts_are_named(packed: Pack) -> None:
    with pytest.raises(InputError, match="expected one of its 7 keys, got 'nobody'"):
        packed.prompt("nobody")
    with pytest.raises(InputError, match=r"expected a part 'jpg' of '1', got \['json', 'png'\]"):
        packed.read("1", "jpg")


def test_a_prompt_without_an_image_says_so(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat")
    found = pack(tmp_path / "p.txt", tmp_path / "out")
    assert found.image_part("0000001") is None
    with pytest.raises(InputError, match=r"expected an image for '0000001', got only"):
        found.image("0000001")


def test_the_first_pack_stays(source: Path, packed: Pack) -> None:
    before = tree(packed.root)
    assert pack(source, packed.root).fingerprint == packed.fingerprint
    assert tree(packed.root) == before
    (source / "0.txt").write_text("changed")
    with pytest.raises(InputError, match="got one with other content"):
        pack(source, packed.root)
    assert tree(packed.root) == before


def test_other_files_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="expected an empty place"):
        pack(source, tmp_path / "mine")


def test_a_place_that_cannot_be_written_is_a_storage_error(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        pack(source, tmp_path / "file" / "out")


def test_packs_and_tars_need_no_packing(packed: Pack, tmp_path: Path) -> None:
    for source in (packed.root, packed.root / "00000.tar"):
        with pytest.raises(InputError, match="use them as the source"):
            pack(source, tmp_path / "other")


def test_a_damaged_or_foreign_index_is_refused(packed: Pack, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = packed.root / "index.parquet"
    whole, table = index.read_bytes(), pq.read_table(index)
    index.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="expected the index of a pack"):
        open_pack(packed.root)
    newer = {**table.schema.metadata, b"evaluator.version": b"99"}
    pq.write_table(table.replace_schema_metadata(newer), index)
    with pytest.raises(InputError, match="version 1, got version 99"):
        open_pack(packed.root)
    unsafe = table.set_column(0, "key", pa.array(["../a"] * len(table)))
    pq.write_table(unsafe, index)
    with pytest.raises(InputError, match=r"got the unsafe key '\.\./a'"):
        open_pack(packed.root)
    pq.write_table(table.take([0, 2, 1]), index)
    with pytest.raises(InputError, match="rows of a sample that are not together"):
        open_pack(packed.root)
    elsewhere = {**table.schema.metadata, b"evaluator.tars": b'{"../../etc/passwd": 1}'}
    pq.write_table(table.replace_schema_metadata(elsewhere), index)
    with pytest.raises(InputError, match="expected a sound index"):
        open_pack(packed.root)


def test_options_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="samples_per_tar: expected at least 1, got 0"):
        PackOptions(samples_per_tar=0)

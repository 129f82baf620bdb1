import io
import os
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluator.data import PackOptions, pack
from evaluator.errors import InputError, SampleError


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("form", [Path, zipped])
def test_images_are_packed_in_order_of_name_with_their_bytes(
    tmp_path: Path, make_folder, make_picture, form
) -> None:
    files = {
        "b.v1.jpg": make_picture(1, "JPEG"),
        "b.v2.jpg": make_picture(2, "JPEG"),
        "a/b c.PNG": make_picture(3),
        "README.md": "no image",
        ".hidden.png": "x",
        "__MACOSX/._a.png": "x",
    }
    found = pack(form(make_folder(files)), tmp_path / "out")
    assert found.keys == ("a_b_c", "b_v1", "b_v2")
    assert [found.original(key) for key in found.keys] == ["a/b c.PNG", "b.v1.jpg", "b.v2.jpg"]
    assert found.read("b_v2", "jpg") == files["b.v2.jpg"]
    assert found.image("a_b_c").shape == (3, 5, 7)
    assert found.prompt("b_v1").text is None


def test_a_folder_and_its_zip_have_one_fingerprint(
    tmp_path: Path, make_folder, make_picture
) -> None:
    folder = make_folder({"a.png": make_picture(1), "s/b.png": make_picture(2)})
    packs = [pack(zipped(folder), tmp_path / "z"), pack(folder, tmp_path / "f")]
    assert packs[0].fingerprint == packs[1].fingerprint


@pytest.mark.parametrize("form", [Path, zipped])
def test_captions_come_from_text_files_beside_the_images(
    tmp_path: Path, make_folder, make_picture, form
) -> None:
    folder = make_folder({"a.png": make_picture(), "a.txt": " a cat\n", "notes.txt": "unrelated"})
    assert pack(form(folder), tmp_path / "out").prompt("a").text == "a cat"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "s/a.png", "text": "a cat", "category": "pets"}\n'),
        ("captions.csv", "file_name,caption,category\ns/a.png,a cat,pets\n"),
    ],
)
def test_captions_come_from_a_caption_file(
    tmp_path: Path, make_folder, make_picture, name: str, content: str
) -> None:
    folder = make_folder({"s/a.png": make_picture(), name: content})
    prompt = pack(folder, tmp_path / "out").prompt("s_a")
    assert (prompt.text, prompt.tags, prompt.metadata) == ("a cat", {"category": "pets"}, {})


def test_undecodable_images_are_packed_and_fail_when_decoded(tmp_path: Path, make_folder) -> None:
    found = pack(make_folder({"a.png": b"no image", "b.png": b""}), tmp_path / "out")
    for key in found.keys:
        with pytest.raises(SampleError, match=rf"{key}\.png: undecodable"):
            found.image(key)


def test_hugging_face_parquet_gives_images_texts_and_tags(tmp_path: Path, make_picture) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array([{"bytes": make_picture(kind="WEBP"), "path": "x/a.jpg"}], image),
            "caption": ["a cat"],
            "label": [3],
            "region": ["Asia"],
            "width": [7],
            "score": [float("nan")],
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    found = pack(tmp_path / "p.parquet", tmp_path / "out")
    prompt = found.prompt("0000001")
    assert (prompt.text, prompt.class_label) == ("a cat", 3)
    assert (prompt.tags, prompt.metadata) == ({"region": "Asia"}, {"width": 7})
    assert found.image_part("0000001") == "webp"
    assert found.original("0000001") == "x/a.jpg"


def test_parquet_files_of_a_folder_are_numbered_through(tmp_path: Path, make_picture) -> None:
    (tmp_path / "d").mkdir()
    for part in (0, 1):
        pq.write_table(
            pa.table({"img": [make_picture(part)]}), tmp_path / f"d/train-{part}.parquet"
        )
    found = pack(tmp_path / "d", tmp_path / "out")
    assert found.keys == ("0000001", "0000002")
    assert found.read("0000002", "png") == make_picture(1)


def test_parquet_prompts_take_keys_from_the_key_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [5, 6], "prompt": ["a", "b"]}), tmp_path / "p.parquet")
    assert pack(tmp_path / "p.parquet", tmp_path / "out").keys == ("5", "6")


def parquet(folder: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), folder / "p.parquet")
    return folder / "p.parquet"


def test_faulty_parquet_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"expected a column with the prompts.*\['n'\]"):
        pack(parquet(tmp_path, n=[1]), out)
    with pytest.raises(InputError, match=r"expected one column of images, got \['a', 'b'\]"):
        pack(parquet(tmp_path, a=[b"1"], b=[b"2"]), out)
    with pytest.raises(InputError, match="expected an image column 'c'"):
        pack(parquet(tmp_path, a=[b"1"]), out, options=PackOptions(image_column="c"))
    with pytest.raises(InputError, match=r"row 2: expected the bytes of an image in 'a'"):
        pack(parquet(tmp_path, a=[b"1", None]), out)
    with pytest.raises(InputError, match=r"the path 'x\.png' only; embed the bytes"):
        pack(parquet(tmp_path, image=[{"bytes": None, "path": "x.png"}]), out)
    (tmp_path / "p.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="expected a Parquet file"):
        pack(tmp_path / "p.parquet", out)


FAULTS = [
    ({"a.md": "x"}, r"expected images \(png.*got 1 file with the extensions \['md'\]"),
    ({"a.png": "x", "a.txt": "cat", "b.png": "x"}, r"b\.png.*expected a text for every sample"),
    ({"a.png": "x", "a.txt": b"\xff"}, r"a\.txt: expected UTF-8, got the byte 0xff"),
    ({"a.png": "x", "captions.jsonl": '{"text": "a"}'}, r"line 1: expected a field 'file_name'"),
    (
        {"cat.png": "x", "captions.jsonl": '{"file_name": "cta.png", "text": "a"}'},
        r"to name an image that is there, got 'cta\.png'.*did you mean 'cat\.png'",
    ),
    (
        {"a.png": "x", "captions.csv": "file_name,text\na.png,1\na.png,2\n"},
        r"line 3: expected 'a\.png' once",
    ),
    (
        {"a.png": "x", "captions.csv": "x", "metadata.jsonl": "{}"},
        r"expected one caption file, got \['metadata\.jsonl', 'captions\.csv'\]",
    ),
]


@pytest.mark.parametrize(("files", "message"), FAULTS)
def test_a_faulty_folder_is_refused(tmp_path: Path, make_folder, files, message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        pack(make_folder(files), tmp_path / "out")


def test_a_zip_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"a\.zip: expected a zip archive"):
        pack(tmp_path / "a.zip", tmp_path / "out")


def test_a_damaged_zip_member_is_refused(tmp_path: Path, make_picture) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", make_picture())
    data = bytearray(buffer.getvalue())
    data[60] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png: expected a readable member"):
        pack(tmp_path / "a.zip", tmp_path / "out")


def test_a_zip_bomb_is_refused_by_what_comes_out(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("evaluator.data.files.MAX_MEMBER_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(100_000))
    data = (tmp_path / "a.zip").read_bytes()
    lying = data.replace(struct.pack("<I", 100_000), struct.pack("<I", 500))
    for content in (data, lying):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(InputError, match="expected"):
            pack(tmp_path / "a.zip", tmp_path / "out")


def test_a_folder_linked_into_itself_is_refused(tmp_path: Path, make_folder) -> None:
    folder = make_folder({"a.png": "x"})
    os.symlink(folder, folder / "again")
    with pytest.raises(InputError, match="a second time through a link"):
        pack(folder, tmp_path / "out")


def test_images_behind_links_are_not_lost(tmp_path: Path, make_folder, make_picture) -> None:
    other = make_folder({"b.png": make_picture(1)}, name="other")
    folder = make_folder({"a.png": make_picture(0)})
    os.symlink(other, folder / "linked")
    assert pack(folder, tmp_path / "out").keys == ("a", "linked_b")

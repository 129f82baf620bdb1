"""Captions in a file that lies elsewhere than the images."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluator.data import Pack, PackOptions, open_source, pack
from evaluator.errors import InputError


@pytest.fixture
def folder(make_folder, make_picture) -> Path:
    return make_folder({"img10.png": make_picture(1), "img2.png": make_picture(2)})


@pytest.fixture
def captioned(folder: Path, tmp_path: Path, cache: Path):
    def read(name: str, content: str, source: Path | None = None) -> Pack:
        path = tmp_path / name
        path.write_text(content)
        return open_source(source or folder, cache=cache, options=PackOptions(captions=path))

    return read


LINES = '{"file_name": "img2.png", "text": "two"}\n{"file_name": "img10.png", "text": "ten"}\n'
KINDS = [
    ("captions.jsonl", LINES),
    ("captions.csv", "file_name,caption\nimg10.png,ten\nimg2.png,two\n"),
    ("captions.txt", "ten\ntwo\n"),
]


@pytest.mark.parametrize(("name", "content"), KINDS)
def test_every_kind_of_file_gives_the_same_captions(captioned, name: str, content: str) -> None:
    found = captioned(name, content)
    assert {key: found.prompt(key).text for key in found.keys} == {"img10": "ten", "img2": "two"}


def test_the_images_of_a_zip_are_captioned_alike(captioned, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    zipped = captioned("captions.jsonl", LINES, tmp_path / "images.zip")
    assert zipped.fingerprint == captioned("captions.jsonl", LINES).fingerprint


def test_they_take_the_place_of_the_folders_own(captioned, folder: Path) -> None:
    (folder / "captions.csv").write_text("file_name,caption\nimg10.png,X\nimg2.png,X\n")
    (folder / "img2.txt").write_text("beside")
    assert [p.text for p in captioned("elsewhere.jsonl", LINES).prompts()] == ["ten", "two"]


def test_tags_come_along(captioned) -> None:
    csv = "file_name,text,region\nimg10.png,ten,Asia\nimg2.png,two,Africa\n"
    assert captioned("c.csv", csv).prompt("img2").tags == {"region": "Africa"}


def test_a_changed_caption_is_noticed_and_a_moved_file_is_not(
    captioned, folder: Path, tmp_path: Path, cache: Path
) -> None:
    first = captioned("captions.txt", "ten\ntwo\n")
    os.renames(tmp_path / "captions.txt", tmp_path / "moved" / "texts.txt")
    options = PackOptions(captions=tmp_path / "moved" / "texts.txt")
    assert open_source(folder, cache=cache, options=options).path == first.path
    changed = captioned("captions.txt", "ten\nTWO\n")
    assert changed.fingerprint != first.fingerprint
    assert changed.prompt("img2").text == "TWO"
    assert open_source(folder, cache=cache).prompt("img2").text is None


FAULTS = [
    ("c.txt", "ten\n", r"c\.txt: expected 2 lines, one for each image of images.*got 1"),
    ("c.txt", "ten\ntwo\nthree\n", r"expected 2 lines.*got 3"),
    ("c.txt", "\nten\n", r"c\.txt, line 1: expected a caption, got a blank line"),
    ("c.jsonl", LINES.splitlines()[0], r"c\.jsonl: expected a caption for each of 2.*'img10\.png'"),
    ("c.csv", "file_name,words\nimg2.png,x\nimg10.png,y\n", r"c\.csv, line 2: expected the capti"),
    ("c.jsonl", '{"file_name": "a/img2.png", "text": "x"}', r"got 'a/img2\.png'.*did you mean"),
    ("c.jsonl", '{"file_name": "00001.jpg", "text": "x"}', r"names there are such as 'img10\.png'"),
    ("c.jsonl", '{"text": "x"}', "expected a field 'file_name'"),
    ("c.json", "{}", r"expected captions as \.jsonl or \.csv.*got '\.json'"),
]


@pytest.mark.parametrize(("name", "content", "message"), FAULTS)
def test_faulty_captions_are_refused(captioned, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        captioned(name, content)


def test_captions_that_are_not_there_are_refused(folder: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "captions.txt").write_text("")
    for name, message in (
        ("caption.txt", "did you mean.*captions.txt"),
        ("images", "got a folder"),
    ):
        options = PackOptions(captions=tmp_path / name)
        with pytest.raises(InputError, match=message):
            open_source(folder, cache=cache, options=options)


def test_sources_that_carry_their_own_captions_take_no_others(
    captioned, make_tar, make_picture, folder: Path, tmp_path: Path
) -> None:
    packed = pack(folder, tmp_path / "pack").path
    tar = make_tar([("a.png", make_picture())])
    (tmp_path / "prompts.txt").write_text("a cat\n")
    pq.write_table(pa.table({"image": [make_picture()]}), tmp_path / "p.parquet")
    for source, message in [
        (packed, "got tars, which carry their own"),
        (tar, "got tars, which carry their own"),
        (tmp_path / "prompts.txt", r"got \.txt; they belong to images only"),
        (tmp_path / "p.parquet", r"got \.parquet; its captions are one of its columns"),
    ]:
        with pytest.raises(InputError, match=message):
            captioned("c.txt", "ten\ntwo\n", source)

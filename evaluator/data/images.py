"""Images from a folder or a zip archive, with the captions found beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from evaluator.data.fields import find_columns, near_miss, prompt_from_record
from evaluator.data.files import Files
from evaluator.data.keys import derive_keys, printable
from evaluator.data.lines import Record, json_records, table_records
from evaluator.data.raw import Place, RawPart, RawSample
from evaluator.errors import InputError
from evaluator.records import Prompt

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "bmp")
"""What counts as an image, in the order in which a sample's image is chosen."""

CAPTION_FILES = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")
FILE_COLUMNS = ("file_name", "filename", "file")


class Caption(NamedTuple):
    """What a caption file says about one image."""

    place: Place
    fields: Mapping[str, Any]
    from_table: bool


def suffix(name: str) -> str:
    """The extension after the last dot, in lower case, without the dot."""
    return PurePosixPath(name).suffix[1:].lower()


def read_images(files: Files, *, text_column: str | None) -> Iterator[RawSample]:
    """One sample for each image, sorted by name. Undecodable ones are packed as they are.

    A text file of the same stem, or a caption file at the root (`captions.jsonl`,
    `metadata.jsonl`, or `.csv`, with a column `file_name`), gives the texts.
    """
    images = [name for name in files.names if suffix(name) in IMAGE_SUFFIXES]
    if not images:
        kinds = sorted({suffix(name) or "none" for name in files.names})
        raise InputError(
            f"{files.path}: expected images ({', '.join(IMAGE_SUFFIXES)}), got"
            f" {len(files.names)} files with the extensions {kinds}; to use a file of prompts,"
            " name the file itself"
        )
    captions = _captions(files, images)
    beside = {name for name in files.names if suffix(name) == "txt"}
    stems = [str(PurePosixPath(name).with_suffix("")) for name in images]
    for number, (name, stem, key) in enumerate(
        zip(images, stems, derive_keys(images, stems=stems), strict=True), start=1
    ):
        place = Place(f"{files.path.name}: {printable(name)}", "", number)
        if name in captions:
            prompt = _captioned(captions[name], key=key, text_column=text_column)
        else:
            text = _text_beside(files, f"{stem}.txt") if f"{stem}.txt" in beside else None
            prompt = Prompt(key=key, text=text)
        image = RawPart(suffix(name), printable(name), partial(files.read, name))
        yield RawSample(prompt, place, original=printable(name), parts=(image,))


def _text_beside(files: Files, name: str) -> str:
    try:
        return files.read(name).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{files.path}: {name}: expected UTF-8, got the byte"
            f" 0x{error.object[error.start]:02x}; save the caption as UTF-8"
        ) from error


def _captioned(caption: Caption, *, key: str, text_column: str | None) -> Prompt:
    columns = find_columns(caption.fields, key_column="", text_column=text_column)
    return prompt_from_record(
        caption.fields,
        key=key,
        columns=columns,
        place=caption.place,
        strings_are_tags=caption.from_table,
    )


def _captions(files: Files, images: list[str]) -> dict[str, Caption]:
    """Image name → its record in the caption file at the root; empty without such a file."""
    present = [name for name in CAPTION_FILES if name in set(files.names)]
    if not present:
        return {}
    if len(present) > 1:
        raise InputError(f"{files.path}: expected one caption file, got {present}; keep one")
    name = present[0]
    from_table = suffix(name) == "csv"
    lines = files.read(name).splitlines(keepends=True)
    label = f"{files.path.name}: {name}"
    records: Iterator[Record] = (
        table_records(lines, source=label, delimiter=",")
        if from_table
        else json_records(lines, source=label)
    )
    known = set(images)
    captions: dict[str, Caption] = {}
    for place, _, fields in records:
        image = _image_of(fields, place=place, known=known, taken=captions)
        rest = {
            column: value if value != "" or not from_table else None
            for column, value in fields.items()
            if column not in FILE_COLUMNS
        }
        captions[image] = Caption(place, rest, from_table)
    return captions


def _image_of(
    fields: Mapping[str, Any], *, place: Place, known: set[str], taken: Mapping[str, Caption]
) -> str:
    """The image that a caption record is about; InputError if there is none, or it is taken."""
    column = next((name for name in FILE_COLUMNS if name in fields), None)
    if column is None:
        raise InputError(
            f"{place}: expected a field {FILE_COLUMNS[0]!r} with the image's name, got"
            f" {sorted(fields)}; add it{near_miss(fields, FILE_COLUMNS)}"
        )
    name = fields[column]
    if not isinstance(name, str) or name not in known:
        close = near_miss([name], sorted(known)) if isinstance(name, str) else ""
        raise InputError(
            f"{place}: expected {column!r} to name an image that is there, got {name!r};"
            f" add the image, or remove the line{close}"
        )
    if name in taken:
        raise InputError(
            f"{place}: expected {name!r} once, got it again (first at {taken[name].place});"
            ' put several captions into one list: "captions": ["…", "…"]'
        )
    return name

"""Captions of images that are files: a table among them or elsewhere, or a line for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.data.fields import TEXT_NAMES, find_columns, near_miss
from evaluator.data.files import Files
from evaluator.data.keys import printable
from evaluator.data.lines import Record, decoded, json_records, table_records
from evaluator.data.raw import Place
from evaluator.errors import InputError

CAPTION_FILES = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")
"""Names under which a folder's own captions are found."""
FILE_COLUMNS = ("file_name", "filename", "file")
CAPTION_SUFFIXES = (".jsonl", ".csv", ".txt")
"""Kinds of caption files that may lie elsewhere."""


class Caption(NamedTuple):
    """What a caption file says about one image."""

    place: Place
    fields: Mapping[str, Any]
    from_table: bool


def captions_among(files: Files, images: Sequence[str]) -> dict[str, Caption]:
    """Image name → its record in the caption file at the root; empty without such a file."""
    present = [name for name in CAPTION_FILES if name in set(files.names)]
    if not present:
        return {}
    if len(present) > 1:
        raise InputError(f"{files.path}: expected one caption file, got {present}; keep one")
    name = present[0]
    lines = files.read(name).splitlines(keepends=True)
    source = f"{files.path.name}: {name}"
    return _by_name(lines, images, source=source, from_table=name.endswith(".csv"))


def captions_elsewhere(
    path: Path, images: Sequence[str], *, source: Path, text_column: str | None
) -> dict[str, Caption]:
    """Image name → its caption in the file `path`, which is not the images' own.

    JSON lines and CSV name the image in `file_name`; a text file has a line for each image, in
    the order of their names.
    """
    if path.suffix.lower() == ".txt":
        texts = read_caption_lines(path, len(images), source=source)
        column = text_column or TEXT_NAMES[0]
        return {
            name: Caption(Place(path.name, "line", number), {column: text}, False)
            for number, (name, text) in enumerate(zip(images, texts, strict=True), start=1)
        }
    with _open(path) as file:
        from_table = path.suffix.lower() == ".csv"
        captions = _by_name(file, images, source=path.name, from_table=from_table)
    for caption in captions.values():
        if find_columns(caption.fields, key_column="", text_column=text_column).text is None:
            raise InputError(
                f"{caption.place}: expected the caption under one of {TEXT_NAMES}, got"
                f" {sorted(caption.fields)}; rename a field, or name it (text_column)"
                f"{near_miss(caption.fields, TEXT_NAMES)}"
            )
    if without := [name for name in images if name not in captions]:
        raise InputError(
            f"{path}: expected a caption for each of {len(images)} images of {source.name}, got"
            f" none for {len(without)} of them, the first {printable(without[0])!r}; add them, or"
            ' remove the images (an intended empty caption is "text": "" in JSON lines)'
        )
    return captions


def read_caption_lines(path: Path, count: int, *, source: Path) -> list[str]:
    """The `count` lines of a text file; InputError if there are more or fewer, or blank ones.

    `source` has the images. Blank lines at the end of the file do not count.
    """
    if path.suffix.lower() != ".txt":
        raise InputError(
            f"{path}: expected a .txt with one line for each image, because the images of"
            f" {source.name} have no names, got {path.suffix or 'no extension'!r}; write the"
            " captions in the order of the images"
        )
    with _open(path) as file:
        lines = [text.strip() for _, text in decoded(file, source=path.name)]
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) != count:
        raise InputError(
            f"{path}: expected {count} lines, one for each image of {source.name} in the order"
            f" of their names, got {len(lines)}; add or remove lines, or write a .jsonl with"
            " 'file_name' and 'text'"
        )
    if "" in lines:
        raise InputError(
            f"{Place(path.name, 'line', lines.index('') + 1)}: expected a caption, got a blank"
            " line; fill it (an intended empty caption needs a .jsonl)"
        )
    return lines


def require_caption_file(path: Path) -> None:
    """InputError unless `path` has a kind that captions are read from."""
    if path.suffix.lower() not in CAPTION_SUFFIXES:
        raise InputError(
            f"{path}: expected captions as .jsonl or .csv (with a column 'file_name'), or as .txt"
            f" (one line for each image), got {path.suffix or 'no extension'!r}; convert it"
        )


def _open(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable file of captions, got {error.strerror}; check the path"
        ) from error


def _by_name(
    lines: Any, images: Sequence[str], *, source: str, from_table: bool
) -> dict[str, Caption]:
    """Image name → its record in a table with a column `file_name`."""
    records: Iterator[Record] = (
        table_records(lines, source=source, delimiter=",")
        if from_table
        else json_records(lines, source=source)
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
        close = close or f" (names there are such as {min(known)!r})"
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

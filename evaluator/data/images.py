"""Images from a folder or a zip archive, with the captions found beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from evaluator.data.captions import Caption, captions_among, captions_elsewhere
from evaluator.data.fields import find_columns, prompt_from_record
from evaluator.data.files import Files
from evaluator.data.keys import derive_keys, printable
from evaluator.data.raw import Place, RawPart, RawSample
from evaluator.errors import InputError
from evaluator.records import Prompt
from evaluator.text import count_of

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "bmp")
"""What counts as an image, in the order in which a sample's image is chosen."""


def suffix(name: str) -> str:
    """The extension after the last dot, in lower case, without the dot."""
    return PurePosixPath(name).suffix[1:].lower()


def read_images(
    files: Files, *, text_column: str | None, captions: Path | None = None
) -> Iterator[RawSample]:
    """One sample for each image, sorted by name. Undecodable ones are packed as they are.

    A text file of the same stem, or a caption file at the root (`captions.jsonl`,
    `metadata.jsonl`, or `.csv`, with a column `file_name`), gives the texts. A file of
    `captions` that lies elsewhere takes the place of both.
    """
    images = [name for name in files.names if suffix(name) in IMAGE_SUFFIXES]
    if not images:
        raise _no_images(files)
    if captions is None:
        named = captions_among(files, images)
        beside = {name for name in files.names if suffix(name) == "txt"}
    else:
        source = files.path
        named = captions_elsewhere(captions, images, source=source, text_column=text_column)
        beside = set()
    stems = [str(PurePosixPath(name).with_suffix("")) for name in images]
    for number, (name, stem, key) in enumerate(
        zip(images, stems, derive_keys(images, stems=stems), strict=True), start=1
    ):
        place = Place(f"{files.path.name}: {printable(name)}", "", number)
        if name in named:
            prompt = _captioned(named[name], key=key, text_column=text_column)
        else:
            text = _text_beside(files, f"{stem}.txt") if f"{stem}.txt" in beside else None
            prompt = Prompt(key=key, text=text)
        image = RawPart(suffix(name), printable(name), partial(files.read, name))
        yield RawSample(prompt, place, original=printable(name), parts=(image,))


def _no_images(files: Files) -> InputError:
    """The error for a folder or an archive without images."""
    expected = f"{files.path}: expected images ({', '.join(IMAGE_SUFFIXES)}), got"
    if not files.names:
        return InputError(f"{expected} no files at all; fill it, or check the path")
    kinds = sorted({suffix(name) or "none" for name in files.names})
    return InputError(
        f"{expected} {count_of(len(files.names), 'file')} with the extensions {kinds}; to use a"
        " file of prompts or an archive, name the file itself"
    )


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

"""Finding out what a raw source is: by its extension, or by what a folder holds."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import partial
from pathlib import Path

from evaluator.data.arrays import read_arrays
from evaluator.data.attachments import attached_inputs
from evaluator.data.captions import require_caption_file
from evaluator.data.files import Files, Folder, Zip
from evaluator.data.images import IMAGE_SUFFIXES, read_images
from evaluator.data.lines import read_json_lines, read_table, read_text
from evaluator.data.raw import RawSource
from evaluator.data.tables import read_parquet
from evaluator.errors import InputError
from evaluator.remote import RemotePath

SOURCE_SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".zip", ".npz")
_INSTEAD = {
    ".json": "write one object on each line and call it .jsonl",
    ".ndjson": "call it .jsonl",
    ".xlsx": "export it as .csv",
    ".gz": "gunzip it first",
    ".tgz": "unpack it, or make it a plain .tar",
    ".7z": "unpack it",
    ".bz2": "bunzip2 it first",
    ".xz": "unxz it first",
    ".zst": "unzstd it first",
    ".npy": "save the array as .npz: numpy.savez(file, images)",
    **{f".{suffix}": "name the folder it lies in" for suffix in IMAGE_SUFFIXES},
}


def open_raw(
    path: Path,
    *,
    key_column: str | None,
    text_column: str | None,
    image_column: str | None,
    captions: Path | None = None,
) -> RawSource:
    """The source at `path`, not read yet. InputError if it is missing or of no known kind.

    `captions` is a file with the captions of images that have names or an order.
    """
    require_there(path)
    if captions is not None:
        _require_captions(captions, path=path)
    if path.is_dir():
        return _open_folder(path, key_column, text_column, image_column, captions)
    match path.suffix.lower():
        case ".zip":
            return _images(Zip(path), (path,), text_column, captions)
        case ".npz":
            read = partial(read_arrays, path, captions=captions)
            return _captioned(RawSource(path, (path,), read), captions)
        case _ if captions is not None:
            raise _no_place_for_captions(path)
        case ".txt":
            return RawSource(path, (path,), partial(read_text, path))
        case ".jsonl":
            read = partial(read_json_lines, path, key_column=key_column, text_column=text_column)
            return RawSource(path, (path, *attached_inputs(path)), read)
        case ".csv" | ".tsv" as kind:
            delimiter = "," if kind == ".csv" else "\t"
            columns = {"key_column": key_column, "text_column": text_column}
            return RawSource(
                path, (path,), partial(read_table, path, delimiter=delimiter, **columns)
            )
        case ".parquet":
            return _parquet(path, (path,), key_column, text_column, image_column)
        case other:
            raise unsupported(path, other)


def require_there(path: Path) -> None:
    """InputError, with the nearest name beside it, unless `path` exists."""
    if path.exists():
        return
    folder = path.parent
    names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        hint = f"did you mean {folder / close[0]}?"
    else:
        hint = "check the path" if folder.is_dir() else f"{folder} does not exist either"
    raise InputError(f"{path}: expected a file or folder, got nothing there; {hint}")


def unsupported(path: Path | RemotePath, suffix: str) -> InputError:
    """The error for a file of no known kind."""
    kinds = (*SOURCE_SUFFIXES, ".tar")
    close = difflib.get_close_matches(suffix.lower(), kinds, n=1, cutoff=0.5)
    hint = _INSTEAD.get(suffix.lower()) or (f"did you mean {close[0]}?" if close else "convert it")
    return InputError(
        f"{path}: expected {', '.join(kinds)}, or a folder of images, got"
        f" {suffix or 'no extension'!r}; {hint}"
    )


def _require_captions(captions: Path, *, path: Path) -> None:
    """InputError unless there is a file that captions of `path` can be read from."""
    require_there(captions)
    if captions.is_dir():
        raise InputError(f"{captions}: expected a file of captions, got a folder; name the file")
    require_caption_file(captions)
    if path.samefile(captions):
        raise InputError(f"{captions}: expected captions of images, got the images' own path")


def _no_place_for_captions(path: Path) -> InputError:
    """The error for captions of a source whose samples carry their own."""
    remedy = (
        "its captions are one of its columns (text_column)"
        if path.suffix.lower() == ".parquet" or path.is_dir()
        else "they belong to images only"
    )
    return InputError(
        f"{path}: expected a folder, .zip or .npz of images to give captions to, got"
        f" {path.suffix or 'a folder of .parquet'}; {remedy}"
    )


def _open_folder(
    path: Path,
    key_column: str | None,
    text_column: str | None,
    image_column: str | None,
    captions: Path | None,
) -> RawSource:
    """A folder of Parquet files and nothing else to pack, or a folder of images."""
    parquet = tuple(sorted(path.glob("*.parquet")))
    folder = Folder(path)
    has_images = any(name.lower().endswith(IMAGE_SUFFIXES) for name in folder.names)
    if parquet and not has_images:
        if captions is not None:
            raise _no_place_for_captions(path)
        return _parquet(path, parquet, key_column, text_column, image_column)
    inputs = tuple(path / name for name in folder.names if matters(name))
    return _images(folder, inputs, text_column, captions)


def _images(
    files: Files, inputs: tuple[Path, ...], text_column: str | None, captions: Path | None
) -> RawSource:
    read = partial(read_images, files, text_column=text_column, captions=captions)
    return _captioned(RawSource(files.path, inputs, read), captions)


def _captioned(raw: RawSource, captions: Path | None) -> RawSource:
    """The source, whose pack depends on the captions too."""
    if captions is None:
        return raw
    return replace(raw, inputs=(*raw.inputs, captions), captions=captions)


def matters(name: str) -> bool:
    """Whether a file in a folder of images can change the pack."""
    return name.lower().endswith((*IMAGE_SUFFIXES, ".txt", ".jsonl", ".csv"))


def _parquet(
    path: Path,
    files: tuple[Path, ...],
    key_column: str | None,
    text_column: str | None,
    image_column: str | None,
) -> RawSource:
    read = partial(
        read_parquet,
        files,
        key_column=key_column,
        text_column=text_column,
        image_column=image_column,
    )
    return RawSource(path, files, read)

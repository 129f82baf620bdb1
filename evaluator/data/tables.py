"""Prompts and images from Parquet, plain or as Hugging Face datasets are stored."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.data.fields import declared_key, find_columns, prompt_from_record
from evaluator.data.images import IMAGE_SUFFIXES
from evaluator.data.keys import printable, row_key
from evaluator.data.lines import require_columns
from evaluator.data.raw import MAX_MEMBER_BYTES, Place, RawPart, RawSample
from evaluator.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGE_COLUMNS = ("image", "img", "png", "jpg", "jpeg", "webp", "jpeg_bytes", "image_bytes")
_ROWS_AT_ONCE = 64

_SIGNATURES = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"BM", "bmp"))


class Image(NamedTuple):
    """An image as stored in a row."""

    data: bytes
    name: str


def sniffed_suffix(image: Image) -> str:
    """The extension its bytes ask for, else the one in its name, else `img`."""
    for signature, kind in _SIGNATURES:
        if image.data.startswith(signature):
            return kind
    if image.data[:4] == b"RIFF" and image.data[8:12] == b"WEBP":
        return "webp"
    named = PurePosixPath(image.name).suffix[1:].lower()
    return named if named in IMAGE_SUFFIXES else "img"


def read_parquet(
    paths: Sequence[Path],
    *,
    key_column: str | None,
    text_column: str | None,
    image_column: str | None,
) -> Iterator[RawSample]:
    """Rows of one file, or of several in order; numbered through, from 1."""
    number = 0
    for path in paths:
        with _opened(path) as file:
            schema = file.schema_arrow
            image = _image_column(schema, image_column, path=path)
            columns = find_columns(schema.names, key_column=key_column, text_column=text_column)
            if image is None or text_column or key_column:
                text = columns.text if image is None else columns.text or image
                require_columns(schema.names, text, key_column, path=path)
            leave_out = frozenset(name for name in schema.names if _is_bytes(schema, name))
            leave_out |= {image} if image else set()
            for row in _rows(file, path=path):
                number += 1
                place = Place(path.name, "row", number)
                key = row_key(number)
                if columns.key is not None:
                    key = declared_key(row[columns.key], place=place, column=columns.key)
                prompt = prompt_from_record(
                    {name: _plain(row[name]) for name in row if name not in leave_out},
                    key=key,
                    columns=columns,
                    place=place,
                    strings_are_tags=True,
                )
                parts: tuple[RawPart, ...] = ()
                original = f"{path.name}:{number}"
                if image is not None:
                    found = _image(row[image], column=image, place=place)
                    original = printable(found.name) or original
                    parts = (RawPart(sniffed_suffix(found), original, partial(bytes, found.data)),)
                yield RawSample(prompt, place, original, parts)


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: expected a Parquet file, got {error}; write or copy it again"
        ) from error


def _rows(file: pq.ParquetFile, *, path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: expected readable pages, got {error}; write or copy it again"
        ) from error


def _is_bytes(schema: pa.Schema, name: str) -> bool:
    import pyarrow as pa

    kind = schema.field(name).type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_image(schema: pa.Schema, name: str) -> bool:
    """Whether a column is binary, or a struct with binary `bytes` as Hugging Face writes."""
    import pyarrow as pa

    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return _is_bytes(schema, name)


def _image_column(schema: pa.Schema, wanted: str | None, *, path: Path) -> str | None:
    """The column with images: the named one, a usual name, or the only one that could be."""
    able: list[str] = [name for name in schema.names if _holds_image(schema, name)]
    if wanted is not None:
        if wanted in able:
            return wanted
        raise InputError(
            f"{path}: expected an image column {wanted!r}, got {able or 'none'} that hold bytes,"
            f" of {schema.names}; name one of them"
        )
    usual = [name for name in able if name.lower() in IMAGE_COLUMNS]
    if len(usual) == 1 or (not usual and len(able) == 1):
        return (usual or able)[0]
    if able:
        raise InputError(
            f"{path}: expected one column of images, got {usual or able}; name one (image_column)"
        )
    return None


def _image(value: Any, *, column: str, place: Place) -> Image:
    """The bytes of a row's image; InputError where there are none."""
    data, name = value, ""
    if isinstance(value, Mapping):
        data, name = value.get("bytes"), value.get("path") or ""
    if not isinstance(data, bytes):
        raise InputError(
            f"{place}: expected the bytes of an image in {column!r}, got"
            f" {f'the path {name!r} only' if name else 'nothing'}; embed the bytes, or remove"
            " the row"
        )
    if len(data) > MAX_MEMBER_BYTES:
        raise InputError(f"{place}: expected at most {MAX_MEMBER_BYTES} bytes, got {len(data)}")
    return Image(data, name)


def _plain(value: Any) -> Any:
    """A value that JSON can hold; empty strings become nulls, as in CSV."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int | type(None)):
        return value
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, decimal.Decimal | datetime.timedelta) else None

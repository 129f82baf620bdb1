"""Prompts from text: one a line (`.txt`), JSON lines, CSV and TSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.data.attachments import attached_parts
from evaluator.data.fields import (
    CLASS_NAMES,
    KEY_NAMES,
    TEXT_NAMES,
    declared_key,
    find_columns,
    near_miss,
    prompt_from_record,
)
from evaluator.data.keys import row_key
from evaluator.data.raw import Place, RawSample
from evaluator.errors import InputError
from evaluator.records import Prompt


class Line(NamedTuple):
    """One decoded line."""

    number: int
    text: str


class Record(NamedTuple):
    """One JSON line or one row of a table."""

    place: Place
    number: int
    """What its key is made from, if it declares none."""
    fields: dict[str, Any]


def decoded(lines: Iterable[bytes], *, source: str) -> Iterator[Line]:
    """Lines as UTF-8, without byte order mark; InputError names the line that is not."""
    for number, raw in enumerate(lines, start=1):
        if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{source}: expected UTF-8, got UTF-16; save it again as UTF-8")
        try:
            yield Line(number, raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source}, line {number}: expected UTF-8, got the byte"
                f" 0x{raw[error.start]:02x} at column {error.start + 1}; save the file as UTF-8"
            ) from error


def json_records(lines: Iterable[bytes], *, source: str) -> Iterator[Record]:
    """One record for each line that is not blank; each must be a JSON object."""
    for number, text in decoded(lines, source=source):
        if not text.strip():
            continue
        place = Place(source, "line", number)
        yield Record(place, number, parse_object(text, where=str(place)))


def parse_object(text: str, *, where: str) -> dict[str, Any]:
    """A JSON object from outside: no NaN, no lone surrogates, no bottomless nesting."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        record = json.loads(text, parse_constant=refuse)
        json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: expected one JSON object, got {text.strip()[:60]!r} ({error});"
            " correct the line, one object on each"
        ) from error
    if not isinstance(record, dict):
        raise InputError(
            f"{where}: expected a JSON object, got {type(record).__name__}"
            f' {text.strip()[:60]!r}; write {{"text": …}}'
        )
    return record


def table_records(lines: Iterable[bytes], *, source: str, delimiter: str) -> Iterator[Record]:
    """Rows under a header. Numbers count rows; places give the line, for the editor."""
    texts = (line.text for line in decoded(lines, source=source))
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    header: list[str] = []
    number = 0
    try:
        for row in reader:
            place = Place(source, "line", reader.line_num)
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = _header(row, place)
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{place}: expected {len(header)} columns as in the header, got {len(row)};"
                    " put quotes around cells that contain the separator"
                )
            number += 1
            yield Record(place, number, dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise InputError(
            f"{source}, line {reader.line_num}: expected a well-formed row, got {error};"
            ' close every quote, and write a quote inside a cell as ""'
        ) from error


def _header(row: list[str], place: Place) -> list[str]:
    names = [name.strip() for name in row]
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        raise InputError(f"{place}: expected each column once, got {again} again; rename one")
    return names


def read_text(path: Path) -> Iterator[RawSample]:
    """One prompt a line; blank lines are skipped. The key is the line's number."""
    with path.open("rb") as file:
        for number, text in decoded(file, source=path.name):
            if text.strip():
                prompt = Prompt(key=row_key(number), text=text.strip())
                place = Place(path.name, "line", number)
                yield RawSample(prompt, place, original=f"{path.name}:{number}")


def read_json_lines(
    path: Path, *, key_column: str | None, text_column: str | None
) -> Iterator[RawSample]:
    """One object a line. Without a text it must at least give a key or a class label."""
    with path.open("rb") as file:
        for place, number, record in json_records(file, source=path.name):
            columns = find_columns(record, key_column=key_column, text_column=text_column)
            if columns.text is None and columns.key is None and columns.class_label is None:
                raise InputError(
                    f"{place}: expected one of {TEXT_NAMES + KEY_NAMES + CLASS_NAMES[:1]}, got"
                    f" {sorted(record)}; rename a field{near_miss(record, TEXT_NAMES)}"
                )
            key = row_key(number)
            if columns.key is not None and record.get(columns.key) is not None:
                key = declared_key(record[columns.key], place=place, column=columns.key)
            prompt = prompt_from_record(
                record,
                key=key,
                columns=columns,
                place=place,
                strings_are_tags=False,
                leave_out=frozenset({"attachments"}),
            )
            parts = attached_parts(record.get("attachments"), root=path.parent, place=place)
            if parts:
                prompt = replace(prompt, attachments={p.part.split(".")[0]: p.part for p in parts})
            yield RawSample(prompt, place, original=f"{path.name}:{number}", parts=parts)


def read_table(
    path: Path, *, delimiter: str, key_column: str | None, text_column: str | None
) -> Iterator[RawSample]:
    """Rows of a CSV or TSV file. Columns that mean nothing to us become tags."""
    with path.open("rb") as file:
        columns = None
        for place, number, record in table_records(file, source=path.name, delimiter=delimiter):
            if columns is None:
                columns = find_columns(record, key_column=key_column, text_column=text_column)
                require_columns(record, columns.text, key_column, path=path)
            key = row_key(number)
            if columns.key is not None:
                key = declared_key(record[columns.key], place=place, column=columns.key)
            fields = {name: cell if cell != "" else None for name, cell in record.items()}
            prompt = prompt_from_record(
                fields, key=key, columns=columns, place=place, strings_are_tags=True
            )
            yield RawSample(prompt, place, original=f"{path.name}:{number}")


def require_columns(names: Iterable[str], text: str | None, key: str | None, *, path: Path) -> None:
    """InputError unless the text column (and the key column, if one is named) exist."""
    names = list(names)
    for column in (text, key):
        if column and column not in names:
            raise InputError(
                f"{path}: expected a column {column!r}, got {names}; name one of these"
            )
    if text is None:
        hint = near_miss(names, TEXT_NAMES)
        if len(names) == 1 and any(mark in names[0] for mark in ";\t,|"):
            hint = "; another separator seems to be used: .csv takes commas, .tsv tabs"
        raise InputError(
            f"{path}: expected a column with the prompts, one of {TEXT_NAMES}, got {names};"
            f" rename one, or name it (text_column){hint}"
        )

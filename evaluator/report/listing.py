"""Every sample of a run as the page's script gets it: columns, texts once each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.report.scores import Score, Scores
from evaluator.report.text import plain

MAX_ROWS = 100_000
"""Samples that the page lists, the first of the plan; of a larger run the rest is counted."""

MAX_TAGS = 12
MAX_TAG_VALUES = 1000
"""A tag with more values is a name of its own for each prompt, not a group; it is left out."""

COLUMNS = ("key", "image_index", "seed", "prompt", "negative_prompt", "class_label", "tags",
           "truncated", "height", "width", "error", "flaw")  # fmt: skip

Codes = NDArray[np.int32]


@dataclass
class Tag:
    """One tag's value of each planned sample."""

    values: dict[str, int] = field(default_factory=dict)
    """Value → code, in the order in which they were met."""
    codes: Codes = field(default_factory=lambda: np.zeros(0, np.int32))
    """(N,) -1 where a sample has none."""


@dataclass
class SampleList:
    """What `samples.parquet` says, of all samples where it is small, of the first where not."""

    num_planned: int
    tables: list[tuple[int, pa.Table]] = field(default_factory=list)
    """Position of the first row, and the rows; at most `MAX_ROWS` in all."""
    num_rows: int = 0
    num_left_out: int = 0
    tags: dict[str, Tag] = field(default_factory=dict)
    tags_left_out: set[str] = field(default_factory=set)
    there: NDArray[np.bool_] = field(init=False)
    """(N,) whether a planned sample is committed and has no error."""

    def __post_init__(self) -> None:
        self.there = np.zeros(self.num_planned, np.bool_)

    def add(self, samples: pa.Table, start: int) -> None:
        """Take one shard, whose first sample is at position `start` of the plan."""
        room = MAX_ROWS - self.num_rows
        if room > 0:
            self.tables.append((start, samples.slice(0, room)))
        self.num_rows += min(room, samples.num_rows) if room > 0 else 0
        self.num_left_out += max(0, samples.num_rows - max(room, 0))
        error = pc.is_null(samples.column("error")).to_numpy(zero_copy_only=False)
        self.there[start : start + samples.num_rows] = error
        if "tags" in samples.column_names:
            self._add_tags(samples.column("tags").combine_chunks(), start)

    def _add_tags(self, column: Any, start: int) -> None:
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        for tags in chunks:
            if not pa.types.is_map(tags.type):
                return
            for name in sorted(each for each in pc.unique(tags.keys).to_pylist() if each):
                self._add_tag(name, tags, start)
            start += len(tags)

    def _add_tag(self, name: str, tags: pa.Array, start: int) -> None:
        if name in self.tags_left_out:
            return
        if name not in self.tags and len(self.tags) >= MAX_TAGS:
            self.tags_left_out.add(name)
            return
        tag = self.tags.setdefault(name, Tag(codes=np.full(self.num_planned, -1, np.int32)))
        encoded = pc.map_lookup(tags, pa.scalar(name), "first").dictionary_encode()
        known = [tag.values.setdefault(v, len(tag.values)) for v in encoded.dictionary.to_pylist()]
        if len(tag.values) > MAX_TAG_VALUES:
            del self.tags[name]
            self.tags_left_out.add(name)
            return
        indices = pc.fill_null(encoded.indices, -1).to_numpy()
        tag.codes[start : start + len(tags)] = np.array([*known, -1], np.int32)[indices]

    def positions(self) -> NDArray[np.int64]:
        """(R,) position in the plan of each listed row."""
        parts = [np.arange(start, start + len(table)) for start, table in self.tables]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def captions(samples: SampleList, positions: Iterable[int]) -> dict[int, str]:
    """The prompt, or else the key, of these listed samples; fit to show."""
    wanted, found = set(positions), {}
    for start, table in samples.tables:
        for place in sorted(wanted.intersection(range(start, start + len(table)))):
            prompt = table.column("prompt")[place - start].as_py()
            found[place] = plain(prompt or table.column("key")[place - start], limit=300)
    return found


def listing(samples: SampleList, scores: Scores) -> dict[str, Any]:
    """The columns of the page's gallery, ready to be written as JSON; texts are fit to show."""
    rows = pa.concat_tables([table for _, table in samples.tables]) if samples.tables else None
    positions = samples.positions()
    shown: dict[str, Any] = {
        "spans": [[start, len(table)] for start, table in samples.tables],
        "scores": [_score(score, positions) for score in scores.found()],
        "nearest": [
            {"metric": each.metric, "file": each.file,
             "names": _coded([each.names.get(p) for p in positions.tolist()])}
            for each in scores.nearest
        ],
        "tags": {
            plain(name, limit=60): {
                "values": [plain(value, limit=200) for value in tag.values],
                "codes": tag.codes[positions].tolist(),
            }
            for name, tag in sorted(samples.tags.items())
        },
    }  # fmt: skip
    if rows is None:
        return shown | {"keys": [], "indices": [], "seeds": [], "texts": {}, "truncated": []}
    texts = {name: _text(rows, name) for name in ("prompt", "negative_prompt", "error", "flaw")}
    texts |= {"class_label": _text(rows, "class_label"), "size": _sizes(rows)}
    truncated = np.flatnonzero(pc.fill_null(rows.column("truncated"), False).to_numpy())
    return shown | {
        "keys": [plain(key, limit=200) for key in rows.column("key").to_pylist()],
        "indices": rows.column("image_index").to_pylist(),
        "seeds": rows.column("seed").to_pylist(),
        "texts": {name: coded for name, coded in texts.items() if coded["values"]},
        "truncated": truncated.tolist(),
    }


def _score(score: Score, positions: NDArray[np.int64]) -> dict[str, Any]:
    """Six digits of each number; null where there is none."""
    values = [float(f"{v:.6g}") if np.isfinite(v) else None for v in score.values[positions]]
    whole = [int(v) if v is not None and v.is_integer() else v for v in values]
    return {"name": score.name, "file": score.file, "column": score.column, "values": whole}


def _text(rows: pa.Table, name: str) -> dict[str, Any]:
    """A column of texts, each once; nothing where there is none."""
    if name not in rows.column_names:
        return {"values": [], "codes": []}
    column = rows.column(name)
    if not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    values = [plain(value, limit=1000) for value in encoded.dictionary.to_pylist()]
    return {"values": values, "codes": pc.fill_null(encoded.indices, -1).to_pylist()}


def _sizes(rows: pa.Table) -> dict[str, Any]:
    if not {"height", "width"} <= set(rows.column_names):
        return {"values": [], "codes": []}
    sides = zip(rows.column("width").to_pylist(), rows.column("height").to_pylist(), strict=True)
    return _coded([f"{w} × {h}" if w and h else None for w, h in sides])


def _coded(texts: Sequence[str | None]) -> dict[str, Any]:
    values: dict[str, int] = {}
    codes = [-1 if each is None else values.setdefault(each, len(values)) for each in texts]
    return {"values": list(values), "codes": codes}


def choices(samples: SampleList, most: int) -> Mapping[str, Sequence[str]]:
    """Tag → its values in alphabetical order, of tags with few enough to choose from."""
    return {
        plain(name, limit=60): sorted(plain(value, limit=200) for value in tag.values)
        for name, tag in sorted(samples.tags.items())
        if 1 < len(tag.values) <= most
    }

"""Samples in sequence through webdataset: a stretch of each tar, read once from end to end.

A run of samples in one tar is itself a tar, once two blocks of zeros are put behind it. So a
shard of the plan is given to webdataset as a stream of exactly its own bytes: nothing is skipped,
split between workers or shuffled, and what comes out is compared with the index.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from evaluator.data.index import Row
from evaluator.data.webdata import secure_webdataset
from evaluator.errors import CorruptShardError

if TYPE_CHECKING:
    from evaluator.data.packs import Pack

_BLOCK = 512


class StreamedSample(NamedTuple):
    """One sample with all its parts, undecoded."""

    key: str
    parts: Mapping[str, bytes]


class _Stretch(io.RawIOBase):
    """Bytes `start` to `stop` of a file, followed by the end of an archive."""

    def __init__(self, file: IO[bytes], start: int, stop: int) -> None:
        self._file = file
        self._left = stop - start
        self._zeros = 2 * _BLOCK
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._left:
            data = self._file.read(min(len(view), self._left))
            self._left -= len(data)
            if not data:
                self._left = self._zeros = 0  # cut short: webdataset's tar reader raises
        else:
            data = bytes(min(len(view), self._zeros))
            self._zeros -= len(data)
        view[: len(data)] = data
        return len(data)


def stream_samples(pack: Pack, positions: range) -> Iterator[StreamedSample]:
    """The samples at `positions`, in order, each checked against the index.

    Raises CorruptShardError, which names the tar and the key, when webdataset sees anything else
    than what was packed.
    """
    samples = pack.rows(positions)
    for tar, group in groupby(samples, key=lambda rows: rows[0].tar):
        yield from _stream_tar(pack, tar, list(group))


def _stream_tar(pack: Pack, tar: str, samples: Sequence[list[Row]]) -> Iterator[StreamedSample]:
    wds = secure_webdataset()
    path = pack.root / tar
    start = _data_end_before(pack, samples[0][0])
    last = samples[-1][-1]
    stop = _padded(last.offset + last.size)
    pack.require_tar(tar)
    opened: Any = path.open("rb")
    with opened as file:
        source = [{"url": str(path), "stream": io.BufferedReader(_Stretch(file, start, stop))}]
        members = wds.tariterators.tar_file_expander(source, handler=wds.reraise_exception)
        grouped = wds.tariterators.group_by_keys(members, handler=wds.reraise_exception)
        for rows in samples:
            yield _checked(_next(grouped, rows, path=str(path)), rows, path=str(path))


def _next(grouped: Iterator[dict[str, Any]], rows: list[Row], *, path: str) -> dict[str, Any]:
    try:
        return next(grouped)
    except Exception as error:  # StopIteration, and whatever tarfile raises inside webdataset
        raise CorruptShardError(
            f"{path}: expected the sample {rows[0].key!r}, got the end of the tar ({error});"
            " copy it again, or pack the source again"
        ) from error


def _checked(sample: Mapping[str, Any], rows: list[Row], *, path: str) -> StreamedSample:
    """Match the parts with the index by place: keys and parts may have been renamed there."""
    data = [value for name, value in sample.items() if not name.startswith("__")]
    hashes = [hashlib.sha256(value).hexdigest() for value in data]
    if hashes != [row.sha256 for row in rows]:
        raise CorruptShardError(
            f"{path}: expected the packed bytes of {rows[0].key!r}, got others; copy the tar"
            " again, or pack the source again"
        )
    return StreamedSample(rows[0].key, dict(zip((r.part for r in rows), data, strict=True)))


def _padded(offset: int) -> int:
    return -(-offset // _BLOCK) * _BLOCK


def _data_end_before(pack: Pack, row: Row) -> int:
    """Where the member before `row` ends in its tar: headers of any length lie in between."""
    position = pack.position(row.key)
    if position == 0:
        return 0
    before = pack.rows(range(position - 1, position))[0][-1]
    return _padded(before.offset + before.size) if before.tar == row.tar else 0

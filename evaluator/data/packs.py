"""The pack: samples in a fixed order, read by offset and checked against their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from evaluator.data.decode import MAX_IMAGE_BYTES, MAX_PIXELS, decode_image
from evaluator.data.foreign import foreign_prompt
from evaluator.data.images import IMAGE_SUFFIXES
from evaluator.data.index import INDEX_NAME, PACKED, Index, Row, index_fingerprint, read_index
from evaluator.errors import CorruptShardError, EvaluatorError, InputError, SampleError
from evaluator.records import Prompt
from evaluator.remote import RemotePath

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.data.stream import StreamedSample


class Pack:
    """Prompts and images in tars, under an index. Holds no open files; may be pickled."""

    def __init__(self, path: Path, index: Index, *, root: Path | RemotePath) -> None:
        self.path = path
        """Folder of the index."""
        self.root = root
        """Folder that the tars' names are relative to; its tars are read in place, by ranges."""
        self.index = index

    def __repr__(self) -> str:
        return f"Pack({str(self.path)!r}, num_samples={self.num_samples})"

    def __len__(self) -> int:
        return self.num_samples

    @property
    def num_samples(self) -> int:
        """Number of keys."""
        return self.index.num_samples

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys in the order of the plan."""
        return tuple(self.index.table["key"].take(self.index.starts[:-1]).to_pylist())

    @property
    def key_slices(self) -> Sequence[str]:
        """The same, of which no more is read than is asked for."""
        return _KeySlices(self)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over (key, part, sha256) of every row: of what is in it, not where it lies."""
        return self.index.fingerprint or index_fingerprint(self.index.table)

    def content_hashes(self) -> list[str]:
        """For each key in order, SHA-256 over its (part, sha256) pairs, hexadecimal."""
        table = self.index.table
        parts, hashes = table["part"].to_pylist(), table["sha256"].to_pylist()
        starts = self.index.starts.tolist()
        return [
            hashlib.sha256(
                "".join(f"{parts[i]}\x1f{hashes[i]}\x1e" for i in range(start, stop)).encode()
            ).hexdigest()
            for start, stop in pairwise(starts)
        ]

    def image_hashes(self) -> set[str]:
        """SHA-256 of the bytes of every image, hexadecimal; copies count once."""
        columns = (self.index.table[name].to_pylist() for name in ("part", "sha256"))
        kinds = {*IMAGE_SUFFIXES, "img"}
        return {sha256 for part, sha256 in zip(*columns, strict=True) if part in kinds}

    def position(self, key: str) -> int:
        """Place of a key in the order of the plan, from 0."""
        try:
            return self._positions[key]
        except KeyError:
            raise InputError(
                f"{self.path}: expected one of its {self.num_samples} keys, got {key!r}"
            ) from None

    def rows(self, positions: range) -> list[list[Row]]:
        """The rows of each sample in a contiguous range."""
        return self.index.rows(positions)

    def prompt(self, key: str) -> Prompt:
        """The prompt of one sample."""
        position = self.position(key)
        return self.prompts(position, position + 1)[0]

    def prompts(self, start: int = 0, stop: int | None = None) -> list[Prompt]:
        """The prompts of samples `start` to `stop`, as in a slice."""
        samples = self.rows(range(self.num_samples)[start:stop])
        texts = [row for rows in samples for row in rows if row.part in ("json", "txt", "cls")]
        data: dict[str, dict[str, bytes]] = {rows[0].key: {} for rows in samples}
        for row, loaded in zip(texts, self._load(texts), strict=True):
            data[row.key][row.part] = loaded
        return [self._prompt(rows, data[rows[0].key]) for rows in samples]

    def parts(self, key: str) -> tuple[str, ...]:
        """Names of the sample's parts, in the order of the tar."""
        return tuple(row.part for row in self._rows(self.position(key)))

    def original(self, key: str) -> str:
        """What the source called the sample: its image's name, or its line."""
        rows = self._rows(self.position(key))
        return (_image_row(rows) or rows[0]).original

    def read(self, key: str, part: str) -> bytes:
        """The bytes of one part, as packed.

        Raises InputError if there is no such part, CorruptShardError if the bytes changed.
        """
        return self._load([self._row(key, part)])[0]

    def image_part(self, key: str) -> str | None:
        """The part that is the sample's image; None for a prompt without one."""
        row = _image_row(self._rows(self.position(key)))
        return None if row is None else row.part

    def image(self, key: str, *, part: str | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
        """The sample's image (or another part that is one): (3, H, W) uint8 on the CPU.

        Raises SampleError if it cannot be decoded or is too large, InputError if there is none.
        """
        part = part if part is not None else self.image_part(key)
        if part is None:
            raise InputError(
                f"{self.path}: expected an image for {key!r}, got only {self.parts(key)};"
                " name a source with images"
            )
        row = self._row(key, part)
        if row.size > MAX_IMAGE_BYTES:
            raise SampleError(f"{row.original}: {row.size} bytes, more than {MAX_IMAGE_BYTES}")
        return decode_image(self._load([row])[0], name=row.original, max_pixels=max_pixels)

    def prefix(self, limit: int) -> Pack:
        """The first `limit` samples (all of them, if there are fewer), as a pack."""
        if limit < 1:
            raise InputError(f"expected a limit of at least 1, got {limit}; leave it out for all")
        return Pack(self.path, self.index.prefix(limit), root=self.root)

    def stream(self, start: int = 0, stop: int | None = None) -> Iterator[StreamedSample]:
        """All parts of samples `start` to `stop`, read in sequence through webdataset."""
        from evaluator.data.stream import stream_samples

        return stream_samples(self, range(self.num_samples)[start:stop])

    def verify(self) -> None:
        """Check that every tar is there with its size; contents are checked when read."""
        for tar in self.index.tars:
            self.require_tar(tar)

    def require_tar(self, tar: str) -> None:
        """Check one tar: InputError if it is gone, CorruptShardError if its size changed."""
        path = self.root / tar
        if isinstance(path, RemotePath):
            self.require_size(tar, path.stat().size)
            return
        if not path.is_file():
            raise InputError(
                f"{path}: expected a tar of the pack {self.path}, got nothing there;"
                " copy it there, or pack the source again"
            )
        self.require_size(tar, path.stat().st_size)

    def require_size(self, tar: str, actual: int) -> None:
        """CorruptShardError unless a tar of `actual` bytes is the one that was indexed."""
        if actual != (size := self.index.tars[tar]):
            raise CorruptShardError(
                f"{self.root / tar}: expected {size} bytes, got {actual}; copy it again, or pack"
                " the source again"
            )

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {key: position for position, key in enumerate(self.keys)}

    def _rows(self, position: int) -> list[Row]:
        return self.rows(range(position, position + 1))[0]

    def _row(self, key: str, part: str) -> Row:
        rows = self._rows(self.position(key))
        for row in rows:
            if row.part == part:
                return row
        raise InputError(
            f"{self.path}: expected a part {part!r} of {key!r}, got {[r.part for r in rows]}"
        )

    def _prompt(self, rows: list[Row], data: dict[str, bytes]) -> Prompt:
        key, where = rows[0].key, f"{self.root / rows[0].tar}: {rows[0].key}"
        if self.index.kind != PACKED:
            return foreign_prompt(key, data, parts=tuple(r.part for r in rows), where=where)
        try:
            prompt = Prompt.from_json(data["json"].decode())
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{where}: expected a packed prompt, got {error}; pack the source again"
            ) from error
        if prompt.key != key:
            raise InputError(f"{where}: expected its own prompt, got {prompt.key!r}'s; pack again")
        return prompt

    def _load(self, rows: Sequence[Row]) -> list[bytes]:
        """The data of rows, each checked. A tar stays open for as long as it comes in a row."""
        found: list[bytes] = []
        file: Any = None
        try:
            for before, row in zip([None, *rows], rows, strict=False):
                if before is None or before.tar != row.tar:
                    if file is not None:
                        file.close()
                    file = open_tar(self.root / row.tar)
                found.append(read_slice(file, row, tar=self.root / row.tar))
        finally:
            if file is not None:
                file.close()
        return found


class _KeySlices(Sequence[str]):
    def __init__(self, pack: Pack) -> None:
        self._pack = pack

    def __len__(self) -> int:
        return len(self._pack)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        chosen = range(len(self))[place]
        if isinstance(chosen, int):
            return self[chosen : chosen + 1][0]
        assert chosen.step == 1, "keys that lie together"
        return [rows[0].key for rows in self._pack.rows(chosen)]


def open_tar(path: Path | RemotePath) -> Any:
    """Open a tar for reading slices; InputError if it is gone."""
    try:
        return path.open("rb")
    except EvaluatorError:
        raise
    except OSError as error:
        raise InputError(
            f"{path}: expected a tar of the pack, got {error.strerror}; copy it there, or pack"
            " the source again"
        ) from error


def read_slice(file: Any, row: Row, *, tar: Path | RemotePath) -> bytes:
    """One member's bytes; CorruptShardError names the tar and the key if they changed."""
    file.seek(row.offset)
    data: bytes = file.read(row.size)
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise CorruptShardError(
            f"{tar}: expected the packed bytes of {row.key!r}.{row.part}, got others; copy the"
            " tar again, or pack the source again"
        )
    return data


def _image_row(rows: Sequence[Row]) -> Row | None:
    """The row of a sample's image: the first kind of `IMAGE_SUFFIXES` without a prefix."""
    by_part = {row.part: row for row in rows}
    return next((by_part[part] for part in (*IMAGE_SUFFIXES, "img") if part in by_part), None)


def is_pack(path: Path) -> bool:
    """Whether `path` is a folder with the index of a pack."""
    return (path / INDEX_NAME).is_file()


def open_pack(path: Path, *, root: Path | RemotePath | None = None) -> Pack:
    """Open a pack; `root` is where the tars lie, if that is not beside the index."""
    return Pack(path, read_index(path / INDEX_NAME), root=path if root is None else root)

"""Pictures of samples: files beside the page, named by position, as many as were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from evaluator.report.chosen import Chosen
from evaluator.report.images import LARGE, THUMBNAIL, SampleId, enlarged, fitted, read_images
from evaluator.report.listing import SampleList
from evaluator.report.text import plain
from evaluator.store.rundir import RunDirectory

DEFAULT_THUMBNAILS = 2000
"""Samples with pictures, where nothing else is asked for."""

PAGE_SIZE = 60
"""Samples of one page of the gallery; the first page stands in the page itself."""

NUM_SHEET = 64
"""Pictures in the contact sheet: the first of the plan that have one."""

SHEET_SIDE = 128
"""Side of a picture in the contact sheet."""

CRISP = 128
"""Images with a longest side below this are shown with sharp pixels, and stored without loss."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One sample of the gallery's first page; all text is fit to show."""

    position: int
    key: str
    image_index: int
    prompt: str
    seed: int
    truncated: bool
    failed: bool
    thumbnail: str
    """File beside the page; empty where there is none."""
    crisp: bool


@dataclass
class Gallery:
    """Pictures of the chosen samples."""

    folder: Path
    """The report being written."""
    written: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Position → width and height of the image, of those with a thumbnail."""
    large: set[int] = field(default_factory=set)
    """Those with a larger picture, too."""
    sheet: list[tuple[int, Image.Image]] = field(default_factory=list)
    """The first ones, small, for the contact sheet."""
    num_bytes: int = 0

    def write(self, run: RunDirectory, chosen: Chosen) -> None:
        """Write the chosen pictures; no other image is decoded."""
        for index, positions in by_shard(run, chosen.pictures):
            rows = run.plan_rows(index, columns=("key", "image_index"))
            names = list(zip(*(rows.column(i).to_pylist() for i in range(2)), strict=True))
            start = run.shard_starts[index]
            wanted = {SampleId(*names[p - start]): p for p in positions}
            for sample, image in read_images(run.shard_path(index) / "images.tar", wanted):
                position = wanted[sample]
                self._write(position, image, large=position in chosen.large)
                if len(self.sheet) < NUM_SHEET:
                    self.sheet.append((position, enlarged(image, SHEET_SIDE)))

    def _write(self, position: int, image: Image.Image, *, large: bool) -> None:
        """Write the files of one picture; their names come from its position alone."""
        self._save(thumbnail_file(position), fitted(image, THUMBNAIL))
        self.written[position] = image.size
        if large and max(image.size) > THUMBNAIL:
            self._save(f"images/{position:06d}.webp", fitted(image, LARGE))
            self.large.add(position)

    def _save(self, name: str, image: Image.Image) -> None:
        target = self.folder / name
        target.parent.mkdir(exist_ok=True)
        if max(image.size) <= CRISP:
            image.save(target, lossless=True, quality=40, method=2)
        else:
            image.save(target, quality=82, method=2)
        self.num_bytes += target.stat().st_size

    def first_page(self, samples: SampleList) -> list[Picture]:
        """The first samples of the plan, with or without a picture."""
        pictures: list[Picture] = []
        for start, table in samples.tables:
            for i, row in enumerate(table.slice(0, PAGE_SIZE - len(pictures)).to_pylist()):
                width, height = self.written.get(start + i, (0, 0))
                picture = Picture(
                    position=start + i,
                    key=plain(row["key"], limit=200),
                    image_index=row["image_index"],
                    prompt=plain(row["prompt"] or "", limit=300),
                    seed=row["seed"],
                    truncated=bool(row["truncated"]),
                    failed=row["error"] is not None,
                    thumbnail=thumbnail_file(start + i) if width else "",
                    crisp=max(width, height) <= CRISP,
                )
                pictures.append(picture)
            if len(pictures) == PAGE_SIZE:
                break
        return pictures


def thumbnail_file(position: int) -> str:
    """Where the thumbnail of a sample is."""
    return f"thumbs/{position:06d}.webp"


def by_shard(run: RunDirectory, positions: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Shards that hold some of these positions, in order, with the positions."""
    starts = np.array(run.shard_starts)
    found: dict[int, list[int]] = {}
    for position in positions:
        shard = int(np.searchsorted(starts, position, side="right")) - 1
        found.setdefault(shard, []).append(position)
    yield from sorted(found.items())

"""The first samples of the plan as pictures: files beside the page, named by position."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from PIL import Image

from evaluator.report.images import LARGE, THUMBNAIL, SampleId, enlarged, fitted, read_images
from evaluator.report.text import plain

NUM_PICTURES = 64
"""Pictures on the page."""

SHEET_SIDE = 128
"""Side of a picture in the contact sheet."""

CRISP = 128
"""Images with a longest side below this are shown with sharp pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One sample on the page; all text is fit to show."""

    position: int
    key: str
    image_index: int
    prompt: str
    seed: int
    truncated: bool
    width: int
    height: int
    thumbnail: str
    """File beside the page."""
    large: str
    """File that the thumbnail links to; the thumbnail itself when that is full size."""

    @property
    def crisp(self) -> bool:
        """Whether enlarging should keep the pixels visible."""
        return max(self.width, self.height) < CRISP


@dataclass
class Gallery:
    """Pictures of the first samples that have an image."""

    folder: Path
    """The report being written."""
    pictures: list[Picture] = field(default_factory=list)
    sheet: list[Image.Image] = field(default_factory=list)
    """The same pictures, small, for the contact sheet."""

    @property
    def full(self) -> bool:
        """Whether no more pictures are wanted."""
        return len(self.pictures) >= NUM_PICTURES

    def add(self, samples: pa.Table, tar: Path, start: int) -> None:
        """Add pictures of one shard, whose first sample is at position `start` of the plan."""
        rows = {}
        for i, row in enumerate(samples.slice(0, _scan_limit(samples)).to_pylist()):
            if row["error"] is None:
                rows[SampleId(row["key"], row["image_index"])] = (start + i, row)
        room = NUM_PICTURES - len(self.pictures)
        wanted = list(rows)[:room]
        for sample, image in read_images(tar, wanted):
            position, row = rows[sample]
            thumbnail, large = self._write(position, image)
            self.sheet.append(enlarged(image, SHEET_SIDE))
            self.pictures.append(
                Picture(
                    position=position,
                    key=plain(row["key"], limit=200),
                    image_index=row["image_index"],
                    prompt=plain(row["prompt"] or "", limit=300),
                    seed=row["seed"],
                    truncated=bool(row["truncated"]),
                    width=image.width,
                    height=image.height,
                    thumbnail=thumbnail,
                    large=large,
                )
            )

    def _write(self, position: int, image: Image.Image) -> tuple[str, str]:
        """Write the files of one picture; their names come from its position alone."""
        thumbnail = f"thumbs/{position:06d}.png"
        (self.folder / "thumbs").mkdir(exist_ok=True)
        fitted(image, THUMBNAIL).save(self.folder / thumbnail)
        if max(image.size) <= THUMBNAIL:
            return thumbnail, thumbnail
        large = f"images/{position:06d}.webp"
        (self.folder / "images").mkdir(exist_ok=True)
        fitted(image, LARGE).save(self.folder / large, quality=90)
        return thumbnail, large


def _scan_limit(samples: pa.Table) -> int:
    """Rows to look at for pictures: a shard may be large, and only the first few are shown."""
    return min(int(samples.num_rows), 16 * NUM_PICTURES)

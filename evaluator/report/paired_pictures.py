"""The same samples of several runs: their images and the heat maps of their words, looked up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from evaluator.errors import EvaluatorError
from evaluator.report.beside import PICTURES
from evaluator.report.heatmaps import COLUMNS, MAX_WORDS, SIDE, Map, overall, overlay, rows_of
from evaluator.report.images import LARGE, THUMBNAIL, SampleId, fitted, read_images
from evaluator.report.text import plain
from evaluator.store.rundir import RunDirectory

IDENTITY = ("key", "image_index")

MAX_SHARDS = 16
"""Shards in which samples with heat maps are looked for."""

CRISP = 128
"""Images with a longest side below this are shown with sharp pixels."""


class WordPicture(NamedTuple):
    """One word's heat map over its image."""

    word: str
    file: str


class SamplePicture(NamedTuple):
    """One sample of one run, as files beside the page."""

    thumbnail: str
    large: str
    """What the thumbnail links to; the thumbnail itself when that is full size."""
    width: int
    height: int
    crisp: bool
    words: Sequence[WordPicture]
    """Empty where no heat maps were kept."""


@dataclass
class PairedPictures:
    """Pictures of the samples of several runs, written once each, however often they are shown.

    The names of their files come from counting alone.
    """

    folder: Path
    """The page's folder."""
    faults: list[str] = field(default_factory=list)
    """Files that could not be read, and why."""
    prompts: dict[SampleId, str] = field(default_factory=dict)
    """Text of each sample's prompt, as its run's table has it. Untrusted."""
    _written: dict[tuple[str, SampleId], SamplePicture] = field(default_factory=dict)

    def write(self, letter: str, run: RunDirectory, wanted: Iterable[SampleId]) -> None:
        """Write the pictures of a run's samples; those without an image are left out.

        Only the shards of these samples are read, one at a time.
        """
        numbers = {sample: i for i, sample in enumerate(dict.fromkeys(wanted))}
        if not numbers:
            return
        (self.folder / PICTURES).mkdir(exist_ok=True)
        for index, here in _by_shard(run, numbers).items():
            if not run.is_committed(index):
                continue
            heat = self._read(run, index, "heatmaps", COLUMNS)
            self._note_prompts(run, index, here)
            for sample, image in read_images(run.shard_path(index) / "images.tar", here):
                stem = f"{PICTURES}/{letter.lower()}-{numbers[sample]:04d}"
                words = [] if heat is None else _words(heat, sample)
                self._written[letter, sample] = self._write(stem, image, words)

    def find(self, letter: str, sample: SampleId) -> SamplePicture | None:
        """The pictures of a sample; None where its run has no image of it."""
        return self._written.get((letter, sample))

    def _note_prompts(self, run: RunDirectory, index: int, here: Collection[SampleId]) -> None:
        samples = self._read(run, index, "samples", (*IDENTITY, "prompt"))
        for row in samples.to_pylist() if samples is not None else ():
            sample = SampleId(row["key"], row["image_index"])
            if sample in here:
                self.prompts.setdefault(sample, row["prompt"] or "")

    def _read(
        self, run: RunDirectory, index: int, kind: str, columns: Sequence[str]
    ) -> pa.Table | None:
        """A table of a shard with all of these columns; None where there is none."""
        try:
            table = run.read(index, f"{kind}.parquet", kind=kind, columns=columns)
        except FileNotFoundError:
            return None
        except EvaluatorError as error:
            self.faults.append(plain(error, limit=500))
            return None
        return table if set(columns) <= set(table.column_names) else None

    def _write(
        self, stem: str, image: Image.Image, words: Sequence[tuple[str, Map]]
    ) -> SamplePicture:
        thumbnail = large = f"{stem}.png"
        fitted(image, THUMBNAIL).save(self.folder / thumbnail)
        if max(image.size) > THUMBNAIL:
            large = f"{stem}.webp"
            fitted(image, LARGE).save(self.folder / large, quality=90)
        maps = []
        for i, (word, values) in enumerate(words):
            file = f"{stem}-{i:02d}.png"
            overlay(values, image, SIDE).save(self.folder / file)
            maps.append(WordPicture(word, file))
        crisp = max(image.size) < CRISP
        return SamplePicture(thumbnail, large, image.width, image.height, crisp, maps)


def _by_shard(run: RunDirectory, wanted: Collection[SampleId]) -> dict[int, list[SampleId]]:
    """Shard → the samples that the plan puts there."""
    plan = run.plan.select(["shard", "key", "image_index"])
    keys = pa.array(sorted({s.key for s in wanted}), plan.schema.field("key").type)
    rows = plan.filter(pc.is_in(plan.column("key"), keys))
    left = set(wanted)
    shards: dict[int, list[SampleId]] = defaultdict(list)
    for shard, key, index in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        if (sample := SampleId(key, index)) in left:
            shards[shard].append(sample)
    return shards


def _words(heat: pa.Table, sample: SampleId) -> list[tuple[str, Map]]:
    """A sample's words, in the order of the prompt, and their maps over all steps; fit to show."""
    return list(overall(rows_of(heat, sample)).values())[:MAX_WORDS]


def samples_with_maps(run: RunDirectory) -> list[SampleId]:
    """Samples of the first shards that kept heat maps, in the order of their tables."""
    found: dict[SampleId, None] = {}
    for index in run.committed()[:MAX_SHARDS]:
        try:
            heat = run.read(index, "heatmaps.parquet", kind="heatmaps", columns=IDENTITY)
        except (FileNotFoundError, EvaluatorError):
            continue
        pairs = heat.group_by(list(IDENTITY), use_threads=False).aggregate([])
        found.update(dict.fromkeys(SampleId(*row.values()) for row in pairs.to_pylist()))
    return list(found)

"""Heat maps of words, over the image that they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from evaluator.report.colour import heat_colours
from evaluator.report.images import SampleId, enlarged, read_images
from evaluator.report.text import plain

NUM_SAMPLES = 8
MAX_WORDS = 12
MAX_STEPS = 10
SIDE = 160
"""Longest side of a heat map picture."""
TILE = 64
"""Side of a picture in the grids of words by step and by layer."""
GRID_OPACITY = 0.86
"""Of the heat in those: a bright image under it would be taken for heat in pictures so small."""
ALL_STEPS = -1
COLUMNS = ("key", "image_index", "step", "word", "token", "token_text", "height", "width", "map")
LAYER_COLUMNS = (*COLUMNS, "layer")
MAX_LAYERS = 12
MAX_LAYER_BYTES = 256 * 2**20
"""Of a file `heatmaps_layers.parquet`; every step and layer of a large model is gigabytes."""

Map = NDArray[np.float64]
_Row = Mapping[str, Any]


class WordMap(NamedTuple):
    """One word's heat map on the page."""

    word: str
    file: str
    picture: Image.Image


@dataclass(frozen=True, slots=True)
class HeatSample:
    """A sample with the heat maps of its words; text is fit to show."""

    position: int
    prompt: str
    file: str
    """The image itself; empty when it was not kept."""
    picture: Image.Image | None
    words: Sequence[WordMap]


class StepGrid(NamedTuple):
    """Heat maps of one prompt: a row for each word, a column for each step."""

    prompt: str
    steps: Sequence[int]
    rows: Sequence[tuple[str, Sequence[Image.Image]]]


class LayerGrid(NamedTuple):
    """The same with a column for each layer or group of layers, all steps together."""

    prompt: str
    layers: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Image.Image]]]


@dataclass
class HeatMaps:
    """The first samples of the plan that have heat maps."""

    folder: Path
    samples: list[HeatSample] = field(default_factory=list)
    grid: StepGrid | None = None
    layers: LayerGrid | None = None

    @property
    def full(self) -> bool:
        """Whether no more samples are wanted."""
        return len(self.samples) >= NUM_SAMPLES

    def add(self, heat: pa.Table, samples: pa.Table, tar: Path, start: int) -> None:
        """Add samples of one shard from its tables `heatmaps` and `samples`."""
        found = _positions(heat, samples, start, NUM_SAMPLES - len(self.samples))
        images = dict(read_images(tar, list(found)))
        for sample, (position, prompt) in found.items():
            rows = rows_of(heat, sample)
            added = self._sample(position, prompt, rows, images.get(sample))
            if added is None:
                continue
            self.samples.append(added)
            if self.grid is None:
                self.grid = _step_grid(prompt, rows, images.get(sample))

    def add_layers(self, maps: pa.Table, samples: pa.Table, tar: Path) -> None:
        """Draw the first sample of a shard's `heatmaps_layers`."""
        for sample, (_, prompt) in _positions(maps, samples, 0, 1).items():
            image = dict(read_images(tar, [sample])).get(sample)
            self.layers = _layer_grid(prompt, rows_of(maps, sample), image)

    def _sample(
        self, position: int, prompt: str, rows: Sequence[_Row], image: Image.Image | None
    ) -> HeatSample | None:
        maps = list(overall(rows).values())[:MAX_WORDS]
        if not maps:
            return None
        (self.folder / "heat").mkdir(exist_ok=True)
        words = []
        for i, (word, values) in enumerate(maps):
            picture = overlay(values, image, SIDE)
            file = f"heat/{position:06d}-{i:02d}.png"
            picture.save(self.folder / file)
            words.append(WordMap(word, file, picture))
        file, shown = "", None
        if image is not None:
            file, shown = f"heat/{position:06d}.png", enlarged(image, SIDE)
            shown.save(self.folder / file)
        return HeatSample(position, prompt, file, shown, words)


def overlay(
    values: Map, image: Image.Image | None, side: int, *, opacity: float = 0.72
) -> Image.Image:
    """A heat map, scaled to its own maximum, over the grey image (or alone)."""
    top = np.nanmax(values, initial=0.0)
    scaled = np.nan_to_num(values / top if top > 0 else values * 0.0)
    if image is not None:
        ground = enlarged(image, side)
    else:
        factor = side / max(values.shape)
        size = (max(1, round(values.shape[1] * factor)), max(1, round(values.shape[0] * factor)))
        ground = Image.new("RGB", size)
    small = Image.fromarray(scaled.astype(np.float32))
    smooth = np.asarray(small.resize(ground.size, Image.Resampling.BILINEAR))
    colours = Image.fromarray(heat_colours(smooth))
    if image is None:
        return colours
    return Image.blend(ground.convert("L").convert("RGB"), colours, opacity)


def _positions(
    heat: pa.Table, samples: pa.Table, start: int, room: int
) -> dict[SampleId, tuple[int, str]]:
    """The first samples with heat maps, in the order of the plan → position and prompt."""
    pairs = heat.select(["key", "image_index"]).group_by(["key", "image_index"], use_threads=False)
    having = {SampleId(*row.values()) for row in pairs.aggregate([]).to_pylist()}
    found: dict[SampleId, tuple[int, str]] = {}
    columns = [samples.column(name).to_pylist() for name in ("key", "image_index", "prompt")]
    for i, (key, index, prompt) in enumerate(zip(*columns, strict=True)):
        if len(found) < room and (key, index) in having:
            found[SampleId(key, index)] = (start + i, plain(prompt or "", limit=300))
    return found


def rows_of(heat: pa.Table, sample: SampleId) -> list[dict[str, Any]]:
    """A sample's rows that hold a map of the size that they name."""
    key = pc.equal(heat.column("key"), sample.key)
    index = pc.equal(heat.column("image_index"), sample.image_index)
    rows: list[dict[str, Any]] = heat.filter(pc.and_(key, index)).to_pylist()
    return [row for row in rows if _well_formed(row)]


def _well_formed(row: _Row) -> bool:
    return bool(row["map"]) and len(row["map"]) == row["height"] * row["width"]


def overall(rows: Sequence[_Row]) -> dict[int, tuple[str, Map]]:
    """Word → its text and its map over all steps; the mean of the steps where none is stored."""
    overall = [row for row in rows if row["step"] == ALL_STEPS]
    return by_word(overall or rows)


def by_word(rows: Iterable[_Row]) -> dict[int, tuple[str, Map]]:
    """Word → its tokens' text and the mean of their maps, in the order of the prompt.

    Where two encoders read the prompt, a word has tokens of both, and the first one's name it.
    """
    maps: dict[int, list[Map]] = defaultdict(list)
    texts: dict[int, dict[int, str]] = defaultdict(dict)
    for row in rows:
        if row["word"] < 0:
            continue  # begin and end of text
        values = np.array(row["map"], dtype=np.float64).reshape(row["height"], row["width"])
        group = maps[row["word"]]
        if not group or group[0].shape == values.shape:
            group.append(values)
        texts[row["word"]][row["token"]] = row["token_text"] or ""
    words = {}
    for word in sorted(maps):
        first = min(texts[word])
        ours = [texts[word][t] for i, t in enumerate(sorted(texts[word])) if t == first + i]
        text = "".join(ours).replace("</w>", "")
        words[word] = (plain(text, limit=24) or f"word {word}", np.mean(maps[word], axis=0))
    return words


def _step_grid(prompt: str, rows: Sequence[_Row], image: Image.Image | None) -> StepGrid | None:
    """Words × steps of one prompt; None when maps were kept for all steps together only."""
    steps = sorted({row["step"] for row in rows if row["step"] != ALL_STEPS})
    if len(steps) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(steps) - 1, MAX_STEPS).round().astype(int))
    steps = [steps[i] for i in chosen]
    columns = [by_word(row for row in rows if row["step"] == step) for step in steps]
    return StepGrid(prompt, steps, _lines(columns, image))


def _layer_grid(prompt: str, rows: Sequence[_Row], image: Image.Image | None) -> LayerGrid | None:
    """Words × layers of one prompt, the mean of each layer's steps, from the first to run on."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    if len(layers) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(layers) - 1, MAX_LAYERS).round().astype(int))
    layers = [layers[i] for i in chosen]
    columns = [by_word(row for row in rows if row["layer"] == layer) for layer in layers]
    names = [plain(layer, limit=60) for layer in layers]
    return LayerGrid(prompt, names, _lines(columns, image))


def layer_caption(layer: str) -> str:
    """A layer or group in two short lines: `up 1.0.0` of a path, `down 8x8` of `down-8x8`."""
    if "." not in layer:
        return " ".join(layer.rsplit("-", 1))
    numbers = ".".join(part for part in layer.split(".") if part.isdigit())
    return f"{layer.split('.')[0].removesuffix('blocks').strip('_')} {numbers}"


def _lines(
    columns: Sequence[Mapping[int, tuple[str, Map]]], image: Image.Image | None
) -> list[tuple[str, list[Image.Image]]]:
    """A line of pictures for each word, over the image."""
    words = {w: text for maps in columns for w, (text, _) in maps.items()}
    nothing = np.full((1, 1), np.nan)
    lines = []
    for word in sorted(words)[:MAX_WORDS]:
        maps = [column.get(word, ("", nothing))[1] for column in columns]
        tiles = [overlay(values, image, TILE, opacity=GRID_OPACITY) for values in maps]
        lines.append((words[word], tiles))
    return lines

"""The image of the reference that is nearest to a sample, made small to stand beside it.

Where a reference lies is in `asked.json`. Images are read from this machine only, a bounded number
of them; for those that cannot be shown, the page says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from evaluator.data import Pack, open_pack
from evaluator.data.locate import find_tars
from evaluator.errors import EvaluatorError
from evaluator.report.gallery import CRISP, by_shard
from evaluator.report.images import MAX_BYTES as MAX_IMAGE_BYTES
from evaluator.report.images import THUMBNAIL, SampleId, decode, fitted, read_images
from evaluator.report.results import Result
from evaluator.report.scores import Nearest
from evaluator.store.rundir import RunDirectory
from evaluator.store.settings import read_config

FOLDER = "nearest"

MAX_PICTURES = 512
"""Images of references that are read, of all metrics together."""

MAX_BYTES = 512 * 2**20
"""And how much they hold as files."""

MAX_KEYS = 2_000_000
"""Images of a reference among which one is looked up."""

MEASURES = {
    "memorized_fraction": "largest cosine similarity",
    "authpct": "smallest Euclidean distance",
}
"""How metrics choose the nearest image, by how their names begin."""


class _Unreadable(Exception):
    """Why no image of a reference can be shown, for the page."""


class Found(NamedTuple):
    """What the page shows of one metric."""

    measure: str
    """By which number and in whose features the image is nearest, and of which reference."""
    pictures: Mapping[int, int]
    """Position in the plan → number of its picture."""
    crisp: Sequence[int]
    """Numbers of pictures so small that their pixels are shown as squares."""
    why: str
    """Why samples have no picture; empty where all that could have one do."""

    def record(self, metric: int, said: Mapping[int, str]) -> dict[str, Any]:
        """The same for the page's script."""
        return {
            "measure": self.measure,
            "pictures": {
                str(place): [f"{metric:02d}-{number:05d}", number in self.crisp, said[place]]
                for place, number in self.pictures.items()
            },
            "why": self.why,
        }


@dataclass
class NearestPictures:
    """Pictures of references, as many as fit."""

    folder: Path
    """The report being written."""
    found: list[Found] = field(default_factory=list)
    num_read: int = 0
    num_bytes: int = 0

    def write(
        self,
        run: RunDirectory,
        nearest: Sequence[Nearest],
        results: Sequence[Result],
        order: Sequence[int],
    ) -> None:
        """Write the pictures of samples at the positions `order`, those that matter most first."""
        places = _places(run)
        for i, near in enumerate(nearest):
            result = _result_of(near.table, results)
            reference = result.reference if result is not None else ""
            wanted = {place: near.samples[place] for place in order if place in near.samples}
            try:
                if not reference or reference not in places:
                    raise _Unreadable("asked.json does not say where this reference lies.")
                pictures, crisp, why = self._write(i, wanted, places[reference])
            except (_Unreadable, EvaluatorError, OSError, pa.ArrowException) as error:
                told = str(error) if isinstance(error, _Unreadable) else "It could not be read."
                pictures, crisp, why = {}, [], told
            self.found.append(Found(_measure(near.table, result), pictures, crisp, why))

    def _write(
        self, metric: int, wanted: Mapping[int, SampleId], place: Mapping[str, Any]
    ) -> tuple[dict[int, int], list[int], str]:
        """Position → number of its picture, the small ones, and why others have none."""
        room = max(0, MAX_PICTURES - self.num_read)
        distinct = list(dict.fromkeys(wanted.values()))
        self.num_read += len(distinct[:room])
        numbers: dict[SampleId, int] = {}
        crisp: list[int] = []
        for sample, image in _images(place, distinct[:room], self._fits):
            number = numbers[sample] = len(numbers)
            if max(image.size) <= CRISP:
                crisp.append(number)
            target = self.folder / FOLDER / f"{metric:02d}-{number:05d}.webp"
            target.parent.mkdir(exist_ok=True)
            small = max(image.size) <= CRISP
            fitted(image, THUMBNAIL).save(target, lossless=small, quality=82, method=2)
        why = "Only samples that have a picture here are shown beside theirs."
        if len(numbers) < len(distinct):
            why = f"{len(numbers):,} of {len(distinct):,} images of the reference are shown: "
            why += "the others could not be read." if len(distinct) <= room else "as many as fit."
        pictures = {place: numbers[each] for place, each in wanted.items() if each in numbers}
        return pictures, crisp, why

    def _fits(self, size: int) -> bool:
        """Whether a file of `size` bytes may still be read; counts it."""
        if size > MAX_IMAGE_BYTES or self.num_bytes + size > MAX_BYTES:
            return False
        self.num_bytes += size
        return True


def _places(run: RunDirectory) -> dict[str, Mapping[str, Any]]:
    """Reference → where it lies, as `asked.json` says; what is no such thing is left out."""
    try:
        record = json.loads((run.path / "asked.json").read_bytes())
        places = record["references"].items()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return {}
    return {name: place for name, place in places if isinstance(place, Mapping)}


def _result_of(table: str, results: Sequence[Result]) -> Result | None:
    """The result whose table of single samples this is.

    A table is called by its metric, and by its reference and a number behind it where the metric
    is asked for repeatedly.
    """
    fitting = [r for r in results if not r.group and f"{table}-".startswith(f"{r.metric}-")]
    exact = [r for r in fitting if f"{table}-".startswith(f"{r.metric}-{r.reference}-")]
    return next(iter(exact or fitting), None)


def _measure(table: str, result: Result | None) -> str:
    said = next((said for name, said in MEASURES.items() if table.startswith(name)), "")
    if result is None:
        return said
    where = f"features of {result.shown_extractor}" if result.extractor else ""
    of = f"reference {result.shown_reference}" if result.reference else ""
    return ", ".join(part for part in (said, where, of) if part)


# -- where the images are -------------------------------------------------------------------------


def _images(
    place: Mapping[str, Any], samples: Sequence[SampleId], fits: Callable[[int], bool]
) -> Iterator[tuple[SampleId, Image.Image]]:
    """Those of the images that can be read, in any order; _Unreadable where none can."""
    pack, run = place.get("pack"), place.get("run")
    if isinstance(pack, str):
        yield from _packed(_opened(Path(pack), run), samples, fits)
    elif isinstance(run, str):
        yield from _kept(Path(run), samples)
    else:
        raise _Unreadable("Of this reference only moments are known, and no images.")


def _opened(path: Path, run: object) -> Pack:
    """The pack of a reference, with its tars on this machine."""
    if not path.is_dir():
        raise _Unreadable("The pack of this reference is no longer where it was.")
    pack = open_pack(path)
    if pack.num_samples > MAX_KEYS:
        raise _Unreadable(f"The reference has more than {MAX_KEYS:,} images.")
    if all((path / tar).is_file() for tar in pack.index.tars):
        return pack
    source = _source(Path(run)) if isinstance(run, str) else None
    tars = find_tars(source) if source is not None and source.exists() else None
    if tars is None or not all((tars.root / tar).is_file() for tar in pack.index.tars):
        raise _Unreadable("The tars of this reference are not on this machine, or no longer there.")
    return open_pack(path, root=tars.root)


def _source(run: Path) -> Path | None:
    """What the run of a reference was made from, where that lies on this machine."""
    try:
        source = read_config(RunDirectory(run))["prompts"]["source"]
    except (EvaluatorError, KeyError, TypeError):
        return None
    local = isinstance(source, str) and "://" not in source and Path(source).is_absolute()
    return Path(source) if local else None


def _packed(
    pack: Pack, samples: Iterable[SampleId], fits: Callable[[int], bool]
) -> Iterator[tuple[SampleId, Image.Image]]:
    for sample in samples:
        try:
            position = pack.position(sample.key)
            part = pack.image_part(sample.key)
            sizes = {row.part: row.size for row in pack.rows(range(position, position + 1))[0]}
            if part is None or not fits(sizes[part]):
                continue
            image = decode(pack.read(sample.key, part))
        except EvaluatorError:
            continue
        if image is not None:
            yield sample, image


def _kept(path: Path, samples: Sequence[SampleId]) -> Iterator[tuple[SampleId, Image.Image]]:
    """Images that another run kept."""
    run = RunDirectory.open(path)
    if not any(path.glob("shards/*/images.tar")):
        raise _Unreadable("The run that is the reference did not keep its images.")
    if run.num_samples > MAX_KEYS:
        raise _Unreadable(f"The reference has more than {MAX_KEYS:,} images.")
    names = pc.binary_join_element_wise(
        run.plan_column("key"), pc.cast(run.plan_column("image_index"), pa.string()), "/"
    ).combine_chunks()
    wanted = {f"{sample.key}/{sample.image_index}": sample for sample in samples}
    places = pc.index_in(pa.array(wanted, pa.string()), value_set=names).to_pylist()
    found = dict(zip(places, wanted.values(), strict=True))
    positions = sorted(place for place in found if place is not None)
    for shard, some in by_shard(run, positions):
        tar = run.shard_path(shard) / "images.tar"
        yield from read_images(tar, [found[place] for place in some])

"""Images to be shown: those that a run kept, and real ones from a run, a pack or any source."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from evaluator.errors import ConfigError, InputError, SampleError
from evaluator.report.images import SampleId, read_images
from evaluator.store.naming import distinct_names
from evaluator.store.rundir import RunDirectory


class Images(Protocol):
    """Images under (key, image index)."""

    path: Path

    def prompts(self) -> dict[SampleId, str | None]:
        """The samples that have an image, and their prompts' texts."""

    def read(self, wanted: Collection[SampleId]) -> Iterator[tuple[SampleId, Image.Image]]:
        """The wanted images as RGB; what cannot be read is left out."""


class RunImages:
    """What a run made and kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run = RunDirectory.open(path)
        self._shards: dict[SampleId, int] = {}

    def prompts(self) -> dict[SampleId, str | None]:
        """The samples that have an image; InputError for a run that kept none."""
        found: dict[SampleId, str | None] = {}
        columns = ["key", "image_index", "prompt", "error"]
        for shard in self._run.committed():
            if not self._tar(shard).is_file():
                continue
            table = self._run.read(shard, "samples.parquet", kind="samples", columns=columns)
            for key, image_index, prompt, error in zip(
                *(table.column(name).to_pylist() for name in columns), strict=True
            ):
                if error is None:
                    found[SampleId(key, image_index)] = prompt
                    self._shards[SampleId(key, image_index)] = shard
        if not found:
            raise InputError(
                f"{self.path}: expected a run that kept images, got none of {self._run.num_samples}"
                " samples with one. Set runtime.images (png, webp), and run it again."
            )
        return found

    def read(self, wanted: Collection[SampleId]) -> Iterator[tuple[SampleId, Image.Image]]:
        """The wanted images, in the order of the plan."""
        by_shard: dict[int, list[SampleId]] = {}
        for sample in wanted:
            by_shard.setdefault(self._shards[sample], []).append(sample)
        for shard, samples in sorted(by_shard.items()):
            yield from read_images(self._tar(shard), samples)

    def _tar(self, shard: int) -> Path:
        return self._run.shard_path(shard) / "images.tar"


class PackImages:
    """Real images of a pack, or of any source that can be packed."""

    def __init__(self, source: str) -> None:
        from evaluator.data import open_source
        from evaluator.locations import cache_folder

        self.path = Path(source)
        self._pack = open_source(source, cache=cache_folder())

    def prompts(self) -> dict[SampleId, str | None]:
        """Every sample; captions of real images are not shown, and not read."""
        keys = self._pack.keys
        if self._pack.image_part(keys[0]) is None:
            raise InputError(
                f"--reference {self.path}: expected real images, got prompts without any; name a "
                "folder of images, a pack with images, or a run"
            )
        return {SampleId(key, 0): None for key in keys}

    def read(self, wanted: Collection[SampleId]) -> Iterator[tuple[SampleId, Image.Image]]:
        """The wanted images, in the order of the keys."""
        for sample in sorted(wanted):
            try:
                pixels = self._pack.image(sample.key)
            except SampleError:
                continue
            yield sample, Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def open_reference(source: str) -> Images:
    """A run, or a pack or source of real images."""
    path = Path(source)
    return RunImages(path) if (path / "init").is_dir() else PackImages(source)


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with the folders above where two have the same."""
    full = [path.resolve() for path in paths]
    if len(set(full)) < len(full):
        again = next(path for path in full if full.count(path) > 1)
        raise ConfigError(f"expected different runs, got {again} twice; leave one of them out")
    return distinct_names([(path.name, path) for path in full])


def common_samples(
    found: Sequence[dict[SampleId, str | None]],
) -> tuple[dict[SampleId, str | None], list[str]]:
    """Samples that every run has an image of, under the same prompt; and what was left out."""
    warnings = []
    everywhere = [sample for sample in found[0] if all(sample in other for other in found[1:])]
    same = {s: found[0][s] for s in everywhere if len({other[s] for other in found}) == 1}
    total = len(set().union(*found))
    if len(everywhere) < total:
        warnings.append(f"{total - len(everywhere)} of {total} samples are not in every run")
    if len(same) < len(everywhere):
        warnings.append(
            f"{len(everywhere) - len(same)} samples have another prompt in another run: left out"
        )
    if not same:
        raise InputError(
            "expected runs with images of the same prompts (key, image index and text), got no "
            f"sample in common ({', '.join(warnings) or 'none at all'}). Compare runs of one "
            "prompts file."
        )
    return same, warnings

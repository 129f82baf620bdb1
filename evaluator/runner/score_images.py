"""The images that a score takes: opened, looked at, and refused for what they lack."""

from __future__ import annotations

from pathlib import Path

from evaluator.aggregate.asked import asked_metrics
from evaluator.config import RunConfig
from evaluator.data import Pack, expand_source
from evaluator.errors import ConfigError, InputError
from evaluator.runner.surroundings import open_pack
from evaluator.runner.trust import Trust

REFERENCE = "real"
"""What the configuration calls the images to compare with."""
IMAGES = "IMAGES"
"""What messages call the images to judge, as the command line does."""
TEXT_INPUT = "text_cosine"
"""Input of the metrics that compare an image with its caption."""


def open_images(config: RunConfig, cache: Path, trust: Trust) -> dict[str, Pack]:
    """Both sets of images, packed; ConfigError with what is wrong with either."""
    sources = {IMAGES: config.prompts}
    for name, reference in config.references.items():
        if reference.images is not None:
            where = "--against" if name == REFERENCE else f"references.{name}"
            sources[where] = reference.images
    packs: dict[str, Pack] = {}
    faults: list[str] = []
    for where, source in sources.items():
        try:
            place = expand_source(source.source)
            if isinstance(place, Path):
                _refuse_run(place)
            packs[where] = open_pack(source, cache, trust)
            _require_images(packs[where], source=source.source)
        except InputError as error:
            faults.append(f"{where}: {error}")
    if IMAGES in packs and not faults:
        faults += _caption_faults(config, packs[IMAGES])
    if faults:
        raise ConfigError("the images cannot be scored:", tuple(faults))
    return packs


def is_run(path: Path) -> bool:
    """Whether a path is a run directory."""
    return (path / "init").is_dir() and (path / "shards").is_dir()


def _refuse_run(path: Path) -> None:
    if is_run(path):
        raise InputError(
            f"{path}: expected images, got a run directory; ask the run itself: add the metrics to"
            " its configuration and call `evaluator run` again, which embeds the images it kept"
        )


def _require_images(pack: Pack, *, source: str) -> None:
    if pack.image_part(pack.keys[0]) is None:
        raise InputError(
            f"{source}: expected images, got prompts without any; name the images (their captions"
            " go to --captions)"
        )


def _caption_faults(config: RunConfig, images: Pack) -> list[str]:
    """A line for the metrics that need captions, if there are none."""
    plans = asked_metrics(config).plans
    names = [plan.name for plan in plans if plan.input == TEXT_INPUT]
    if not names or images.prompts(0, 1)[0].text is not None:
        return []
    return [
        f"IMAGES: expected captions, which {', '.join(names)} compares the images with, got none;"
        " give --captions FILE (.jsonl or .csv with a column 'file_name', or .txt with one line"
        " for each image in the order of their names), or put a .txt beside each image"
    ]


def overlap(images: Pack, real: Pack, where: str) -> str | None:
    """A warning when the two sets share images, byte for byte."""
    ours, theirs = images.image_hashes(), real.image_hashes()
    shared = len(ours & theirs)
    if not shared:
        return None
    if ours == theirs:
        return (
            f"IMAGES and {where} hold the same images: distances come out near 0, and precision"
            " and coverage near 1, whatever the images show"
        )
    return (
        f"{shared} of {len(ours)} images are among those of {where} too, byte for byte: distances"
        " come out too small"
    )

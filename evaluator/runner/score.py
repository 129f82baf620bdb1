"""Images against images in one line: what `score` asks for, as the configuration of a run."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

from evaluator import plugins
from evaluator.aggregate.asked import asked_metrics
from evaluator.aggregate.summary import Summary
from evaluator.config import RunConfig, parse_record
from evaluator.data import Pack, expand_source
from evaluator.data.arrays import holds_both, holds_moments
from evaluator.data.open_raw import require_there
from evaluator.durable import write_atomically
from evaluator.errors import ConfigError, InputError
from evaluator.locations import CODE, PACKAGE_SCHEME, PUSH, expand, require_mounted
from evaluator.metrics.catalog import resolve
from evaluator.remote import RemotePath
from evaluator.runner.parts import check_names, with_implied
from evaluator.runner.score_images import IMAGES, REFERENCE, is_run, open_images, overlap
from evaluator.runner.surroundings import cache_folder
from evaluator.runner.trust import Trust

DEFAULT_METRICS = ("fid", "kid", "prdc", "inception_score")
"""What two sets of images are customarily compared by."""
CAPTION_METRIC = "clip_score"
"""What is asked for besides when there are captions."""
BATCH_SIZE = 32
"""More than a run's default: nothing but extractors has to fit into memory."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What the command line asks for."""

    images: str
    """Images to judge: folder, zip, tars, Parquet, `.npz`, or pack."""
    against: str | None = None
    """Real images, in any of these forms."""
    metrics: tuple[str, ...] | None = None
    """Names as in a configuration; None takes the customary ones."""
    captions: str | None = None
    """File with the captions of the images."""
    weights: tuple[str, ...] = ()
    """`extractor=location` for weights from elsewhere than usual."""
    batch_size: int | None = None
    """Images a forward pass."""
    limit: int | None = None
    """Take the first N images."""
    overrides: tuple[str, ...] = ()
    """`a.b=value`, for everything else that a configuration may say."""


class Score(NamedTuple):
    """A request that was checked, ready to run."""

    config: RunConfig
    path: Path
    """Run directory."""
    warnings: tuple[str, ...]
    """What is odd about the images."""


def prepare_score(
    request: ScoreRequest, *, output: Path | None, json: str | None = None, allow_code: bool
) -> Score:
    """The configuration and the run directory of a request; packs what is not packed yet.

    Without `output`, the run directory lies in the cache and is found by the place and content of
    the images: whatever they are compared with, they are embedded once. `json` is where the numbers
    will go. Raises ConfigError with every fault at once.
    """
    if json is not None and not Path(json).parent.is_dir():
        raise ConfigError(
            f"--json: expected a file in a folder that exists, got {json}; make the folder first"
        )
    if output is not None:
        require_mounted(output, what="--output", instead=PUSH)
    trust = Trust(allow_code=allow_code, relative_to=Path.cwd())
    config = score_config(request, trust=trust)
    cache = cache_folder(config)
    packs = open_images(config, cache, trust)
    images = packs[IMAGES]
    warnings = [
        warning
        for where, pack in packs.items()
        if where != IMAGES and (warning := overlap(images, pack, where))
    ]
    warnings += _unused_moments(config)
    path = output if output is not None else cache / "scores" / _digest(config, images)
    return Score(config, path, tuple(warnings))


def score_config(request: ScoreRequest, *, trust: Trust) -> RunConfig:
    """The configuration that a request stands for; raises ConfigError with every fault."""
    metrics = _metrics(request)
    faults: list[str] = []
    extractors: list[str] = []
    known: list[str] = []
    for name in metrics:
        try:
            if not (CODE.match(name) or plugins.is_known("metric", name, {})):
                extractors.append(resolve(name).extractor)
            known.append(name)
        except ConfigError as error:
            faults.append(f"--metrics: {str(error).removeprefix('metric: ')}")
    extractors = list(dict.fromkeys(extractors))
    weights, weight_faults = _weights(request.weights, extractors)
    source = {"source": _absolute(request.images), "limit": request.limit}
    record: dict[str, Any] = {
        "name": _name(request.images),
        "model": {"kind": "images"},
        "prompts": {**source, "captions": request.captions and _absolute(request.captions)},
        "references": {},
        "features": [{"name": name, "id": weights.get(name)} for name in extractors],
        "metrics": [{"name": name} for name in known],
        "runtime": {"images": "none", "batch_size": request.batch_size or BATCH_SIZE},
    }
    if request.against is not None:
        record["references"][REFERENCE] = _reference(_absolute(request.against))
    config = parse_record(record, request.overrides, where="score")
    faults += weight_faults + _faults(config, trust) + _missing(request)
    if faults:
        raise ConfigError("the images cannot be scored as asked:", tuple(faults))
    return config


def _metrics(request: ScoreRequest) -> list[str]:
    """The names asked for, each once."""
    if request.metrics is None:
        captioned = [CAPTION_METRIC] if request.captions is not None else []
        return [*DEFAULT_METRICS, *captioned]
    names = [name.strip() for name in request.metrics]
    if not any(names):
        raise ConfigError("--metrics: expected names, such as fid,kid,prdc, got none; leave it out")
    return list(dict.fromkeys(name for name in names if name))


def _faults(config: RunConfig, trust: Trust) -> list[str]:
    """What cannot be found or computed, as far as that shows without looking at an image."""
    faults: list[str] = []
    try:
        check_names(config, trust)
    except ConfigError as error:
        faults += error.faults
    compare = [metric.name for metric in config.metrics if _compares(metric.name)]
    if compare and not config.references:
        need_none = "inception_score" if "inception_score" not in compare else "vendi_inception"
        return [
            *faults,
            f"--against: expected real images to compare with for {', '.join(compare)}, got none;"
            f" add --against REAL, or ask for what needs none, such as --metrics {need_none}",
        ]
    try:
        with_implied(config.features, asked_metrics(config).metrics, trust)
    except ConfigError as error:
        faults += error.faults
    return faults


def _missing(request: ScoreRequest) -> list[str]:
    """A line for every path that is not there."""
    given = {IMAGES: request.images, "--against": request.against, "--captions": request.captions}
    faults = []
    for where, source in given.items():
        try:
            path = None if source is None else expand_source(source)
            # What is remote is asked for when it is opened.
            if isinstance(path, Path) and "{" not in path.name:
                require_there(path)
        except InputError as error:
            faults.append(f"{where}: {error}")
    return faults


def _compares(name: str) -> bool:
    """Whether a built-in metric needs a reference."""
    try:
        return resolve(name).reference
    except ConfigError:
        return False


def _weights(given: Sequence[str], extractors: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Extractor → location of its weights; and what is wrong with the others."""
    found: dict[str, str] = {}
    faults: list[str] = []
    for text in given:
        name, _, location = text.partition("=")
        if not name or not location:
            faults.append(f"--weights: expected extractor=location, got {text!r}")
        elif name not in extractors:
            close = difflib.get_close_matches(name, extractors, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; ask for a metric that uses it"
            faults.append(
                f"--weights: expected one of {', '.join(extractors) or 'no extractors'}, which the"
                f" metrics use, got {name!r}{hint}"
            )
        else:
            path = expand(location)
            if not path.exists() and location.startswith((".", "/", "~")):
                faults.append(
                    f"--weights: {name}: expected a file or folder, got nothing at {path}"
                )
            found[name] = os.path.abspath(path) if path.exists() else location
    return found, faults


def _absolute(source: str) -> str:
    """A source that means the same from any folder; as it is where it is no path at all."""
    if source.startswith(PACKAGE_SCHEME):
        return source
    try:
        place = expand_source(source)
        return os.path.abspath(place) if isinstance(place, Path) else str(place)
    except InputError:
        return source  # `_missing` says what is wrong with it


def _reference(location: str) -> dict[str, str]:
    """What `--against` means: a run, published moments, or images."""
    path = Path(location)
    if RemotePath.parse(location) is not None:
        return {"source": location}
    if is_run(path):
        return {"run": location}
    return {"moments" if holds_moments(path) else "source": location}


def _unused_moments(config: RunConfig) -> list[str]:
    """A line where published moments lie beside the real images, and distances leave them alone."""
    reference = config.references.get(REFERENCE)
    names = [metric.plan.name for metric in asked_metrics(config).metrics if metric.takes_moments]
    if reference is None or reference.source is None or reference.moments is not None or not names:
        return []
    if not holds_both(Path(reference.source)):
        return []
    return [
        f"--against: {Path(reference.source).name} holds mu and sigma beside its images;"
        f" {', '.join(names)} took the images. Published numbers take the moments:"
        f" --set references.{REFERENCE}.moments={reference.source}, with the resize that they were"
        " made with (guided-diffusion: --set features.inception.options.resize=legacy)"
    ]


def _name(images: str) -> str:
    """What progress and report call it: the images' own name."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(images).name).strip("-._")
    return stem[:100] or "score"


def _digest(config: RunConfig, images: Pack) -> str:
    """Where in the cache the run lies: by what is judged, not by what is asked of it."""
    record = [config.prompts.source, images.fingerprint, config.identity()]
    return hashlib.sha256(dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def numbers(summary: Summary) -> str:
    """What metrics.json holds."""
    return dumps(summary.record(), indent=1, sort_keys=True, allow_nan=False)


def write_numbers(summary: Summary, path: Path) -> None:
    """Write what metrics.json holds to a file elsewhere; StorageError where that fails."""
    write_atomically(path, numbers(summary).encode())

"""What MODEL stands for: a pipeline, a configuration, or a run; and the folder that is filled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evaluator.config import RunConfig, load_config
from evaluator.config.load import parse_record
from evaluator.errors import ConfigError, RunDirectoryError, StorageError
from evaluator.runner.identity import provenance, stored_config
from evaluator.store.rundir import RunDirectory
from evaluator.store.settings import read_config

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
PROBES = "probes"
"""The folder in a run, or in the current one, that verbs fill."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which model, and what differs from its own settings."""

    model: str
    """Pipeline folder, hub id or `package://name/path`; a configuration of `run` (YAML); or a run
    directory, whose stored configuration it then is, with the revision that the run pinned."""
    device: str | None = None
    """Such as `cuda:1`; None takes the GPU if there is one."""
    dtype: str | None = None
    """`float32`, `float16` or `bfloat16`."""
    steps: int | None = None
    """Denoising steps."""
    guidance_scale: float | None = None
    """Classifier-free guidance."""
    seed: int | None = None
    """Seed that every draw of the verb comes from."""
    overrides: tuple[str, ...] = ()
    """`a.b=value`, for anything else that a configuration may say."""
    allow_code: bool = False
    """Whether `module:attr` in the configuration is imported."""
    attachments: tuple[tuple[str, Path], ...] = ()
    """Name → image file that every sample gets: a ControlNet's `control`, `init`, `mask`. Without,
    those of the configuration's first prompt that has them."""


MAX_NAMED = 8
"""Runs of a folder that a message names."""


class Named(NamedTuple):
    """What a request names, before anything is loaded."""

    config: RunConfig
    relative_to: Path | None
    """Folder of the configuration file."""
    run: RunDirectory | None
    """The run that the configuration is of."""
    has_prompts: bool
    """Whether the configuration says which prompts; a pipeline named on its own has none."""


_OPTIONS = {
    "model.dtype": "--dtype",
    "generation.steps": "--steps",
    "generation.guidance_scale": "--guidance",
    "generation.seed": "--seed",
}
"""What the configuration calls it → the option that sets it."""


def open_named(request: ModelRequest) -> Named:
    """The configuration that a request stands for; ConfigError, RunDirectoryError."""
    values = (request.dtype, request.steps, request.guidance_scale, request.seed)
    given = {p: v for p, v in zip(_OPTIONS, values, strict=True) if v is not None}
    settings = [*(f"{path}={value}" for path, value in given.items()), *request.overrides]
    try:
        return _open(request, settings)
    except ConfigError as error:
        told = _by_option(error, given)
        if told is None:
            raise
        raise told from error


def _by_option(error: ConfigError, given: Iterable[str]) -> ConfigError | None:
    """The same faults under the options that were given; None where it is about none of them."""
    names = {f"{path}:": f"{_OPTIONS[path]}:" for path in given}
    heads = [fault.partition(" ")[0] for fault in error.faults]
    if not set(heads) & set(names):
        return None
    faults = tuple(
        fault.replace(head, names.get(head, head), 1)
        for head, fault in zip(heads, error.faults, strict=True)
    )
    if set(heads) <= set(names):
        return ConfigError("\n".join(faults))
    return ConfigError(str(error).partition("\n")[0], faults)


def _open(request: ModelRequest, settings: Sequence[str]) -> Named:
    path = Path(request.model)
    if (path / "init").is_dir():
        run = RunDirectory.open(path)
        stored = read_config(run)
        return Named(parse_record(stored, settings, where=str(path)), None, run, True)
    if path.suffix in CONFIG_SUFFIXES:
        return Named(load_config(path, settings), path.parent, None, True)
    if path.is_dir() and not any(path.iterdir()):
        raise ConfigError(
            f"{request.model}: expected a pipeline folder, a configuration or a run, got an empty "
            "folder; check the path"
        )
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise ConfigError(_neither(request.model, path))
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-._")
    record = {
        "name": stem[:100] or "model",
        "model": {"kind": "diffusers", "id": request.model},
        "prompts": {"source": "none"},
    }
    return Named(parse_record(record, settings, where=request.model), None, None, False)


def _neither(model: str, folder: Path) -> str:
    """Of a folder that is no pipeline and no run."""
    runs = sorted(str(inside) for inside in folder.iterdir() if (inside / "init").is_dir())
    remedy = "check the path"
    if runs:
        more = f" and {len(runs) - MAX_NAMED} more" if len(runs) > MAX_NAMED else ""
        remedy = f"name one of the runs in it: {', '.join(runs[:MAX_NAMED])}{more}"
    return (
        f"{model}: expected a pipeline folder (with model_index.json), a configuration or a run "
        f"(with init/), got a folder with neither; {remedy}"
    )


def output_place(verb: str, request: ModelRequest, output: Path | None) -> Path:
    """The folder that was asked for, `RUN/probes/<verb>`, else `probes/<verb>-<name>`.

    Checked before anything is computed: ConfigError, StorageError.
    """
    named = open_named(request)
    if output is None and named.run is not None:
        output = named.run.path / PROBES / verb
    output = output or Path(PROBES) / f"{verb}-{named.config.name}"
    require_place(output)
    return output


def require_place(output: Path) -> None:
    """Refuse what cannot become a folder that a verb fills."""
    if (output / "init").is_dir():
        raise ConfigError(
            f"--output: expected a folder of its own, got the run {output}; leave it out for "
            f"{output / PROBES}/<verb>, or name another"
        )
    here = output
    while not here.exists() and here != here.parent:
        here = here.parent
    if not here.is_dir():
        raise ConfigError(
            f"--output: expected a folder, new or not, got the file {here}; name another"
        )
    if not os.access(here, os.W_OK | os.X_OK):
        raise StorageError(
            f"--output: expected a folder that can be written, got {here} without the permission; "
            "name another"
        )


def require_same_weights(named: Named, found: object) -> None:
    """RunDirectoryError where a run's checkpoint holds other weights than the run was made with."""
    if named.run is None or stored_config(named.run).model != named.config.model:
        return
    expected = provenance(named.run)["model"].get("weights_sha256")
    if expected is not None and found != expected:
        raise RunDirectoryError(
            f"{named.run.path}: expected the weights that the run was made with (SHA-256 "
            f"{expected[:12]}), got others ({str(found)[:12]}): the checkpoint changed since. "
            "Restore it, or name the pipeline itself instead of the run."
        )

"""Whether a run directory is this evaluation's, and what it was made with."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from evaluator import __version__
from evaluator.config.load import describe_faults
from evaluator.config.schema import RunConfig
from evaluator.distributed import World
from evaluator.errors import RunDirectoryError
from evaluator.runner.plan import plan_of, prompts_per_shard
from evaluator.store.claims import Worker
from evaluator.store.rundir import RunDirectory
from evaluator.store.settings import read_config, read_provenance

PACKAGES = (
    "torch", "diffusers", "transformers", "torchmetrics", "accelerate", "webdataset", "pyarrow",
    "numpy", "pillow", "safetensors", "tokenizers",
)  # fmt: skip
"""Packages whose versions can change a number."""


def init_files(
    config: RunConfig, pack_fingerprint: str, model: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files of `init/`: the resolved configuration, and what the run was made with."""
    record = config.model_dump(mode="json")
    if model.get("revision") is not None:
        record["model"]["revision"] = model["revision"]
    provenance = {
        "versions": versions(),
        "git_revision": _git_revision(),
        "platform": platform.platform(),
        "model": dict(model),
        "prompts": {"fingerprint": pack_fingerprint},
    }
    return {
        "config.yaml": yaml.safe_dump(record, sort_keys=False, allow_unicode=True).encode(),
        "provenance.json": json.dumps(provenance, indent=1, sort_keys=True).encode(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, this package and those that compute."""
    found = {"python": platform.python_version(), "evaluator": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def stored_config(run: RunDirectory) -> RunConfig:
    """The configuration that made a run; RunDirectoryError where it cannot be read."""
    try:
        return RunConfig.model_validate(read_config(run))
    except ValidationError as error:
        faults = "; ".join(describe_faults(error))
        raise RunDirectoryError(
            f"{run.path / 'init' / 'config.yaml'}: expected the settings of a run, got: {faults}. "
            "A newer evaluator may have written it: use that one."
        ) from error


def provenance(run: RunDirectory) -> dict[str, Any]:
    """What a run was made with; RunDirectoryError where it cannot be read."""
    return read_provenance(run)


def require_same(run: RunDirectory, config: RunConfig, pack_fingerprint: str) -> None:
    """Raise RunDirectoryError with every difference between `config` and the run's own."""
    stored = stored_config(run)
    mine, theirs = config.identity(), stored.identity()
    if mine["model"].get("revision", 0) is None:
        mine["model"]["revision"] = theirs["model"].get("revision")
    differences = [
        f"{path}: the run has {_said(there)}, this configuration {_said(here)}"
        for path, there, here in _differences(theirs, mine)
    ]
    made_from = provenance(run)["prompts"]["fingerprint"]
    if made_from != pack_fingerprint:
        differences.append(
            f"prompts: the run was planned from other content (fingerprint {made_from[:12]}, now "
            f"{pack_fingerprint[:12]})"
        )
    if differences:
        lines = "\n".join(f"  - {line}" for line in differences)
        raise RunDirectoryError(
            f"{run.path}: this directory holds another evaluation:\n{lines}\n"
            "Choose another --output, or another name, or undo the changes."
        )


def require_same_plan(run: RunDirectory, config: RunConfig, keys: Sequence[str]) -> None:
    """Raise RunDirectoryError unless the run was planned as this configuration would.

    The first and the last shard are looked at: what else there is follows from the configuration
    and the content of the prompts, which are the same.
    """
    num_samples = len(keys) * config.generation.images_per_prompt
    per_shard = prompts_per_shard(config)
    last = (len(keys) - 1) // per_shard
    same = run.num_samples == num_samples and run.num_shards == last + 1
    for shard in {0, last} if same else ():
        prompts = range(shard * per_shard, min((shard + 1) * per_shard, len(keys)))
        planned = plan_of(config, keys, prompts)
        found = run.plan_rows(shard, columns=planned.column_names)
        same = same and found.replace_schema_metadata(None).equals(planned)
    if not same:
        raise RunDirectoryError(
            f"{run.path}: expected a plan of {num_samples} samples as this configuration makes "
            f"it, got one of {run.num_samples} with other samples, order or seeds. Choose another "
            "--output."
        )


def require_same_model(run: RunDirectory, model: Mapping[str, Any]) -> None:
    """Raise RunDirectoryError when the weights changed since the run was planned."""
    made_with = provenance(run)["model"].get("fingerprint")
    if made_with is not None and model.get("fingerprint") != made_with:
        raise RunDirectoryError(
            f"{run.path}: expected the model that the run began with (fingerprint "
            f"{made_with[:12]}), got {str(model.get('fingerprint'))[:12]}: its weights or settings "
            "changed. Restore them, or choose another --output."
        )


def record_launch(run: RunDirectory, config: RunConfig, world: World) -> None:
    """Note this start in the run directory. Names sort by time; the process makes them unique."""
    now = time.time_ns()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9))
    worker = Worker.current().name
    record = {
        "command": sys.argv,
        "world_size": world.size,
        "device": world.device,
        "worker": worker,
        "versions": versions(),
        "runtime": config.runtime.model_dump(mode="json"),
    }
    run.record_launch(f"{stamp}.{now % 10**9:09d}-{worker.replace(':', '-')}", record)


def _said(value: Any) -> str:
    return "none" if value is None else repr(value)


def _differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
    elif a != b:
        yield path, a, b


def _git_revision() -> str | None:
    """The revision of this code where it runs from a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None

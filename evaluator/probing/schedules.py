"""`schedule`: the noise schedule of a run or a configuration, beside those of pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluator.config.pipeline import DiffusersModelConfig, SchedulerConfig
from evaluator.config.schema import OptimalDenoiserModelConfig
from evaluator.errors import ConfigError
from evaluator.locations import expand
from evaluator.models.schedulers import swap_scheduler
from evaluator.probes.scheduler_sources import NamedScheduler, open_scheduler
from evaluator.probing.named import CONFIG_SUFFIXES, PROBES, ModelRequest, Named, open_named
from evaluator.probing.outputs import ProbeFolder
from evaluator.runner.identity import provenance, versions


def open_schedule(model: str, settings: Mapping[str, Any] | None = None) -> NamedScheduler:
    """A scheduler by whatever `open_scheduler` takes, or that of a run or a configuration.

    It is then the pipeline's with the configuration's own in its place. No weights are read.
    """
    path = Path(model)
    if not (path / "init").is_dir() and path.suffix not in CONFIG_SUFFIXES:
        return open_scheduler(model, settings)
    named = open_named(ModelRequest(model))
    own, swap = _own(model, named)
    wanted = dict(settings or {})
    mu = wanted.pop("mu", None)
    if swap is None and wanted:
        swap = SchedulerConfig(name=type(own.scheduler).__name__, arguments=wanted)
    elif swap is not None:
        swap = SchedulerConfig(name=swap.name, arguments={**swap.arguments, **wanted})
    scheduler = own.scheduler if swap is None else swap_scheduler(own.scheduler, swap)
    return NamedScheduler(model, scheduler, pipeline=own.pipeline, mu=mu)


def _own(model: str, named: Named) -> tuple[NamedScheduler, SchedulerConfig | None]:
    """The checkpoint's scheduler, and what the configuration puts in its place."""
    config = named.config.model
    if isinstance(config, OptimalDenoiserModelConfig):
        usual = {"clip_sample": False, "timestep_spacing": "trailing"}
        return open_scheduler("DDIMScheduler", usual), config.scheduler
    if not isinstance(config, DiffusersModelConfig):
        raise ConfigError(
            f"{model}: expected a model with a noise schedule, got one of kind {config.kind}; name "
            "a pipeline, or a scheduler class of diffusers"
        )
    where = expand(config.id, relative_to=named.relative_to)
    location = str(where) if where.is_dir() else config.id
    return open_scheduler(location, revision=config.revision), config.scheduler


def num_steps_of(models: list[str], default: int) -> int:
    """The sampling steps of the first run or configuration among the models, else `default`."""
    for model in models:
        path = Path(model)
        if (path / "init").is_dir() or path.suffix in CONFIG_SUFFIXES:
            return open_named(ModelRequest(model)).config.generation.steps
    return default


def schedule_place(models: list[str]) -> Path:
    """Where the page goes: into a run that is asked about alone, else into `schedule`."""
    if len(models) == 1 and (Path(models[0]) / "init").is_dir():
        return Path(models[0]) / PROBES / "schedule"
    return Path("schedule")


def finish_schedule(
    folder: ProbeFolder,
    models: Sequence[str],
    *,
    num_steps: int,
    settings: Mapping[str, Any],
    lines: Sequence[str],
) -> Path:
    """Write result.json beside the table and the page: what was asked, printed and looked at."""
    for name in ("schedule.parquet", "schedule.html"):
        folder.holds(name)
    return folder.finish(
        {"num_steps": num_steps},
        arguments={"models": list(models), "steps": num_steps, "set": dict(settings)},
        provenance={"versions": versions(), "model": _made_from(models, settings)},
        lines=lines,
    )


def _made_from(models: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What init/provenance.json says of one run as it is; else the names alone."""
    if len(models) == 1 and not settings and (Path(models[0]) / "init").is_dir():
        run = open_named(ModelRequest(models[0])).run
        if run is not None:
            return dict(provenance(run)["model"])
    return {"id": ", ".join(models)}

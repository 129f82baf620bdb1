"""What a configuration would do, said before a GPU is booked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluator.aggregate.asked import asked_metrics
from evaluator.config.asked import ReferenceConfig
from evaluator.config.points import Sweep, once_for_all
from evaluator.config.schema import RunConfig
from evaluator.errors import ConfigError, EvaluatorError
from evaluator.locations import expand
from evaluator.runner.named import check_named
from evaluator.runner.parts import check_names, with_implied
from evaluator.runner.plan import plan_of
from evaluator.runner.references import checked_moments
from evaluator.runner.surroundings import cache_folder, keys_without_limit, open_pack
from evaluator.runner.trust import Trust
from evaluator.store.rundir import RunDirectory
from evaluator.text import count_of


def describe(loaded: RunConfig | Sweep, *, relative_to: Path, allow_code: bool) -> list[str]:
    """Lines that say what one run would make, or every point of a sweep; see `describe_job`."""
    if isinstance(loaded, RunConfig):
        return describe_job(loaded, relative_to=relative_to, allow_code=allow_code)
    described: dict[str, list[str]] = {}
    told: dict[str, tuple[str, ...]] = {}
    for point in loaded.points:
        try:
            _, *described[point.suffix] = describe_job(
                point.config, relative_to=relative_to, allow_code=allow_code
            )
        except ConfigError as error:
            told[point.suffix] = error.faults or (str(error),)
    if told:
        lines = once_for_all(told, len(loaded.points))
        raise ConfigError("the sweep is well-formed, but cannot run:", tuple(lines))
    shared = [
        line
        for line in described[loaded.points[0].suffix]
        if all(line in lines for lines in described.values())
    ]
    paths = ", ".join(loaded.paths)
    text = [
        f"{loaded.name}: the configuration is valid",
        f"sweep: {count_of(len(loaded.points), 'point')} over {paths}",
        *(f"{line} (at each point)" if line.startswith("plan:") else line for line in shared),
    ]
    for point in loaded.points:
        own = [line for line in described[point.suffix] if line not in shared]
        text += [f"{point.suffix}: {point.label}", *(f"  {line}" for line in own)]
    return text


def describe_job(config: RunConfig, *, relative_to: Path, allow_code: bool) -> list[str]:
    """Lines that say what would be made: samples, shards, batches, metrics.

    Raises ConfigError with everything that is wrong or missing, all at once. Imports nothing
    that the configuration names.
    """
    trust = Trust(allow_code=allow_code, relative_to=relative_to)
    faults: list[str] = []
    lines = [f"{config.name}: the configuration is valid"]
    try:
        check_names(config, trust)
    except ConfigError as error:
        faults += error.faults
    try:
        metrics = asked_metrics(config)
        with_implied(config.features, metrics.metrics, trust)
        names = [plan.name for plan in metrics.plans]
        lines.append(f"metrics: {', '.join(names) or 'none'}")
    except ConfigError as error:
        faults += error.faults or (str(error),)
    for where, location in _folders(config):
        path = expand(location, relative_to=relative_to)
        if not path.exists() and (location.count("/") != 1 or location.startswith((".", "/"))):
            faults.append(f"{where}: expected a folder or a hub id, got nothing at {path}")
    for check in (_check_scheduler, _check_heads):
        try:
            check(config, trust)
        except EvaluatorError as error:
            faults.append(str(error))
    sources = {"prompts": config.prompts}
    if config.model.kind == "optimal_denoiser":
        sources["model"] = config.model.images
    for name, reference in config.references.items():
        try:
            lines += _reference_lines(f"references.{name}", reference, trust, cache_folder(config))
        except EvaluatorError as error:
            faults.append(f"references.{name}: {error}")
        if (images := reference.images) is not None:
            sources[f"references.{name}"] = images
    for where, source in sources.items():
        try:
            pack = open_pack(source, cache_folder(config), trust)
            lines.append(f"{where}: {pack.num_samples} from {source.source}")
            if where == "prompts":
                lines += _plan_lines(config, pack.keys, trust)
        except ConfigError as error:
            faults += error.faults or (f"{where}: {error}",)
        except EvaluatorError as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise ConfigError("the configuration is well-formed, but cannot run:", tuple(faults))
    return lines


def _folders(config: RunConfig) -> list[tuple[str, str]]:
    named = [(f"features.{f.name}.id", f.id) for f in config.features if f.id is not None]
    if config.model.kind == "diffusers":
        model = config.model
        named.append(("model.id", model.id))
        named += [(f"model.loras.{i}.id", lora.id) for i, lora in enumerate(model.loras)]
        for part in ("controlnet", "refiner"):
            if (added := getattr(model, part)) is not None:
                named.append((f"model.{part}.id", added.id))
    return named


def _check_scheduler(config: RunConfig, trust: Trust) -> None:
    """Raise ConfigError for a scheduler that diffusers does not have."""
    if config.model.kind == "diffusers" and config.model.scheduler is not None:
        from evaluator.models.schedulers import check_scheduler_name

        check_scheduler_name(config.model.scheduler.name)


def _check_heads(config: RunConfig, trust: Trust) -> None:
    """Raise ConfigError for heads that no layer of a local checkpoint has.

    Its network is built without weights, which takes seconds: only where heads are asked for.
    """
    attention, model = config.probes.attention, config.model
    if attention is None or attention.map_heads is None or model.kind != "diffusers":
        return
    folder = expand(model.id, relative_to=trust.relative_to)
    if (folder / "model_index.json").is_file():
        from evaluator.models.loading import empty_denoiser
        from evaluator.probes.layers import check_heads_of

        check_heads_of(empty_denoiser(folder), attention.map_heads)


def _reference_lines(
    where: str, reference: ReferenceConfig, trust: Trust, cache: Path
) -> list[str]:
    """What a reference takes from another run or from a file of moments."""
    lines = []
    if reference.run is not None:
        run = RunDirectory.open(expand(reference.run, relative_to=trust.relative_to))
        lines.append(f"{where}: {run.num_samples} from the run {run.path}")
    if reference.moments is not None:
        lines.append(f"{where}: moments from {checked_moments(reference.moments, trust, cache)}")
    return lines


def _plan_lines(config: RunConfig, keys: tuple[str, ...], trust: Trust) -> list[str]:
    cache = cache_folder(config)
    check_named(config, keys, whole=lambda: keys_without_limit(config.prompts, cache, trust))
    plan = plan_of(config, keys, range(len(keys)))
    sizes = np.bincount(plan.column("shard").to_numpy())
    batch = config.runtime.batch_size
    batches = int((-(-sizes // batch)).sum())
    made = f"{count_of(plan.num_rows, 'sample')} in {count_of(len(sizes), 'shard')}"
    return [f"plan: {made}, {count_of(batches, 'batch', 'batches')} of {batch}"]

"""What a configuration would do, said before a GPU is booked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluator.aggregate.asked import asked_metrics
from evaluator.config.load import apply_overrides, read_record, with_faults
from evaluator.config.points import Sweep, load_runs, once_for_all
from evaluator.config.schema import RunConfig
from evaluator.errors import ConfigError, EvaluatorError
from evaluator.locations import expand
from evaluator.runner.inputs import Inputs, check_inputs
from evaluator.runner.named import check_named
from evaluator.runner.parts import check_names, with_implied
from evaluator.runner.plan import plan_of
from evaluator.runner.surroundings import cache_folder, keys_without_limit
from evaluator.runner.trust import Trust
from evaluator.text import count_of


def describe_file(path: Path, overrides: Sequence[str], *, allow_code: bool) -> list[str]:
    """Lines that say what a configuration file would make.

    Raises ConfigError with all that is wrong with it, and all that it names and that is not there.
    """
    try:
        loaded = load_runs(path, overrides)
    except ConfigError as error:
        if error.faults and (missing := _missing(path, overrides)):
            raise with_faults(str(path), (*error.faults, *missing)) from error
        raise
    return describe(loaded, relative_to=path.parent, allow_code=allow_code)


def _missing(path: Path, overrides: Sequence[str]) -> list[str]:
    """What a configuration with faults names and is not there; of a sweep, nothing is known."""
    record = read_record(path)
    apply_overrides(record, overrides)
    if record.get("sweep") is not None:
        return []
    return check_inputs(Inputs.of_record(record), Trust(relative_to=path.parent))[1]


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
    for check in (_check_scheduler, _check_heads):
        try:
            check(config, trust)
        except EvaluatorError as error:
            faults.append(str(error))
    found, missing = check_inputs(
        Inputs.of(config), trust, lambda pack: _plan_lines(config, pack.keys, trust)
    )
    lines += found
    faults += missing
    if faults:
        raise ConfigError("the configuration is well-formed, but cannot run:", tuple(faults))
    return lines


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


def _plan_lines(config: RunConfig, keys: tuple[str, ...], trust: Trust) -> list[str]:
    cache = cache_folder(config)
    check_named(config, keys, whole=lambda: keys_without_limit(config.prompts, cache, trust))
    plan = plan_of(config, keys, range(len(keys)))
    sizes = np.bincount(plan.column("shard").to_numpy())
    batch = config.runtime.batch_size
    batches = int((-(-sizes // batch)).sum())
    made = f"{count_of(plan.num_rows, 'sample')} in {count_of(len(sizes), 'shard')}"
    return [f"plan: {made}, {count_of(batches, 'batch', 'batches')} of {batch}"]

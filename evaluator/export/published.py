"""What may be published of a run: which numbers, of which data, made when; and what may not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from evaluator.aggregate.summary import MetricRecord
from evaluator.errors import ConfigError, EvaluatorError, IncompleteError
from evaluator.export.options import ExportOptions
from evaluator.leaderboard.made_with import provenance_of
from evaluator.runs import Run
from evaluator.runs.tables import require_known
from evaluator.text import count_of, number, plain

_STARTED = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)")


class Published(NamedTuple):
    """The numbers of one run that a card may show."""

    metrics: tuple[MetricRecord, ...]
    """With a value, and of all samples: groups are left out."""
    warnings: tuple[str, ...]
    """What was left out, and why."""


def published(name: str, run: Run, options: ExportOptions) -> Published:
    """The numbers to publish; raises where the run is incomplete, unless that is allowed."""
    if not (run.complete and run.summary.complete) and not options.allow_incomplete:
        of = f"{min(run.summary.counts.committed, len(run))} of {run.num_planned}"
        raise IncompleteError(
            f"{plain(name)}: expected a complete run to publish numbers of, got {of} samples: "
            "numbers of fewer samples are other numbers. Finish the run, or add "
            "--allow-incomplete: the count is then noted beside each number."
        )
    overall = [metric for metric in run.metrics if metric.group is None]
    if options.metrics is not None:
        for wanted in options.metrics:
            known = [metric.name for metric in overall]
            require_known(wanted, known, "the name of a number", run.path, "Correct --metrics.")
        overall = [metric for metric in overall if metric.name in options.metrics]
    left_out = [metric.name for metric in overall if metric.value is None]
    warnings = [f"{plain(name)}: {plain(each)} has no value and is left out" for each in left_out]
    return Published(tuple(m for m in overall if m.value is not None), tuple(warnings))


def remarks(metric: MetricRecord) -> str:
    """Interval, counts, extractor, reference and warnings of a number in one line."""
    said = [f"n = {metric.n} of {metric.n_expected}"]
    interval = metric.interval or {}
    if None not in (interval.get("low"), interval.get("high")):
        low, high = number(interval["low"]), number(interval["high"])
        said.append(f"{100 * interval.get('level', 0.95):g} % interval {low} – {high}")
    if metric.extractor:
        said.append(f"features {metric.extractor} {(metric.fingerprint or '')[:8]}".rstrip())
    if metric.reference:
        said.append(f"against {against(metric)}")
    return plain("; ".join([*said, *metric.warnings]), limit=1000)


def against(metric: MetricRecord) -> str:
    """Name and size of the reference; empty where there is none."""
    if not metric.reference:
        return ""
    count = metric.reference.get("n")
    size = f" ({count_of(count, 'sample')})" if count else ""
    return plain(f"{metric.reference.get('name')}{size}", limit=200)


def made_with(run: Run) -> str:
    """Settings that a number depends on: `DDIMScheduler, 20 steps, …`; empty where unknown."""
    try:
        known = provenance_of(run.config, run.provenance)
    except EvaluatorError:
        return ""
    size = None if None in (known.width, known.height) else f"{known.width} × {known.height} pixels"
    said = [
        known.scheduler,
        None if known.steps is None else count_of(known.steps, "step"),
        None if known.guidance_scale is None else f"guidance scale {known.guidance_scale:g}",
        size,
        known.dtype,
        None if known.seed is None else f"seed {known.seed}",
        None if known.evaluator is None else f"evaluator {known.evaluator}",
    ]
    return ", ".join(plain(each, limit=100) for each in said if each is not None)


def made_at(run: Run) -> str | None:
    """When the run was last started, as ISO 8601 in UTC; None where that is not known."""
    launches = sorted(path.name for path in (run.path / "launches").glob("[0-9]*.json"))
    match = _STARTED.match(launches[-1]) if launches else None
    if match is None:
        return None
    year, month, day, hour, minute, second = match.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"


def require_dataset(options: ExportOptions) -> str:
    """The data set's id on the hub; ConfigError where it is missing or is none."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    found = options.dataset
    why = ""
    try:
        if found is not None and "/" in found:
            validate_repo_id(found)
            return found
    except HFValidationError as error:
        why = f" ({plain(error, limit=200)})"
    got = "none" if found is None else f"'{plain(found, limit=100)}'"
    raise ConfigError(
        f"--dataset: expected the id of a data set on the hub (org/name), got {got}{why}. The hub "
        "shows results beside the data set that they are about."
    )


def model_of(runs: Mapping[str, Run]) -> str:
    """The one model of all runs; ConfigError where there are several."""
    models = {}
    for name, run in runs.items():
        model = run.config.get("model")
        said = model.get("id") or model.get("kind") if isinstance(model, dict) else None
        models[name] = plain(said or name, limit=200)
    if len(set(models.values())) > 1:
        told = ", ".join(f"{plain(name)}: {model}" for name, model in models.items())
        raise ConfigError(
            f"--to model-card: expected runs of one model, got {told}. Export each to its own card."
        )
    return next(iter(models.values()))

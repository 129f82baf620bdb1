"""Several noise schedules side by side: their curves in one table, their facts in one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from evaluator.errors import ConfigError, ProbeError
from evaluator.probes.noise import NoiseFamily
from evaluator.probes.schedule import (
    describe_schedule,
    needs_mu,
    posterior_variance,
    schedule_family,
    training_schedule,
    with_timesteps,
)
from evaluator.probes.schedule_checks import default_mu, schedule_warnings, shift_warning
from evaluator.probes.scheduler_sources import NamedScheduler
from evaluator.probes.schemas import SCHEDULES_SCHEMA

_UNSAID = {
    "ScoreSdeVeScheduler": "score",
    "flow": "flow",
    "vp": "epsilon",  # RePaint, Wuerstchen
    "trig": "v_prediction",  # IPNDM
    "ve": "sample",  # consistency models
    "dpm": "epsilon",
    "edm": "sample",
}
"""What a model predicts where its scheduler's settings say nothing: by class, else by family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedSchedule:
    """One schedule: where it comes from, its curves, and what is suspicious about it."""

    name: str
    """What the user wrote."""
    scheduler: str
    """Class name."""
    family: str
    """vp, ve, dpm, flow, edm or trig; see `evaluator.probes.noise`."""
    prediction: str
    """What the model predicts: `epsilon`, `v_prediction`, `sample`, `flow`, `score`, …"""
    variance: str | None
    """Which variance the reverse step has: fixed_small, learned_range, …; None elsewhere."""
    init_noise_sigma: float
    """What the initial noise of these steps is multiplied by; 1 where nothing is said."""
    training: pa.Table | None
    """Table of `SCHEDULE_SCHEMA`; None for models trained on continuous noise levels."""
    sampling: pa.Table
    """Table of `SCHEDULE_SCHEMA`."""
    warnings: tuple[str, ...]


def described(named: NamedScheduler, *, num_steps: int) -> DescribedSchedule:
    """Curves and warnings of one schedule; ProbeError by name where it has none."""
    scheduler = named.scheduler
    family = schedule_family(scheduler)
    mu = named.mu
    if mu is None and needs_mu(scheduler):
        mu = default_mu(scheduler)
    sampler: dict[str, Any] = {"num_steps": num_steps, "mu": mu, "sigmas": named.sigmas(num_steps)}
    sampling = describe_schedule(scheduler, **sampler)
    try:
        training = training_schedule(scheduler)
    except ProbeError:
        training = None
    # Of these steps: a sampler may begin below the most noise that was trained on.
    set_to = with_timesteps(scheduler, **sampler)
    declared = getattr(set_to, "init_noise_sigma", None)
    return DescribedSchedule(
        name=named.name,
        scheduler=type(scheduler).__name__,
        family=family.value,
        prediction=_prediction(scheduler, family),
        variance=scheduler.config.get("variance_type"),
        init_noise_sigma=1.0 if declared is None else float(declared),
        training=training,
        sampling=sampling,
        warnings=(*shift_warning(scheduler, named.mu), *schedule_warnings(scheduler, **sampler)),
    )


def _prediction(scheduler: Any, family: NoiseFamily) -> str:
    said = scheduler.config.get("prediction_type")
    if said:
        return str(said)
    return _UNSAID.get(type(scheduler).__name__) or _UNSAID[family.value]


def compare_schedules(
    named: Sequence[NamedScheduler], *, num_steps: int
) -> tuple[DescribedSchedule, ...]:
    """`described` for each, in their order; names must differ."""
    names = [each.name for each in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"expected different schedules, got {', '.join(twice)} more than once.")
    return tuple(described(each, num_steps=num_steps) for each in named)


def schedules_table(schedules: Sequence[DescribedSchedule]) -> pa.Table:
    """Table of `SCHEDULES_SCHEMA`: for each schedule its training grid, then its sampling steps."""
    parts = [
        _rows(schedule, grid, table)
        for schedule in schedules
        for grid, table in (("training", schedule.training), ("sampling", schedule.sampling))
        if table is not None
    ]
    return pa.concat_tables(parts) if parts else SCHEDULES_SCHEMA.empty_table()


def reverse_variance(schedule: DescribedSchedule) -> np.ndarray | None:
    """β̃ of each training step; None where the reverse step has no variance of its own."""
    if schedule.training is None or schedule.variance is None:
        return None
    return posterior_variance(schedule.training.column("beta").to_numpy())


def _rows(schedule: DescribedSchedule, grid: str, table: pa.Table) -> pa.Table:
    count = table.num_rows
    alpha, sigma = table.column("alpha").to_numpy(), table.column("sigma").to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = sigma / alpha
    variance = reverse_variance(schedule) if grid == "training" else None
    added = {
        "schedule": [schedule.name] * count,
        "scheduler": [schedule.scheduler] * count,
        "family": [schedule.family] * count,
        "grid": [grid] * count,
        "noise_to_signal": pa.array(ratio, pa.float64()),
        "posterior_variance": pa.nulls(count, pa.float64()) if variance is None else variance,
    }
    columns = [
        added[name] if name in added else table.column(name) for name in SCHEDULES_SCHEMA.names
    ]
    return pa.table(columns, SCHEDULES_SCHEMA)

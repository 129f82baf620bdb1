"""What observes a model while it generates: attention, latents, and the noise schedule.

A probe attaches to a diffusers pipeline for one call of `generate`, changes not one bit of the
images, and gives rows per sample. Nothing heavy is imported before a name below is used.

    AttentionProbe(steps=10)        where each word of the prompt is looked at
    LatentsProbe(steps="all")       moments of x_t, of the predicted x0 and of the predicted noise
    describe_schedule(scheduler, num_steps=50)      noise level and log-SNR of every step
    schedule_warnings(scheduler, num_steps=50)      what is suspicious about it
    training_schedule(scheduler)                    the grid that the model was trained on
    compare_schedules([open_scheduler("DDIMScheduler")], num_steps=50)      several, side by side
    describe(tensor)                moments, histogram and picture of any tensor at any stage
    collapse(latents_table)         the step from which a sampler's latents lose their noise
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluator.probes.attention import AttentionProbe
    from evaluator.probes.latents import LatentsProbe
    from evaluator.probes.schedule import describe_schedule, training_schedule
    from evaluator.probes.schedule_checks import schedule_warnings
    from evaluator.probes.schedule_comparison import compare_schedules
    from evaluator.probes.scheduler_sources import open_scheduler
    from evaluator.probes.stabilization import collapse
    from evaluator.probes.steps import StepChoice
    from evaluator.probes.summary import describe

_HOMES = {
    "AttentionProbe": "attention",
    "LatentsProbe": "latents",
    "StepChoice": "steps",
    "collapse": "stabilization",
    "compare_schedules": "schedule_comparison",
    "describe": "summary",
    "describe_schedule": "schedule",
    "open_scheduler": "scheduler_sources",
    "schedule_warnings": "schedule_checks",
    "training_schedule": "schedule",
}

__all__ = [
    "AttentionProbe",
    "LatentsProbe",
    "StepChoice",
    "collapse",
    "compare_schedules",
    "describe",
    "describe_schedule",
    "open_scheduler",
    "schedule_warnings",
    "training_schedule",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

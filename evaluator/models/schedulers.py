"""Another scheduler in the place of a pipeline's own."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError

if TYPE_CHECKING:
    from evaluator.config.pipeline import SchedulerConfig


def swap_scheduler(current: Any, config: SchedulerConfig) -> Any:
    """Another scheduler with the settings of the pipeline's, and the given arguments on top."""
    import diffusers

    chosen: Any = getattr(diffusers, config.name, None)
    is_scheduler = inspect.isclass(chosen) and issubclass(chosen, diffusers.SchedulerMixin)
    if not is_scheduler:
        raise ConfigError(
            f"model.scheduler.name: expected a scheduler class of diffusers, got '{config.name}'."
        )
    # As keywords, not merged into the config: from_config ignores keys that the saved config
    # lists among its own defaults.
    scheduler = chosen.from_config(current.config, **config.arguments)
    ignored = [k for k, v in config.arguments.items() if scheduler.config.get(k, None) != v]
    if ignored:
        raise ConfigError(
            f"model.scheduler.arguments: {config.name} takes no {', '.join(sorted(ignored))}."
        )
    if _is_flow(scheduler) != _is_flow(current):
        hint = "of flow matching" if _is_flow(current) else "of a diffusion with noise levels"
        raise ConfigError(
            f"model.scheduler: expected a scheduler {hint}, as the checkpoint was trained with "
            f"({type(current).__name__}), got {config.name}. Solvers that know both take the "
            "arguments use_flow_sigmas and prediction_type: flow_prediction for flow matching."
        )
    return scheduler


def _is_flow(scheduler: Any) -> bool:
    """Whether it samples along straight lines from noise to data: x_t = (1 − σ) x0 + σ ε."""
    settings = scheduler.config
    # A swapped scheduler's config keeps settings of the one before that it does not know.
    knows = "use_flow_sigmas" in inspect.signature(type(scheduler).__init__).parameters
    solves = knows and settings.get("use_flow_sigmas", False)
    predicts = settings.get("prediction_type") == "flow_prediction"
    return "FlowMatch" in type(scheduler).__name__ or bool(solves and predicts)


def scheduler_record(pipeline: Any) -> dict[str, Any]:
    """Class and settings of a pipeline's scheduler, for its fingerprint."""
    config = dict(pipeline.scheduler.config)
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    return {"class": type(pipeline.scheduler).__name__, **public}

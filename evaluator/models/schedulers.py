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
    return scheduler


def scheduler_record(pipeline: Any) -> dict[str, Any]:
    """Class and settings of a pipeline's scheduler, for its fingerprint."""
    config = dict(pipeline.scheduler.config)
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    return {"class": type(pipeline.scheduler).__name__, **public}

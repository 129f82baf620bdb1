"""Another scheduler in the place of a pipeline's own."""

from __future__ import annotations

import difflib
import inspect
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError

if TYPE_CHECKING:
    from evaluator.config.pipeline import SchedulerConfig


def swap_scheduler(current: Any, config: SchedulerConfig) -> Any:
    """Another scheduler with the settings of the pipeline's, and the given arguments on top."""
    import diffusers

    check_scheduler_name(config.name)
    chosen: Any = getattr(diffusers, config.name)
    _check_steps(chosen)
    # As keywords, not merged into the config: from_config ignores keys that the saved config
    # lists among its own defaults.
    try:
        scheduler = chosen.from_config(current.config, **config.arguments)
    except (ImportError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"model.scheduler: expected arguments that {config.name} takes, got: {reason[0]}"
        ) from error
    ignored = [k for k, v in config.arguments.items() if scheduler.config.get(k, None) != v]
    if ignored:
        raise ConfigError(
            f"model.scheduler.arguments: {config.name} takes no {', '.join(sorted(ignored))}."
        )
    _check_kind(current, scheduler)
    return scheduler


def check_scheduler_name(name: str) -> None:
    """ConfigError unless diffusers has a scheduler of this name, with what was probably meant.

    Loads no scheduler.
    """
    import diffusers

    known = {known.lower(): known for known in dir(diffusers) if known.endswith("Scheduler")}
    if name in known.values():
        return
    word = name.lower()
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.8) or difflib.get_close_matches(
        f"{word.removesuffix('scheduler')}scheduler", known, n=1, cutoff=0.8
    )
    hint = f"; did you mean '{known[close[0]]}'?" if close else "."
    raise ConfigError(
        f"model.scheduler.name: expected a scheduler class of diffusers, got '{name}'{hint}"
    )


_GIVEN = {"self", "model_output", "timestep", "sample"}
"""What pipelines give to `step` without being asked."""


def _check_steps(chosen: Any) -> None:
    """Refuse what does not sample with a plain loop, or not towards the image."""
    name = chosen.__name__
    # Where a package is missing, diffusers has a stand-in whose every public attribute raises.
    if (missing := getattr(chosen, "_backends", None)) is not None:
        raise ConfigError(
            f"model.scheduler.name: {name} needs {', '.join(missing)}: install it, or choose "
            "another one."
        )
    if (step := getattr(chosen, "step", None)) is None:
        raise ConfigError(
            f"model.scheduler.name: expected a scheduler with one method `step`, got {name}, whose "
            "steps have several parts. Choose another one."
        )
    needed = [
        parameter_name
        for parameter_name, parameter in inspect.signature(step).parameters.items()
        if parameter.default is Parameter.empty
        and parameter.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        and parameter_name not in _GIVEN
    ]
    if needed or "Inverse" in name:
        got = f"it also takes {', '.join(needed)}" if needed else "it runs from image to noise"
        raise ConfigError(
            "model.scheduler.name: expected a scheduler that leads from noise to an image by the "
            f"model's output alone, got {name}: {got}. Choose another one."
        )


def _check_kind(current: Any, scheduler: Any) -> None:
    """Refuse noise levels, or an input scale, that the checkpoint was not trained with."""
    name, before = type(scheduler).__name__, type(current).__name__
    if _is_flow(scheduler) != _is_flow(current):
        hint = "of flow matching" if _is_flow(current) else "of a diffusion with noise levels"
        raise ConfigError(
            f"model.scheduler: expected a scheduler {hint}, as the checkpoint was trained with "
            f"({before}), got {name}. Solvers that know both take the "
            "arguments use_flow_sigmas and prediction_type: flow_prediction for flow matching."
        )
    kinds = _levels_of(current), _levels_of(scheduler)
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"model.scheduler: expected a scheduler with {kinds[0]}, as the checkpoint was trained "
            f"with ({before}), got {name} with {kinds[1]}. Choose another one."
        )
    cumprod = getattr(scheduler, "alphas_cumprod", None)
    steps = scheduler.config.get("num_train_timesteps")
    if cumprod is not None and len(cumprod) != steps:
        raise ConfigError(
            f"model.scheduler.arguments: expected {steps} trained_betas, one for each of "
            f"num_train_timesteps, got {len(cumprod)}."
        )


def _levels_of(scheduler: Any) -> str:
    """Where a scheduler has its noise levels from, in words."""
    if _is_flow(scheduler):
        return "flow matching"
    if hasattr(scheduler, "precondition_outputs"):
        return "EDM's preconditioning"
    if hasattr(scheduler, "alphas_cumprod"):
        return "training timesteps (alphas_cumprod)"
    return f"levels of its own ({type(scheduler).__name__})"


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

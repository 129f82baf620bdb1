"""Where a scheduler comes from: a pipeline's folder, the hub, or a class with its settings."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evaluator.errors import ConfigError, InputError
from evaluator.locations import PACKAGE_SCHEME, expand
from evaluator.probes.schedule import needs_mu
from evaluator.weights import fetch_file, is_hub_id

_CLASS = re.compile(r"[A-Z]\w*Scheduler(?=:|\Z)")
_CONFIG = "scheduler_config.json"

SIGMA_PIPELINES = (
    *("Flux", "QwenImage", "Lumina2", "Chroma", "AuraFlow", "Bria", "LTX", "VisualCloze"),
    *("OvisImage", "Krea2", "DreamLite", "NucleusMoEImage", "MotifVideo"),
)
"""How the names of pipelines begin that give their scheduler σ = 1 … 1/N instead of N steps."""


@dataclass(frozen=True, slots=True)
class NamedScheduler:
    """A scheduler and what is known of its sampler."""

    name: str
    """What the user wrote."""
    scheduler: Any
    pipeline: str | None = None
    """Class of the pipeline that it belongs to; None where it came alone."""
    mu: float | None = None
    """The dynamic shift to describe it with."""

    def sigmas(self, num_steps: int) -> list[float] | None:
        """Noise levels that the pipeline sets; None where it leaves them to the scheduler."""
        return pipeline_sigmas(self.pipeline, num_steps) if self.pipeline else None


def pipeline_sigmas(pipeline: str, num_steps: int) -> list[float] | None:
    """σ of each step, before any shift, that a pipeline of this class gives its scheduler."""
    if not pipeline.startswith(SIGMA_PIPELINES):
        return None
    gap = (1 - 1 / num_steps) / max(1, num_steps - 1)
    return [1 - i * gap for i in range(num_steps)]


def open_scheduler(
    model: str, settings: Mapping[str, Any] | None = None, *, revision: str | None = None
) -> NamedScheduler:
    """A scheduler by `Name[:key=value,…]`, pipeline folder, `package://`, or hub id.

    A folder holds scheduler_config.json, itself or under scheduler/. `settings` replace the
    scheduler's own; `mu` among them is the dynamic shift. `revision` is that on the hub. No weights
    are read or fetched.
    """
    wanted = dict(settings or {})
    config: dict[str, Any] = {}
    pipeline = None
    if (found := _CLASS.match(model)) is not None:
        wanted = parse_settings(split_settings(model[found.end() + 1 :])) | wanted
        name = found[0]
    else:
        config, pipeline = _read(model, revision)
        name = str(config.get("_class_name"))
    mu = _pop_mu(wanted)
    scheduler = _build(name, config, wanted)
    if mu is not None and not needs_mu(scheduler):
        raise ConfigError(
            f"{model}: expected a scheduler with dynamic shifting for mu={mu:g}, got {name} "
            "without it. Add use_dynamic_shifting=true, or leave mu out."
        )
    return NamedScheduler(model, scheduler, pipeline=pipeline, mu=mu)


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """`["key=value", …]` → values as YAML reads them; ConfigError on anything else."""
    settings = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ConfigError(
                f"expected key=value, got '{assignment}'. Write for example "
                "beta_schedule=linear or timestep_spacing=trailing."
            )
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{key}: expected a value in YAML, got '{value}'.") from error
    return settings


def split_settings(text: str) -> list[str]:
    """`a=1,b=[2,3]` → `a=1`, `b=[2,3]`: commas inside brackets belong to the value."""
    return [part for part in re.split(r",(?![^\[{]*[\]}])", text) if part.strip()]


def _pop_mu(settings: dict[str, Any]) -> float | None:
    mu = settings.pop("mu", None)
    if mu is None:
        return None
    if isinstance(mu, bool) or not isinstance(mu, int | float):
        raise ConfigError(f"mu: expected a number, got {mu!r}. 1.15 is that of Flux at 1024².")
    return float(mu)


def _build(name: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """The scheduler, with every setting known to have been taken."""
    import diffusers

    built: Any = getattr(diffusers, name, None)
    is_scheduler = inspect.isclass(built) and issubclass(built, diffusers.SchedulerMixin)
    if (missing := getattr(built, "_backends", None)) is not None:
        raise ConfigError(f"{name} needs {', '.join(missing)}: install it, or choose another.")
    if not is_scheduler:
        raise ConfigError(
            f"expected a scheduler class of diffusers, got '{name}'"
            f"{_near(name, _known_schedulers())}"
        )
    parameters = [key for key in inspect.signature(built.__init__).parameters if key != "self"]
    faults = tuple(
        f"{key}: {name} takes no such setting{_near(key, parameters)}"
        for key in settings
        if key not in parameters
    )
    if faults:
        raise ConfigError("the scheduler cannot be built:", faults)
    try:
        # As keywords: from_config ignores keys that a saved config lists among its defaults.
        return built.from_config(dict(config), **settings) if config else built(**settings)
    except (ImportError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"{name}: expected settings that it takes, got: {reason[0]}") from error


def _known_schedulers() -> list[str]:
    import diffusers

    return [each for each in dir(diffusers) if each.endswith("Scheduler")]


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else "."


def _read(model: str, revision: str | None) -> tuple[dict[str, Any], str | None]:
    """The scheduler's settings, and the class of the pipeline around it."""
    folder = expand(model)
    if folder.is_dir():
        places = [folder / "scheduler" / _CONFIG, folder / _CONFIG]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise InputError(
                f"{model}: expected {_CONFIG} or scheduler/{_CONFIG}, got "
                f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}."
            )
        index = folder / "model_index.json"
        return _parsed(found), _pipeline_class(index) if index.is_file() else None
    if model.startswith(PACKAGE_SCHEME) or not is_hub_id(model):
        hint = _near(model.partition(":")[0], _known_schedulers())
        raise InputError(
            f"{model}: expected a pipeline's folder, a hub id (owner/name), or a scheduler such "
            f"as DDIMScheduler:beta_schedule=linear, got nothing at {folder}"
            f"{'. Check the path.' if hint == '.' else hint}"
        )
    try:
        found = fetch_file(model, f"scheduler/{_CONFIG}", revision=revision)
    except InputError:
        return _parsed(fetch_file(model, _CONFIG, revision=revision)), None
    index = fetch_file(model, "model_index.json", revision=revision)
    return _parsed(found), _pipeline_class(index)


def _pipeline_class(index: Path) -> str | None:
    name = _parsed(index).get("_class_name")
    return name if isinstance(name, str) else None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected settings as JSON, got: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected settings as JSON, got a {type(content).__name__}.")
    return content

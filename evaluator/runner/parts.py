"""Building the parts that a configuration names: model, extractors, probes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator import plugins
from evaluator.aggregate.asked import AskedMetric
from evaluator.config.asked import FeatureConfig
from evaluator.config.schema import RunConfig
from evaluator.errors import ConfigError
from evaluator.features import BUILT_IN as EXTRACTORS
from evaluator.locations import CODE
from evaluator.models.images import ImagesModel
from evaluator.runner.trust import Trust

if TYPE_CHECKING:
    from evaluator.data import Pack
    from evaluator.protocols import FeatureExtractor, GenerativeModel, Probe


def check_names(config: RunConfig, trust: Trust) -> None:
    """Raise ConfigError with every part that cannot be found. Imports none of them."""
    faults: list[str] = []

    def check(kind: str, name: str, built_in: Mapping[str, str]) -> None:
        try:
            plugins.check(kind, name, built_in, allow_code=trust.allow_code)
        except ConfigError as error:
            faults.append(str(error))

    for feature in config.features:
        check("extractor", feature.kind or feature.name, EXTRACTORS)
    for probe in config.probes.custom:
        check("probe", probe.target, {})
    if config.model.kind == "custom":
        check("model", config.model.target, {})
    for metric in config.metrics:
        if CODE.match(metric.name) or plugins.is_known("metric", metric.name, {}):
            check("metric", metric.name, {})
    if faults:
        raise ConfigError("the configuration names parts that cannot be used:", tuple(faults))


def with_implied(
    features: Sequence[FeatureConfig], metrics: Sequence[AskedMetric], trust: Trust
) -> list[FeatureConfig]:
    """The extractors asked for, and those that metrics need without naming them there.

    Raises ConfigError when a metric needs an extractor that cannot be found. Imports none.
    """
    known = {feature.name for feature in features}
    faults = []
    for metric in metrics:
        try:
            if metric.plan.extractor not in known:
                name = metric.plan.extractor
                plugins.check("extractor", name, EXTRACTORS, allow_code=trust.allow_code)
        except ConfigError as error:
            faults.append(f"metrics: '{metric.plan.name}' needs an extractor; {error}")
    if faults:
        raise ConfigError("the metrics need features that are not there:", tuple(faults))
    implied = sorted({metric.plan.extractor for metric in metrics} - known)
    return [*features, *(FeatureConfig(name=name) for name in implied)]


def build_model(
    config: RunConfig, pack: Pack | None, *, device: str, trust: Trust
) -> GenerativeModel:
    """The model of the run, loaded on its device; without a `pack`, one that generates."""
    model = config.model
    if model.kind == "images":
        if pack is None:
            raise ConfigError(
                "model.kind: expected a model that generates, got images that exist already; name "
                "a pipeline folder, a hub id, or a configuration of kind diffusers."
            )
        return ImagesModel(pack)
    if model.kind == "custom":
        factory = plugins.find("model", model.target, {}, allow_code=trust.allow_code)
        built: GenerativeModel = factory(device=device, **model.options)
        return built
    if model.kind == "optimal_denoiser":
        from evaluator.models.optimal_model import OptimalDenoiserModel
        from evaluator.runner.surroundings import cache_folder, open_pack

        training = open_pack(model.images, cache_folder(config), trust)
        return OptimalDenoiserModel(model, config.generation, training, device=device)
    from evaluator.models.diffusers import DiffusersModel

    return DiffusersModel(
        model, config.generation, device=device, relative_to=trust.relative_to, attachments=pack
    )


def build_extractor(
    config: FeatureConfig, *, device: str, trust: Trust, cache: Path | None = None
) -> FeatureExtractor:
    """One extractor, loaded on its device; published weights are kept in `cache`."""
    name = config.kind or config.name
    factory = plugins.find("extractor", name, EXTRACTORS, allow_code=trust.allow_code)
    options: dict[str, Any] = {"device": device, "dtype": config.dtype, **config.options}
    if name in EXTRACTORS:
        options |= {"name": config.name, "relative_to": trust.relative_to}
        if "cache" in inspect.signature(factory).parameters:
            options["cache"] = cache
    for field in ("id", "revision"):
        if getattr(config, field) is not None:
            options[field] = getattr(config, field)
    try:
        built: FeatureExtractor = factory(**options)
    except TypeError as error:
        raise ConfigError(_options_fault(config, factory, options, error)) from error
    return built


def _options_fault(
    config: FeatureConfig, factory: Any, options: Mapping[str, Any], error: TypeError
) -> str:
    """Which of an extractor's options it does not take, and what it might have been."""
    # a class that hands keywords on takes those of its bases too
    sources = factory.__mro__[:-1] if inspect.isclass(factory) else (factory,)
    known = [name for source in sources for name in inspect.signature(source).parameters]
    unknown = sorted(set(options) - set(known))
    if not unknown:
        return f"features: '{config.name}' cannot be built with its options: {error}."
    close = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"it takes {', '.join(known)}."
    return f"features: '{config.name}' takes no option '{unknown[0]}'; {hint}"


def check_probes(config: RunConfig, model: GenerativeModel, *, trust: Trust) -> None:
    """Raise what the probes have against the model, before anything is made with it."""
    for probe in build_probes(config, trust=trust):
        if (check := getattr(probe, "check", None)) is not None:
            check(model)


def build_probes(config: RunConfig, *, trust: Trust) -> list[Probe]:
    """The probes that are switched on."""
    probes: list[Probe] = []
    if (attention := config.probes.attention) is not None:
        from evaluator.probes.attention import AttentionProbe

        probes.append(AttentionProbe(**dict(attention)))
    if (latents := config.probes.latents) is not None:
        from evaluator.probes.latents import LatentsProbe

        probes.append(LatentsProbe(steps=latents.steps))
    for custom in config.probes.custom:
        factory = plugins.find("probe", custom.target, {}, allow_code=trust.allow_code)
        probes.append(factory(**custom.options))
    return probes

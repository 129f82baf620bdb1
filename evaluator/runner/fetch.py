"""Fetching ahead what a configuration needs, for machines without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluator.aggregate.asked import asked_metrics
from evaluator.config.pipeline import DiffusersModelConfig
from evaluator.config.schema import RunConfig
from evaluator.models.lora import find_lora
from evaluator.runner.parts import build_extractor, check_names, with_implied
from evaluator.runner.surroundings import cache_folder, open_pack
from evaluator.runner.trust import Trust
from evaluator.weights import find_weights


def fetch(config: RunConfig, *, relative_to: Path, allow_code: bool) -> Iterator[str]:
    """Bring weights, prompts and reference images into the caches; yields a line for each.

    A model is fetched and hashed, and not loaded: it may be larger than this machine's memory.
    Extractors are loaded, since only they know what they need. Raises InputError for what is not
    to be had.
    """
    trust = Trust(allow_code=allow_code, relative_to=relative_to)
    check_names(config, trust)
    metrics = asked_metrics(config).metrics
    if config.model.kind == "diffusers":
        yield from _fetch_model(config.model, relative_to)
    elif config.model.kind == "custom":
        yield f"model: {config.model.target} fetches for itself, if it fetches anything"
    for feature in with_implied(config.features, metrics, trust):
        build_extractor(feature, device="cpu", trust=trust, cache=cache_folder(config))
        yield f"features.{feature.name}: there"
    sources = {"prompts": config.prompts}
    if config.model.kind == "optimal_denoiser":
        sources["model"] = config.model.images
    for name, reference in config.references.items():
        if reference.images is not None:
            sources[f"references.{name}"] = reference.images
    for where, source in sources.items():
        yield f"{where}: {open_pack(source, cache_folder(config), trust).num_samples} samples there"


def _fetch_model(model: DiffusersModelConfig, relative_to: Path) -> Iterator[str]:
    parts = {"model": model, "model.controlnet": model.controlnet, "model.refiner": model.refiner}
    for where, part in parts.items():
        if part is not None:
            found = find_weights(part.id, revision=part.revision, relative_to=relative_to)
            yield f"{where}: {found.folder}"
    for i, lora in enumerate(model.loras):
        where = f"model.loras.{i}"
        yield f"{where}: {find_lora(lora, where=where, relative_to=relative_to)}"

"""What a configuration names that must be there: weights, prompts, images, other runs, moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from evaluator import locations
from evaluator.config.asked import FeatureConfig, ReferenceConfig, SourceConfig
from evaluator.config.schema import ModelConfig, RunConfig, RuntimeConfig
from evaluator.data import Pack
from evaluator.errors import ConfigError, EvaluatorError
from evaluator.runner.references import checked_moments
from evaluator.runner.surroundings import open_pack
from evaluator.runner.trust import Trust
from evaluator.store.rundir import RunDirectory


class Inputs(NamedTuple):
    """The sections that name what must be there."""

    cache: Path
    model: ModelConfig | None
    prompts: SourceConfig | None
    references: Mapping[str, ReferenceConfig]
    features: Sequence[FeatureConfig]

    @classmethod
    def of(cls, config: RunConfig) -> Inputs:
        """Those of a configuration."""
        cache = locations.cache_folder(config.runtime.cache)
        return cls(cache, config.model, config.prompts, config.references, config.features)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Inputs:
        """Those of a configuration with faults, as far as they have none themselves."""
        runtime = _sound(RuntimeConfig, record.get("runtime", {}))
        named = record.get("references")
        listed = record.get("features")
        references = named.items() if isinstance(named, Mapping) else ()
        features = listed if isinstance(listed, list) else ()
        return cls(
            locations.cache_folder(runtime and runtime.cache),
            _sound(ModelConfig, record.get("model")),
            _sound(SourceConfig, record.get("prompts")),
            {str(n): found for n, each in references if (found := _sound(ReferenceConfig, each))},
            [found for each in features if (found := _sound(FeatureConfig, each))],
        )

    def folders(self) -> Iterator[tuple[str, str]]:
        """Where weights are named, and what is named there: a folder, or an id on the hub."""
        for feature in self.features:
            if feature.id is not None:
                yield f"features.{feature.name}.id", feature.id
        if self.model is not None and self.model.kind == "diffusers":
            yield "model.id", self.model.id
            for i, lora in enumerate(self.model.loras):
                yield f"model.loras.{i}.id", lora.id
            for part in ("controlnet", "refiner"):
                if (added := getattr(self.model, part)) is not None:
                    yield f"model.{part}.id", added.id

    def sources(self) -> dict[str, SourceConfig]:
        """What prompts and images are read from, by where it is named."""
        found = {} if self.prompts is None else {"prompts": self.prompts}
        if self.model is not None and self.model.kind == "optimal_denoiser":
            found["model"] = self.model.images
        for name, reference in self.references.items():
            if (images := reference.images) is not None:
                found[f"references.{name}"] = images
        return found


def check_inputs(
    inputs: Inputs, trust: Trust, of_prompts: Callable[[Pack], list[str]] | None = None
) -> tuple[list[str], list[str]]:
    """Lines that say what is there, and a line for all that is not; packs what is not packed yet.

    `of_prompts` says more of the prompts; what it raises is a fault, too.
    """
    lines, faults = list[str](), list[str]()
    for where, location in inputs.folders():
        path = locations.expand(location, relative_to=trust.relative_to)
        if not path.exists() and (location.count("/") != 1 or location.startswith((".", "/"))):
            faults.append(f"{where}: expected a folder or a hub id, got nothing at {path}")
    for name, reference in inputs.references.items():
        try:
            lines += _reference_lines(f"references.{name}", reference, trust, inputs.cache)
        except EvaluatorError as error:
            faults.append(f"references.{name}: {error}")
    for where, source in inputs.sources().items():
        try:
            pack = open_pack(source, inputs.cache, trust)
            lines.append(f"{where}: {pack.num_samples} from {source.source}")
            if where == "prompts" and of_prompts is not None:
                lines += of_prompts(pack)
        except ConfigError as error:
            faults += error.faults or (f"{where}: {error}",)
        except EvaluatorError as error:
            faults.append(f"{where}: {error}")
    return lines, faults


def _reference_lines(
    where: str, reference: ReferenceConfig, trust: Trust, cache: Path
) -> list[str]:
    """What a reference takes from another run or from a file of moments."""
    lines = []
    if reference.run is not None:
        run = RunDirectory.open(locations.expand(reference.run, relative_to=trust.relative_to))
        lines.append(f"{where}: {run.num_samples} from the run {run.path}")
    if reference.moments is not None:
        lines.append(f"{where}: moments from {checked_moments(reference.moments, trust, cache)}")
    return lines


def _sound(section: Any, value: Any) -> Any:
    """The section, or None where it has a fault."""
    try:
        return TypeAdapter(section).validate_python(value)
    except ValidationError:
        return None

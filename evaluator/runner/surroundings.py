"""What all runs of one process share: its place in the world, the cache, what it has loaded."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator import locations
from evaluator.config.asked import FeatureConfig, SourceConfig
from evaluator.config.schema import RunConfig
from evaluator.data import Pack, PackOptions, expand_source, open_source
from evaluator.distributed import World, from_main
from evaluator.runner.embedding import Embedder
from evaluator.runner.loaded import LoadedModel
from evaluator.runner.parts import build_extractor
from evaluator.runner.trust import Trust
from evaluator.srun import launch_of_srun
from evaluator.stopping import StopRequest

if TYPE_CHECKING:
    from evaluator.protocols import FeatureExtractor, GenerativeModel


def cache_folder(config: RunConfig) -> Path:
    """Where packs and references are kept."""
    return locations.cache_folder(config.runtime.cache)


def open_pack(source: SourceConfig, cache: Path, trust: Trust) -> Pack:
    """The pack that a `source` stands for, packed on first use."""
    captions = source.captions and expand_source(source.captions, relative_to=trust.relative_to)
    options = PackOptions(
        key_column=source.key_column,
        text_column=source.text_column,
        image_column=source.image_column,
        captions=captions or None,
    )
    path = expand_source(source.source, relative_to=trust.relative_to)
    return open_source(path, cache=cache / "packs", options=options, limit=source.limit)


def keys_without_limit(source: SourceConfig, cache: Path, trust: Trust) -> Sequence[str]:
    """All keys of a source, those beyond its limit too."""
    return open_pack(source.model_copy(update={"limit": None}), cache, trust).keys


def launch_name(world: World, group: Any) -> str:
    """What the processes of one launch command, and no others, have in common."""
    name: str = from_main(launch_of_srun(os.environ) or uuid.uuid4().hex, world, group)
    return name


@dataclass
class Surroundings:
    """What all runs of one process share: its place in the world, and what it has loaded."""

    world: World
    stop: StopRequest
    trust: Trust
    threads: int = 1
    retry_failed: bool = False
    """Whether what was set aside is tried again, once."""
    waits: bool = True
    """Whether to wait for shards that others make; else OthersAtWork is raised."""
    launch: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The launch command that this process belongs to: equal in all its processes."""
    extractors: dict[str, FeatureExtractor] = field(default_factory=dict)
    loaded: LoadedModel = field(default_factory=LoadedModel)

    def model(self, config: RunConfig, pack: Pack) -> GenerativeModel:
        """The model of a run, loaded unless the last run had the same."""
        return self.loaded.model_of(config, pack, device=self.world.device, trust=self.trust)

    def embedder(self, feature: FeatureConfig, config: RunConfig) -> Embedder:
        """An extractor, loaded once, for a run made with `config`."""
        batch_size = feature.batch_size or config.runtime.batch_size
        return Embedder(
            feature.name,
            self._extractor(feature, cache_folder(config)),
            batch_size,
            feature.storage,
        )

    def _extractor(self, config: FeatureConfig, cache: Path) -> FeatureExtractor:
        key = config.model_dump_json(exclude={"batch_size", "storage"})
        if key not in self.extractors:
            self.extractors[key] = build_extractor(
                config, device=self.world.device, trust=self.trust, cache=cache
            )
        return self.extractors[key]

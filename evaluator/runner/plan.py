"""What must exist at the end: every sample, its seed and its shard, fixed before work begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from evaluator.config.schema import GenerationConfig, RunConfig, SeedRange
from evaluator.errors import ConfigError
from evaluator.records import Prompt, Shard
from evaluator.runner.named import check_named
from evaluator.seeds import prompt_seeds
from evaluator.store.schemas import PLAN

if TYPE_CHECKING:
    from evaluator.data import Pack


def prompts_per_shard(config: RunConfig) -> int:
    """Whole prompts in a shard, so that a prompt's images lie together."""
    return max(1, config.runtime.shard_size // config.generation.images_per_prompt)


def make_plan(config: RunConfig, keys: Sequence[str], content: Sequence[str]) -> pa.Table:
    """The plan, one row a sample: shard, key, image index, seed, hash of the prompt's content."""
    check_named(config, keys)
    generation = config.generation
    per_prompt, per_shard = generation.images_per_prompt, prompts_per_shard(config)
    seeds = _seeds(generation, keys)
    rows = range(len(keys) * per_prompt)
    columns = [
        pa.array([i // (per_shard * per_prompt) for i in rows], pa.int32()),
        pa.array([keys[i // per_prompt] for i in rows], pa.string()),
        pa.array([i % per_prompt for i in rows], pa.int32()),
        pa.array(seeds, pa.int64()),
        pa.array([content[i // per_prompt] for i in rows], pa.string()),
    ]
    return pa.table(columns, schema=PLAN)


def _seeds(generation: GenerationConfig, keys: Sequence[str]) -> list[int]:
    per_prompt = generation.images_per_prompt
    if isinstance(generation.seeds, SeedRange):
        first, last = (int(part) for part in generation.seeds.range.split("-"))
        needed = len(keys) * per_prompt
        if last - first + 1 != needed:
            raise ConfigError(
                f"generation.seeds.range: expected {needed} seeds for {len(keys)} prompts x "
                f"{per_prompt} images, got {last - first + 1}. Write {first}-{first + needed - 1}."
            )
        return list(range(first, last + 1))
    return [seed for key in keys for seed in prompt_seeds(generation.seed, key, per_prompt)]


class PromptsOf:
    """Reads the prompts of a shard from their pack."""

    def __init__(self, pack: Pack, images_per_prompt: int) -> None:
        self._pack = pack
        self._images_per_prompt = images_per_prompt

    def __call__(self, shard: Shard) -> list[Prompt]:
        """One prompt for each sample, in order."""
        per_prompt = self._images_per_prompt
        first = shard.samples[0].position // per_prompt
        last = shard.samples[-1].position // per_prompt
        prompts = self._pack.prompts(first, last + 1)
        return [prompts[sample.position // per_prompt - first] for sample in shard.samples]

"""What must exist at the end: every sample, its seed and its shard, fixed before work begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
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


def make_plan(
    config: RunConfig,
    keys: Sequence[str],
    content: Sequence[str],
    *,
    whole: Callable[[], Sequence[str]] | None = None,
) -> pa.Table:
    """The plan, one row a sample: shard, key, image index, seed, hash of the prompt's content.

    `whole` gives all keys of the source, for what is said of one beyond its limit.
    """
    check_named(config, keys, whole=whole)
    plan = plan_of(config, keys, range(len(keys)))
    prompts = np.repeat(np.arange(len(keys)), config.generation.images_per_prompt)
    hashes = pa.array(content, pa.string()).take(pa.array(prompts))
    return plan.append_column(PLAN.field("content"), hashes).cast(PLAN)


def plan_of(config: RunConfig, keys: Sequence[str], prompts: range) -> pa.Table:
    """The rows of some of the prompts, without their content."""
    per_prompt = config.generation.images_per_prompt
    numbers = np.repeat(np.arange(prompts.start, prompts.stop), per_prompt)
    chosen = keys[prompts.start : prompts.stop]
    columns = [
        pa.array(numbers // prompts_per_shard(config), pa.int32()),
        pa.array(chosen, pa.string()).take(pa.array(numbers - prompts.start)),
        pa.array(np.tile(np.arange(per_prompt), len(chosen)), pa.int32()),
        pa.array(_seeds(config.generation, keys, prompts)),
    ]
    fields = [PLAN.field(name) for name in ("shard", "key", "image_index", "seed")]
    return pa.table(columns, schema=pa.schema(fields))


def _seeds(
    generation: GenerationConfig, keys: Sequence[str], prompts: range
) -> np.ndarray[Any, np.dtype[np.int64]]:
    per_prompt = generation.images_per_prompt
    if isinstance(generation.seeds, SeedRange):
        first, last = (int(part) for part in generation.seeds.range.split("-"))
        needed = len(keys) * per_prompt
        if last - first + 1 != needed:
            raise ConfigError(
                f"generation.seeds.range: expected {needed} seeds for {len(keys)} prompts x "
                f"{per_prompt} images, got {last - first + 1}. Write {first}-{first + needed - 1}."
            )
        start = first + prompts.start * per_prompt
        return np.arange(start, start + len(prompts) * per_prompt, dtype=np.int64)
    seeds = (
        seed
        for key in keys[prompts.start : prompts.stop]
        for seed in prompt_seeds(generation.seed, key, per_prompt)
    )
    return np.fromiter(seeds, np.int64, count=len(prompts) * per_prompt)


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

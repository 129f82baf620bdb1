"""What must exist at the end: every sample, its seed and its shard, fixed before work begins."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from evaluator.config.schema import GenerationConfig, RunConfig, SeedRange
from evaluator.errors import ConfigError
from evaluator.records import Prompt, Shard
from evaluator.seeds import prompt_seeds
from evaluator.store.schemas import PLAN

if TYPE_CHECKING:
    from evaluator.data import Pack

MAX_HINTS = 10
"""Unknown keys that get a near miss, each from one pass over the keys."""
MAX_COMPARED = 10_000
"""Keys that an unknown one is compared with letter by letter."""


def prompts_per_shard(config: RunConfig) -> int:
    """Whole prompts in a shard, so that a prompt's images lie together."""
    return max(1, config.runtime.shard_size // config.generation.images_per_prompt)


def make_plan(config: RunConfig, keys: Sequence[str], content: Sequence[str]) -> pa.Table:
    """The plan, one row a sample: shard, key, image index, seed, hash of the prompt's content.

    ConfigError where the probes name keys that no prompt has, or the seeds do not suffice.
    """
    _check_named(config, keys)
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


def _check_named(config: RunConfig, keys: Sequence[str]) -> None:
    """Raise ConfigError with every key that the probes name and no prompt has."""
    attention = config.probes.attention
    if attention is None or not keys:
        return
    known = frozenset(keys)
    unknown: dict[str, list[str]] = {}
    for name, chosen in (("maps", attention.maps), ("full", attention.full)):
        for key in () if isinstance(chosen, int) else chosen:
            if key not in known:
                unknown.setdefault(key, []).append(f"probes.attention.{name}")
    if not unknown:
        return
    limit = config.prompts.limit
    of = f"the first {limit} prompts" if limit is not None else "the prompts"
    faults = [
        f"{' and '.join(places)}: {key!r}{_near_miss(key, keys) if i < MAX_HINTS else ''}"
        for i, (key, places) in enumerate(unknown.items())
    ]
    raise ConfigError(
        f"expected keys of {of} of {config.prompts.source} ({keys[0]!r} to {keys[-1]!r}); got "
        f"{len(faults)} that none of them has:",
        tuple(faults),
    )


def _near_miss(key: str, keys: Sequence[str]) -> str:
    """A key that is the same but for case and leading zeros, or one written much like it."""
    plain = key.lower().lstrip("0")
    near = [known for known in keys if known.lower().lstrip("0") == plain]
    near = near or difflib.get_close_matches(key, keys[:MAX_COMPARED], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


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

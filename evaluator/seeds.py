"""Seeds: a sample's randomness depends on (run seed, key, image index) and nothing else."""

from __future__ import annotations

import hashlib

SEED_BITS = 32
"""torch's CPU generators use the low 32 bits of a seed and ignore the rest."""


def hashed_seed(run_seed: int, key: str, image_index: int, attempt: int = 0) -> int:
    """The seed of one sample: 32 bits of SHA-256 over (run seed, key, image index).

    `attempt` is 0 but for a seed that repeats within its prompt.
    """
    text = f"{run_seed}\x1f{key}\x1f{image_index}" + (f"\x1f{attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: SEED_BITS // 8], "big")


def prompt_seeds(run_seed: int, key: str, num_images: int) -> tuple[int, ...]:
    """Seeds of a prompt's images, without repeats: two equal seeds would give one image twice."""
    seeds: list[int] = []
    for image_index in range(num_images):
        attempt = 0
        while (seed := hashed_seed(run_seed, key, image_index, attempt)) in seeds:
            attempt += 1
        seeds.append(seed)
    return tuple(seeds)


def stream_seed(run_seed: int, *purpose: str | int) -> int:
    """A 32-bit seed for a named draw (subsets, resampling) that shares nothing with samples."""
    return hashed_seed(run_seed, "\x1e".join(str(part) for part in ("stream", *purpose)), 0)

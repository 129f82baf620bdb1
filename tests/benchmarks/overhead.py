"""What `run` costs over a bare loop: same pipeline, batches and extractors, nothing written.

    python -m tests.benchmarks.overhead [--pairs 5] [--prompts 64]

Everything is loaded before the clock starts. Bare loop and run alternate in one process, and
ratios of neighbours are taken, so that a slower minute of the machine falls on both.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from evaluator.config import RunConfig, load_config
from evaluator.distributed import World, set_threads
from evaluator.runner.job import RunJob
from evaluator.runner.surroundings import Surroundings
from evaluator.runner.trust import Trust
from evaluator.stopping import StopRequest

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
PROBES = ["probes.attention={steps: 10, maps: 8}", "probes.latents={steps: 10}"]
BARE = ["probes={}"]


def bare_loop(job: RunJob) -> float:
    """Seconds to generate and embed the plan's samples, batch by batch, keeping nothing."""
    batch_size = job.config.runtime.batch_size
    pipeline = job.model.pipeline
    generation = job.config.generation
    keys = job.run.plan.column("key").to_pylist()
    seeds = job.run.plan.column("seed").to_pylist()
    texts = {prompt.key: prompt.text for prompt in job.pack.prompts()}
    extractors = [job.around.embedder(feature, job.config).extractor for feature in job.features]
    start = time.perf_counter()
    for first in range(0, len(keys), batch_size):
        captions = [texts[key] for key in keys[first : first + batch_size]]
        generators = [
            torch.Generator("cpu").manual_seed(seed) for seed in seeds[first : first + batch_size]
        ]
        output = pipeline(
            prompt=captions,
            generator=generators,
            num_inference_steps=generation.steps,
            guidance_scale=generation.guidance_scale,
            height=generation.height,
            width=generation.width,
            output_type="np",
        ).images
        images = torch.from_numpy(output * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
        for extractor in extractors:
            extractor.embed(torch.stack([extractor.preprocess(image) for image in images]))
            if hasattr(extractor, "embed_text"):
                extractor.embed_text(captions)
    return time.perf_counter() - start


def run_loop(job: RunJob) -> float:
    """Seconds to make, observe and commit the same samples."""
    start = time.perf_counter()
    job.complete(label="benchmark")
    return time.perf_counter() - start


def fresh_job(config: RunConfig, like: RunJob | None, around: Surroundings, path: Path) -> RunJob:
    """A job in a new directory, with the model of another."""
    job = RunJob(config, path, config.features, around)
    if like is not None:
        job.model = like.model
    job.run, job.model, *(around.embedder(feature, config) for feature in config.features)
    return job


def compare(config: RunConfig, pairs: int) -> list[float]:
    """Ratios run / bare loop of neighbouring measurements; the first pair warms up."""
    around = Surroundings(World(), StopRequest(), Trust(), set_threads(1, World()))
    ratios = []
    job: RunJob | None = None
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVALUATOR_CACHE"] = f"{folder}/cache"
        for pair in range(pairs + 1):
            job = fresh_job(config, job, around, Path(folder) / str(pair))
            bare = bare_loop(job)
            run = run_loop(job)
            if pair:
                ratios.append(run / bare)
                print(f"  bare {bare:.2f} s, run {run:.2f} s, ratio {run / bare:.3f}", flush=True)
    return ratios


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=64)
    arguments = parser.parse_args()
    limit = f"prompts.limit={arguments.prompts}"
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    for label, probes in (("without probes", BARE), ("both probes at 10 steps", PROBES)):
        config = load_config(CONFIG, [limit, "probes={}", *probes])
        ratios = compare(config, arguments.pairs)
        print(f"{label}: run / bare loop = {statistics.median(ratios):.3f} (median)")


if __name__ == "__main__":
    main()

"""What observing attention costs: the same pipeline with and without the probe, in turns.

    python -m tests.benchmarks.attention_overhead [--pairs 5] [--only digits|flux]

Bare and observed runs alternate in one process with one thread, and ratios of neighbours in
processor time are taken: other work on the machine falls on both, or on none. The tables are made
within the measured time.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel

import evaluator
from evaluator.probes import AttentionProbe
from evaluator.records import Prompt
from tests.tiny import FAMILIES

DIGITS = Path(evaluator.__file__).parent / "demo" / "weights" / "stable-diffusion"
TEXTS = {
    "digits": ["a red seven on a blue background", "a green two on a yellow background"] * 4,
    "flux": ["a red dog and a blue fox on a red seven"],
    "flux, 120 words": ["a red dog and a blue fox on a red seven and " * 10],
}


class Case(NamedTuple):
    """One pipeline and how it is observed."""

    generate: Callable[[], Any]
    pipeline: Any
    prompts: list[Prompt]
    steps: int
    """Of the sampler; one in five of them is the sparse choice."""


def digits_case() -> Case:
    """The trained UNet of the digits world: batch 8, guidance, 50 steps."""
    pipeline = DiffusionPipeline.from_pretrained(str(DIGITS), local_files_only=True)
    return case_of(pipeline, TEXTS["digits"], steps=50, guidance_scale=3.0)


def flux_case(name: str) -> Case:
    """A transformer of Flux's form, width 256 with 8 heads, on 1,024 image and 256 text tokens."""
    pipeline = FAMILIES["flux"]()
    torch.manual_seed(0)
    pipeline.register_modules(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=32,
            num_attention_heads=8,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(8, 12, 12),
        ).eval()
    )
    side = {"height": 128, "width": 128, "max_sequence_length": 256, "output_type": "latent"}
    return case_of(pipeline, TEXTS[name], steps=10, **side)


def case_of(pipeline: Any, texts: list[str], *, steps: int, **arguments: Any) -> Case:
    pipeline.set_progress_bar_config(disable=True)

    def generate() -> Any:
        generators = [torch.Generator().manual_seed(i) for i in range(len(texts))]
        return pipeline(texts, num_inference_steps=steps, generator=generators, **arguments)

    return Case(generate, pipeline, [Prompt(str(i), t) for i, t in enumerate(texts)], steps)


def seconds(case: Case, probe: AttentionProbe | None) -> float:
    """Processor time of one run of the pipeline, with its tables where it is observed."""
    start = time.process_time()
    if probe is None:
        case.generate()
    else:
        with probe.attach(case, case.prompts, range(len(case.prompts))) as observation:
            case.generate()
        observation.tables()
    return time.process_time() - start


def measure(name: str, case: Case, pairs: int) -> None:
    """Print the medians of the ratios to the bare run before."""
    probes = {
        "one step alone": AttentionProbe(steps=[0]),
        "one step in five": AttentionProbe(steps=case.steps // 5),
        "one step in five, one sample in full": AttentionProbe(steps=case.steps // 5, full=1),
        "every step": AttentionProbe(),
        "every step, pairs and maps": AttentionProbe(pairs=True, maps=1),
    }
    ratios: dict[str, list[float]] = {label: [] for label in probes}
    bares = []
    for turn in range(pairs + 1):
        for label, probe in probes.items():
            bare, observed = seconds(case, None), seconds(case, probe)
            if turn:  # the first round warms up
                bares.append(bare)
                ratios[label].append(observed / bare)
    print(f"{name}: bare {statistics.median(bares):.2f} s")
    for label, found in ratios.items():
        spread = f"{min(found):.3f} to {max(found):.3f}"
        print(f"  {label}: {statistics.median(found):.3f} ({spread})", flush=True)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=["digits", "flux"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    for name in TEXTS:
        if arguments.only in (None, name.split(",")[0]):
            case = digits_case() if name == "digits" else flux_case(name)
            measure(name, case, arguments.pairs)


if __name__ == "__main__":
    main()

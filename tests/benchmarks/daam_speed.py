"""What heat maps cost beside the package `daam`: the same pipeline bare, with it, and with ours.

    PYTHONPATH=FOLDER python -m tests.benchmarks.daam_speed [--rounds 5]

FOLDER holds `daam` (`pip install --no-deps --target FOLDER daam==0.2.0`). One prompt, guided, every
step observed, in turns in one process with one thread; ratios of neighbours in processor time. Ours
gives the statistics of every step, layer and token as well; bytes are what is kept until the end.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from evaluator.probes import AttentionProbe
from evaluator.probes.heatmaps import HeatmapSums
from evaluator.records import Prompt
from tests.benchmarks.attention_overhead import DIGITS
from tests.parity.daam_peer import PROMPT, Case, digits_pipeline, generate, traced

CASES = {
    "digits, 32 pixels, 50 steps": Case(32, 8, 50),
    "digits, 256 pixels (64x64 positions, as Stable Diffusion 1.5), 5 steps": Case(256, 64, 5),
}


class Cost(NamedTuple):
    """Of one run."""

    seconds: float
    kept_bytes: int


class Model(NamedTuple):
    """What a probe attaches to."""

    pipeline: Any


def bare(pipeline: Any, case: Case) -> int:
    """Nothing is observed."""
    generate(pipeline, case)
    return 0


def with_daam(pipeline: Any, case: Case) -> int:
    """The package, and its maps of all tokens."""
    with traced(pipeline, map_side=case.map_side, num_tokens=16) as trace:
        generate(pipeline, case)
        trace.compute_global_heat_map()
        return sum(maps.nbytes for _, maps in trace.all_heat_maps)


def with_ours(pipeline: Any, case: Case) -> int:
    """The probe, and all its tables."""
    pipeline.unet.register_to_config(sample_size=8 if case.map_side == 8 else 128)
    with AttentionProbe(maps=1).attach(Model(pipeline), [Prompt("0", PROMPT)], [0]) as observation:
        generate(pipeline, case)
    pipeline.unet.register_to_config(sample_size=8)
    observation.tables()
    sums = observation.recorder.heatmaps
    assert sums is not None
    return sum(tensor.nbytes for tensor in over_all_steps(sums))


def over_all_steps(sums: HeatmapSums) -> Iterator[torch.Tensor]:
    """What does not grow with the number of steps, as `daam`'s maps do not."""
    yield sums._at_size
    for one in sums._apart.values():
        yield one.sums


def measured(run: Callable[[Any, Case], int], pipeline: Any, case: Case) -> Cost:
    """Processor time and bytes of one run."""
    start = time.process_time()
    kept = run(pipeline, case)
    return Cost(time.process_time() - start, kept)


def main() -> None:
    """Print the medians of the ratios to the bare run before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    pipeline = digits_pipeline(DIGITS)
    for name, case in CASES.items():
        ratios: dict[str, list[float]] = {"daam": [], "ours": []}
        kept = {}
        for turn in range(rounds + 1):
            for label, run in (("daam", with_daam), ("ours", with_ours)):
                before = measured(bare, pipeline, case)
                cost = measured(run, pipeline, case)
                kept[label] = cost.kept_bytes
                if turn:  # the first round warms up
                    ratios[label].append(cost.seconds / before.seconds)
        print(name)
        for label, found in ratios.items():
            spread = f"{min(found):.3f} to {max(found):.3f}"
            print(f"  {label}: {statistics.median(found):.3f} ({spread}), {kept[label]:,} bytes")


if __name__ == "__main__":
    main()

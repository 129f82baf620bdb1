"""One rank of the multi-process tests: `metric_ranks.py RANK WORLD STORE OUTPUT`."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from metric_samples import GIVEN, SPECS, build, given_moments, two_sides

LAYOUTS = {
    # side → for each rank the share of samples it holds, in that side's order
    "contiguous": {"fake": (0.5, 0.3, 0.2), "real": (0.2, 0.3, 0.5)},
    "empty rank": {"fake": (0.0, 0.6, 0.4), "real": (0.0, 0.4, 0.6)},
    "one side a rank": {"fake": (0.0, 1.0, 0.0), "real": (1.0, 0.0, 0.0)},
    "all on the last": {"fake": (0.0, 0.0, 1.0), "real": (0.0, 0.0, 1.0)},
    "nothing": {"fake": (0.0, 0.0, 0.0), "real": (0.0, 0.0, 0.0)},
}


def share(n: int, shares: tuple[float, ...], rank: int, world: int) -> torch.Tensor:
    """The indices of one rank, shuffled; with two processes the last takes two shares."""
    bounds = [round(n * sum(shares[: index + 1])) for index in range(3)]
    bounds = [0, *bounds[: world - 1], bounds[-1]]
    mine = torch.arange(bounds[rank], bounds[rank + 1])
    return mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(rank))]


def main(rank: int, world: int, store: str, output: str) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=300)
    )
    answers = {}
    for layout, shares in LAYOUTS.items():
        for name in (*SPECS, *GIVEN):
            spec = name.removesuffix(" given")
            metric = build(spec)
            if name in GIVEN:
                metric.use_reference(given_moments(spec))
            for plan, side in zip(two_sides(spec), ("fake", "real"), strict=True):
                if plan is None or (side == "real" and name in GIVEN):
                    continue
                mine = share(len(plan.positions), shares[side], rank, world)
                # another number of updates on every rank
                for batch in mine.split(7 + 9 * rank) if len(mine) else ():
                    plan.feed(metric, batch, real=side == "real")
            results = [asdict(result) for result in metric.compute()]
            before = {name: metric._joined(name).shape[0] for name in metric._shapes}
            answers[f"{layout}|{name}"] = {"results": results, "local": before}
    Path(output).write_text(json.dumps(answers))
    dist.barrier()
    dist.destroy_process_group()
    # as evaluator.distributed.end_process does, and for its reason
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])

"""One of several processes that compute alone, though a default process group is there."""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from evaluator.aggregate.asked import Asked
from evaluator.aggregate.compute import aggregate
from evaluator.distributed import World, end_process
from evaluator.store.rundir import RunDirectory

dist.init_process_group("gloo")
run = RunDirectory.open(Path(sys.argv[1]))
world = World(rank=dist.get_rank(), size=dist.get_world_size())
if not world.is_main:
    # Only the main process computes: a collective would wait for this one until it times out.
    dist.barrier()
else:
    summary = aggregate(run, Asked.read(run), world=world, group=None)
    Path(sys.argv[2]).write_text(json.dumps(summary.record()["metrics"]))
    dist.barrier()
dist.destroy_process_group()
end_process(0)

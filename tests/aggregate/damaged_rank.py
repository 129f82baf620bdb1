"""One of several processes that aggregate together, of whose shards one alone is damaged."""

import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from evaluator.aggregate.asked import Asked
from evaluator.aggregate.compute import aggregate
from evaluator.distributed import World, end_process
from evaluator.errors import CorruptShardError
from evaluator.store.rundir import RunDirectory

dist.init_process_group("gloo", timeout=timedelta(minutes=3))
run = RunDirectory.open(Path(sys.argv[1]))
world = World(rank=dist.get_rank(), size=dist.get_world_size())
try:
    aggregate(run, Asked.read(run), world=world, group=dist.group.WORLD)
except CorruptShardError as error:
    Path(f"{sys.argv[2]}{world.rank}").write_text(str(error))
dist.barrier()
dist.destroy_process_group()
end_process(0)

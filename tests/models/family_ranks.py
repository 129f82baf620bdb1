"""One rank that runs each configuration of a folder, with the other ranks of its launch."""

from __future__ import annotations

import sys
from pathlib import Path

from evaluator.config import load_config
from evaluator.distributed import gloo_group, join_world, leave_world
from evaluator.runner.evaluation import run_evaluation
from evaluator.runner.trust import Trust
from evaluator.stopping import StopRequest


def main(folder: Path) -> None:
    world = join_world()
    group = gloo_group(world)
    for path in sorted(folder.glob("*.json")):
        outcome = run_evaluation(
            load_config(path), folder / f"{path.stem}-together",
            world=world, group=group, stop=StopRequest(), trust=Trust(),
        )  # fmt: skip
        assert not outcome.errors, outcome.errors
    leave_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

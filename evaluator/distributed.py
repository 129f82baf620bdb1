"""Which process this is among those of a launch, on which device, with how many threads."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from evaluator.errors import LaunchError

SYNC_TIMEOUT = timedelta(minutes=5)
"""How long the final synchronization waits for a rank before it goes on alone."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that were launched together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that talks to the user."""
        return self.rank == 0


def join_world(num_processes: int | None = None) -> World:
    """Join the other processes of the launch (accelerate, torchrun, or none).

    Raises LaunchError when the processes that started are not those that were asked for:
    `accelerate launch --cpu --num_processes 2` starts one process and says nothing.
    """
    import torch
    from accelerate import PartialState

    on_cpu = not torch.cuda.is_available()
    declared = int(os.environ.get("WORLD_SIZE", "1"))
    state = PartialState(cpu=on_cpu, timeout=timedelta(hours=1))
    if state.num_processes != declared:
        raise LaunchError(
            f"expected {declared} processes as WORLD_SIZE says, got {state.num_processes}. Launch "
            "with `accelerate launch --multi_gpu --num_processes N …` (on a CPU too), or torchrun."
        )
    asked = num_processes or _asked_of_launcher()
    if asked is not None and asked != state.num_processes:
        raise LaunchError(
            f"expected {asked} processes as asked for, got {state.num_processes}. "
            "`accelerate launch --cpu` starts one process whatever --num_processes says: use "
            "`accelerate launch --multi_gpu --num_machines 1 --num_processes N --mixed_precision "
            "no --dynamo_backend no` (on a CPU too), or one of the files in launch/accelerate/."
        )
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = "cpu" if on_cpu else str(state.device)
    return World(
        state.process_index, state.num_processes, state.local_process_index, local_size, device
    )


def _asked_of_launcher() -> int | None:
    """How many processes the `accelerate launch` that started this one was asked for, if any."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    everything = words.split("\0")
    starts = [i for i, word in enumerate(everything[:3]) if Path(word).name[:10] == "accelerate"]
    if not starts:
        return None
    arguments = everything[starts[0] + 1 :]
    machines = 1
    asked = None
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        following = arguments[i + 1] if i + 1 < len(arguments) else ""
        number = value if equals else following
        if name in ("-m", "--module"):
            break  # what follows belongs to the program, not to the launcher
        if name in ("--num_processes", "--num-processes") and number.isdecimal():
            asked = int(number)
        if name in ("--config_file", "--config-file") and asked is None:
            asked = _processes_in_file(Path(number))
        if name in ("--num_machines", "--num-machines") and number.isdecimal():
            machines = int(number)
    return asked if machines == 1 else None


def _processes_in_file(path: Path) -> int | None:
    import yaml

    try:
        record = yaml.safe_load(path.read_text())
        return int(record["num_processes"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


def set_threads(threads: int | str, world: World) -> int:
    """Set the CPU threads of this process; returns how many.

    `auto` shares the machine's cores among its processes. Launchers leave one thread or all of
    them, and the number changes bits: it is set here, and recorded.
    """
    import torch

    available = len(os.sched_getaffinity(0))
    count = max(1, available // world.local_size) if threads == "auto" else int(threads)
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
    return count


def use_deterministic_kernels() -> None:
    """Allow deterministic GPU kernels only; call before the first CUDA operation."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def gloo_group(world: World, timeout: timedelta = SYNC_TIMEOUT) -> Any:
    """A process group that works on CPU tensors, also where ranks share a GPU; None when alone.

    Made at the start, when all processes of the launch are there.
    """
    if world.size == 1:
        return None
    import torch.distributed as dist

    if not dist.is_initialized():
        return None
    return dist.new_group(backend="gloo", timeout=timeout)


def from_main(value: Any, world: World, group: Any) -> Any:
    """The main process's value, on every process of the launch."""
    if group is None:
        return value
    import torch.distributed as dist

    box = [value if world.is_main else None]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def from_all(value: Any, group: Any) -> list[Any]:
    """Every process's value, in order of their ranks, on every process of the launch."""
    if group is None:
        return [value]
    import torch.distributed as dist

    values = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group=group)
    return values


def leave_world() -> None:
    """Tear the process group down without a collective."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def end_process(status: int) -> None:
    """End a process of a launch with its exit status, now; returns when it was started alone.

    By then everything is committed and said, and only the interpreter's own teardown is left. On
    a loaded machine a native thread that asks for its lock at that moment (gloo's, holding the
    last collective's tensors) aborts the process, and the launcher calls a finished job failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)

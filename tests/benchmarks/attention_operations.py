"""What observing attention asks of a GPU: operations, memory traffic and waiting, at real size.

    python -m tests.benchmarks.attention_operations sd15 [--side 512] [--batch 4]
    python -m tests.benchmarks.attention_operations sdxl --side 512 --batch 2

No GPU is needed, and no time is measured: the network computes on the tests' pretend device, which
is taken for a GPU by the probe, and every operation that reaches a kernel is counted, with the
bytes that it reads and writes. A GPU that waits for its host is slowed down by the operations, one
that does not by the bytes; either share is that of an observed step.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evaluator.probes import AttentionProbe
from tests.benchmarks.attention_overhead import Case, case_of
from tests.benchmarks.real_size import TEXT, sd15, sdxl
from tests.device.pretend import pretend_device

STEPS = 2


class Work(NamedTuple):
    """Of one run of the pipeline."""

    operations: Counter[str]
    num_bytes: int
    waits: Counter[str]
    """By the function that made the host wait."""


class Counting(TorchDispatchMode):
    """Operations that compute or copy; views do neither."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and name != "_unsafe_view":
            self.operations[name] += 1
            touched = {id(tensor): tensor for tensor in _tensors((args, kwargs, result))}
            self.num_bytes += sum(tensor.nbytes for tensor in touched.values())
        return result


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def work(case: Case, probe: AttentionProbe | None) -> Work:
    """Of generating, without the tables: they are made once a batch, on the host."""
    with pretend_device() as watch, Counting() as counting:
        if probe is None:
            case.generate()
        else:
            with probe.attach(case, case.prompts, range(len(case.prompts))):
                case.generate()
    waits = Counter(found.place for found in watch.synchronizations)
    return Work(counting.operations, counting.num_bytes, waits)


def tell(bare: Work, seen: Work) -> None:
    """Print what each step has, and what an observed one adds."""
    before, after = (found.operations.total() / STEPS for found in (bare, seen))
    added = (seen.num_bytes - bare.num_bytes) / bare.num_bytes
    print(f"  operations a step: {before:,.0f}, observed {after:,.0f} (+{after / before - 1:.1%})")
    print(f"  bytes a step: {bare.num_bytes / STEPS / 1e9:.1f} GB, observed +{added:.1%}")
    print(f"  most of those added: {_told(seen.operations - bare.operations)}")
    waits = bare.waits.total(), seen.waits.total()
    print(f"  waits for the GPU in {STEPS} steps: {waits[0]}, observed {waits[1]}")


def _told(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count / STEPS:g}" for name, count in found.most_common(10))


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["sd15", "sdxl"])
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    pipeline = sd15() if arguments.model == "sd15" else sdxl()
    with pretend_device():
        pipeline.to("pretend")
    print(f"{arguments.model}: {arguments.side} pixels, batch {arguments.batch}, guidance 7.5")
    case = case_of(
        pipeline, [TEXT] * arguments.batch, steps=STEPS, guidance_scale=7.5,
        height=arguments.side, width=arguments.side, output_type="latent",
    )  # fmt: skip
    tell(work(case, None), work(case, AttentionProbe()))


if __name__ == "__main__":
    main()

"""Every family's tiny build on a device, and one batch of it under probes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from evaluator.records import Prompt
from tests.tiny import FAMILIES, call_arguments

PROMPTS = [Prompt("0", "a red dog"), Prompt("1", "a fox and a dog")]


def some_now(names: Iterable[str], now: str) -> list[Any]:
    """Parameters of a test: those that the pattern `now` finds at once, the others when slow."""
    return [
        pytest.param(name, marks=() if re.search(now, name) else pytest.mark.slow) for name in names
    ]


class TinyModel:
    """A family's build on a device, as a probe takes it."""

    def __init__(self, family: str, *, device: str, steps: int = 3) -> None:
        self.family, self.steps = family, steps
        self.pipeline: Any = FAMILIES[family]().to(device)
        self.pipeline.set_progress_bar_config(disable=True)

    def generate(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, H, W, 3) floats; generators on the CPU, one a prompt."""
        arguments = call_arguments(self.family, [prompt.text or "" for prompt in prompts])
        generators = [torch.Generator().manual_seed(int(prompt.key)) for prompt in prompts]
        # The one kernel that every device has; the others round in another order.
        with sdpa_kernel(SDPBackend.MATH):
            made = self.pipeline(
                **arguments,
                num_inference_steps=self.steps,
                output_type="np",
                generator=generators,
            )
        return torch.from_numpy(made.images)


class Observed(NamedTuple):
    """What one observed batch gave."""

    images: Tensor
    tables: dict[str, pa.Table]


def observe(model: Any, *probes: Any) -> Observed:
    """Generate one batch under probes, as a run does."""
    with contextlib.ExitStack() as stack:
        observations = [
            stack.enter_context(probe.attach(model, PROMPTS, range(len(PROMPTS))))
            for probe in probes
        ]
        images = model.generate(PROMPTS)
    tables: dict[str, pa.Table] = {}
    for observation in observations:
        tables |= observation.tables()
    return Observed(images, tables)

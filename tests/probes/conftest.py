"""Tiny randomly initialised pipelines, and a model around each that generates one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import CLIPTokenizer

from evaluator.records import Prompt
from tests.tiny.tokenizers import build_tokenizer
from tests.tiny.unets import (
    SD_BETAS,
    build_stable_diffusion,
    build_stable_diffusion_xl,
    build_unconditional,
)


class TinyModel:
    """Calls its pipeline once for a batch; one generator for each sample."""

    def __init__(self, pipeline: Any, *, steps: int = 6, guidance: float = 5.0) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.steps = steps
        self.guidance = guidance

    def generate(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """(B, H, W, 3) float32; the seed of a sample is taken from its key."""
        generators = [torch.Generator().manual_seed(int(prompt.key)) for prompt in prompts]
        settings: dict[str, Any] = {"num_inference_steps": self.steps, "output_type": "np"}
        if hasattr(self.pipeline, "tokenizer"):
            settings |= {"guidance_scale": self.guidance, "height": 16, "width": 16}
            settings["prompt"] = [prompt.text or "" for prompt in prompts]
            if any(prompt.negative_prompt for prompt in prompts) and self.guidance > 1:
                settings["negative_prompt"] = [prompt.negative_prompt or "" for prompt in prompts]
        else:
            settings["batch_size"] = len(prompts)
        images = self.pipeline(generator=generators, **settings).images
        return torch.from_numpy(images)


def make_prompts(*texts: str, negative: str | None = None) -> list[Prompt]:
    """Prompts with keys 0, 1, …; equal texts get different keys, and so other noise."""
    return [Prompt(str(i), text, negative_prompt=negative) for i, text in enumerate(texts)]


class Run:
    """What one observed batch gave."""

    def __init__(self, images: torch.Tensor, tables: dict[str, pa.Table]) -> None:
        self.images = images
        self.tables = tables

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Rows whose columns equal `where`."""
        rows: list[dict[str, Any]] = self.tables[table].to_pylist()
        return [row for row in rows if all(row[name] == value for name, value in where.items())]


def observe(model: TinyModel, prompts: Sequence[Prompt], *probes: Any) -> Run:
    """Generate one batch under probes, as a runner does."""
    with contextlib.ExitStack() as stack:
        positions = range(len(prompts))
        observations = [
            stack.enter_context(probe.attach(model, prompts, positions)) for probe in probes
        ]
        images = model.generate(prompts)
    tables: dict[str, pa.Table] = {}
    for observation in observations:
        tables |= observation.tables()
    return Run(images, tables)


@pytest.fixture(scope="session")
def shared_pipeline() -> Any:
    """One Stable Diffusion in miniature, for tests that leave it as it was."""
    return build_stable_diffusion()


@pytest.fixture
def tiny() -> Any:
    """The builders, so that tests need no import from here."""

    class Builders:
        model = TinyModel
        stable_diffusion = staticmethod(build_stable_diffusion)
        stable_diffusion_xl = staticmethod(build_stable_diffusion_xl)
        unconditional = staticmethod(build_unconditional)
        tokenizer: Callable[[], CLIPTokenizer] = staticmethod(build_tokenizer)
        prompts = staticmethod(make_prompts)
        observe = staticmethod(observe)
        betas = SD_BETAS

    return Builders

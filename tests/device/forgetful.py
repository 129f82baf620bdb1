"""Code of a user's own that leaves what it computed on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evaluator.records import Prompt


class ForgetfulModel:
    """Noise of each sample's seed."""

    fingerprint = "0" * 64
    pipeline: Any = None

    def __init__(self, *, device: str) -> None:
        self.device = device

    def generate(
        self, prompts: Sequence[Prompt], image_indices: Sequence[int], seeds: Sequence[int]
    ) -> list[Tensor]:
        images = []
        for seed in seeds:
            draw = torch.Generator().manual_seed(seed)
            image = torch.randint(256, (3, 16, 16), generator=draw, dtype=torch.uint8)
            images.append(image.to(self.device))
        return images

    def truncated(self, prompts: Sequence[Prompt]) -> list[bool]:
        return [False] * len(prompts)

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "forgetful"}


class ForgetfulExtractor:
    """The mean of each row of pixels; of a text, how many letters it has."""

    outputs: Mapping[str, int] = {"features": 48}
    fingerprint = "1" * 64

    def __init__(self, *, name: str = "own", device: str = "cpu", dtype: str = "float32") -> None:
        self.name, self.device = name, device

    def preprocess(self, image: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(image[None].float(), (16, 16))[0]

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        return {"features": batch.to(self.device).mean(3).flatten(1)}

    def embed_text(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        lengths = torch.tensor([[float(len(text))] for text in texts], device=self.device)
        return lengths.expand(-1, 48), [False] * len(texts)

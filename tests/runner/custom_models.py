"""Models behind the seam that users' own go through (`kind: custom`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from evaluator.records import Prompt


class Noise:
    """Uniform noise from each sample's seed, and a way to fail at chosen keys."""

    pipeline = None

    def __init__(
        self,
        *,
        device: str,
        broken: Sequence[str] = (),
        log: str | None = None,
        mended: str | None = None,
    ) -> None:
        self.fingerprint = hashlib.sha256(b"noise").hexdigest()
        self.broken, self.log = set(broken), log
        if mended is not None and Path(mended).exists():
            self.broken = set()

    def generate(
        self, prompts: Sequence[Prompt], image_indices: Sequence[int], seeds: Sequence[int]
    ) -> list[Tensor]:
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{len(prompts)}\n")
        if any(prompt.key in self.broken for prompt in prompts):
            raise RuntimeError("this prompt breaks the model")
        return [
            torch.randint(
                0, 256, (3, 32, 32), dtype=torch.uint8,
                generator=torch.Generator().manual_seed(seed),
            )
            for seed in seeds
        ]  # fmt: skip

    def truncated(self, prompts: Sequence[Prompt]) -> list[bool]:
        return [False] * len(prompts)

    def describe(self) -> dict[str, Any]:
        return {"kind": "custom", "fingerprint": self.fingerprint}


class Short(Noise):
    """Forgets its last image."""

    def generate(self, *arguments: Any) -> list[Tensor]:
        return super().generate(*arguments)[:-1]


class Picky:
    """An extractor of mean colours that fails at one image until a file says it was mended."""

    name = "picky"
    outputs: ClassVar = {"features": 3}

    def __init__(self, *, device: str, dtype: str, refuse: str, marker: str) -> None:
        self.fingerprint = hashlib.sha256(b"picky").hexdigest()
        self.refuse, self.marker = refuse, Path(marker)

    def preprocess(self, image: Tensor) -> Tensor:
        digest = hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
        if digest == self.refuse and not self.marker.exists():
            raise RuntimeError("too bright for me")
        return image.float().mean((1, 2))

    def embed(self, batch: Tensor) -> dict[str, Tensor]:
        return {"features": batch}

"""Models behind the seam that users' own go through (`kind: custom`)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.errors import SampleError
from evaluator.models.diffusers import DiffusersModel
from evaluator.models.pixels import to_pixels
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


class Greedy(Noise):
    """Needs more memory than there is for more than `limit` images at once."""

    def __init__(self, *, device: str, limit: int, log: str | None = None) -> None:
        super().__init__(device=device, log=log)
        self.limit = limit

    def generate(self, prompts: Sequence[Prompt], *rest: Any) -> list[Tensor]:
        images = super().generate(prompts, *rest)
        if len(prompts) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return images


class GreedyPipeline(DiffusersModel):
    """The same for a real pipeline, which probes can watch."""

    def __init__(self, *, device: str, folder: str, limit: int) -> None:
        config = DiffusersModelConfig(kind="diffusers", id=folder)
        super().__init__(config, GenerationConfig(steps=3, guidance_scale=3.0), device=device)
        self.limit = limit

    def generate(self, prompts: Sequence[Prompt], *rest: Any) -> list[Tensor | SampleError]:
        images = super().generate(prompts, *rest)
        if len(prompts) > self.limit:
            raise RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB.")
        return images


class GreedyExtractor(Picky):
    """An extractor that cannot embed more than two images at once."""

    def __init__(self, *, device: str, dtype: str) -> None:
        super().__init__(device=device, dtype=dtype, refuse="", marker="")

    def embed(self, batch: Tensor) -> dict[str, Tensor]:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().embed(batch)


class Dark(Noise):
    """Gives black images, and pixels that are no numbers, where it is told to."""

    def __init__(self, *, device: str, black: Sequence[str] = (), nan: Sequence[str] = ()) -> None:
        super().__init__(device=device)
        self.black, self.nan = set(black), set(nan)

    def generate(self, prompts: Sequence[Prompt], *rest: Any) -> list[Tensor | SampleError]:  # type: ignore[override]
        images = torch.stack(super().generate(prompts, *rest)) / 255
        for image, prompt in zip(images, prompts, strict=True):
            image *= prompt.key not in self.black
            if prompt.key in self.nan or "all" in self.nan:
                image[0, 0, 0] = float("nan")
        return to_pixels(images, remedy="try another dtype")


class Counted(Noise):
    """Notes every time that it is loaded; breaks, or is slow while a file is there, if told to."""

    def __init__(
        self,
        *,
        device: str,
        loads: str,
        breaks: bool = False,
        variant: str = "a",
        slow: str | None = None,
    ) -> None:
        super().__init__(device=device)
        with Path(loads).open("a") as file:
            file.write(f"{variant}\n")
        self.breaks, self.slow = breaks, slow

    def generate(self, *arguments: Any) -> list[Tensor]:
        if self.slow is not None and Path(self.slow).exists():
            time.sleep(2.0)
        if self.breaks:
            raise RuntimeError("this point breaks the model")
        return super().generate(*arguments)


class Slow(Noise):
    """Takes the seconds that it is told to take for a prompt, and notes what each call took."""

    def __init__(self, *, device: str, seconds: Mapping[str, float], log: str) -> None:
        super().__init__(device=device)
        self.seconds, self.calls = seconds, Path(log)

    def generate(self, prompts: Sequence[Prompt], *rest: Any) -> list[Tensor]:
        began = time.perf_counter()
        time.sleep(sum(self.seconds.get(key, 0.0) for key in {prompt.key for prompt in prompts}))
        images = super().generate(prompts, *rest)
        with self.calls.open("a") as file:
            file.write(f"{prompts[0].key} {time.perf_counter() - began!r}\n")
        return images

"""Images that exist already, judged by the same run as a model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from evaluator.errors import SampleError

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.records import Prompt


class ImageSource(Protocol):
    """Where images are read from: a pack."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""

    def image(self, key: str) -> Tensor:
        """(3, H, W) uint8; raises SampleError when it cannot be decoded."""


class ImagesModel:
    """Reads the image of each prompt from its pack. Sizes may differ between samples."""

    pipeline = None

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.fingerprint = source.fingerprint

    def generate(
        self, prompts: Sequence[Prompt], image_indices: Sequence[int], seeds: Sequence[int]
    ) -> list[Tensor | SampleError]:
        """Each prompt's image as (3, H, W) uint8, or why it cannot be decoded."""
        images: list[Tensor | SampleError] = []
        for prompt in prompts:
            try:
                images.append(self._source.image(prompt.key))
            except SampleError as error:
                images.append(error)
        return images

    def truncated(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Nothing is encoded, so nothing is cut."""
        return [False] * len(prompts)

    def describe(self) -> Mapping[str, Any]:
        """Provenance of the images."""
        return {"kind": "images", "content": self.fingerprint}

"""Images that a prompt brings along: a condition, one to start from, a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from evaluator.errors import SampleError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from evaluator.records import Prompt


class AttachmentSource(Protocol):
    """Where attachments are read from: the pack of the prompts."""

    def image(self, key: str, *, part: str) -> Tensor:
        """(3, H, W) uint8; raises SampleError when it cannot be decoded."""


def input_arguments(
    parameters: Iterable[str], *, has_controlnet: bool, starts: bool
) -> dict[str, str]:
    """Attachment → the pipeline's argument that it is given as.

    Pipelines call a ControlNet's condition `image` as long as they start from nothing else.
    """
    known = set(parameters)
    named: dict[str, str] = {}
    if has_controlnet:
        named["control"] = "control_image" if "control_image" in known else "image"
    if starts and "image" in known and "image" not in named.values():
        named["init"] = "image"
    if "mask_image" in known:
        named["mask"] = "mask_image"
    return named


class PromptInputs:
    """Reads the attachments that a pipeline needs, all brought to one size."""

    def __init__(
        self, source: AttachmentSource, arguments: Mapping[str, str], *, height: int, width: int
    ) -> None:
        self._source = source
        self._arguments = arguments
        self._size = (width, height)

    def read(self, prompts: Sequence[Prompt]) -> tuple[dict[str, list[Image]], list[str | None]]:
        """The pipeline's image arguments for a batch, and what is wrong with each prompt.

        RGB images, and masks as grey levels (white is painted anew), resized with Lanczos' filter
        where they have another size. A prompt with a fault gets black ones, so that the others
        keep their places.
        """
        from PIL import Image

        images: dict[str, list[Image.Image]] = {name: [] for name in self._arguments.values()}
        faults: list[str | None] = [None] * len(prompts)
        for i, prompt in enumerate(prompts):
            for name, argument in self._arguments.items():
                mode = "L" if name == "mask" else "RGB"
                try:
                    images[argument].append(self._image(prompt, name, mode))
                except SampleError as error:
                    faults[i] = str(error)
                    images[argument].append(Image.new(mode, self._size))
        return images, faults

    def _image(self, prompt: Prompt, name: str, mode: str) -> Image:
        from PIL import Image

        part = prompt.attachments.get(name)
        if part is None:
            raise SampleError(
                f"expected a prompt with the attachment '{name}', got "
                f"{', '.join(sorted(prompt.attachments)) or 'none'}"
            )
        pixels: Any = self._source.image(prompt.key, part=part).permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels).convert(mode)
        if image.size == self._size:
            return image
        return image.resize(self._size, Image.Resampling.LANCZOS)

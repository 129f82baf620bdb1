"""Images that a pipeline wants with every prompt, where a verb makes up its prompts itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.config.pipeline import DiffusersModelConfig
from evaluator.data import decode_image
from evaluator.errors import ConfigError, InputError, SampleError
from evaluator.models.inputs import input_arguments
from evaluator.models.loading import starts_from_an_image

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.data import Pack

NUM_SEARCHED = 64
"""Prompts among which one with the attachments is looked for."""


class Attachments:
    """One image for each name: a file, else that of the first prompt that has them all."""

    def __init__(self, files: Mapping[str, Path], prompts: Callable[[], Pack] | None) -> None:
        self._files = files
        self._prompts = prompts
        self._images: dict[str, Tensor] = {}
        self.note: str | None = None
        """Where they come from, where nobody said so."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a prompt has to bring along; known after `find`."""
        return tuple(sorted(self._images))

    def image(self, key: str, *, part: str) -> Tensor:
        """(3, H, W) uint8: the same for every key."""
        return self._images[part]

    def find(self, wanted: tuple[str, ...], *, pipeline: str) -> None:
        """Read an image for every name; ConfigError where one is missing, or not wanted."""
        for name in self._files:
            if name not in wanted:
                takes = f"it takes {', '.join(wanted)}" if wanted else "it takes none; leave it out"
                raise ConfigError(f"--attach: {pipeline} takes no attachment '{name}': {takes}")
        self._images = {name: _read(path) for name, path in self._files.items()}
        missing = [name for name in wanted if name not in self._images]
        if missing and not self._from_prompts(missing):
            raise ConfigError(
                f"--attach: {pipeline} expects {', '.join(missing)} with every prompt, got none; "
                + " ".join(f"add --attach {name}=IMAGE" for name in missing)
            )

    def _from_prompts(self, missing: list[str]) -> bool:
        if self._prompts is None:
            return False
        pack = self._prompts()
        for prompt in pack.prompts(0, min(NUM_SEARCHED, len(pack.keys))):
            if not all(name in prompt.attachments for name in missing):
                continue
            for name in missing:
                part = prompt.attachments[name]
                try:
                    self._images[name] = pack.image(prompt.key, part=part)
                except SampleError as error:
                    raise InputError(f"{prompt.key}: attachment '{name}': {error}") from error
            self.note = f"every sample has the {', '.join(missing)} of the prompt {prompt.key}"
            return True
        return False


def wanted_attachments(pipeline: Any, config: Any) -> tuple[str, ...]:
    """What a loaded pipeline wants with every prompt: `control`, `init`, `mask`."""
    if pipeline is None or not isinstance(config, DiffusersModelConfig):
        return ()
    named = input_arguments(
        inspect.signature(pipeline.__call__).parameters,
        has_controlnet=getattr(pipeline, "controlnet", None) is not None,
        starts=starts_from_an_image(pipeline, config),
    )
    return tuple(sorted(named))


def _read(path: Path) -> Tensor:
    try:
        return decode_image(path.read_bytes(), name=str(path))
    except (OSError, SampleError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--attach: expected an image at {path}, got: {reason}") from error

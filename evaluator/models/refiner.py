"""Two pipelines for one image: the base takes most of the steps, a refiner the last ones."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError
from evaluator.models.execution import place
from evaluator.models.loading import from_folder
from evaluator.weights import find_weights

if TYPE_CHECKING:
    from evaluator.config.pipeline import DiffusersModelConfig, RefinerConfig

_SHARED = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale")
"""Arguments that the refiner is called with as the base is."""


class Refiner:
    """Takes the base's latents over where it stopped; same prompts, guidance and generators."""

    def __init__(
        self,
        refiner: RefinerConfig,
        config: DiffusersModelConfig,
        *,
        device: str,
        relative_to: Path | None = None,
    ) -> None:
        weights = find_weights(refiner.id, revision=refiner.revision, relative_to=relative_to)
        self.sha256 = weights.sha256
        self._start = refiner.start
        loaded = from_folder(weights.folder, config, where="model.refiner.id")
        if "denoising_start" not in inspect.signature(loaded.__call__).parameters:
            raise ConfigError(
                f"model.refiner: expected a pipeline that begins in the middle, got "
                f"{type(loaded).__name__}. Name SDXL's refiner, or leave it out."
            )
        if getattr(loaded, "watermark", None) is not None:
            loaded.watermark = None
        loaded.set_progress_bar_config(disable=True)
        self._pipeline = place(loaded, config, device=device)

    def base_arguments(self) -> dict[str, Any]:
        """What the base is called with so that it stops in time."""
        return {"denoising_end": self._start, "output_type": "latent"}

    def finish(self, latents: Any, arguments: Mapping[str, Any], generators: Any) -> Any:
        """The pipeline's output for the base's latents, pixels as `np`."""
        shared = {name: arguments[name] for name in _SHARED if name in arguments}
        return self._pipeline(
            image=latents,
            denoising_start=self._start,
            generator=generators,
            output_type="np",
            **shared,
        )

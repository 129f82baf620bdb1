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

_OF_THE_BASE = ("image", "mask_image", "height", "width", "denoising_end", "output_type")
"""Arguments that belong to the base's call alone; the refiner shares all others that it knows."""


class Refiner:
    """Takes the base's latents over where it stopped; same prompts, guidance and generators.

    Its scheduler is the base's, too: latents mean something only to the kind that made them (for
    Euler they are x0 + σ·ε, for DDIM √ᾱ·x0 + √(1 − ᾱ)·ε). What the refiner's network predicts
    stays its own.
    """

    def __init__(
        self,
        refiner: RefinerConfig,
        config: DiffusersModelConfig,
        *,
        scheduler: Any,
        device: str,
        relative_to: Path | None = None,
    ) -> None:
        weights = find_weights(refiner.id, revision=refiner.revision, relative_to=relative_to)
        self.sha256 = weights.sha256
        self._start = refiner.start
        loaded = from_folder(weights.folder, config, where="model.refiner.id")
        self._parameters = inspect.signature(loaded.__call__).parameters
        if "denoising_start" not in self._parameters:
            raise ConfigError(
                f"model.refiner: expected a pipeline that begins in the middle, got "
                f"{type(loaded).__name__}. Name SDXL's refiner, or leave it out."
            )
        if getattr(loaded, "watermark", None) is not None:
            loaded.watermark = None
        loaded.scheduler = _continuing(scheduler, loaded.scheduler)
        loaded.set_progress_bar_config(disable=True)
        self.pipeline = place(loaded, config, device=device)

    def base_arguments(self) -> dict[str, Any]:
        """What the base is called with so that it stops in time."""
        return {"denoising_end": self._start, "output_type": "latent"}

    def finish(self, latents: Any, arguments: Mapping[str, Any], generators: Any) -> Any:
        """The pipeline's output for the base's latents, pixels as `np`."""
        known = set(self._parameters) - set(_OF_THE_BASE)
        shared = {name: value for name, value in arguments.items() if name in known}
        return self.pipeline(
            image=latents,
            denoising_start=self._start,
            generator=generators,
            output_type="np",
            **shared,
        )


def _continuing(base: Any, own: Any) -> Any:
    """A scheduler with the base's class and settings, for what the refiner's network predicts."""
    chosen = type(base)
    predicts = own.config.get("prediction_type")
    knows = "prediction_type" in inspect.signature(chosen.__init__).parameters
    settings = {"prediction_type": predicts} if knows and predicts is not None else {}
    return chosen.from_config(base.config, **settings)

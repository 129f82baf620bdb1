"""CLIP (Radford et al. 2021): images and texts in one space, any `CLIPModel` of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.features.pretrained import (
    ImageSide,
    TextSide,
    embedding,
    expect_complete,
    load_pretrained,
)
from evaluator.features.settings import fingerprint, torch_dtype
from evaluator.weights import find_weights

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_ID = "openai/clip-vit-large-patch14"
"""The weights that CLIPScore is usually reported with."""
_WHAT = "a CLIP model with its image processor and tokenizer"


class ClipExtractor:
    """Image features after CLIP's projection, not normalised, and the text side.

    Preprocessing is the model's own, with Pillow's resampling as in the published evaluations.
    """

    def __init__(
        self,
        *,
        name: str = "clip",
        id: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        relative_to: Path | None = None,
    ) -> None:
        self.name = name
        self._device = device
        kind = torch_dtype(name, dtype)
        weights = find_weights(id or DEFAULT_ID, revision=revision, relative_to=relative_to)
        self._model, missing = load_pretrained(
            weights, what=_WHAT, model_types=("clip",), dtype=kind, device=device
        )
        expect_complete(weights, missing)
        self._images = ImageSide(weights, _WHAT)
        self._texts = TextSide(self._model, weights, what=_WHAT, device=device)
        self.outputs: Mapping[str, int] = {"features": int(self._model.config.projection_dim)}
        preprocessing = "transformers CLIP image processor, Pillow backend"
        self.fingerprint = fingerprint(weights.sha256, preprocessing, dtype)

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → (3, S, S) float32: resized, centre-cropped, normalised."""
        return self._images.pixels(image)

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, S, S) → `features` (N, D) float32."""
        import torch

        with torch.inference_mode():
            inputs = batch.to(self._device, self._model.dtype)
            features = embedding(self._model.get_image_features(pixel_values=inputs))
        return {"features": features.float().cpu()}

    def embed_text(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """(N, D) float32, and whether each text was longer than the encoder takes."""
        return self._texts.embed(texts)

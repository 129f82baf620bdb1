"""SigLIP (Zhai et al. 2023) and SigLIP 2 (Tschannen et al. 2025): images and texts in one space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.errors import ConfigError
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

DEFAULT_ID = "google/siglip-so400m-patch14-384"
_WHAT = "a SigLIP model with its image processor and tokenizer"


class SiglipExtractor:
    """Image features of SigLIP's pooling head, not normalised, and the text side.

    Preprocessing is the model's own: a fixed square that ignores the aspect (SigLIP, and SigLIP 2
    at a fixed resolution), or patches of the image in its own aspect (SigLIP 2 NaFlex). Texts are
    cut and padded to the encoder's full length (64 tokens), as the models were trained.
    """

    def __init__(
        self,
        *,
        name: str = "siglip",
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
            weights, what=_WHAT, model_types=("siglip", "siglip2"), dtype=kind, device=device
        )
        expect_complete(weights, missing)
        if not getattr(self._model.config.vision_config, "vision_use_head", True):
            raise ConfigError(
                f"{weights.origin}: expected a SigLIP model with a pooling head, got one without "
                "(vision_use_head: false)."
            )
        self._patches = self._model.config.model_type == "siglip2"
        self._images = ImageSide(weights, _WHAT)
        self._texts = TextSide(self._model, weights, what=_WHAT, device=device)
        self.outputs: Mapping[str, int] = {
            "features": int(self._model.config.vision_config.hidden_size)
        }
        preprocessing = f"siglip, {ImageSide.described}"
        self.fingerprint = fingerprint(weights.sha256, preprocessing, dtype)

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → (3, S, S) float32, or for NaFlex (patches, values + 3) float32.

        A patch's last three numbers are whether it is one, and how many rows and columns of
        patches the image has.
        """
        import torch

        inputs = self._images.inputs(image)
        pixels = inputs["pixel_values"]
        if not self._patches:
            return pixels
        real = inputs["pixel_attention_mask"].float()[:, None]
        shape = inputs["spatial_shapes"].float().expand(len(pixels), 2)
        return torch.cat([pixels, real, shape], dim=1)

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """A stack of what `preprocess` gave → `features` (N, D) float32."""
        import torch

        inputs = {"pixel_values": batch}
        if self._patches:
            inputs = {
                "pixel_values": batch[:, :, :-3],
                "pixel_attention_mask": batch[:, :, -3].int(),
                "spatial_shapes": batch[:, 0, -2:].long(),
            }
        inputs = {name: values.to(self._device) for name, values in inputs.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            features = embedding(self._model.get_image_features(**inputs))
        return {"features": features.float().cpu()}

    def embed_text(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """(N, D) float32, and whether each text was longer than the encoder takes."""
        return self._texts.embed(texts)

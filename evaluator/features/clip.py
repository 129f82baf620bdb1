"""CLIP (Radford et al. 2021): images and texts in one space, any `CLIPModel` of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError, InputError
from evaluator.weights import Weights, find_weights

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_ID = "openai/clip-vit-large-patch14"
"""The weights that CLIPScore is usually reported with."""


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
        self._weights = find_weights(id or DEFAULT_ID, revision=revision, relative_to=relative_to)
        self._model, self._processor, self._tokenizer = _load(self._weights, dtype, device)
        self.outputs: Mapping[str, int] = {"features": int(self._model.config.projection_dim)}
        self._max_tokens = int(self._model.config.text_config.max_position_embeddings)
        preprocessing = "transformers CLIP image processor, Pillow backend"
        note = f"{self._weights.sha256}\n{preprocessing}\n{dtype}"
        self.fingerprint = hashlib.sha256(note.encode()).hexdigest()

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → (3, S, S) float32: resized, centre-cropped, normalised."""
        from PIL import Image

        pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        values: Tensor = self._processor(pixels, return_tensors="pt")["pixel_values"][0]
        return values

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, S, S) → `features` (N, D) float32."""
        import torch

        with torch.inference_mode():
            inputs = batch.to(self._device, self._model.dtype)
            features = self._model.get_image_features(pixel_values=inputs)
        # transformers 5 returns an output object where 4 returned the tensor itself.
        features = getattr(features, "pooler_output", features)
        return {"features": features.float().cpu()}

    def embed_text(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """(N, D) float32, and whether each text was longer than the encoder takes.

        Every text is padded to the full length: the bits of a row then do not depend on the
        longest text of its batch.
        """
        import torch

        full = self._tokenizer(list(texts), truncation=False, verbose=False).input_ids
        tokens = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            features = self._model.get_text_features(**tokens)
        features = getattr(features, "pooler_output", features)
        return features.float().cpu(), [len(ids) > self._max_tokens for ids in full]


def _load(weights: Weights, dtype: str, device: str) -> tuple[Any, Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model: Any = CLIPModel.from_pretrained(
            weights.folder, dtype=getattr(torch, dtype), use_safetensors=True, **local
        )
        processor = AutoImageProcessor.from_pretrained(weights.folder, backend="pil", **local)
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, **local)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{weights.origin}: expected a CLIP model with its image processor and tokenizer, "
            f"got: {error}"
        ) from error
    if model.config.model_type != "clip":
        raise ConfigError(
            f"{weights.origin}: expected a model of type 'clip', got '{model.config.model_type}'."
        )
    return model.to(device).eval(), processor, tokenizer

"""Vision transformers and other image models of transformers: DINOv2, DINOv3, and any by id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from evaluator.errors import ConfigError
from evaluator.features.pretrained import ImageSide, expect_complete, load_pretrained
from evaluator.features.resize import resize_pillow, resize_torch_bicubic
from evaluator.features.settings import (
    expect_choice,
    fingerprint,
    imagenet_normalised,
    torch_dtype,
)
from evaluator.weights import Weights, find_weights

if TYPE_CHECKING:
    from torch import Tensor

POOLINGS = ("pooler", "cls", "mean")
_WHAT = "a vision model with its image processor"


class VisionExtractor:
    """The pooled output of any transformers model that takes images only.

    Preprocessing is that of the processor which comes with the model; it must bring every image
    to one size. `pooling` is `pooler` (the model's own pooled output; the default where the
    weights hold one), `cls` (the first token of the last hidden state), or `mean` (over all its
    tokens, special ones too, or over all places of a map).
    """

    kind: ClassVar[str] = "vision"
    default_id: ClassVar[str | None] = None
    model_types: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        name: str | None = None,
        id: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        relative_to: Path | None = None,
        pooling: str | None = None,
    ) -> None:
        self.name = name or self.kind
        self._device = device
        if pooling is not None:
            expect_choice(self.name, "pooling", pooling, POOLINGS)
        location = id or self.default_id
        if location is None:
            raise ConfigError(
                f"features: '{self.name}': expected the model's `id` with kind '{self.kind}', got "
                "none; a hub id (owner/name) or a folder."
            )
        kind = torch_dtype(self.name, dtype)
        weights = find_weights(location, revision=revision, relative_to=relative_to)
        self._model, missing = load_pretrained(
            weights, what=_WHAT, model_types=self.model_types, dtype=kind, device=device
        )
        self._expect_images(weights)
        self._prepare, described = self._preprocessing(weights)
        self._expect_one_size(weights)
        self._pooling, dim = self._choose_pooling(weights, pooling, missing)
        self.outputs: Mapping[str, int] = {"features": dim}
        preprocessing = f"{described}; pooling: {self._pooling}"
        self.fingerprint = fingerprint(weights.sha256, preprocessing, dtype)

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → (3, S, S) float32, as the class says."""
        return self._prepare(image)

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, S, S) → `features` (N, D) float32."""
        return {"features": _pooled(self._forward(batch), self._pooling).cpu()}

    def _forward(self, batch: Tensor) -> Any:
        import torch

        with torch.inference_mode():
            return self._model(pixel_values=batch.to(self._device, self._model.dtype))

    def _preprocessing(self, weights: Weights) -> tuple[Callable[[Tensor], Tensor], str]:
        """How an image becomes an input, and what the fingerprint calls it."""
        return ImageSide(weights, _WHAT).pixels, f"{self.kind}, {ImageSide.described}"

    def _expect_images(self, weights: Weights) -> None:
        if self._model.main_input_name != "pixel_values":
            raise ConfigError(
                f"{weights.origin}: expected a model that takes images only, got "
                f"'{self._model.config.model_type}'. For CLIP and SigLIP say kind: clip or "
                "kind: siglip."
            )

    def _expect_one_size(self, weights: Weights) -> None:
        import torch

        wide = self._prepare(torch.zeros(3, 64, 96, dtype=torch.uint8)).shape
        tall = self._prepare(torch.zeros(3, 96, 64, dtype=torch.uint8)).shape
        if wide != tall:
            raise ConfigError(
                f"{weights.origin}: expected an image processor that brings every image to one "
                f"size, got {tuple(wide)} for a wide image and {tuple(tall)} for a tall one."
            )

    def _choose_pooling(
        self, weights: Weights, asked: str | None, missing: frozenset[str]
    ) -> tuple[str, int]:
        """The pooling, and the dimension of what it gives for a black image."""
        import torch

        pooler_missing = frozenset(name for name in missing if name.split(".")[0] == "pooler")
        expect_complete(weights, missing - pooler_missing)
        black = self._prepare(torch.zeros(3, 64, 64, dtype=torch.uint8))
        output = self._forward(black[None])
        has_pooler = getattr(output, "pooler_output", None) is not None and not pooler_missing
        has_tokens = output.last_hidden_state.ndim == 3
        possible = {"pooler": has_pooler, "cls": has_tokens, "mean": True}
        chosen = asked or next(name for name in POOLINGS if possible[name])
        if not possible[chosen]:
            named = ", ".join(name for name in POOLINGS if possible[name])
            raise ConfigError(
                f"features: '{self.name}': expected a pooling that {weights.origin} can give "
                f"({named}), got '{chosen}'."
            )
        return chosen, int(_pooled(output, chosen).shape[1])


class Dinov2Extractor(VisionExtractor):
    """DINOv2 (Oquab et al. 2023): the CLS token after the last layer norm, for FD-DINOv2.

    Images become 224 x 224 whatever their aspect, x / 255, normalised by ImageNet's mean and
    standard deviation. `resize` is `pil` (8-bit Pillow bicubic: dgm-eval, Stein et al. 2023) or
    `torch` (antialiased bicubic on float32, not rounded: EDM2, Karras et al. 2024).

    Position embeddings are brought to 224 as transformers does; the authors' own code adds 0.1 to
    the number of patches it scales to, which moves features slightly.
    """

    kind = "dinov2"
    default_id = "facebook/dinov2-large"
    model_types = ("dinov2", "dinov2_with_registers")
    size: ClassVar[int] = 224

    def __init__(self, *, resize: str = "pil", **settings: Any) -> None:
        self._resize = expect_choice(
            str(settings.get("name") or self.kind), "resize", resize, ("pil", "torch")
        )
        super().__init__(**settings)

    def _preprocessing(self, weights: Weights) -> tuple[Callable[[Tensor], Tensor], str]:
        def pil(image: Tensor) -> Tensor:
            return imagenet_normalised(resize_pillow(image, self.size, "bicubic"))

        def torch(image: Tensor) -> Tensor:
            return imagenet_normalised(resize_torch_bicubic(image, self.size))

        described = f"dinov2, {self._resize} bicubic to {self.size}, ImageNet mean and std"
        return (pil if self._resize == "pil" else torch), described


class Dinov3Extractor(VisionExtractor):
    """DINOv3 (Siméoni et al. 2025), a vision transformer: the CLS token after the last layer norm.

    Preprocessing is that of the processor which comes with the model: x / 255, antialiased
    bilinear to a square whatever the aspect, normalised by ImageNet's mean and deviation.
    """

    kind = "dinov3"
    default_id = "facebook/dinov3-vitl16-pretrain-lvd1689m"
    model_types = ("dinov3_vit",)


def _pooled(output: Any, pooling: str) -> Tensor:
    """A model's output → (N, D) float32."""
    pooled: Tensor
    if pooling == "pooler":
        pooled = output.pooler_output.float().flatten(1)
    elif pooling == "cls":
        pooled = output.last_hidden_state[:, 0].float()
    else:
        hidden = output.last_hidden_state.float()
        pooled = hidden.mean(1) if hidden.ndim == 3 else hidden.flatten(2).mean(-1)
    return pooled

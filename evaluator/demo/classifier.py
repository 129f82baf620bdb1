"""The judge of the digits world: a small CNN that names digit, colour and background.

`DigitsExtractor` offers it as a feature extractor; its 64-wide penultimate layer is the feature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from evaluator.demo.digits import BACKGROUNDS, COLOURS, SIZE, WORDS

WEIGHTS = Path(__file__).parent / "weights" / "classifier"
"""The shipped classifier: `config.json` and `model.safetensors`."""
NUM_FEATURES = 64
HEADS: Mapping[str, int] = MappingProxyType(
    {
        "digit_logits": len(WORDS),
        "colour_logits": len(COLOURS),
        "background_logits": len(BACKGROUNDS),
    }
)
"""Output → how many classes."""

_PREPROCESSING = "RGB uint8 -> float32; bilinear, antialiased, to 32x32; x / 127.5 - 1"


class DigitsClassifier(nn.Module):
    """Four convolutions, one hidden layer, three linear heads."""

    def __init__(self, *, num_channels: int = 32, num_features: int = NUM_FEATURES) -> None:
        super().__init__()
        self.config = {"num_channels": num_channels, "num_features": num_features}
        widths = (num_channels, num_channels, 2 * num_channels, 2 * num_channels)
        layers: list[nn.Module] = []
        num_inputs = 3
        for width, stride in zip(widths, (1, 2, 2, 2), strict=True):
            # Groups, not batches, are normalised: an image's features never depend on its batch.
            layers += [nn.Conv2d(num_inputs, width, 3, stride, 1), nn.GroupNorm(8, width)]
            layers += [nn.GELU()]
            num_inputs = width
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Linear(num_inputs * (SIZE // 8) ** 2, num_features)
        self.heads = nn.ModuleDict({name: nn.Linear(num_features, n) for name, n in HEADS.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, 32, 32) float32 from -1 to 1 => `features` (N, 64) and (N, classes) a head."""
        features = F.gelu(self.hidden(self.trunk(images)))
        return {"features": features} | {n: head(features) for n, head in self.heads.items()}

    @classmethod
    def from_pretrained(cls, directory: Path) -> DigitsClassifier:
        """Read `config.json` and `model.safetensors`; float32 whatever they were saved as."""
        model = cls(**json.loads((directory / "config.json").read_text()))
        model.load_state_dict(load_file(directory / "model.safetensors"))
        return model.eval().requires_grad_(False)


class DigitsExtractor:
    """Features and logits of the digits classifier; answers to the extractor protocol."""

    name = "digits"
    outputs: Mapping[str, int] = MappingProxyType({"features": NUM_FEATURES} | dict(HEADS))
    """Output → width; `features` first."""
    logits = "digit_logits"
    """The output that serves metrics made for class probabilities."""

    def __init__(
        self, *, weights: str | None = None, device: str = "cpu", dtype: str = "float32"
    ) -> None:
        directory = WEIGHTS if weights is None else Path(weights)
        kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
        if dtype not in kinds:
            raise ValueError(f"expected dtype to be one of {', '.join(kinds)}; got {dtype!r}")
        self.device = torch.device(device)
        self.dtype = kinds[dtype]
        self.model = DigitsClassifier.from_pretrained(directory).to(self.device, self.dtype)
        digest = hashlib.sha256((directory / "model.safetensors").read_bytes())
        digest.update((directory / "config.json").read_bytes())
        digest.update(f"\x1f{_PREPROCESSING}\x1f{dtype}".encode())
        self.fingerprint = digest.hexdigest()
        """SHA-256 over weights, preprocessing and dtype."""

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 => (3, 32, 32) float32 from -1 to 1."""
        pixels = image.to(torch.float32)[None]
        if pixels.shape[-2:] != (SIZE, SIZE):
            pixels = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True)
        return pixels[0] / 127.5 - 1.0

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, 32, 32) float32 => output name → (N, width) float32 on the CPU."""
        outputs = self.model(batch.to(self.device, self.dtype))
        return {name: outputs[name].float().cpu() for name in self.outputs}

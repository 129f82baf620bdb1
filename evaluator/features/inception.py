"""Inception (Szegedy et al. 2016) as FID, sFID, KID and the Inception Score use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from evaluator.features import resize as resizes
from evaluator.features.inception_weights import (
    find_inception_weights,
    hash_tensors,
    read_state_dict,
)
from evaluator.features.settings import expect_choice, fingerprint, torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.features.inception_network import InceptionNetwork

RESIZES: Mapping[str, tuple[Callable[[Tensor, int], Tensor], str]] = MappingProxyType(
    {
        "clean": (resizes.resize_clean, "Pillow bicubic per float32 channel, clipped, not rounded"),
        "legacy": (resizes.resize_legacy, "TensorFlow 1 bilinear, no antialias"),
    }
)
"""Name → how an image becomes 299 x 299, and what the fingerprint calls it."""


class InceptionExtractor:
    """TensorFlow's "2015-12-05" Inception v3: pool, spatial block and logits in one pass.

    `features` (2048) is the last average pooling: FID and KID. `spatial` (2023) is the ReLU
    output of `mixed_6/conv`, its first 7 channels on 17 x 17 places in the order row, column,
    channel: sFID as guided-diffusion's evaluator (Dhariwal & Nichol 2021) defines and stores it.
    `logits` (1008) are the last layer's without bias, as the Inception Score takes them.

    `resize` is part of what a number means: `clean` (Parmar et al. 2022) or `legacy` (TensorFlow
    1 and torch-fidelity). Images that are 299 x 299 already are the same under both.
    """

    logits = "logits"

    def __init__(
        self,
        *,
        name: str = "inception",
        id: str | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        relative_to: Path | None = None,
        cache: Path | None = None,
        resize: str = "clean",
        file: str | None = None,
    ) -> None:
        from evaluator.features import inception_network as architecture

        self.name = name
        self._resize, described = RESIZES[expect_choice(name, "resize", resize, tuple(RESIZES))]
        self._dtype = torch_dtype(name, dtype)
        self._device = device
        self._size = architecture.SIZE
        path = find_inception_weights(
            id, file=file, revision=revision, relative_to=relative_to, cache=cache
        )
        self._network, weights_sha256 = _load(path)
        self._network.to(device, self._dtype)
        self.outputs: Mapping[str, int] = {
            "features": architecture.NUM_FEATURES,
            "spatial": architecture.NUM_SPATIAL,
            "logits": architecture.NUM_CLASSES,
        }
        preprocessing = f"299 x 299, {described}; (x - 128) / 128; outputs pool, mixed_6/conv, fc"
        self.fingerprint = fingerprint(weights_sha256, preprocessing, dtype)

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → (3, 299, 299) float32 in [-1, 1): resized, then (x - 128) / 128."""
        return (self._resize(image, self._size) - 128) / 128

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, 299, 299) → `features` (N, 2048), `spatial` (N, 2023), `logits` (N, 1008)."""
        import torch

        with torch.inference_mode():
            outputs = self._network(batch.to(self._device, self._dtype))
        return {name: values.float().cpu() for name, values in outputs._asdict().items()}


def _load(path: Path) -> tuple[InceptionNetwork, str]:
    """The network with the weights of a file, and their hash."""
    from torch import device

    from evaluator.features.inception_network import InceptionNetwork

    # Nothing is drawn for weights that are replaced at once.
    with device("meta"):
        network = InceptionNetwork()
    tensors = read_state_dict(path, network.state_dict())
    network.to_empty(device="cpu")
    network.load_state_dict(tensors, strict=False)  # names were checked; counters are not read
    return network.eval().requires_grad_(False), hash_tensors(tensors)

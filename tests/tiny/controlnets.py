"""ControlNets for the tiny builds, as if they had been trained for a while."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    FluxControlNetModel,
    QwenImageControlNetModel,
    SD3ControlNetModel,
)

from tests.tiny import FAMILIES


def build_controlnet(family: str = "sd") -> Any:
    """One for the pipeline of a family; fresh ones would add nothing but zeros."""
    pipeline: Any = FAMILIES[family]()
    torch.manual_seed(1)
    controlnet = CONTROLNETS[family](pipeline)
    with torch.no_grad():
        for name, parameter in controlnet.named_parameters():
            if "controlnet_" in name or name.startswith("pos_embed_input"):
                parameter.normal_(std=0.3)
    return controlnet.eval()


def _of_unet(pipeline: Any) -> ControlNetModel:
    return ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(8, 8))


def _like_transformer(kind: Any) -> Callable[[Any], Any]:
    """One layer of the transformer's own shape."""

    def build(pipeline: Any) -> Any:
        known = inspect.signature(kind.__init__).parameters
        config = {k: v for k, v in dict(pipeline.transformer.config).items() if k in known}
        extra = {"num_layers": 1, "num_single_layers": 1, "extra_conditioning_channels": 0}
        return kind(**config | {k: v for k, v in extra.items() if k in known})

    return build


CONTROLNETS: dict[str, Callable[[Any], Any]] = {
    "sd": _of_unet,
    "sdxl": _of_unet,
    "sd3": _like_transformer(SD3ControlNetModel),
    "flux": _like_transformer(FluxControlNetModel),
    "qwen-image": _like_transformer(QwenImageControlNetModel),
}
"""Family → how its ControlNet is built for a pipeline."""

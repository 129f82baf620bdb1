"""The cross-attention layers of a denoiser, and the settings under which they cannot be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.probes.watch import denoiser_of, is_compiled


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One cross-attention layer."""

    name: str
    """Path in the denoiser: `down_blocks.0.attentions.0.transformer_blocks.0.attn2`."""
    block: str
    """`down`, `mid` or `up`."""
    module: Any


class Grid(NamedTuple):
    """Height and width of a layer's image positions, in row-major order."""

    height: int
    width: int

    @property
    def num_positions(self) -> int:
        """N, the length of the layer's query."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def cross_attention_layers(pipeline: Any) -> tuple[AttentionLayer, ...]:
    """Every cross-attention layer of the pipeline's UNet; ProbeError where none can be observed."""
    denoiser = denoiser_of(pipeline)
    _refuse_denoiser(pipeline, denoiser)
    layers = []
    for name, module in denoiser.named_modules():
        if not getattr(module, "is_cross_attention", False):
            continue
        if not hasattr(module, "get_attention_scores"):
            continue
        _refuse_layer(name, module)
        layers.append(AttentionLayer(name, name.split("_", 1)[0], module))
    if not layers:
        raise ProbeError(
            f"Expected a {type(denoiser).__name__} with cross-attention layers; it has none. "
            "Remove attention from the probes of this model."
        )
    return tuple(layers)


def _refuse_denoiser(pipeline: Any, denoiser: Any) -> None:
    name = type(pipeline).__name__
    if denoiser is not None and is_compiled(denoiser):
        raise ProbeError(
            "Expected a denoiser that runs module by module; this one is under torch.compile, "
            "which hides its attention layers. Turn compilation off, or remove attention from "
            "the probes."
        )
    if not hasattr(pipeline, "encode_prompt") or getattr(pipeline, "unet", None) is None:
        raise ProbeError(
            "Expected a text-to-image pipeline with a UNet (Stable Diffusion 1, 2, XL); got "
            f"{name}. Attention is not observed there yet: remove attention from the probes."
        )
    if type(denoiser).__name__ != "UNet2DConditionModel":
        raise ProbeError(
            f"Expected a UNet2DConditionModel; got {type(denoiser).__name__} in {name}. Attention "
            "is not observed there yet: remove attention from the probes."
        )
    if getattr(denoiser.config, "encoder_hid_dim_type", None) == "ip_image_proj":
        raise ProbeError(
            "Expected text as the only condition of cross-attention; an IP-Adapter adds image "
            "tokens. Call unload_ip_adapter(), or remove attention from the probes."
        )


def _refuse_layer(name: str, module: Any) -> None:
    if getattr(module, "added_kv_proj_dim", None) is not None:
        raise ProbeError(
            f"Expected cross-attention on text alone; {name} attends to text and image jointly "
            "(added_kv_proj_dim). Joint attention is not observed yet: remove attention from the "
            "probes of this model."
        )
    processor = type(getattr(module, "processor", None)).__name__
    if "Sliced" in processor:
        raise ProbeError(
            f"Expected attention over the whole batch at once; {name} uses {processor}. Turn "
            "attention slicing off (disable_attention_slicing), or remove attention from the "
            "probes."
        )
    if "XFormers" in processor:
        raise ProbeError(
            f"Expected attention that can be observed; {name} uses {processor}. Call "
            "disable_xformers_memory_efficient_attention(), or remove attention from the probes."
        )


def grid_of(num_positions: int, *, height: int, width: int) -> Grid:
    """The grid of `num_positions` that latents of height × width have after some halvings.

    A UNet's strided convolutions round up: 9 becomes 5.
    """
    grid = Grid(height, width)
    while grid.num_positions > num_positions and grid != (1, 1):
        grid = Grid((grid.height + 1) // 2, (grid.width + 1) // 2)
    if grid.num_positions != num_positions:
        raise ProbeError(
            f"Expected image positions that are {height}x{width} latents halved some times; got "
            f"{num_positions}. Remove attention from the probes of this model."
        )
    return grid

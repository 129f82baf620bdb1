"""The layers in which image positions attend to text, and settings under which they are unseen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from evaluator.errors import ConfigError, ProbeError
from evaluator.pipelines import denoiser_of, has_compiled_part

Order = Literal["cross", "image-text", "text-image", "packed"]
"""Where the text lies among a layer's positions.

    cross         keys are the text alone
    image-text    one sequence, image first
    text-image    one sequence, text first
    packed        one sequence, each row's own text first, then its image, then nothing
"""


class Family(NamedTuple):
    """How one class of denoisers attends to text."""

    order: Order
    layers: Mapping[str, str]
    """Pattern of a layer's path in the denoiser → the layer's kind."""


_CROSS = {r".*\.attn[12]": "cross"}
"""Usually the second; some UNets attend to the text twice (only_cross_attention)."""
_JOINT = {r"transformer_blocks\.\d+\.attn": "joint"}
FAMILIES = {
    "UNet2DConditionModel": Family("cross", _CROSS),
    "PixArtTransformer2DModel": Family("cross", _CROSS),
    "SanaTransformer2DModel": Family("cross", _CROSS),
    "SD3Transformer2DModel": Family("image-text", _JOINT),
    "FluxTransformer2DModel": Family(
        "text-image", {**_JOINT, r"single_transformer_blocks\.\d+\.attn": "single"}
    ),
    "QwenImageTransformer2DModel": Family("text-image", _JOINT),
    "Lumina2Transformer2DModel": Family("packed", {r"layers\.\d+\.attn": "joint"}),
}
DEPTHS = ("early", "middle", "late")
"""Thirds of a transformer's layers of one kind: its groups."""


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One layer in which the image attends to the text."""

    name: str
    """Path in the denoiser: `down_blocks.0.attentions.0.transformer_blocks.0.attn2`."""
    kind: str
    """`cross`: to the text alone; `joint`: text and image in one softmax, with projections of
    their own; `single`: the same with one set of projections."""
    block: str
    """`down`, `mid` or `up` in a UNet; elsewhere kind and depth: `joint-early`."""
    module: Any


class Grid(NamedTuple):
    """Height and width of a layer's image positions, in row-major order."""

    height: int
    width: int

    @property
    def num_positions(self) -> int:
        """N, the number of image positions."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def family_of(pipeline: Any) -> Family:
    """How the pipeline's denoiser attends to text; ProbeError where it cannot be observed."""
    denoiser = denoiser_of(pipeline)
    _refuse_denoiser(pipeline, denoiser)
    return FAMILIES[type(denoiser).__name__]


def attention_layers(pipeline: Any) -> tuple[AttentionLayer, ...]:
    """Every layer in which the image attends to the text; ProbeError where one is unobservable."""
    family = family_of(pipeline)
    return layers_of(denoiser_of(pipeline), family)


def layers_of(denoiser: Any, family: Family) -> tuple[AttentionLayer, ...]:
    """The same, of a denoiser of this family; it may be without weights."""
    found: list[tuple[str, str, Any]] = []
    for name, module in denoiser.named_modules():
        kind = next((k for p, k in family.layers.items() if re.fullmatch(p, name)), None)
        if kind is None or (kind == "cross" and not getattr(module, "is_cross_attention", False)):
            continue
        _refuse_layer(name, kind, module)
        found.append((name, kind, module))
    if not found:
        raise ProbeError(
            f"Expected a {type(denoiser).__name__} with cross-attention layers; it has none. "
            "Remove attention from the probes of this model."
        )
    if family.order == "cross":
        _refuse_unknown(denoiser, {name for name, _, _ in found})
    kinds = [kind for _, kind, _ in found]
    seen: dict[str, int] = {}
    layers = []
    for name, kind, module in found:
        place = seen[kind] = seen.get(kind, -1) + 1
        depth = DEPTHS[len(DEPTHS) * place // kinds.count(kind)]
        is_unet = type(denoiser).__name__ == "UNet2DConditionModel"
        block = name.split("_", 1)[0] if is_unet else f"{kind}-{depth}"
        layers.append(AttentionLayer(name, kind, block, module))
    return tuple(layers)


def check_heads_of(denoiser: Any, heads: Sequence[int]) -> None:
    """The same, of a denoiser that may be without weights, if it is of a family observed here."""
    if (family := FAMILIES.get(type(denoiser).__name__)) is not None:
        check_heads(layers_of(denoiser, family), heads)


def check_heads(layers: Sequence[AttentionLayer], heads: Sequence[int] | None) -> None:
    """Raise ConfigError where heat maps are asked of a head that no layer has."""
    most = max(int(layer.module.heads) for layer in layers)
    if beyond := [head for head in heads or () if head >= most]:
        raise ConfigError(
            f"probes.attention.map_heads: expected numbers below {most}, the heads of the "
            f"model's attention layers, counted from 0; got {beyond[0]}."
        )


def _refuse_denoiser(pipeline: Any, denoiser: Any) -> None:
    name = type(pipeline).__name__
    if denoiser is not None and has_compiled_part(denoiser):
        raise ProbeError(
            "Expected a denoiser that runs module by module; this one is under torch.compile, "
            "which hides its attention layers. Turn compilation off, or remove attention from "
            "the probes."
        )
    if not hasattr(pipeline, "encode_prompt") or type(denoiser).__name__ not in FAMILIES:
        raise ProbeError(
            f"Expected a text-to-image pipeline with one of {', '.join(FAMILIES)}; got {name} "
            f"with {type(denoiser).__name__}. Attention is not observed there: remove attention "
            "from the probes of this model."
        )
    if getattr(denoiser.config, "encoder_hid_dim_type", None) == "ip_image_proj":
        raise ProbeError(
            "Expected text as the only condition of cross-attention; an IP-Adapter adds image "
            "tokens. Call unload_ip_adapter(), or remove attention from the probes."
        )
    if getattr(denoiser, "is_cache_enabled", False):
        raise ProbeError(
            "Expected every layer to run at every step; a cache of this denoiser skips some "
            "(enable_cache). Call disable_cache(), or remove attention from the probes."
        )
    if getattr(denoiser, "_parallel_config", None) is not None:
        raise ProbeError(
            "Expected whole sequences on one device; this denoiser cuts them (enable_parallelism). "
            "Load it without a parallel configuration, or remove attention from the probes."
        )


def _refuse_unknown(denoiser: Any, known: set[str]) -> None:
    """No layer that attends to the text may go unobserved because of its name."""
    for name, module in denoiser.named_modules():
        attends = getattr(module, "is_cross_attention", False)
        if name not in known and (attends or getattr(module, "added_kv_proj_dim", None)):
            raise ProbeError(
                f"Expected every layer that attends to the text to be one of {', '.join(_CROSS)}; "
                f"{name} does, too. Remove attention from the probes of this model."
            )


def _refuse_layer(name: str, kind: str, module: Any) -> None:
    if kind == "cross" and getattr(module, "added_kv_proj_dim", None) is not None:
        raise ProbeError(
            f"Expected cross-attention on text alone; {name} adds keys of its own "
            "(added_kv_proj_dim). Remove attention from the probes of this model."
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
            f"Expected attention that can be observed; {name} uses {processor}, which computes it "
            "within xFormers. Call disable_xformers_memory_efficient_attention(), or remove "
            "attention from the probes."
        )
    if "sage" in (backend := _backend_of(module)):
        raise ProbeError(
            f"Expected attention to the exact queries and keys; {name} uses the backend {backend}, "
            "which rounds them to 8 bits, so that its probabilities are others. Choose another "
            "model.attention_backend, or remove attention from the probes."
        )
    if "PAG" in processor or "IPAdapter" in processor:
        raise ProbeError(
            f"Expected one attention to the text a layer; {name} uses {processor}, which attends "
            "several times. Load the pipeline without perturbed-attention guidance and "
            "IP-Adapters, or remove attention from the probes."
        )


def _backend_of(module: Any) -> str:
    """Which attention backend of diffusers a layer calls; nothing for layers that take none."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    processor: Any = getattr(module, "processor", None)
    if not hasattr(processor, "_attention_backend"):
        return ""
    chosen = processor._attention_backend or _AttentionBackendRegistry.get_active_backend()[0]
    return str(getattr(chosen, "value", chosen))  # a name, or a member of diffusers' enumeration


def image_grid(denoiser: Any, latents: Any, inputs: Mapping[str, Any]) -> Grid:
    """The image positions that the denoiser works on, before any halving.

    `latents` (R, C, H, W), or (R, N, C) where the pipeline cuts patches itself; `inputs` are the
    keywords of the denoiser's call, which then say how the patches lie.
    """
    if latents.ndim == 4:
        is_unet = type(denoiser).__name__ == "UNet2DConditionModel"
        patch = 1 if is_unet else int(getattr(denoiser.config, "patch_size", 1) or 1)
        return Grid(latents.shape[-2] // patch, latents.shape[-1] // patch)
    grid = None
    if (ids := inputs.get("img_ids")) is not None:
        ids = ids[0] if ids.ndim == 3 else ids
        grid = Grid(*(int(size) + 1 for size in ids[:, 1:].amax(dim=0).tolist()))
    elif shapes := inputs.get("img_shapes"):
        sizes = shapes[0] if isinstance(shapes[0], list) else shapes
        grid = Grid(*sizes[0][-2:]) if len(sizes) == 1 else None
    if grid is None or grid.num_positions != latents.shape[1]:
        raise ProbeError(
            f"Expected one image of {latents.shape[1]} patches; the denoiser is told of "
            f"{grid or 'several'}. Remove attention from the probes of pipelines that edit images."
        )
    return grid


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

"""Low-rank weights (LoRA; Hu et al. 2021, eq. 3), merged into the model's own when it is loaded.

W ← W + scale · (α / r) · B A. Merged, a layer stays the layer that it was: probes see it, and a
step takes no longer. Deviation from the usual way, which keeps B A beside W and adds their
outputs: in half precision the sum is rounded once, in the weights, computed in float32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ConfigError, InputError
from evaluator.locations import expand
from evaluator.weights import fetch_file, find_weights, hash_file, is_hub_id

if TYPE_CHECKING:
    from torch import Tensor, nn

    from evaluator.config.pipeline import LoraConfig

_SUFFIX = ".safetensors"
_HALF = re.compile(
    r"(?P<path>.+?)\.(?:(?P<projection>to_(?:q|k|v|out))_lora|lora_linear_layer|lora)"
    r"[._](?P<half>A|B|down|up)\.weight"
)
"""One matrix of a layer: PEFT's, diffusers' three older names; Kohya's become the oldest."""
_MATRICES = {"A": "A", "down": "A", "B": "B", "up": "B"}
_PROJECTIONS = {"to_out": "to_out.0"}
_TEXT_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


class LowRank(NamedTuple):
    """What is added to one layer."""

    layer: str
    """Component and layer: `unet.mid_block.attentions.0.proj_in`."""
    down: Tensor
    """A: (rank, inputs), or (rank, inputs, h, w) of a convolution."""
    up: Tensor
    """B: (outputs, rank), or (outputs, rank, 1, 1)."""
    alpha: float
    """α; the rank where the file says nothing, so that the factor α / r is 1."""


def add_loras(
    pipeline: Any, loras: Sequence[LoraConfig], *, relative_to: Path | None = None
) -> list[str]:
    """Merge each into the pipeline's weights, in order; returns the SHA-256 of their files.

    Raises InputError for files that are no such weights, ConfigError for a pipeline that they do
    not fit.
    """
    hashes = []
    for i, config in enumerate(loras):
        where = f"model.loras.{i}"
        path = find_lora(config, where=where, relative_to=relative_to)
        for low_rank in read_lora(path, pipeline, where=where):
            merge(pipeline, low_rank, config.scale, where=where)
        hashes.append(hash_file(path))
    return hashes


def find_lora(config: LoraConfig, *, where: str, relative_to: Path | None = None) -> Path:
    """The file of one LoRA: safetensors only, as pickles run code when they are loaded."""
    path = expand(config.id, relative_to=relative_to)
    named = config.weight_name
    if path.is_file() or (named is not None and not named.endswith(_SUFFIX)):
        wrong = path if path.is_file() else Path(str(named))
        if wrong.suffix != _SUFFIX:
            raise InputError(
                f"{where}: expected weights as {_SUFFIX}, got {wrong.name}. Pickled weights run "
                "code when they are loaded; convert them."
            )
        return path
    if named is not None and not path.is_dir() and is_hub_id(config.id):
        return fetch_file(config.id, named, revision=config.revision)
    if named is None and path.suffix == _SUFFIX:
        raise InputError(
            f"{where}: expected a {_SUFFIX} file, got nothing at {path}. Check the path."
        )
    folder = find_weights(config.id, revision=config.revision, relative_to=relative_to).folder
    found = sorted(folder.glob(f"*{_SUFFIX}"))
    names = [file.name for file in found]
    if named is not None:
        found = [file for file in found if file.name == named]
    if len(found) != 1:
        raise InputError(
            f"{where}: expected {named or f'one {_SUFFIX} file'} in {config.id}, got "
            f"{', '.join(names) or 'none'}. Name the one that is meant as weight_name."
        )
    return found[0]


def read_lora(path: Path, pipeline: Any, *, where: str) -> list[LowRank]:
    """The layers of a file, whichever of the formats that diffusers knows it is in."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not hasattr(pipeline, "lora_state_dict"):
        raise ConfigError(
            f"{where}: {type(pipeline).__name__} takes no LoRA; leave it out, or merge it into the "
            "checkpoint."
        )
    try:
        state = load_file(path)
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{where}: expected weights that can be read, got: {error}") from error
    if scaled := [key for key in state if "dora_scale" in key or "magnitude_vector" in key]:
        # diffusers leaves these out of some formats and goes on with what remains.
        raise InputError(
            f"{where}: expected a plain LoRA, got a DoRA ({scaled[0]}). Merge it into the "
            "checkpoint with the tool that trained it."
        )
    # Stable Diffusion XL's may number the blocks as its first code did.
    unet: Any = getattr(pipeline, "unet", None)
    numbered = {} if unet is None else {"unet_config": unet.config}
    try:
        read = type(pipeline).lora_state_dict(state, **numbered)
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{where}: expected a LoRA, got: {error}") from error
    state, alphas = read if isinstance(read, tuple) else (read, None)
    return _paired({**state, **(alphas or {})}, _settings(header, where=where), where=where)


def _settings(header: dict[str, str], *, where: str) -> dict[str, Any]:
    """What diffusers wrote beside the weights: component.name → value."""
    try:
        settings = json.loads(header.get("lora_adapter_metadata", "{}"))
        if not isinstance(settings, dict):
            raise ValueError(f"{type(settings).__name__} instead of an object")
    except ValueError as error:
        raise InputError(
            f"{where}: expected lora_adapter_metadata as JSON in the file's header, got: {error}"
        ) from error
    for name, value in settings.items():
        if name.rpartition(".")[2] in {"use_dora", "use_rslora", "alpha_pattern"} and value:
            raise InputError(
                f"{where}: expected a plain LoRA, got one with {name}={value!r}. Merge it into the "
                "checkpoint with the tool that trained it."
            )
    return settings


def _paired(state: dict[str, Any], settings: dict[str, Any], *, where: str) -> list[LowRank]:
    """A, B and α of each layer, by name."""
    found: dict[str, dict[str, Any]] = {}
    unknown = []
    for key, value in state.items():
        name, is_alpha = key.removesuffix(".alpha"), key.endswith(".alpha")
        match = _HALF.fullmatch(name)
        if match is None and not is_alpha:
            unknown.append(key)
            continue
        layer, half = (name, "") if match is None else (_layer_name(match), match["half"])
        found.setdefault(layer, {})["alpha" if is_alpha else _MATRICES[half]] = value
    unknown += [layer for layer, parts in found.items() if not _is_pair(parts)]
    if unknown or not found:
        raise InputError(
            f"{where}: expected two low-rank matrices a layer and nothing else, got "
            f"{', '.join(unknown[:3]) or 'none'}. Merge it into the checkpoint with the tool that "
            "trained it."
        )
    layers = []
    for layer, parts in sorted(found.items()):
        general = settings.get(f"{layer.partition('.')[0]}.lora_alpha", parts["A"].shape[0])
        try:
            alpha = float(parts.get("alpha", general))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{where}: expected one number as alpha of {layer}, got: {error}"
            ) from error
        layers.append(LowRank(layer, parts["A"], parts["B"], alpha))
    return layers


def _is_pair(parts: dict[str, Any]) -> bool:
    """Whether both matrices are there, and their product too."""
    if not {"A", "B"} <= set(parts):
        return False
    down, up = parts["A"], parts["B"]
    return bool(min(down.ndim, up.ndim) >= 2 and down.shape[0] == up.flatten(1).shape[1] > 0)


def _layer_name(match: re.Match[str]) -> str:
    """The layer's name in the model, from its name in any of the formats."""
    path, projection = match["path"].removesuffix(".processor"), match["projection"]
    if projection is None:
        return path
    names = _TEXT_PROJECTIONS if path.startswith("text_encoder") else _PROJECTIONS
    return f"{path}.{names.get(projection, projection)}"


def merge(pipeline: Any, low_rank: LowRank, scale: float, *, where: str) -> None:
    """Add one layer's product to its weights."""
    import torch

    module = _layer(pipeline, low_rank.layer)
    weight = getattr(module, "weight", None)
    up, down = low_rank.up.float(), low_rank.down.float()
    rank = down.shape[0]
    with torch.no_grad():
        product = (up.flatten(1) @ down.flatten(1)) * (scale * low_rank.alpha / rank)
        if weight is None or weight.numel() != product.numel() or up.shape[0] != weight.shape[0]:
            got = "no such layer" if weight is None else f"a layer of {tuple(weight.shape)}"
            raise ConfigError(
                f"{where}: expected a model with the layer {low_rank.layer} of "
                f"{(up.shape[0], *down.shape[1:])}, got {got}: it was trained for another "
                "architecture."
            )
        weight.copy_((weight.float() + product.view_as(weight)).to(weight.dtype))


def _layer(pipeline: Any, name: str) -> nn.Module | None:
    """The layer `component.path`; text encoders' have lost a level of their names since."""
    component, _, path = name.partition(".")
    root = getattr(pipeline, component, None)
    if root is None:
        return None
    modules: dict[str, nn.Module] = dict(root.named_modules())
    return modules.get(path) or modules.get(path.removeprefix("text_model."))

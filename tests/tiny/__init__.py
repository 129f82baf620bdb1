"""A tiny randomly initialised pipeline of every model family, seeded, built without a download.

pipeline = FAMILIES["flux"]()
folder = saved("flux", tmp_path)  # as a checkpoint that `from_pretrained` loads
pipeline(**call_arguments("flux", ["a red dog"]), generator=…)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging

from tests.tiny.transformers import (
    build_flux,
    build_lumina2,
    build_pixart_alpha,
    build_pixart_sigma,
    build_qwen_image,
    build_sana,
    build_stable_diffusion_3,
)
from tests.tiny.unets import (
    build_dit,
    build_stable_diffusion,
    build_stable_diffusion_xl,
    build_unconditional,
)

diffusers_logging.set_verbosity_error()

FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd": build_stable_diffusion,
    "sdxl": build_stable_diffusion_xl,
    "sd3": build_stable_diffusion_3,
    "flux": build_flux,
    "pixart-alpha": build_pixart_alpha,
    "pixart-sigma": build_pixart_sigma,
    "sana": build_sana,
    "lumina2": build_lumina2,
    "qwen-image": build_qwen_image,
    "dit": build_dit,
    "ddpm": lambda: build_unconditional("ddpm"),
    "ddim": lambda: build_unconditional("ddim"),
}
"""Family → its builder. Each call gives the same weights, whatever was drawn before."""

TEXTLESS = frozenset({"dit", "ddpm", "ddim"})
"""Families that take no text, and neither height nor width."""

CLASSES = 10
"""How many classes the class-conditional family knows."""

SIZES: dict[str, int] = {"sana": 32, "lumina2": 64}
"""Height and width in pixels, where they are not 16."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "sd3": {"max_sequence_length": 12},
    "flux": {"max_sequence_length": 12},
    # Resolution bins are known for the published sizes alone.
    "pixart-alpha": {"use_resolution_binning": False, "max_sequence_length": 12},
    "pixart-sigma": {"use_resolution_binning": False, "max_sequence_length": 12},
    "sana": {
        "use_resolution_binning": False,
        "max_sequence_length": 12,
        "complex_human_instruction": None,
    },
    "lumina2": {"system_prompt": "draw", "max_sequence_length": 32},
    "qwen-image": {"max_sequence_length": 16},
}
"""Further arguments of each call, as `model.arguments` has them: without them a call takes far
longer than it need, or is refused for an image of this size."""


def generation(family: str) -> dict[str, Any]:
    """What the section `generation` says for a family, but for the steps and the guidance."""
    if family in TEXTLESS:
        return {}
    size = SIZES.get(family, 16)
    return {"height": size, "width": size}


def call_arguments(family: str, texts: Sequence[str], *, guidance: float = 3.0) -> dict[str, Any]:
    """How the bare pipeline is called for a batch of prompts; classes and counts without text."""
    arguments: dict[str, Any] = {**generation(family), **ARGUMENTS.get(family, {})}
    if family in {"ddpm", "ddim"}:
        return {**arguments, "batch_size": len(texts)}
    if family == "dit":
        labels = [number % CLASSES for number in range(len(texts))]
        return {**arguments, "class_labels": labels, "guidance_scale": guidance}
    name = "true_cfg_scale" if family == "qwen-image" else "guidance_scale"
    arguments |= {"prompt": list(texts), name: guidance}
    if family == "qwen-image":
        # Without a negative prompt this pipeline ignores its guidance.
        arguments["negative_prompt"] = [" "] * len(texts)
    return arguments


def saved(family: str, folder: Path) -> Path:
    """Save a family's pipeline under `folder` as safetensors, once; returns where it is."""
    path = folder / family
    if not (path / "model_index.json").is_file():
        FAMILIES[family]().save_pretrained(path, safe_serialization=True)
    return path

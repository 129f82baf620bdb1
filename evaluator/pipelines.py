"""What every diffusers pipeline is made of, whatever its family."""

from __future__ import annotations

from typing import Any


def denoiser_of(pipeline: Any) -> Any:
    """The network that is called at every step, the UNet or transformer; None without one."""
    for name in ("unet", "transformer"):
        if (denoiser := getattr(pipeline, name, None)) is not None:
            return denoiser
    return None


def is_compiled(module: Any) -> bool:
    """Whether torch.compile runs this module itself; a hook on it would have it compiled again."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def has_compiled_part(denoiser: Any) -> bool:
    """Whether torch.compile runs the denoiser, or any part of it, without its hooks."""
    return any(is_compiled(module) for module in denoiser.modules())

"""How a pipeline computes: device, compilation, attention backend, memory savings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError
from evaluator.pipelines import denoiser_of

if TYPE_CHECKING:
    from evaluator.config.pipeline import DiffusersModelConfig


def place(pipeline: Any, config: DiffusersModelConfig, *, device: str) -> Any:
    """Bring a pipeline to its device and set how it computes.

    Raises ConfigError with every setting that it cannot follow.
    """
    faults = _faults(pipeline, config, device=device)
    if faults:
        raise ConfigError(f"{config.id}: the settings do not fit the pipeline:", tuple(faults))
    if config.vae_slicing:
        pipeline.vae.enable_slicing()
    if config.vae_tiling:
        pipeline.vae.enable_tiling()
    if config.attention_backend is not None:
        _set_backend(pipeline, config.attention_backend)
    # Placed before it is compiled: what is compiled stays where it is.
    if config.cpu_offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif config.cpu_offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline = pipeline.to(device)
    if config.compile:
        denoiser_of(pipeline).compile()
    return pipeline


def _faults(pipeline: Any, config: DiffusersModelConfig, *, device: str) -> list[str]:
    name = type(pipeline).__name__
    faults = []
    for option, method in (("vae_slicing", "enable_slicing"), ("vae_tiling", "enable_tiling")):
        if getattr(config, option) and not hasattr(getattr(pipeline, "vae", None), method):
            faults.append(f"model.{option}: {name} has no autoencoder that can; leave it out")
    if config.dtype == "bfloat16" and getattr(pipeline, "vae", None) is None:
        faults.append(
            f"model.dtype: {name} makes pixels without an autoencoder, which cannot be read as "
            "bfloat16; use float16 or float32"
        )
    if config.compile and denoiser_of(pipeline) is None:
        faults.append(f"model.compile: {name} has no unet or transformer; leave it out")
    if config.cpu_offload is not None:
        if not device.startswith("cuda"):
            faults.append(
                f"model.cpu_offload: expected a GPU, got the device '{device}': there is nowhere "
                "to bring the parts to. Leave it out"
            )
        if config.compile:
            faults.append(
                "model.cpu_offload: the moves of weights cannot be compiled; leave it or "
                "model.compile out"
            )
    if config.attention_backend is not None:
        faults += _backend_faults(denoiser_of(pipeline), config.attention_backend)
    return faults


def _backend_faults(denoiser: Any, backend: str) -> list[str]:
    from diffusers.models.attention_dispatch import AttentionBackendName

    where = "model.attention_backend"
    # Kernels of the hub are programs, which a checkpoint's configuration must not bring along.
    known = sorted(item.value for item in AttentionBackendName if not item.value.endswith("_hub"))
    if backend not in known:
        return [f"{where}: expected one of {', '.join(known)}, got '{backend}'"]
    layers = () if denoiser is None else denoiser.modules()
    if not any(hasattr(getattr(m, "processor", None), "_attention_backend") for m in layers):
        return [
            f"{where}: the attention layers of {type(denoiser).__name__} take no backend, they "
            "always call torch's own; leave it out"
        ]
    return []


def _set_backend(pipeline: Any, backend: str) -> None:
    """For the denoiser and what steers it. Nothing else in the process is to notice."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        for part in (denoiser_of(pipeline), getattr(pipeline, "controlnet", None)):
            if part is not None:
                part.set_attention_backend(backend)
    except (ImportError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"model.attention_backend: '{backend}' cannot be used here: {error}. Install what it "
            "needs, or leave it out."
        ) from error
    finally:
        # Setting it for one model also makes it the default of all models.
        _AttentionBackendRegistry.set_active_backend(before)

"""Between pixels and what a pipeline's denoiser works on: the autoencoder and its scaling.

    raw       what the autoencoder encodes to and decodes from
    latents   what the denoiser sees:  (raw − shift) · scaling, or (raw − mean) · scaling / std

`scaling_factor` and `shift_factor` are those of Stable Diffusion, SDXL, SD3 and Flux (Rombach et
al. 2022, appendix G: scaled to unit standard deviation); `latents_mean` and `latents_std` hold one
number a channel (Wan, Qwen-Image). Sana's autoencoder has no distribution, all others are read at
their mode: no noise is drawn. A pipeline without an autoencoder works on pixels; where its images
are grey, they are the mean of the three channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evaluator.errors import ProbeError
from evaluator.pipelines import denoiser_of

if TYPE_CHECKING:
    from torch import Tensor

AUTOENCODERS = ("vae", "vqvae", "movq")
"""What pipelines call their autoencoder."""


def autoencoder_of(pipeline: Any) -> Any:
    """The pipeline's autoencoder; None where it works on pixels."""
    for name in AUTOENCODERS:
        if (found := getattr(pipeline, name, None)) is not None:
            return found
    return None


class LatentSpace:
    """The space that a pipeline's denoiser works in; pixels are (N, 3, H, W) in [−1, 1]."""

    def __init__(self, pipeline: Any) -> None:
        self.autoencoder = autoencoder_of(pipeline)
        """None for a pixel model, whose latents are the pixels."""
        # under offloading an autoencoder is elsewhere until it is called
        self._device = getattr(pipeline, "_execution_device", None)
        config = {} if self.autoencoder is None else self.autoencoder.config
        self.scaling_factor = _number(config.get("scaling_factor"), default=1.0)
        self.shift_factor = _number(config.get("shift_factor"), default=0.0)
        self._is_grey = _num_channels(pipeline) == 1 and self.autoencoder is None
        self.channel_mean = config.get("latents_mean")
        """One number a channel, or None."""
        self.channel_std = config.get("latents_std")
        """One number a channel, or None."""

    @property
    def is_pixels(self) -> bool:
        """Whether the denoiser works on the pixels themselves."""
        return self.autoencoder is None

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [−1, 1] → raw latents (N, C, h, w), at the mode."""
        import torch

        if self.autoencoder is None:
            return pixels.mean(dim=1, keepdim=True) if self._is_grey else pixels
        with torch.no_grad(), _exact_enough(self.autoencoder) as vae:
            inputs = pixels.to(self._device or vae.device, vae.dtype)
            encoded = vae.encode(inputs.unsqueeze(2) if _is_video(vae) else inputs)
            raw: Tensor = _mode(encoded).float()
        return raw.squeeze(2) if _is_video(vae) else raw

    def decode(self, raw: Tensor) -> Tensor:
        """Raw latents (N, C, h, w) → (N, 3, H, W), about [−1, 1] and not clipped."""
        import torch

        if self.autoencoder is None:
            return raw.expand(-1, 3, *raw.shape[2:]) if self._is_grey else raw
        with torch.no_grad(), _exact_enough(self.autoencoder) as vae:
            inputs = raw.to(self._device or vae.device, vae.dtype)
            if _is_video(vae):
                inputs = inputs.unsqueeze(2)
            pixels: Tensor = vae.decode(inputs).sample.float()
        return pixels.squeeze(2) if _is_video(vae) else pixels

    def scale(self, raw: Tensor) -> Tensor:
        """Raw latents → what the denoiser sees."""
        mean, std = self._channels(raw)
        return (raw - self.shift_factor - mean) * self.scaling_factor / std

    def unscale(self, latents: Tensor) -> Tensor:
        """The inverse of `scale`."""
        mean, std = self._channels(latents)
        return latents * std / self.scaling_factor + mean + self.shift_factor

    def _channels(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Mean and std of each channel, which broadcast against `like` (N, C, …)."""
        if self.channel_mean is None or self.channel_std is None:
            return 0.0, 1.0
        form = (1, -1, *[1] * (like.ndim - 2))
        return (
            like.new_tensor(list(self.channel_mean)).view(form),
            like.new_tensor(list(self.channel_std)).view(form),
        )


def pack(pipeline: Any, latents: Tensor) -> Tensor:
    """(N, C, h, w) as the scheduler sees them.

    That is in patches (N, positions, 4C) for pipelines that pack them (Flux, Qwen-Image).
    """
    if not hasattr(pipeline, "_pack_latents"):
        return latents
    packed: Tensor = pipeline._pack_latents(latents, *latents.shape)
    return packed


def unpack(pipeline: Any, latents: Tensor, *, height: int, width: int) -> Tensor:
    """The inverse of `pack`, for images of `height` × `width` pixels."""
    if not hasattr(pipeline, "_unpack_latents"):
        return latents
    unpacked: Tensor = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    return unpacked.squeeze(2) if unpacked.ndim == 5 else unpacked


def to_pixels(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 → float32 in [−1, 1]."""
    return images.float() / 127.5 - 1


def to_images(pixels: Tensor) -> Tensor:
    """(N, 3, H, W) in [−1, 1] → uint8 on the CPU, clipped, as pipelines round."""
    import torch

    return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def image_size(pipeline: Any) -> tuple[int, int] | None:
    """Height and width of the images that a pipeline makes when nothing is asked; None: unknown."""
    for name in ("unet", "transformer"):
        size = getattr(getattr(pipeline, name, None), "config", {}).get("sample_size")
        if size is None:
            continue
        rows, columns = (size, size) if isinstance(size, int) else tuple(size)
        factor = 1 if autoencoder_of(pipeline) is None else scale_factor(pipeline)
        return int(rows * factor), int(columns * factor)
    if (default := getattr(pipeline, "default_sample_size", None)) is not None:
        factor = scale_factor(pipeline)
        return int(default * factor), int(default * factor)
    return None


def scale_factor(pipeline: Any) -> int:
    """Pixels a side for each latent; 1 for pixel models."""
    vae = autoencoder_of(pipeline)
    if vae is None:
        return 1
    if (known := getattr(pipeline, "vae_scale_factor", None)) is not None:
        return int(known)
    if (ratio := vae.config.get("spatial_compression_ratio")) is not None:
        return int(ratio)
    blocks = vae.config.get("block_out_channels") or (1,)
    return int(2 ** (len(blocks) - 1))


def _num_channels(pipeline: Any) -> int | None:
    """Channels of what the denoiser works on; None where it does not say."""
    channels: int | None = getattr(denoiser_of(pipeline), "config", {}).get("in_channels")
    return channels


def _mode(encoded: Any) -> Any:
    """The raw latents of what `encode` returned."""
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mode()
    for name in ("latent", "latents"):
        if hasattr(encoded, name):
            return getattr(encoded, name)
    raise ProbeError(
        f"Expected an autoencoder whose encode() gives a distribution or latents; got "
        f"{type(encoded).__name__}. This model's images cannot be encoded."
    )


def _is_video(vae: Any) -> bool:
    """Whether it convolves over time too, and so wants an axis for it."""
    return any(parameter.ndim == 5 for parameter in vae.parameters())


@contextmanager
def _exact_enough(vae: Any) -> Iterator[Any]:
    """The autoencoder, in float32 where it says that it overflows in float16 (SDXL's)."""
    import torch

    if not (vae.config.get("force_upcast") and vae.dtype == torch.float16):
        yield vae
        return
    vae.to(torch.float32)
    try:
        yield vae
    finally:
        vae.to(torch.float16)


def _number(value: Any, *, default: float) -> float:
    return default if value is None else float(value)

"""`probe roundtrip`: what the autoencoder loses, and the scale of its latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import ProbeError
from evaluator.probes.latent_space import LatentSpace, to_images, to_pixels
from evaluator.probes.roundtrip import (
    LatentScale,
    Reconstruction,
    latent_scale,
    reconstruction_errors,
    scale_warnings,
)
from evaluator.probing.averages import Average, average, spoken
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedImages,
    ProbedModel,
    fit_images,
    images_size,
    load_images,
    load_model,
)
from evaluator.probing.outputs import open_folder, provenance
from evaluator.probing.pictures import image_grid
from evaluator.probing.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

NUM_SHOWN = 8
"""Images in the picture: the worst ones."""


class Decoded(NamedTuple):
    """Images and what became of them, (N, 3, H, W) uint8 each."""

    images: Tensor
    again: Tensor
    """Encoded, scaled, unscaled and decoded."""
    unscaled: Tensor
    """Decoded from the scaled latents as they are: what forgetting the scale does."""
    latents: Tensor
    """(N, C, h, w) scaled."""


@dataclass(frozen=True, slots=True)
class RoundtripFound:
    """What `probe roundtrip` prints."""

    model: str
    autoencoder: str
    num_images: int
    latent_shape: tuple[int, ...]
    mse: Average
    psnr: Average
    largest: Average
    unscaled_mse: Average
    scale: LatentScale
    scaling_factor: float
    shift_factor: float
    warnings: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """The errors, the scale, and what is suspicious."""
        shift = f", shift {self.shift_factor:g}" if self.shift_factor else ""
        shape = "×".join(map(str, self.latent_shape))
        return [
            f"{self.model}: {self.num_images} images through {self.autoencoder}, latents {shape}",
            f"  MSE                     {spoken(self.mse, '.6f')}",
            f"  PSNR                    {spoken(self.psnr, '.2f')} dB",
            f"  largest difference      {spoken(self.largest, '.1f')} of 255 grey levels",
            f"  scaled latents          mean {self.scale.mean:.3f}, std {self.scale.std:.3f} "
            f"(scaling factor {self.scaling_factor:g}{shift})",
            f"  MSE without unscaling   {spoken(self.unscaled_mse, '.6f')}",
            *(f"warning: {warning}" for warning in self.warnings),
            f"written: {self.folder}",
        ]


def probe_roundtrip(
    request: ModelRequest, *, images: str, limit: int = 256, output: Path | None = None
) -> RoundtripFound:
    """Encode and decode real images; ProbeError for a model without an autoencoder."""
    probed = load_model(request)
    space = LatentSpace(probed.pipeline)
    if space.is_pixels:
        raise ProbeError(
            f"Expected a latent model, whose autoencoder can be tried; {probed.name} "
            f"({type(probed.pipeline).__name__}) has none and works on pixels."
        )
    shown = load_images(images, probed, limit=limit)
    decoded = roundtrip(probed, space, shown)
    errors = reconstruction_errors(decoded.images, decoded.again)
    unscaled = reconstruction_errors(decoded.images, decoded.unscaled)
    scale = latent_scale(decoded.latents, space)
    folder = open_folder("roundtrip", probed.name, output)
    found = RoundtripFound(
        probed.name,
        type(space.autoencoder).__name__,
        len(shown.images),
        tuple(decoded.latents.shape[1:]),
        average(errors.mse),
        average(errors.psnr),
        average(errors.largest),
        average(unscaled.mse),
        scale,
        space.scaling_factor,
        space.shift_factor,
        (*scale_warnings(scale, space), *(f"left out {line}" for line in shown.refused)),
        folder.path,
    )
    folder.table("roundtrip.parquet", _table(shown, errors, unscaled))
    worst = errors.mse.argsort(descending=True, stable=True)[:NUM_SHOWN].tolist()
    rows = [[part[i] for i in worst] for part in decoded[:3]]
    labels = ["image", "encoded and decoded", "decoded without unscaling"]
    heads = [f"{float(errors.psnr[i]):.1f} dB" for i in worst]
    folder.picture("worst.png", image_grid(rows, row_labels=labels, column_labels=heads))
    folder.finish(
        found,
        arguments={"model": request.model, "images": images, "limit": limit},
        provenance=provenance(probed, images=shown),
    )
    return found


def roundtrip(probed: ProbedModel, space: LatentSpace, shown: ProbedImages) -> Decoded:
    """Every image encoded and decoded, at the model's own size."""
    import torch

    height, width = images_size(probed)
    images = fit_images(shown.images, height=height, width=width)
    progress = Progress("roundtrip", len(images))
    again, unscaled, scaled = [], [], []
    for start in range(0, len(images), probed.batch_size):
        pixels = to_pixels(images[start : start + probed.batch_size]).to(probed.device)
        latents = space.scale(space.encode(pixels))
        again.append(to_images(space.decode(space.unscale(latents))))
        unscaled.append(to_images(space.decode(latents)))
        scaled.append(latents.cpu())
        progress.advance(len(pixels))
    return Decoded(images, torch.cat(again), torch.cat(unscaled), torch.cat(scaled))


def _table(shown: ProbedImages, errors: Reconstruction, unscaled: Reconstruction) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "key": [prompt.key for prompt in shown.prompts],
            "mse": errors.mse.tolist(),
            "psnr": errors.psnr.tolist(),
            "largest": errors.largest.tolist(),
            "unscaled_mse": unscaled.mse.tolist(),
        }
    )

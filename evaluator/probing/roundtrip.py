"""`probe roundtrip`: what the autoencoder loses, and the scale of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import ConfigError
from evaluator.probes.latent_space import LatentSpace, to_images
from evaluator.probes.roundtrip import (
    LatentScale,
    Reconstruction,
    latent_scale,
    reconstruction_errors,
    scale_warnings,
)
from evaluator.probing.averages import Average, average, spoken
from evaluator.probing.images import chosen_images, encode_images, require_finite
from evaluator.probing.inputs import ModelRequest, ProbedImages, ProbedModel, load_model
from evaluator.probing.named import output_place
from evaluator.probing.outputs import open_folder, provenance
from evaluator.probing.pictures import Picture, image_grid
from evaluator.probing.progress import Progress
from evaluator.text import count_of

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


class Shown(NamedTuple):
    """One image for the picture, (3, H, W) uint8 each."""

    mse: float
    psnr: float
    image: Tensor
    again: Tensor
    unscaled: Tensor


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
    notes: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """The errors, the scale, and what is suspicious."""
        shift = f", shift {self.shift_factor:g}" if self.shift_factor else ""
        shape = "×".join(map(str, self.latent_shape))
        return [
            f"{self.model}: {count_of(self.num_images, 'image')} through {self.autoencoder}, "
            f"latents {shape}",
            f"  MSE                     {spoken(self.mse, '.6f')}",
            f"  PSNR                    {spoken(self.psnr, '.2f')} dB",
            f"  largest difference      {spoken(self.largest, '.1f')} of 255 grey levels",
            f"  scaled latents          mean {self.scale.mean:.3f}, std {self.scale.std:.3f} "
            f"(scaling factor {self.scaling_factor:g}{shift})",
            f"  MSE without unscaling   {spoken(self.unscaled_mse, '.6f')}",
            *(f"warning: {warning}" for warning in self.warnings),
            *(f"note: {note}" for note in self.notes),
            f"written: {self.folder}",
        ]


def probe_roundtrip(
    request: ModelRequest,
    *,
    images: str | None = None,
    limit: int = 256,
    output: Path | None = None,
) -> RoundtripFound:
    """Encode and decode real images; ConfigError for a model without an autoencoder.

    Without `images`, those of the configuration's first reference, or of its prompts.
    """
    place = output_place("roundtrip", request, output)
    probed = load_model(request)
    space = LatentSpace(probed.pipeline)
    if space.is_pixels:
        raise ConfigError(
            f"Expected a latent model, whose autoencoder can be tried; {probed.name} "
            f"({type(probed.pipeline).__name__}) has none and works on pixels. "
            "Name a model with a VAE; `probe denoise` works on pixels too."
        )
    shown = chosen_images(images, probed, limit=limit)
    errors, unscaled, latents, worst = _all_errors(probed, space, shown)
    scale = latent_scale(latents, space)
    folder = open_folder("roundtrip", probed.name, place)
    found = RoundtripFound(
        probed.name,
        type(space.autoencoder).__name__,
        len(shown.images),
        tuple(latents.shape[1:]),
        average(errors.mse, least=0.0),
        average(errors.psnr),
        average(errors.largest, least=0.0),
        average(unscaled.mse, least=0.0),
        scale,
        space.scaling_factor,
        space.shift_factor,
        (*scale_warnings(scale, space), *(f"left out {line}" for line in shown.refused)),
        (*probed.notes, *([shown.note] if shown.note else [])),
        folder.path,
    )
    folder.table("roundtrip.parquet", _table(shown, errors, unscaled))
    folder.picture("worst.png", _picture(worst))
    folder.finish(
        found,
        arguments={"model": request.model, "images": images, "limit": limit},
        provenance=provenance(probed, images=shown),
    )
    return found


def roundtrip(probed: ProbedModel, space: LatentSpace, images: Sequence[Tensor]) -> Decoded:
    """A batch of images encoded and decoded, at the model's own size."""
    fitted, latents = encode_images(probed, space, images)
    again = space.decode(space.unscale(latents))
    require_finite(again, f"pixels of {type(space.autoencoder).__name__}")
    return Decoded(fitted, to_images(again), to_images(space.decode(latents)), latents.cpu())


def _all_errors(
    probed: ProbedModel, space: LatentSpace, shown: ProbedImages
) -> tuple[Reconstruction, Reconstruction, Tensor, list[Shown]]:
    """Errors of all images with and without unscaling, their latents, and the worst of them."""
    import torch

    progress = Progress("roundtrip", len(shown.images))
    errors, unscaled, latents = [], [], []
    worst: list[Shown] = []
    for start in range(0, len(shown.images), probed.batch_size):
        decoded = roundtrip(probed, space, shown.images[start : start + probed.batch_size])
        found = reconstruction_errors(decoded.images, decoded.again)
        worst += map(Shown, found.mse.tolist(), found.psnr.tolist(), *decoded[:3])
        worst = sorted(worst, key=lambda shown: -shown.mse)[:NUM_SHOWN]
        errors.append(found)
        unscaled.append(reconstruction_errors(decoded.images, decoded.unscaled))
        latents.append(decoded.latents)
        progress.advance(len(decoded.images))
    joined = [
        Reconstruction(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
        for batches in (errors, unscaled)
    ]
    return joined[0], joined[1], torch.cat(latents), worst


def _picture(worst: Sequence[Shown]) -> Picture:
    """The worst images above what became of them."""
    rows = [[getattr(s, name) for s in worst] for name in ("image", "again", "unscaled")]
    labels = ["image", "encoded and decoded", "decoded without unscaling"]
    heads = [f"{shown.psnr:.1f} dB" for shown in worst]
    return image_grid(rows, row_labels=labels, column_labels=heads)


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

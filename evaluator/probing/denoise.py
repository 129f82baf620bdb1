"""`probe denoise`: real images noised, and what the model says was put in."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import InputError
from evaluator.probes.denoising import Denoised, denoise_along
from evaluator.probes.latent_space import LatentSpace, pack, to_images, to_pixels, unpack
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
from evaluator.probing.outputs import ProbeFolder, open_folder, provenance
from evaluator.probing.pictures import Curve, Picture, curve_chart, image_grid
from evaluator.probing.progress import Progress
from evaluator.records import Prompt
from evaluator.seeds import stream_seed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

USUAL_GRID = 1000
"""Timesteps that most models are trained on."""
CONDITIONS = frozenset({"prompt", "class_labels"})
"""What pipelines call the condition of an image."""
NUM_SHOWN = 6
"""Images in the strip."""


class LevelError(NamedTuple):
    """One noise level over all images; intervals are of the mean over images like these."""

    timestep: float
    log_snr: float
    noise_mse: Average
    x0_mse: Average


@dataclass(frozen=True, slots=True)
class DenoiseFound:
    """What `probe denoise` prints."""

    model: str
    conditioned: bool
    num_images: int
    levels: tuple[LevelError, ...]
    notes: tuple[str, ...]
    folder: Path

    def lines(self) -> list[str]:
        """One line a noise level, from the noisiest."""
        what = "given what is said of them" if self.conditioned else "without any condition"
        head = f"{'timestep':>8} {'log-SNR':>8} {'noise MSE (95 % interval)':>27}"
        lines = [
            f"{self.model}: {self.num_images} images, {what}",
            f"{head} {'x0 MSE (95 % interval)':>27}",
        ]
        for level in self.levels:
            noise, x0 = spoken(level.noise_mse, ".3g"), spoken(level.x0_mse, ".3g")
            lines.append(f"{level.timestep:8.5g} {level.log_snr:8.2f} {noise:>27} {x0:>27}")
        notes = [f"note: {note}" for note in self.notes]
        return [*lines, *notes, f"written: {self.folder}"]


def probe_denoise(
    request: ModelRequest,
    *,
    images: str,
    limit: int = 64,
    timesteps: int | Sequence[float] = 10,
    unconditional: bool = False,
    output: Path | None = None,
) -> DenoiseFound:
    """Noise real images at `timesteps` (how many, or which) and measure the prediction."""
    # without guidance the output is the model's own
    guidance = 1.0 if request.guidance_scale is None else request.guidance_scale
    probed = _load(replace(request, guidance_scale=guidance), timesteps)
    shown = load_images(images, probed, limit=limit)
    prompts = conditions(probed, shown, unconditional=unconditional)
    chosen = None if isinstance(timesteps, int) else tuple(timesteps)
    denoised = denoise_images(probed, shown, prompts, timesteps=chosen)
    levels = tuple(_level(at) for at in denoised)
    folder = open_folder("denoise", probed.name, output)
    folder.table("denoise.parquet", _table(shown, denoised))
    _draw(folder, probed, shown, denoised)
    folder.picture("errors.png", _chart(probed.name, levels))
    notes = _notes(probed, shown, given=request.guidance_scale)
    conditioned = not unconditional and bool(CONDITIONS & _parameters(probed))
    arguments = {
        "model": request.model, "images": images, "limit": limit, "timesteps": timesteps,
        "unconditional": unconditional, "guidance_scale": guidance,
    }  # fmt: skip
    num_images = len(shown.images)
    found = DenoiseFound(probed.name, conditioned, num_images, levels, notes, folder.path)
    folder.finish(
        {"levels": levels, "conditioned": conditioned, "notes": notes},
        arguments=arguments,
        provenance=provenance(probed, images=shown),
        lines=found.lines(),
    )
    return found


def _load(request: ModelRequest, timesteps: int | Sequence[float]) -> ProbedModel:
    """The model, with a run of so many steps, or one that leaves any timestep to choose."""
    if isinstance(timesteps, int):
        return load_model(replace(request, steps=timesteps))
    probed = load_model(replace(request, steps=USUAL_GRID))
    grid = probed.pipeline.scheduler.config.get("num_train_timesteps", USUAL_GRID)
    return probed if grid >= USUAL_GRID else load_model(replace(request, steps=grid))


def conditions(
    probed: ProbedModel, shown: ProbedImages, *, unconditional: bool
) -> tuple[Prompt, ...]:
    """The images' captions and classes, or the empty ones that the model was trained without.

    Raises InputError for a text-to-image model and images without captions.
    """
    if unconditional:
        transformer = getattr(probed.pipeline, "transformer", None)
        null = None if transformer is None else transformer.config.get("num_embeds_ada_norm")
        return tuple(Prompt(prompt.key, "", class_label=null) for prompt in shown.prompts)
    takes_text = "prompt" in _parameters(probed)
    without = [prompt.key for prompt in shown.prompts if prompt.text is None]
    if takes_text and without:
        raise InputError(
            f"--images: expected captions for a text-to-image model, got none for "
            f"{', '.join(without[:3])}; give images with captions, or add --unconditional"
        )
    return shown.prompts


def _parameters(probed: ProbedModel) -> set[str]:
    """What a call of the pipeline takes."""
    return set(inspect.signature(probed.pipeline.__call__).parameters)


def denoise_images(
    probed: ProbedModel,
    shown: ProbedImages,
    prompts: Sequence[Prompt],
    *,
    timesteps: Sequence[float] | None = None,
) -> list[Denoised]:
    """Every image at every level; `x0` comes back decoded, (n, 3, H, W) uint8, of the first few."""
    import torch

    pipeline = probed.pipeline
    height, width = images_size(probed)
    fitted = fit_images(shown.images, height=height, width=width)
    space = LatentSpace(pipeline)
    progress = Progress("denoise", len(fitted))
    parts: list[list[Denoised]] = []
    for begin in range(0, len(fitted), probed.batch_size):
        batch = prompts[begin : begin + probed.batch_size]
        pixels = to_pixels(fitted[begin : begin + probed.batch_size]).to(probed.device)
        x0 = pack(pipeline, space.scale(space.encode(pixels)))
        seeds = [stream_seed(probed.seed, "denoise", prompt.key) for prompt in batch]
        noise = _noise(x0, seeds)
        with torch.no_grad():
            found = denoise_along(
                pipeline,
                lambda batch=batch, seeds=seeds: probed.model.generate(  # type: ignore[misc]
                    batch, [0] * len(batch), seeds
                ),
                x0,
                noise,
                timesteps=timesteps,
            )
            # a gallery of them all would fill the memory
            count = max(0, NUM_SHOWN - begin)
            parts.append([_decoded(at, probed, space, (height, width), count) for at in found])
        progress.advance(len(batch))
    return [
        Denoised(
            same[0].timestep,
            same[0].level,
            torch.cat([at.noise_mse for at in same]),
            torch.cat([at.x0_mse for at in same]),
            torch.cat([at.x0 for at in same]),
        )
        for same in zip(*parts, strict=True)
    ]


def _noise(like: Tensor, seeds: Sequence[int]) -> Tensor:
    """Standard normal noise, one CPU generator for each sample; the same at every level."""
    import torch

    drawn = [
        torch.randn(like.shape[1:], generator=torch.Generator("cpu").manual_seed(seed))
        for seed in seeds
    ]
    return torch.stack(drawn).to(like)


def _decoded(
    at: Denoised, probed: ProbedModel, space: LatentSpace, size: tuple[int, int], count: int
) -> Denoised:
    """The same, with the first x0 as images; grey where nothing finite is predicted."""
    import torch

    if count == 0:
        return at._replace(x0=torch.empty((0, 3, *size), dtype=torch.uint8))
    latents = unpack(probed.pipeline, at.x0[:count].float(), height=size[0], width=size[1])
    pixels = space.decode(space.unscale(latents.nan_to_num(0.0, 0.0, 0.0)))
    return at._replace(x0=to_images(pixels))


def _level(at: Denoised) -> LevelError:
    return LevelError(
        at.timestep,
        at.level.log_snr,
        average(at.noise_mse, least=0.0),
        average(at.x0_mse, least=0.0),
    )


def _table(shown: ProbedImages, denoised: Sequence[Denoised]) -> pa.Table:
    import pyarrow as pa

    count = len(shown.images)
    keys = [prompt.key for prompt in shown.prompts]
    return pa.table(
        {
            "key": pa.array(keys * len(denoised), pa.string()),
            "timestep": [at.timestep for at in denoised for _ in range(count)],
            "alpha": [at.level.alpha for at in denoised for _ in range(count)],
            "sigma": [at.level.sigma for at in denoised for _ in range(count)],
            "log_snr": [at.level.log_snr for at in denoised for _ in range(count)],
            "noise_mse": [value for at in denoised for value in at.noise_mse.tolist()],
            "x0_mse": [value for at in denoised for value in at.x0_mse.tolist()],
        }
    )


def _draw(
    folder: ProbeFolder, probed: ProbedModel, shown: ProbedImages, denoised: Sequence[Denoised]
) -> None:
    """The first images, and what the model predicts of each from every noise level."""
    count = min(NUM_SHOWN, len(shown.images))
    labels = [prompt.text or prompt.key for prompt in shown.prompts[:count]]
    rows = [[shown.images[i], *(at.x0[i] for at in reversed(denoised))] for i in range(count)]
    heads = ["image", *(f"log-SNR {at.level.log_snr:.1f}" for at in reversed(denoised))]
    title = f"{probed.name}: x0 predicted in one step, from little noise to much"
    folder.picture("x0.png", image_grid(rows, title=title, row_labels=labels, column_labels=heads))


def _chart(name: str, levels: Sequence[LevelError]) -> Picture:
    """Both errors over log-SNR."""
    curves = []
    for label, errors in (
        ("predicted noise", [level.noise_mse for level in levels]),
        ("predicted x0", [level.x0_mse for level in levels]),
    ):
        ends = [
            (math.nan, math.nan) if e.interval is None else (e.interval.low, e.interval.high)
            for e in errors
        ]
        low, high = zip(*ends, strict=True)
        x = [level.log_snr for level in levels]
        curves.append(Curve(x, [error.mean for error in errors], low, high, label))
    title = f"{name}: mean square error of the prediction"
    return curve_chart(curves, title=title, x_label="log-SNR (much noise left, little right)")


def _notes(probed: ProbedModel, shown: ProbedImages, *, given: float | None) -> tuple[str, ...]:
    notes = [f"left out {line}" for line in shown.refused]
    transformer = getattr(probed.pipeline, "transformer", None)
    if given is None and transformer is not None and transformer.config.get("guidance_embeds"):
        notes.append(
            "the guidance scale is an input of this model, and 1 was given; --guidance sets it"
        )
    return tuple(notes)

"""`probe denoise`: real images noised, and what the model says was put in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import ConfigError, InputError, ObservationError
from evaluator.probes.denoising import Denoised, denoise_along
from evaluator.probes.latent_space import LatentSpace, pack, to_images, unpack
from evaluator.probes.steering import without_class
from evaluator.probing.averages import Average, average, spoken
from evaluator.probing.ignored import guidance_notes, require_asked_for
from evaluator.probing.images import chosen_images, encode_images, images_size
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedImages,
    ProbedModel,
    load_model,
    require_start_from_noise,
)
from evaluator.probing.named import output_place
from evaluator.probing.outputs import ProbeFolder, open_folder, provenance
from evaluator.probing.pictures import Curve, Picture, curve_chart, image_grid, plain_pictures
from evaluator.probing.progress import Progress
from evaluator.records import Prompt
from evaluator.seeds import stream_seed
from evaluator.text import count_of

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

USUAL_GRID = 1000
"""Timesteps that most models are trained on."""
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
        title = f"{self.model}: {count_of(self.num_images, 'image')}, {what}"
        lines = [title, f"{head} {'x0 MSE (95 % interval)':>27}"]
        for level in self.levels:
            noise, x0 = spoken(level.noise_mse, ".3g"), spoken(level.x0_mse, ".3g")
            lines.append(f"{level.timestep:8.5g} {level.log_snr:8.2f} {noise:>27} {x0:>27}")
        notes = [f"note: {note}" for note in self.notes]
        return [*lines, *notes, f"written: {self.folder}"]


def probe_denoise(
    request: ModelRequest,
    *,
    images: str | None = None,
    limit: int = 64,
    timesteps: int | Sequence[float] = 10,
    unconditional: bool = False,
    output: Path | None = None,
) -> DenoiseFound:
    """Noise real images at `timesteps` (how many, or which) and measure the prediction.

    Without `images`, those of the configuration's first reference, or of its prompts.
    """
    place = output_place("denoise", request, output)
    # without guidance the output is the model's own
    guidance = 1.0 if request.guidance_scale is None else request.guidance_scale
    probed = _load(replace(request, guidance_scale=guidance), timesteps)
    _require_timesteps(probed, timesteps)
    require_start_from_noise(probed)
    require_asked_for(probed, guidance=request.guidance_scale)
    shown = chosen_images(images, probed, limit=limit)
    prompts = conditions(probed, shown, unconditional=unconditional)
    chosen = None if isinstance(timesteps, int) else tuple(timesteps)
    with _condition(probed, unconditional=unconditional):
        denoised = denoise_images(probed, shown, prompts, timesteps=chosen)
    _require_some_finite(denoised)
    levels = tuple(_level(at) for at in denoised)
    folder = open_folder("denoise", probed.name, place)
    folder.table("denoise.parquet", _table(shown, denoised))
    _draw(folder, probed, shown, denoised)
    folder.picture("errors.png", _chart(probed.name, levels))
    told = guidance_notes(probed, given=request.guidance_scale, unconditional=unconditional)
    notes = (*_notes(probed, shown, denoised), *told)
    conditioned = not unconditional and (probed.takes_text or probed.takes_class)
    arguments = {
        "model": request.model, "images": images, "limit": limit, "timesteps": timesteps,
        "unconditional": unconditional, "guidance_scale": guidance,
    }  # fmt: skip
    found = DenoiseFound(probed.name, conditioned, len(shown.images), levels, notes, folder.path)
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
        try:
            return load_model(replace(request, steps=timesteps))
        except ConfigError as error:  # the option of this verb is called otherwise
            raise ConfigError(str(error).replace("--steps:", "--timesteps:")) from error
    probed = load_model(replace(request, steps=USUAL_GRID))
    grid = probed.pipeline.scheduler.config.get("num_train_timesteps", USUAL_GRID)
    return probed if grid >= USUAL_GRID else load_model(replace(request, steps=grid))


def _require_timesteps(probed: ProbedModel, timesteps: int | Sequence[float]) -> None:
    """ConfigError for timesteps that no model was trained on, or more than there are."""
    last = getattr(probed.pipeline.scheduler, "config", {}).get("num_train_timesteps")
    if last is None:
        return
    asked = (timesteps,) if isinstance(timesteps, int) else timesteps
    if min(asked) < 0 or max(asked) > last:
        what = f"at most {last} of them" if isinstance(timesteps, int) else f"from 0 to {last}"
        raise ConfigError(f"--timesteps: expected {what}, got {timesteps}; choose others")


def conditions(
    probed: ProbedModel, shown: ProbedImages, *, unconditional: bool
) -> tuple[Prompt, ...]:
    """The images' captions and classes, or the empty ones that the model was trained without.

    Raises InputError for a text-to-image model and images without captions, and for a
    class-conditional one and images without classes.
    """
    if unconditional:
        # no class is told by the denoiser's input, which the pipeline makes of any class
        return tuple(Prompt(prompt.key, "", class_label=0) for prompt in shown.prompts)
    needs, lacks = "captions for a text-to-image", [p.key for p in shown.prompts if p.text is None]
    if probed.takes_class:
        needs = "class labels for a class-conditional"
        lacks = [prompt.key for prompt in shown.prompts if prompt.class_label is None]
    if lacks and (probed.takes_text or probed.takes_class):
        raise InputError(
            f"--images: expected {needs} model, got none for {', '.join(lacks[:3])}; give images "
            f"with {needs.split(' for ')[0]}, or add --unconditional"
        )
    return shown.prompts


def _condition(probed: ProbedModel, *, unconditional: bool) -> AbstractContextManager[None]:
    """What holds while a class-conditional model is asked without a class."""
    if unconditional and probed.takes_class:
        return without_class(probed.pipeline)
    return nullcontext()


def _require_some_finite(denoised: Sequence[Denoised]) -> None:
    """ProbeError where the model says nothing at any level."""
    if not any(bool(at.noise_mse.isfinite().any()) for at in denoised):
        raise ObservationError(
            "Expected predictions that are finite; got NaN or infinity at every timestep. Try "
            "--dtype float32; if it stays, the weights are damaged."
        )


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
    space = LatentSpace(pipeline)
    progress = Progress("denoise", len(shown.images))
    parts: list[list[Denoised]] = []
    for begin in range(0, len(shown.images), probed.batch_size):
        batch = prompts[begin : begin + probed.batch_size]
        here = shown.images[begin : begin + probed.batch_size]
        x0 = pack(pipeline, encode_images(probed, space, here)[1])
        seeds = [stream_seed(probed.seed, "denoise", prompt.key) for prompt in batch]
        noise = _noise(x0, seeds)
        with torch.no_grad():
            found = denoise_along(
                pipeline,
                lambda batch=batch, seeds=seeds: probed.generate(batch, seeds),  # type: ignore[misc]
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
    return at._replace(x0=to_images(pixels.nan_to_num(0.0, 0.0, 0.0)))


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
    by_kind = zip(*((level.noise_mse, level.x0_mse) for level in levels), strict=True)
    for label, errors in zip(("predicted noise", "predicted x0"), by_kind, strict=True):
        ends = [
            (math.nan, math.nan) if e.interval is None else (e.interval.low, e.interval.high)
            for e in errors
        ]
        low, high = zip(*ends, strict=True)
        x = [level.log_snr for level in levels]
        curves.append(Curve(x, [error.mean for error in errors], low, high, label))
    title = f"{name}: mean square error of the prediction"
    return curve_chart(curves, title=title, x_label="log-SNR (much noise left, little right)")


def _notes(
    probed: ProbedModel, shown: ProbedImages, denoised: Sequence[Denoised]
) -> tuple[str, ...]:
    notes = [*probed.notes, *([shown.note] if shown.note else [])]
    notes += [f"left out {line}" for line in shown.refused]
    notes += plain_pictures([picture for at in denoised for picture in at.x0], name="x0.png")
    return tuple(notes)

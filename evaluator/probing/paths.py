"""Images along a path between two latents: where it begins, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import ConfigError
from evaluator.probes.denoising import noised
from evaluator.probes.first_step import first_step
from evaluator.probes.interpolation import lerp, norm_ratio, slerp
from evaluator.probes.latent_space import LatentSpace, pack
from evaluator.probes.noise import NoiseLevel, noise_family
from evaluator.probes.steering import starting_from
from evaluator.probing.images import encode_images
from evaluator.probing.inputs import ProbedImages, ProbedModel, first_prompts
from evaluator.records import Prompt
from evaluator.seeds import stream_seed

if TYPE_CHECKING:
    from torch import Tensor

MODES = {"slerp": slerp, "lerp": lerp}
STRENGTH = 0.6
"""Share of the run that is denoised again between images, unless told otherwise."""

Ends = Callable[[NoiseLevel | None], "tuple[Tensor, Tensor]"]
"""Noise level → the two ends of a path there, (…) each."""


class Walk(NamedTuple):
    """The images along one path."""

    images: Tensor
    """(T, 3, H, W) uint8."""
    norm_ratio: float
    """Of the middle latent against the ends."""


def seed_ends(probed: ProbedModel, prompt: Prompt, seeds: Sequence[int]) -> Ends:
    """The latents that the pipeline itself begins with for two seeds."""
    import torch

    with torch.no_grad():
        seen = first_step(
            probed.pipeline,
            lambda: probed.generate([prompt] * 2, seeds),
            hook_denoiser=False,
        )
    return lambda level: (seen.sample[0], seen.sample[1])


def image_ends(probed: ProbedModel, images: Sequence[Tensor], *, seed: int) -> Ends:
    """Two images encoded, each with noise of its own (Ho et al. 2020, section 4.3)."""
    import torch

    # says by name which scheduler's noise levels are not known
    noise_family(probed.pipeline.scheduler)
    _, latents = encode_images(probed, LatentSpace(probed.pipeline), images)
    x0 = pack(probed.pipeline, latents)
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn(x0.shape, generator=generator).to(x0)

    def ends(level: NoiseLevel | None) -> tuple[Tensor, Tensor]:
        assert level is not None
        x = noised(x0, noise, level)
        return x[0], x[1]

    return ends


def chosen_strength(strength: float | None, *, between_images: bool) -> float | None:
    """The share of the run that is denoised again; None between seeds, where all of it is."""
    if not between_images and strength is not None:
        raise ConfigError(
            f"--strength: expected it with --images, got {strength:g} for walks between seeds, "
            "which begin at pure noise; name images, or leave it out"
        )
    return STRENGTH if between_images and strength is None else strength


def path_prompts(
    probed: ProbedModel,
    shown: ProbedImages | None,
    prompt: str | None,
    class_label: int | None,
    pairs: int,
) -> list[Prompt]:
    """One a pair: what was given, else what both images share, else the configuration's."""
    if shown is not None:
        pairs = len(shown.images) // 2
        if pairs == 0:
            raise ConfigError("--images: expected at least 2 images to walk between, got 1")
    own = first_prompts(probed, pairs) if shown is None else ()
    told = []
    for pair in range(pairs):
        text, label = prompt, class_label
        shared: str | None
        if shown is not None:
            first, last = shown.prompts[2 * pair : 2 * pair + 2]
            shared = (first.text or "") if first.text == last.text else ""
            common = first.class_label if first.class_label == last.class_label else None
        else:
            shared = own[pair % len(own)].text if own else None
            common = own[pair % len(own)].class_label if own else None
        text = shared if text is None else text
        label = common if label is None else label
        told.append(Prompt(f"pair-{pair}", text, class_label=label))
    if probed.takes_text and any(each.text is None for each in told):
        raise ConfigError(
            "--prompt: expected a prompt for a text-to-image model, got none; give one, or '' "
            "for its unconditional images"
        )
    if probed.takes_class and any(each.class_label is None for each in told):
        raise ConfigError(
            "--class-label: expected a class for a class-conditional model, got none for both "
            "ends; give one"
        )
    return told


def first_step_of(probed: ProbedModel, strength: float) -> int:
    """The step of the run from which on a `strength` of it is left; 0 for all of it."""
    if not 0 < strength <= 1:
        raise ConfigError(f"--strength: expected more than 0 and at most 1, got {strength:g}")
    steps = probed.config.generation.steps
    left = max(1, min(steps, int(steps * strength + 0.5)))
    return steps - left


def walk(
    probed: ProbedModel,
    prompt: Prompt,
    ends: Ends,
    *,
    mode: str,
    weights: Sequence[float],
    begin: int = 0,
) -> Walk:
    """Denoise every point of a path; whatever the scheduler draws is the same for all of them."""
    import torch

    seed = stream_seed(probed.seed, "walk", prompt.key)
    ratios: list[float] = []
    images: list[Tensor] = []
    for start in range(0, len(weights), probed.batch_size):
        span = slice(start, start + probed.batch_size)
        count = len(weights[span])

        def points(level: NoiseLevel | None, span: slice = span) -> Tensor:
            path = MODES[mode](*ends(level), weights)
            ratios[:] = [norm_ratio(path)]
            return path[span]

        with torch.no_grad(), starting_from(probed.pipeline, points, begin=begin):
            images += probed.generate([prompt] * count, [seed] * count)
    return Walk(torch.stack(images), ratios[0])

"""The optimal denoiser: its limits, its closed forms, and a sampler that repeats the training set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from evaluator.config.schema import GenerationConfig, OptimalDenoiserModelConfig
from evaluator.errors import ConfigError, InputError, SampleError
from evaluator.models.optimal_denoiser import (
    optimal_denoiser,
    optimal_jacobian,
    posterior_weights,
)
from evaluator.models.optimal_model import OptimalDenoiserModel
from evaluator.probes.latents import LatentsProbe
from evaluator.records import Prompt


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_without_noise_it_finds_the_nearest_image_and_in_noise_the_mean() -> None:
    data, noisy = random(40, 2, 3), random(7, 2, 3, seed=1)
    nearest = (noisy[:, None] - data).flatten(2).norm(dim=2).argmin(1)
    torch.testing.assert_close(optimal_denoiser(noisy, data, sigma=1e-4), data[nearest])
    mean = data.mean(0).expand(7, 2, 3)
    torch.testing.assert_close(optimal_denoiser(noisy, data, sigma=1e6), mean, atol=1e-5, rtol=0)
    pure_noise = optimal_denoiser(noisy, data, sigma=1.0, alpha=0.0)
    torch.testing.assert_close(pure_noise, mean)


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.7), (0.8, 0.6), (1.0, 0.05)])
def test_it_is_the_weighted_mean_whatever_the_chunks(alpha: float, sigma: float) -> None:
    data, noisy = random(50, 6), random(4, 6, seed=1)
    distances = ((noisy[:, None] - alpha * data).numpy() ** 2).sum(2)
    weights = softmax(-distances / (2 * sigma**2), axis=1)
    for chunk in (7, 50, 4096):
        found = optimal_denoiser(noisy, data, alpha=alpha, sigma=sigma, chunk=chunk)
        np.testing.assert_allclose(found.numpy(), weights @ data.numpy(), rtol=1e-10, atol=1e-12)
    ours = posterior_weights(noisy, data, alpha=alpha, sigma=sigma).numpy()
    np.testing.assert_allclose(ours, weights, rtol=1e-9, atol=1e-15)


def test_each_row_may_have_its_own_noise_level() -> None:
    data, noisy = random(30, 5), random(3, 5, seed=1)
    levels = torch.tensor([0.1, 1.0, 10.0])
    together = optimal_denoiser(noisy, data, sigma=levels)
    for row, level in enumerate(levels):
        alone = optimal_denoiser(noisy[row : row + 1], data, sigma=float(level))[0]
        torch.testing.assert_close(together[row], alone)


def test_bytes_stand_for_minus_one_to_one() -> None:
    pixels = torch.arange(0, 240, dtype=torch.uint8).reshape(10, 2, 3, 4)
    noisy = random(2, 2, 3, 4)
    scaled = pixels.double() / 127.5 - 1
    ours, theirs = (optimal_denoiser(noisy, data, sigma=0.5) for data in (pixels, scaled))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 1.3), (0.8, 0.6)])
def test_the_jacobian_is_the_posterior_covariance_over_the_variance(
    alpha: float, sigma: float
) -> None:
    data, noisy = random(60, 2, 3), random(2, 3, seed=1)

    def denoise(x: torch.Tensor) -> torch.Tensor:
        return optimal_denoiser(x[None], data, alpha=alpha, sigma=sigma, chunk=13)[0]

    differentiated = torch.autograd.functional.jacobian(denoise, noisy).reshape(6, 6)
    closed = optimal_jacobian(noisy, data, alpha=alpha, sigma=sigma)
    torch.testing.assert_close(closed, differentiated)
    weights = posterior_weights(noisy[None], data, alpha=alpha, sigma=sigma)[0].numpy()
    covariance = np.cov(data.flatten(1).numpy(), rowvar=False, aweights=weights, ddof=0)
    np.testing.assert_allclose(closed, alpha / sigma**2 * covariance, rtol=1e-9, atol=1e-12)


class Images:
    """Random training images behind the seam of a pack."""

    def __init__(self, *shapes: tuple[int, int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.fingerprint = f"images-{seed}-{shapes}"
        self.images = {
            f"{i:02d}": torch.randint(256, (3, *shape), generator=generator, dtype=torch.uint8)
            for i, shape in enumerate(shapes)
        }

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.images)

    def image(self, key: str) -> torch.Tensor:
        return self.images[key]


TRAINING = Images(*[(8, 10)] * 20)
PROMPTS = [Prompt(f"p{i}") for i in range(12)]
SEEDS = list(range(12))


def build(
    scheduler: dict[str, Any] | None = None, *, training: Any = TRAINING, **generation: Any
) -> OptimalDenoiserModel:
    config = OptimalDenoiserModelConfig(
        kind="optimal_denoiser", source="images", scheduler=scheduler
    )
    return OptimalDenoiserModel(config, GenerationConfig(**{"steps": 6, **generation}), training)


KARRAS = {"use_karras_sigmas": True}
FREE = {"clip_sample": False}


@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        {"name": "EulerDiscreteScheduler", "arguments": KARRAS},
        {"name": "HeunDiscreteScheduler", "arguments": KARRAS},
        {"name": "DPMSolverMultistepScheduler", "arguments": KARRAS},
        {"name": "EulerAncestralDiscreteScheduler"},
        {"name": "DDPMScheduler", "arguments": FREE},
    ],
    ids=lambda s: s["name"] if s else "default",
)
def test_samples_are_training_images(scheduler: dict[str, Any] | None) -> None:
    made = build(scheduler, steps=12).generate(PROMPTS, [0] * 12, SEEDS)
    training = torch.stack(list(TRAINING.images.values())).float()
    nearest = []
    for image in made:
        assert isinstance(image, torch.Tensor)
        assert image.dtype == torch.uint8
        largest = (training - image.float()).abs().flatten(1).amax(1)
        assert largest.min() <= 1, "a grey level"
        nearest.append(int(largest.argmin()))
    assert len(set(nearest)) > 4, "not always the same one"


def test_a_sample_depends_on_its_seed_alone() -> None:
    model = build()
    together = model.generate(PROMPTS, [0] * 12, SEEDS)
    again = model.generate(PROMPTS[5:6], [0], SEEDS[5:6])
    assert torch.equal(again[0], together[5])


def test_the_fingerprint_knows_images_scheduler_and_steps() -> None:
    base = build().fingerprint
    assert build().fingerprint == base
    assert build(steps=7).fingerprint != base
    assert build({"name": "EulerDiscreteScheduler"}).fingerprint != base
    assert build(training=Images(*[(8, 10)] * 20, seed=1)).fingerprint != base
    assert build().describe()["num_images"] == 20
    assert build().truncated(PROMPTS) == [False] * 12


def test_the_latents_probe_sees_the_posterior_mean() -> None:
    model = build(steps=4)
    with LatentsProbe().attach(model, PROMPTS[:2], [0, 1]) as observation:
        model.generate(PROMPTS[:2], [0, 0], [0, 1])
    rows = observation.tables()["latents"].to_pylist()
    assert len(rows) == 8
    final = [row for row in rows if row["step"] == 3]
    assert all(0.5 < row["x0_std"] < 0.65 for row in final), "uniform pixels: 1/√3"


def test_what_does_not_fit_is_refused_all_at_once() -> None:
    flow = {"name": "FlowMatchEulerDiscreteScheduler"}
    with pytest.raises(
        ConfigError, match=r"expected a scheduler of a diffusion with noise levels"
    ) as raised:
        build(flow, height=16, width=16)
    assert [fault.split(":")[0] for fault in raised.value.faults] == [
        "model.scheduler", "generation.height", "generation.width",
    ]  # fmt: skip
    with pytest.raises(InputError, match="of one size, got 8x8 and 9x8"):
        build(training=Images((8, 8), (8, 9)))
    with pytest.raises(InputError, match="at least one training image"):
        build(training=Images())


def test_an_undecodable_training_image_is_named() -> None:
    class Broken(Images):
        def image(self, key: str) -> torch.Tensor:
            raise SampleError("truncated file")

    with pytest.raises(InputError, match="00: truncated file"):
        build(training=Broken((8, 8)))

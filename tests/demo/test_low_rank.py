"""The mixture of low-rank Gaussians: its closed form, and a network that learns its dimension."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import multivariate_normal

from evaluator.demo.low_rank import LowRankDenoiser, LowRankMixture, ranks, train


def mixture(**changes: int) -> LowRankMixture:
    return LowRankMixture.make(**{"ambient": 12, "dimension": 3, "components": 2, **changes})


def test_subspaces_are_orthonormal_and_orthogonal_to_one_another() -> None:
    bases = mixture().bases
    together = torch.cat(list(bases), dim=1)
    torch.testing.assert_close(together.T @ together, torch.eye(6, dtype=torch.float64))
    assert torch.equal(mixture().bases, bases)
    assert not torch.equal(mixture(seed=1).bases, bases)
    with pytest.raises(ValueError, match="expected 5 orthogonal subspaces of 3 dimensions"):
        mixture(components=5)


def test_each_sample_lies_in_one_subspace_with_unit_variance_there() -> None:
    data = mixture().draw(4000, torch.Generator().manual_seed(0)).double()
    lengths = torch.einsum("knd,bn->bkd", mixture().bases, data).norm(dim=2)
    assert torch.allclose(lengths.amin(1), torch.zeros(4000, dtype=torch.float64), atol=1e-6)
    torch.testing.assert_close(lengths.amax(1), data.norm(dim=1), rtol=1e-5, atol=1e-6)
    assert float(data.square().sum(1).mean()) == pytest.approx(3, rel=0.05)
    assert float((lengths[:, 0] > lengths[:, 1]).double().mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_the_closed_form_is_the_score_of_the_noisy_density(sigma: float) -> None:
    """Tweedie: E[y | x] = x + σ² ∇ log p(x), with p from scipy and the gradient by differences."""
    mix = mixture(ambient=5, dimension=2)
    noise = sigma**2 * torch.eye(5, dtype=torch.float64)
    components = [
        multivariate_normal(mean=[0.0] * 5, cov=(basis @ basis.T + noise).numpy())
        for basis in mix.bases
    ]

    def log_density(x: torch.Tensor) -> float:
        return float(torch.tensor([c.logpdf(x.numpy()) for c in components]).double().logsumexp(0))

    x = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    steps = 1e-4 * torch.eye(5, dtype=torch.float64)
    slope = torch.tensor([(log_density(x + h) - log_density(x - h)) / 2e-4 for h in steps])
    ours = mix.denoise(x[None], sigma)[0]
    torch.testing.assert_close(ours, x + sigma**2 * slope.double(), rtol=1e-5, atol=1e-6)


def test_the_closed_forms_rank_is_the_dimension_and_the_mixtures_in_noise() -> None:
    for dimension in (2, 5):
        mix = LowRankMixture.make(dimension=dimension)
        found = ranks(mix.denoise, mix, sigmas=(0.05, 0.2, 30.0), num_points=3)
        assert found == [dimension, dimension, 2 * dimension]


def test_a_trained_network_finds_the_dimension(tmp_path: Path) -> None:
    mix = LowRankMixture.make(ambient=24, dimension=2)
    trained, progress = train(mix, steps=1200, work=tmp_path)
    assert progress.step == 1200
    assert ranks(trained, mix, sigmas=(0.05, 0.1, 0.2)) == [2, 2, 2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = LowRankDenoiser(24)
    assert min(ranks(untrained, mix, sigmas=(0.2,))) > 12, "a random one lets everything through"


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [4, 6])
def test_it_finds_other_dimensions_too(dimension: int, tmp_path: Path) -> None:
    mix = LowRankMixture.make(dimension=dimension)
    trained, _ = train(mix, work=tmp_path)
    assert ranks(trained, mix, sigmas=(0.1, 0.2, 0.4)) == [dimension] * 3

"""Jacobians of a denoiser: known spectra, closed forms, and the whole matrix against products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evaluator.errors import ProbeError
from evaluator.models.optimal_denoiser import optimal_denoiser, optimal_jacobian
from evaluator.probes.jacobian import (
    Spectrum,
    exact_spectrum,
    full_jacobian,
    numerical_rank,
    randomised_spectrum,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(
    values: torch.Tensor, size: int, *, seed: int = 0
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A map of (B, size) with the given singular values and random singular vectors."""
    left, right = (
        torch.linalg.qr(torch.randn(size, size, generator=seeded(seed + i), dtype=torch.float64)).Q
        for i in (0, 1)
    )
    matrix = left[:, : len(values)] * values @ right[:, : len(values)].T
    return lambda x: x @ matrix.T


def of_values(values: list[float]) -> Spectrum:
    tensor = torch.tensor(values, dtype=torch.float64)
    nothing = torch.empty(0)
    return Spectrum(tensor, nothing, nothing, float(tensor.square().sum()), 0.0, 0.0)


def test_the_rank_is_the_first_that_passes_the_root_of_the_energy() -> None:
    assert numerical_rank(of_values([1.0] * 100)).rank == 99, "98/100 = 0.9800 < 0.9801"
    assert numerical_rank(of_values([1.0] * 100), eta=0.99**0.5).rank == 100, "0.99 of the energy"
    assert numerical_rank(of_values([3.0, 0.1, 0.0])).rank == 1
    assert numerical_rank(of_values([3.0, 1.0, 0.0])).rank == 2
    assert numerical_rank(of_values([0.0, 0.0])).rank == 0
    scaled = [numerical_rank(of_values([c * 2, c * 1, c * 0.5])).rank for c in (1e-9, 1.0, 1e9)]
    assert scaled == [3, 3, 3], "a rank knows no scale"


def test_rounding_has_no_rank() -> None:
    rounding = of_values([1e-7] * 50)
    assert numerical_rank(rounding).rank == 50
    assert numerical_rank(rounding, floor=1e-6) == (0, 0, 0)
    assert numerical_rank(of_values([1e-3, 1e-7]), floor=1e-6).rank == 1


@pytest.mark.parametrize("eta", [0.0, 1.0, 1.5])
def test_a_share_that_is_none_is_refused(eta: float) -> None:
    with pytest.raises(ProbeError, match="expected a number between 0 and 1"):
        numerical_rank(of_values([1.0]), eta=eta)


def test_the_rank_agrees_with_the_rule_spelled_out_in_numpy() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = np.sort(generator.exponential(size=40) ** 3)[::-1]
        energy = np.cumsum(values**2)
        expected = next(
            r for r in range(1, 41) if np.sqrt(energy[r - 1]) > 0.99 * np.sqrt(energy[-1])
        )
        assert numerical_rank(of_values(values.tolist())).rank == expected


def test_a_linear_map_gives_its_own_spectrum() -> None:
    values = torch.tensor([5.0, 3.0, 1.0, 0.2], dtype=torch.float64)
    function = linear(values, 12)
    found = exact_spectrum(function, torch.zeros(12, dtype=torch.float64), batch=5)
    torch.testing.assert_close(found.values[:4], values)
    torch.testing.assert_close(
        found.values[4:], torch.zeros(8, dtype=torch.float64), atol=1e-12, rtol=0
    )
    # J v = s u
    torch.testing.assert_close(function(found.right[:4]), found.left[:4] * values[:, None])
    assert numerical_rank(found) == (3, 3, 3)


def test_the_whole_jacobian_is_autograds() -> None:
    def bend(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x).cumsum(-1) * x.flip(-1)

    x = torch.randn(2, 3, generator=seeded(), dtype=torch.float64)
    theirs = torch.autograd.functional.jacobian(lambda y: bend(y[None])[0], x).reshape(6, 6)
    torch.testing.assert_close(full_jacobian(bend, x, batch=4), theirs)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 8.0])
def test_the_optimal_denoisers_jacobian_is_its_closed_form(sigma: float) -> None:
    data = torch.randn(30, 2, 4, generator=seeded(), dtype=torch.float64)
    x = data[0] + sigma * torch.randn(2, 4, generator=seeded(1), dtype=torch.float64)

    def denoise(noisy: torch.Tensor) -> torch.Tensor:
        return optimal_denoiser(noisy, data, sigma=sigma)

    closed = optimal_jacobian(x, data, sigma=sigma)
    torch.testing.assert_close(full_jacobian(denoise, x), closed)
    found = randomised_spectrum(denoise, x, num_values=8, generator=seeded(2))
    torch.testing.assert_close(found.values, torch.linalg.svdvals(closed), atol=1e-10, rtol=1e-8)


def test_products_find_the_leading_values_and_what_they_left_out() -> None:
    values = torch.cat([torch.linspace(2.0, 1.0, 20), torch.full((180,), 0.02)]).double()
    function, x = linear(values, 200), torch.zeros(200, dtype=torch.float64)
    found = randomised_spectrum(function, x, num_values=25, generator=seeded(), batch=16)
    torch.testing.assert_close(found.values[:20], values[:20], rtol=1e-6, atol=0)
    assert float((found.values - values[:25]).abs().max()) <= found.bound
    true = float(values.square().sum())
    assert abs(found.energy - true) <= 2 * found.energy_error
    assert numerical_rank(found) == numerical_rank(exact_spectrum(function, x))
    assert numerical_rank(found).rank == 20
    again = randomised_spectrum(function, x, num_values=25, generator=seeded(), batch=16)
    assert torch.equal(again.values, found.values)


SPECTRA = {
    "flat": torch.ones(60),
    "slow": torch.linspace(2.0, 0.1, 60),
    "steep": torch.logspace(1, -4, 60),
    "gap": torch.cat([torch.full((5,), 3.0), torch.full((55,), 0.5)]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_no_value_is_off_by_more_than_its_bound(name: str) -> None:
    values = SPECTRA[name].double()
    function, x = linear(values, 60), torch.zeros(60, dtype=torch.float64)
    whole = exact_spectrum(function, x).values
    torch.testing.assert_close(whole, values)
    for seed in range(5):
        found = randomised_spectrum(
            function, x, num_values=6, generator=seeded(seed), power_iterations=1
        )
        assert (found.values <= whole[:6] + 1e-9).all(), "a part of the matrix is no larger"
        assert float((whole[:6] - found.values).max()) <= found.bound


def test_a_rank_beyond_the_values_found_is_not_invented() -> None:
    function, x = linear(torch.ones(60).double(), 60), torch.zeros(60, dtype=torch.float64)
    found = randomised_spectrum(function, x, num_values=10, generator=seeded())
    assert numerical_rank(found) == (None, None, None)
    assert found.energy == pytest.approx(60, rel=0.2), "of which 10 were found"


def test_the_energys_interval_covers_the_truth() -> None:
    values = torch.logspace(0, -2, 40).double()
    function, x = linear(values, 40), torch.zeros(40, dtype=torch.float64)
    true, covered = float(values.square().sum()), 0
    for seed in range(60):
        found = randomised_spectrum(
            function, x, num_values=4, generator=seeded(seed), power_iterations=1
        )
        covered += abs(found.energy - true) <= found.energy_error
    assert covered >= 51, "of 60; 57 expected"


def test_a_denoiser_that_answers_the_same_to_everything_has_rank_zero() -> None:
    x = torch.zeros(5, dtype=torch.float64)
    for function in (lambda y: torch.ones_like(y), lambda y: 0 * y + 1):
        assert numerical_rank(exact_spectrum(function, x)).rank == 0
        assert (
            numerical_rank(randomised_spectrum(function, x, num_values=3, generator=seeded())).rank
            == 0
        )


def test_derivatives_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ProbeError, match="got NaN or infinity"):
        full_jacobian(lambda y: y.sqrt(), torch.zeros(3))


def test_more_values_than_dimensions_are_refused() -> None:
    with pytest.raises(ProbeError, match="expected 1 to 3 singular values, got 4"):
        randomised_spectrum(lambda y: y, torch.zeros(3), num_values=4, generator=seeded())


def unets(tiny: Any) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Real networks in float64: convolutions, group norms, attention to pixels and to text."""
    pixel = tiny.unconditional("ddpm").unet.double()
    text = tiny.stable_diffusion().unet.double()
    hidden = torch.randn(1, 12, 32, generator=seeded(), dtype=torch.float64)
    return {
        "pixels": lambda x: pixel(x, 500).sample,
        "text": lambda x: text(x, 500, hidden.expand(len(x), -1, -1)).sample,
    }


@pytest.mark.parametrize(("name", "shape"), [("pixels", (3, 8, 8)), ("text", (4, 8, 8))])
def test_on_networks_products_agree_with_the_whole_matrix(
    name: str, shape: tuple[int, ...], tiny: Any
) -> None:
    function = unets(tiny)[name]
    x = torch.randn(shape, generator=seeded(), dtype=torch.float64)
    jacobian = full_jacobian(function, x, batch=64)
    whole = torch.linalg.svdvals(jacobian)
    found = randomised_spectrum(function, x, num_values=12, generator=seeded(1))
    difference = (found.values - whole[:12]).abs()
    assert float(difference.max()) <= found.bound
    assert float(difference[:4].max()) < 0.02 * float(whole[0])
    assert abs(found.energy - float(whole.square().sum())) <= 2 * found.energy_error
    u, v, s = found.left[0], found.right[0], found.values[0]
    torch.testing.assert_close(u @ jacobian @ v, s, rtol=1e-6, atol=1e-9)

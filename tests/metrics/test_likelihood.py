"""FLS: against automatic differentiation, and what bad, few and copied samples do to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from evaluator.errors import MetricError
from evaluator.metrics import Fls, distances, fls
from evaluator.metrics.likelihood import Likelihoods


def mixture(centres: torch.Tensor, log_variances: torch.Tensor) -> MixtureSameFamily:
    scale = (log_variances / 2).exp()[:, None].expand_as(centres)
    return MixtureSameFamily(
        Categorical(logits=torch.zeros(len(centres))), Independent(Normal(centres, scale), 1)
    )


def by_autograd(half, other, held_out, centres) -> float:
    """The same score through torch's own mixtures and derivatives."""
    together = torch.cat([half, other, held_out, centres])
    half, other, held_out, centres = (
        (x - together.mean(0)) / together.std(0) for x in (half, other, held_out, centres)
    )
    losses = []
    for points in (centres, other):
        log_variances = torch.zeros(len(points), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([log_variances], lr=0.5)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [50], 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            (-mixture(points, log_variances).log_prob(half).mean()).backward()
            optimizer.step()
            schedule.step()
            log_variances.data.clamp_(-100, 20)
        losses.append(-mixture(points, log_variances.detach()).log_prob(held_out).mean().item())
    return 100 * math.exp(-2 * (losses[0] - losses[1]) / half.shape[1])


def draw(n: int, generator: np.random.Generator, dim: int = 4) -> np.ndarray:
    return generator.normal(size=(n, dim)) * np.arange(1, dim + 1) + 3.0


def test_it_is_the_score_of_torchs_own_mixtures() -> None:
    generator = np.random.default_rng(0)
    train, held_out, new = draw(60, generator), draw(25, generator), draw(30, generator) + 0.5
    order = np.random.default_rng(3).permutation(60)
    sets = (train[np.sort(order[:30])], train[np.sort(order[30:])], held_out, new)
    expected = by_autograd(*map(torch.from_numpy, sets))
    assert fls(train, held_out, new, seed=3) == pytest.approx(expected, rel=1e-8)
    assert fls(train, held_out, new, seed=4) != pytest.approx(expected, rel=1e-3)
    single = [x.astype(np.float32) for x in (train, held_out, new)]
    double = [x.astype(np.float64) for x in single]
    assert fls(*single) == fls(*double)


def test_order_constant_features_and_blocks_do_not_matter() -> None:
    generator = np.random.default_rng(1)
    train, held_out, new = draw(40, generator), draw(15, generator), draw(20, generator)
    value = fls(train, held_out, new)
    order = generator.permutation(20)
    assert fls(train, held_out[::-1].copy(), new[order]) == pytest.approx(value, rel=1e-9)
    wider = [np.c_[x, np.full(len(x), 7.1)] for x in (train, held_out, new)]
    assert fls(*wider) == pytest.approx(value, rel=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", 7)
        assert fls(train, held_out, new) == pytest.approx(value, rel=1e-9)


def test_training_data_score_about_100_and_faults_cost() -> None:
    generator = np.random.default_rng(2)
    train, held_out = draw(400, generator, 8), draw(200, generator, 8)
    good = fls(train, held_out, draw(200, generator, 8))
    assert good == pytest.approx(100.0, abs=4.0)
    assert fls(train, held_out, train[:200]) < good - 5  # copies
    assert fls(train, held_out, draw(200, generator, 8) + 4.0) < good - 5  # bad samples
    collapsed = draw(1, generator, 8) + 1e-3 * generator.normal(size=(200, 8))
    assert fls(train, held_out, collapsed) < good - 5


def test_leaving_out_a_group_is_the_density_without_its_centres() -> None:
    generator = np.random.default_rng(3)
    sets = [torch.from_numpy(draw(n, generator)) for n in (40, 15, 20)]
    fitted = Likelihoods.of(*sets, seed=0)
    groups = np.arange(20) % 4
    for group, score in enumerate(fitted.without_groups(groups)):
        terms = fitted.terms[:, torch.from_numpy(groups != group)]
        nll = -(terms.exp().mean(dim=1).log().mean()).item()
        assert score == pytest.approx(100 * math.exp(-2 * (nll - fitted.baseline) / 4), rel=1e-9)


def fed(metric, train: np.ndarray, held_out: np.ndarray, new: np.ndarray):
    for values, side in ((train, {"real": True}), (held_out, {"held_out": True}), (new, {})):
        places = torch.arange(len(values))
        metric.update(torch.from_numpy(values), places, places, **side)
    return metric


def test_too_few_samples_give_no_number_and_subsets_are_said() -> None:
    generator = np.random.default_rng(4)
    (result,) = fed(Fls(4), draw(1, generator), draw(3, generator), draw(3, generator)).compute()
    assert result.value is None
    assert "expected at least 2 train, 1 held-out and 1 generated samples" in result.warnings[0]
    sets = draw(30, generator), draw(9, generator), draw(40, generator)
    (result,) = fed(Fls(4, max_samples=12), *sets).compute()
    assert result.n == 12
    assert "seeded subset of 12 of 40 generated samples" in result.warnings[0]
    with pytest.raises(MetricError, match="features: expected some that differ"):
        fls(np.ones((4, 2)), np.ones((4, 2)), np.ones((4, 2)))


@pytest.mark.slow
def test_95_percent_intervals_cover_the_expected_score() -> None:
    """Training and held-out samples stay, generated ones are drawn again."""
    generator = np.random.default_rng(5)
    train, held_out = draw(160, generator), draw(80, generator)
    results = [fed(Fls(4), train, held_out, draw(80, generator)).compute()[0] for _ in range(200)]
    truth = np.mean([result.value for result in results])
    covered = np.mean([r.interval.low <= truth <= r.interval.high for r in results])
    assert covered >= 0.92

"""Fréchet distances against torchmetrics, torch-fidelity and the matrix root, on equal features.

All take float32 features. Everyone agrees to 1e-9 relative here, with these exceptions:

- torchmetrics gives its number in the features' dtype: the passthrough widens them first.
- torchmetrics' MIFID averages over the reference what the paper averages over the generated
  samples: it is given the two sets exchanged.
- With as many features as samples the peers take roots of rounding noise: they agree to 1e-6.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peer_features import DIM, Passthrough, network_features
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from evaluator.metrics import (
    FrechetDistance,
    Mifid,
    Moments,
    ReferenceMoments,
    fid_infinity,
    frechet_distance,
    frechet_distance_from_features,
    mifid,
    read_moments,
    write_moments,
)

PAIRS = {
    "many samples": (network_features(0, 900), network_features(1, 700, shift=0.2)),
    "nearly the same": (network_features(2, 800), network_features(3, 800)),
    "few samples": (network_features(4, 60), network_features(5, 900, shift=0.1)),
}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    return PAIRS[request.param]


def torch_fidelity_fid(a: Tensor, b: Tensor) -> float:
    statistics = [fid_features_to_statistics(values.double()) for values in (a, b)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def in_class(a: Tensor, b: Tensor) -> float:
    metric = FrechetDistance(a.shape[1], groups=0)
    for values, real in ((a, True), (b, False)):
        for rows in torch.arange(len(values)).split(64):
            metric.update(values[rows], rows, rows, real=real)
    return metric.compute()[0].value


def test_fid_is_that_of_torchmetrics(pair: tuple[Tensor, Tensor]) -> None:
    metric = FrechetInceptionDistance(Passthrough(), normalize=True).set_dtype(torch.float64)
    for values, real in zip(pair, (True, False)):
        for batch in values.split(64):
            metric.update(batch, real=real)
    peer = float(metric.compute())
    assert frechet_distance_from_features(*pair) == pytest.approx(peer, rel=1e-9)
    assert in_class(*pair) == pytest.approx(peer, rel=1e-9)


def test_fid_is_that_of_torch_fidelity(pair: tuple[Tensor, Tensor]) -> None:
    peer = torch_fidelity_fid(*pair)
    assert frechet_distance_from_features(*pair) == pytest.approx(peer, rel=1e-9)
    assert in_class(*pair) == pytest.approx(peer, rel=1e-9)


def test_fid_is_that_of_the_matrix_root(pair: tuple[Tensor, Tensor]) -> None:
    """As pytorch-fid, clean-fid, dgm-eval and EDM compute it."""
    (mean_a, cov_a), (mean_b, cov_b) = (
        (x.double().mean(dim=0).numpy(), np.cov(x.double().numpy(), rowvar=False)) for x in pair
    )
    root = np.trace(sqrtm(cov_a @ cov_b).real)
    peer = np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert frechet_distance_from_features(*pair) == pytest.approx(peer, rel=1e-9)
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(peer, rel=1e-9)


def test_without_full_rank_the_peers_take_roots_of_noise() -> None:
    a, b = network_features(6, DIM // 2), network_features(7, DIM // 2, shift=0.3)
    got = frechet_distance_from_features(a, b)
    assert got == pytest.approx(torch_fidelity_fid(a, b), rel=1e-6)
    assert in_class(a, b) == pytest.approx(got, rel=1e-9)
    assert frechet_distance_from_features(a, a) <= abs(torch_fidelity_fid(a, a))


def test_published_moments_give_the_peers_number(tmp_path) -> None:
    a, b = PAIRS["many samples"]
    moments = Moments.from_features(a)
    write_moments(
        tmp_path / "a.npz",
        ReferenceMoments(moments.mean.numpy(), moments.covariance().numpy(), 900, None, "a"),
    )
    metric = FrechetDistance(DIM, groups=0)
    metric.use_reference(read_moments(tmp_path / "a.npz"))
    metric.update(b, torch.arange(len(b)), torch.arange(len(b)))
    assert metric.compute()[0].value == pytest.approx(torch_fidelity_fid(a, b), rel=1e-9)


def test_fid_infinity_is_the_line_through_the_peers_distances() -> None:
    a, b = PAIRS["many samples"]
    order = np.random.default_rng(3).permutation(len(b))
    sizes = np.linspace(len(b) / 10, len(b), 15).astype("int32")
    distances = [torch_fidelity_fid(a, b[torch.from_numpy(order[:size])]) for size in sizes]
    _, peer = np.polyfit(1.0 / sizes, distances, 1)
    fit = fid_infinity(a, b, seed=3)
    assert fit.distances == pytest.approx(distances, rel=1e-9)
    assert fit.value == pytest.approx(peer, rel=1e-9)


@pytest.mark.parametrize("threshold", [1e-4, 0.1, 1.0])
def test_mifid_is_that_of_torchmetrics(pair: tuple[Tensor, Tensor], threshold: float) -> None:
    train, generated = pair
    metric = MemorizationInformedFrechetInceptionDistance(
        Passthrough(), cosine_distance_eps=threshold
    )
    metric.update(generated, real=True)
    metric.update(train, real=False)
    peer = float(metric.compute())
    assert mifid(train, generated, cosine_distance_eps=threshold) == pytest.approx(peer, rel=1e-9)
    own = Mifid(DIM, cosine_distance_eps=threshold, groups=0)
    for values, real in ((train, True), (generated, False)):
        own.update(values, torch.arange(len(values)), torch.arange(len(values)), real=real)
    assert own.compute()[0].value == pytest.approx(peer, rel=1e-9)

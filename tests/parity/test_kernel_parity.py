"""KID and the Inception score against torch-fidelity and torchmetrics, on equal features.

Agreement is to 1e-9 relative, given the same subsets: torch-fidelity draws its own from
`numpy.random.RandomState`, which is repeated here, torchmetrics from torch's global generator,
so that one subset of everything is compared. The Inception score's shuffle differs likewise:
torch-fidelity is given the samples in our order.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peer_features import DIM, Passthrough, network_features
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.kid import KernelInceptionDistance

from evaluator.metrics import (
    KernelDistance,
    inception_score,
    kernel_distance,
    kernel_distance_unbiased,
)
from evaluator.metrics.kernel import PolynomialKernel, Subsets, kernel_sums

REAL, FAKE = network_features(0, 500), network_features(1, 400, shift=0.2)
KERNELS = {"published": {}, "other": {"degree": 2, "gamma": 0.1, "coef": 0.5}}


def torch_fidelity_kid(count: int, size: int, **kernel: float) -> tuple[float, float]:
    settings = {f"kid_kernel_poly_{name}": value for name, value in kernel.items()}
    settings = {name.replace("coef", "coef0"): value for name, value in settings.items()}
    found = kid_features_to_metric(
        FAKE.double(), REAL.double(), kid_subsets=count, kid_subset_size=size, rng_seed=2020,
        verbose=False, **settings,
    )  # fmt: skip
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_kid_is_that_of_torch_fidelity_on_its_subsets(kernel: str) -> None:
    generator = np.random.RandomState(2020)
    drawn = [
        (generator.choice(400, 100, replace=False), generator.choice(500, 100, replace=False))
        for _ in range(12)
    ]
    subsets = Subsets(*(np.array(side, dtype=np.int64) for side in zip(*drawn)))
    alone = np.zeros(400, dtype=np.int64)
    _, got = kernel_sums(FAKE, REAL, alone, 1, PolynomialKernel(**KERNELS[kernel]), subsets)
    peer = torch_fidelity_kid(12, 100, **KERNELS[kernel])
    assert (got.mean, got.std) == pytest.approx(peer, rel=1e-9)


def test_one_subset_of_everything_is_everyones_number() -> None:
    fake = FAKE
    real = REAL[: len(fake)]
    peer = kid_features_to_metric(
        fake.double(), real.double(), kid_subsets=1, kid_subset_size=400, verbose=False
    )["kernel_inception_distance_mean"]
    assert kernel_distance_unbiased(fake, real) == pytest.approx(peer, rel=1e-9)
    assert kernel_distance(fake, real, num_subsets=1, subset_size=400).mean == pytest.approx(
        peer, rel=1e-9
    )
    other = KernelInceptionDistance(Passthrough(), subsets=1, subset_size=400, normalize=True)
    other.set_dtype(torch.float64)
    other.update(fake, real=False)
    other.update(real, real=True)
    assert float(other.compute()[0]) == pytest.approx(peer, rel=1e-9)
    own = KernelDistance(DIM, num_subsets=1, subset_size=400)
    for values, is_real in ((fake, False), (real, True)):
        own.update(values, torch.arange(400), torch.arange(400), real=is_real)
    assert [result.value for result in own.compute()] == pytest.approx([peer, peer], rel=1e-9)


@pytest.mark.parametrize("splits", [1, 10])
def test_the_inception_score_is_that_of_torch_fidelity(splits: int) -> None:
    logits = 3.0 * torch.randn(205, 12, generator=torch.Generator().manual_seed(0))
    order = torch.from_numpy(np.random.default_rng(4).permutation(205))
    pieces = [len(piece) for piece in np.array_split(np.arange(205), splits)]
    peers = [
        isc_features_to_metric(piece, splits=1, shuffle=False)["inception_score_mean"]
        for piece in logits[order].split(pieces)
    ]
    got = inception_score(logits, splits=splits, seed=4)
    assert got.mean == pytest.approx(np.mean(peers), rel=1e-9)
    assert got.std == pytest.approx(np.std(peers), rel=1e-9, abs=1e-12)
    # split at other places, where the number of samples is no multiple of the splits
    whole = isc_features_to_metric(logits[order][:200], splits=splits, shuffle=False)
    even = inception_score(
        logits[order][:200][np.argsort(np.random.default_rng(5).permutation(200))],
        splits=splits,
        seed=5,
    )
    assert even.mean == pytest.approx(whole["inception_score_mean"], rel=1e-9)

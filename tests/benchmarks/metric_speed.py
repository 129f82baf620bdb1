"""How fast metrics are beside what they replace: interleaved pairs, medians, as a table.

    python -m tests.benchmarks.metric_speed [--samples 10000] [--dim 2048] [--pairs 3]
        [--threads 1 0] [--only trace kid]

Each number of threads (0: all cores) gets its own process, because BLAS libraries read theirs at
the start. Both sides of a pair take the same float64 arrays and are run once before the clock
starts; then they alternate, so that a slower minute of the machine falls on both. What is timed:

trace   the whole Fréchet distance from given means and covariances, nothing else
kid     KID over 100 subsets of 1,000, from features to mean and standard deviation
left    the Fréchet distances without each of 20 groups, as an interval takes them, from moments of
        the groups (`--samples 1000`: the group of a comparison, `--samples 5000`: a run)
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Comparison(NamedTuple):
    """One line of the table."""

    what: str
    peer: str
    ours: Callable[[], float]
    theirs: Callable[[], float]
    same: float | None
    """Largest relative difference of the two numbers; None where they are not the same number."""


def features(samples: int, dim: int, seed: int) -> np.ndarray:
    """(N, D) like Inception's: never negative, correlated, variances over six decades."""
    generator = np.random.default_rng(seed)
    scales = np.logspace(0, -3, dim)
    mixing = np.random.default_rng(0).normal(size=(64, dim)) * scales
    values = generator.normal(size=(samples, dim)) * scales
    values += generator.normal(size=(samples, 64)) @ mixing / 8
    return np.abs(values + 0.4 + 0.02 * seed * scales).astype(np.float32).astype(np.float64)


def trace(samples: int, dim: int) -> list[Comparison]:
    """The Fréchet distance of given moments."""
    import torch
    from scipy.linalg import sqrtm
    from torchmetrics.image.fid import _compute_fid

    from evaluator.metrics import frechet_distance

    sets = [features(samples, dim, seed) for seed in (1, 2)]
    means = [values.mean(axis=0) for values in sets]
    covs = [np.cov(values, rowvar=False) for values in sets]
    tensors = [torch.from_numpy(x) for x in (means[0], covs[0], means[1], covs[1])]

    def ours() -> float:
        return frechet_distance(means[0], covs[0], means[1], covs[1])

    def torchmetrics() -> float:
        return float(_compute_fid(*tensors))

    def root() -> float:
        delta = means[0] - means[1]
        traces = np.trace(covs[0]) + np.trace(covs[1])
        return float(delta @ delta + traces - 2 * np.trace(sqrtm(covs[0] @ covs[1]).real))

    return [
        Comparison("Fréchet distance of moments", "torchmetrics", ours, torchmetrics, 1e-6),
        Comparison("Fréchet distance of moments", "scipy sqrtm", ours, root, 1e-6),
    ]


def kid(samples: int, dim: int) -> list[Comparison]:
    """KID over the same subsets in float64, and of all samples."""
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    from evaluator.metrics import kernel_distance_unbiased
    from evaluator.metrics.kernel import CUBIC, Subsets, kernel_sums

    fake, real = (torch.from_numpy(features(samples, dim, seed)) for seed in (1, 2))
    count, size = 100, min(1000, samples // 2)
    generator = np.random.RandomState(2020)
    drawn = [
        [generator.choice(samples, size, replace=False) for _ in range(2)] for _ in range(count)
    ]
    subsets = Subsets(*(np.array(side) for side in zip(*drawn)))
    alone = np.zeros(samples, dtype=np.int64)

    def ours() -> float:
        return kernel_sums(fake, real, alone, 1, CUBIC, subsets)[1].mean

    def theirs() -> float:
        return kid_features_to_metric(
            fake, real, kid_subsets=count, kid_subset_size=size, rng_seed=2020, verbose=False
        )["kernel_inception_distance_mean"]

    subset = f"{count} subsets of {size}"
    return [
        Comparison(
            f"KID over {subset}, and of all samples",
            f"torch-fidelity, {subset}",
            ours,
            theirs,
            1e-6,
        ),
        Comparison(
            "KID of all samples",
            f"torch-fidelity, {subset}",
            lambda: kernel_distance_unbiased(fake, real),
            theirs,
            None,
        ),
    ]


def left(samples: int, dim: int) -> list[Comparison]:
    """The jackknife of a Fréchet distance, the reference factored once and for each group."""
    import functools

    import torch

    from evaluator.metrics import frechet_distance
    from evaluator.metrics.fixed_gaussian import FixedGaussian
    from evaluator.metrics.frechet_metric import REPLICATE_ACCURACY
    from evaluator.metrics.moments import Moments

    fake, real = features(samples, dim, 1), Moments.from_features(features(2 * dim, dim, 2))
    parts = [Moments.from_features(torch.from_numpy(fake[group::20])) for group in range(20)]
    whole, covariance = functools.reduce(Moments.merge, parts), real.covariance()

    def ours() -> float:
        once = FixedGaussian(real.mean, covariance)
        return sum(once.distances_without(whole, parts, accuracy=REPLICATE_ACCURACY))

    def again() -> float:
        found = 0.0
        for part in parts:
            rest = whole.without(part)
            found += frechet_distance(
                rest.mean, rest.covariance(), real.mean, covariance, accuracy=REPLICATE_ACCURACY
            )
        return found

    return [Comparison("20 distances without a group", "each by itself", ours, again, 1e-6)]


TABLE: dict[str, Callable[[int, int], list[Comparison]]] = {
    "trace": trace,
    "kid": kid,
    "left": left,
}
"""Name on the command line → the comparisons it makes."""


def seconds(function: Callable[[], float]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(arguments: argparse.Namespace) -> None:
    """Print the rows of the table for this process's threads."""
    import torch

    if arguments.child:
        torch.set_num_threads(arguments.child)
    label = f"{torch.get_num_threads()} threads"
    for name in arguments.only:
        for case in TABLE[name](arguments.samples, arguments.dim):
            ours, theirs = case.ours(), case.theirs()
            if case.same is not None and abs(ours - theirs) > case.same * abs(theirs):
                sys.exit(f"{case.what}: got {ours!r}, but {case.peer} got {theirs!r}")
            pairs = [(seconds(case.ours), seconds(case.theirs)) for _ in range(arguments.pairs)]
            own, other = (statistics.median(side) for side in zip(*pairs))
            ratio = statistics.median(theirs / ours for ours, theirs in pairs)
            print(
                f"| {case.what} | {own:.2f} s | {case.peer} | {other:.2f} s | {ratio:.2f} | {label} |",
                flush=True,
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 0])
    parser.add_argument("--only", nargs="+", choices=TABLE, default=list(TABLE))
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        measure(arguments)
        return
    print(
        f"{platform.machine()}, {arguments.samples} samples of {arguments.dim} features, float64,"
    )
    print(f"medians of {arguments.pairs} interleaved pairs; the ratio is of neighbours\n")
    print(
        "| what | ours | peer | theirs | ratio | threads |\n|---|---|---|---|---|---|", flush=True
    )
    for threads in arguments.threads:
        limits = {name: str(threads) for name in THREADS} if threads else {}
        environment = {key: value for key, value in os.environ.items() if key not in THREADS}
        command = [sys.executable, "-m", "tests.benchmarks.metric_speed", *sys.argv[1:]]
        done = subprocess.run(
            [*command, "--child", str(threads)], env={**environment, **limits}, check=False
        )
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()

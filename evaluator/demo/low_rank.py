"""A mixture of low-rank Gaussians, and a denoiser that learns its dimension.

    python -m evaluator.demo.low_rank --dimension 6

Data of K subspaces: y = U_k z with orthonormal U_k (n × d) and z ~ N(0, I_d), k drawn evenly (Wang
et al. 2024, "Diffusion models learn low-dimensional distributions via subspace clustering"). Their
optimal denoiser is known in closed form, and where one component explains x its Jacobian has rank
d. A small network that is trained on samples of it should find the same rank: a test of the probe
on a truth that is known, and of a training on data whose dimension is.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from evaluator.demo.fitting import Progress, Schedule, fit
from evaluator.probes.jacobian import exact_spectrum, numerical_rank
from evaluator.seeds import stream_seed

AMBIENT = 48
"""Numbers in a sample."""
DIMENSION = 6
"""Dimensions of each component."""
COMPONENTS = 2
SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Noise levels that ranks are taken at; log-SNR is −2·ln σ."""

Denoiser = Callable[[Tensor, Tensor | float], Tensor]
"""(B, n) noisy samples and σ, a number or (B,) => (B, n) the clean ones."""


@dataclass(frozen=True)
class LowRankMixture:
    """The data: K Gaussians, each on a subspace of its own through the origin."""

    bases: Tensor
    """(K, n, d) float64, orthonormal columns; the subspaces are orthogonal to one another."""

    @classmethod
    def make(
        cls,
        *,
        ambient: int = AMBIENT,
        dimension: int = DIMENSION,
        components: int = COMPONENTS,
        seed: int = 0,
    ) -> LowRankMixture:
        """Random subspaces; ValueError where they would not fit beside one another."""
        if not 1 <= dimension * components <= ambient:
            raise ValueError(
                f"expected {components} orthogonal subspaces of {dimension} dimensions to fit into "
                f"{ambient}; ask for fewer, or for a larger ambient dimension"
            )
        generator = torch.Generator().manual_seed(stream_seed(seed, "low-rank bases"))
        shape = (ambient, components * dimension)
        gaussian = torch.randn(shape, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(gaussian).Q
        return cls(torch.stack(torch.chunk(basis, components, dim=1)))

    def draw(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """(N, n) float32."""
        components, _, dimension = self.bases.shape
        which = torch.randint(components, (num_samples,), generator=generator)
        z = torch.randn(num_samples, dimension, generator=generator, dtype=torch.float64)
        return torch.einsum("bnd,bd->bn", self.bases[which], z).float()

    def denoise(self, noisy: Tensor, sigma: Tensor | float) -> Tensor:
        """E[y | y + σn] in closed form: (B, n) => (B, n) float64 (their lemma 1).

        Σ_k w_k U_k U_kᵀ x / (1 + σ²), with w = softmax_k(‖U_kᵀx‖² / 2σ²(1 + σ²)).
        """
        x = noisy.to(torch.float64)
        variance = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1).square()
        coordinates = torch.einsum("knd,bn->bkd", self.bases, x)
        weights = (coordinates.square().sum(2) / (2 * variance * (1 + variance))).softmax(1)
        mean = torch.einsum("knd,bkd,bk->bn", self.bases, coordinates, weights)
        denoised: Tensor = mean / (1 + variance)
        return denoised


class LowRankDenoiser(nn.Module):
    """Two hidden layers of rectified linear units without biases; it is not told σ.

    So it is linear in pieces and scales with its input (Mohan et al. 2020, "Robust and
    interpretable blind image denoising via bias-free convolutional neural networks"). Nothing in it
    knows the rank. Networks with smooth units and biases, tried before it, kept more directions
    than the data have.
    """

    def __init__(self, ambient: int = AMBIENT, *, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(ambient, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, ambient, bias=False),
        )

    def forward(self, noisy: Tensor, sigma: Tensor | float) -> Tensor:
        """(B, n) noisy samples, and σ for the protocol's sake => (B, n) the clean ones."""
        clean: Tensor = self.layers(noisy)
        return clean


def train(
    mixture: LowRankMixture,
    *,
    num_samples: int = 8000,
    steps: int = 3000,
    batch: int = 256,
    work: Path,
) -> tuple[LowRankDenoiser, Progress]:
    """A denoiser from `num_samples` draws; the same one each time. Takes seconds on one core."""
    ambient = mixture.bases.shape[1]
    generator = torch.Generator().manual_seed(stream_seed(0, "low-rank data"))
    data = mixture.draw(num_samples, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(0, "low-rank weights"))
        model = LowRankDenoiser(ambient)

    def loss(generator: torch.Generator) -> Tensor:
        clean = data[torch.randint(num_samples, (batch,), generator=generator)]
        sigma = (torch.randn(batch, generator=generator) * 1.2 - 1.0).exp()
        noise = sigma[:, None] * torch.randn(clean.shape, generator=generator)
        weight = 1 + 1 / sigma.square()  # each level's least loss is then about the same
        squares = (model(clean + noise, sigma) - clean).square().sum(1)
        mean: Tensor = (weight * squares).mean()
        return mean

    schedule = Schedule(steps=steps, learning_rate=2e-3, decay=0.995, weight_decay=0.0)
    return model, fit("low-rank", model, loss, schedule=schedule, work=work)


def ranks(
    denoiser: Denoiser,
    mixture: LowRankMixture,
    *,
    sigmas: Sequence[float] = SIGMAS,
    num_points: int = 5,
) -> list[float]:
    """The median numerical rank of the Jacobian at noisy samples of the mixture, for each σ."""
    medians = []
    for sigma in sigmas:
        generator = torch.Generator().manual_seed(stream_seed(0, "low-rank points"))
        clean = mixture.draw(num_points, generator)
        points = clean + sigma * torch.randn(clean.shape, generator=generator)
        found = [_rank(denoiser, point, sigma) for point in points]
        medians.append(statistics.median(found))
    return medians


def _rank(denoiser: Denoiser, point: Tensor, sigma: float) -> int:
    rank = numerical_rank(exact_spectrum(lambda x: denoiser(x, sigma), point)).rank
    assert rank is not None  # all singular values are there
    return rank


def main() -> None:
    """Train, and print the ranks beside those of the closed form."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.demo.low_rank", description=__doc__)
    parser.add_argument("--dimension", type=int, default=DIMENSION, help="of each component")
    parser.add_argument("--ambient", type=int, default=AMBIENT, help="numbers in a sample")
    parser.add_argument("--components", type=int, default=COMPONENTS)
    parser.add_argument("--samples", type=int, default=8000, help="training samples")
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    options = parser.parse_args()
    mixture = LowRankMixture.make(
        ambient=options.ambient, dimension=options.dimension, components=options.components
    )
    with tempfile.TemporaryDirectory() as work:
        model, _ = train(mixture, num_samples=options.samples, steps=options.steps, work=Path(work))
    print(f"median rank of the Jacobian; each component has {options.dimension} dimensions")
    print("  σ     log-SNR  trained  closed form")
    both = zip(SIGMAS, ranks(model, mixture), ranks(mixture.denoise, mixture), strict=True)
    for sigma, trained, optimal in both:
        log_snr = -2 * float(torch.tensor(sigma).log())
        print(f"{sigma:5.2f} {log_snr:9.2f} {trained:8g} {optimal:12g}")


if __name__ == "__main__":
    main()

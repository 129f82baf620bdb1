"""The Jacobian of a denoiser at one point: its singular values, and its numerical rank.

A denoiser that has learned data of few dimensions lets few directions through: the rank of its
Jacobian is the number of dimensions that it takes the data to have there. The rule is that of Wang
et al. 2024, "Diffusion models learn low-dimensional distributions via subspace clustering": the
first r with √(Σ_{i≤r} s_i²) > η·√(Σ s_i²), η = 0.99. The root matters: as a share of the energy it
is 0.9801, and the rank at 0.99 of the energy is another.

A small Jacobian is computed row by row (`exact_spectrum`); of a large one only products with
vectors are taken (`randomised_spectrum`: Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1),
and what was left out is estimated.

A function here maps (B, …) to (B, …), each row by itself, differentiably twice. Attention is
computed without fused kernels, which have no second derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from evaluator.errors import ObservationError, ProbeError

Function = Callable[[Tensor], Tensor]
"""(B, …) => (B, …): row i of the result depends on row i alone."""

ETA = 0.99
"""Share of the root of the energy, as published."""
BATCH = 32
"""Copies of the point that are evaluated at once."""
POWER_ITERATIONS = 6
"""Enough for the flat spectra of denoisers; each costs 2 products a vector."""
OVERSAMPLING = 8
NUM_CHECKS = 10
"""Fresh vectors that the error is estimated with."""


class Spectrum(NamedTuple):
    """The largest singular values of a Jacobian, with their vectors; float64, on the CPU."""

    values: Tensor
    """(k,) in descending order."""
    left: Tensor
    """(k, D): directions of the output."""
    right: Tensor
    """(k, D): directions of the input."""
    energy: float
    """Σ s² over all singular values; estimated where not all are there."""
    energy_error: float
    """Half of the 95 % interval of `energy`; 0 where it is exact."""
    bound: float
    """No singular value is off by more, but with a probability of 10^−`NUM_CHECKS`; 0: exact."""


class Rank(NamedTuple):
    """A numerical rank; None where more singular values than are known would be needed."""

    rank: int | None
    low: int | None
    """The rank at the low end of the energy's 95 % interval."""
    high: int | None
    """The rank at the high end."""


def numerical_rank(spectrum: Spectrum, *, eta: float = ETA, floor: float = 0.0) -> Rank:
    """First r with √(Σ_{i≤r} s²) > `eta`·√(Σ s²); 0 for a Jacobian of zeros.

    One whose largest singular value is at most `floor` is taken for zeros: rounding has full rank.
    """
    if not 0 < eta < 1:
        raise ProbeError(f"eta: expected a number between 0 and 1, got {eta}; the paper's is 0.99")
    if float(spectrum.values[0]) <= floor:
        return Rank(0, 0, 0)
    cumulated = spectrum.values.square().cumsum(0)

    def first(energy: float) -> int | None:
        if energy <= 0:
            return 0
        enough = (cumulated > eta**2 * energy).nonzero()
        return int(enough[0]) + 1 if len(enough) else None

    known = float(cumulated[-1])
    low = max(spectrum.energy - spectrum.energy_error, known)
    return Rank(first(spectrum.energy), first(low), first(spectrum.energy + spectrum.energy_error))


def exact_spectrum(function: Function, x: Tensor, *, batch: int = BATCH) -> Spectrum:
    """All singular values of the Jacobian at `x` (…), from the whole matrix."""
    left, values, right = torch.linalg.svd(full_jacobian(function, x, batch=batch))
    return Spectrum(values, left.T[: len(values)], right[: len(values)], _energy(values), 0.0, 0.0)


def full_jacobian(function: Function, x: Tensor, *, batch: int = BATCH) -> Tensor:
    """∂f/∂x at `x` (…) of D numbers: (D, D) float64 on the CPU, one backward pass a row."""
    identity = torch.eye(x.numel(), dtype=torch.float64)
    return _transposed_products(function, x, identity, batch=batch)


def randomised_spectrum(
    function: Function,
    x: Tensor,
    *,
    num_values: int,
    generator: torch.Generator,
    power_iterations: int = POWER_ITERATIONS,
    batch: int = BATCH,
) -> Spectrum:
    """About `num_values` singular values from products with random vectors; O(k·D) memory.

    The random vectors come from `generator`, on the CPU. `energy` adds to what was found the energy
    outside of the subspace found: the mean of ‖(I − QQᵀ)Jω‖² over `NUM_CHECKS` fresh ω, which
    is unbiased. `bound` is 10·√(2/π)·max ‖(I − QQᵀ)Jω‖ (Halko et al. 2011, eq. 4.3).
    """
    size = x.numel()
    if not 1 <= num_values <= size:
        raise ProbeError(f"expected 1 to {size} singular values, got {num_values}; ask for fewer")
    k = min(num_values + OVERSAMPLING, size)

    def forward(vectors: Tensor) -> Tensor:
        return _products(function, x, vectors, batch=batch)

    def back(vectors: Tensor) -> Tensor:
        return _transposed_products(function, x, vectors, batch=batch)

    # Rows are vectors throughout: Q is (k, D) with orthonormal rows.
    basis = _orthonormal(forward(_gaussian(k, size, generator)))
    for _ in range(power_iterations):
        basis = _orthonormal(forward(_orthonormal(back(basis))))
    # QᵀJ = (Jᵀ Q)ᵀ: its rows are the transposed products of the basis.
    left, values, right = torch.linalg.svd(back(basis), full_matrices=False)
    checks = forward(_gaussian(NUM_CHECKS, size, generator))
    missed = (checks - checks @ basis.T @ basis).norm(dim=1)
    tail = missed.square()
    spread = float(tail.std()) / math.sqrt(NUM_CHECKS)
    return Spectrum(
        values[:num_values],
        (left.T @ basis)[:num_values],
        right[:num_values],
        _energy(values) + float(tail.mean()),
        float(student.ppf(0.975, NUM_CHECKS - 1)) * spread,
        10 * math.sqrt(2 / math.pi) * float(missed.max()),
    )


def _transposed_products(function: Function, x: Tensor, vectors: Tensor, *, batch: int) -> Tensor:
    """Jᵀu of each row u of (n, D): (n, D) float64 on the CPU."""

    def one(point: Tensor, chunk: Tensor) -> Tensor:
        return _gradient(function(point), point, chunk)

    return _by_chunks(one, x, vectors, batch)


def _products(function: Function, x: Tensor, vectors: Tensor, *, batch: int) -> Tensor:
    """Jv of each row v of (n, D): (n, D) float64 on the CPU.

    By differentiating Jᵀu, which is linear in u, with respect to u: forward-mode derivatives are
    not implemented for all that networks are made of.
    """

    def one(point: Tensor, chunk: Tensor) -> Tensor:
        output = function(point)
        u = torch.zeros_like(output, requires_grad=True)
        return _gradient(_gradient(output, point, u, keep=True), u, chunk)

    return _by_chunks(one, x, vectors, batch)


def _by_chunks(
    one: Callable[[Tensor, Tensor], Tensor], x: Tensor, vectors: Tensor, batch: int
) -> Tensor:
    found = []
    with torch.enable_grad(), _twice_differentiable():
        for chunk in torch.split(vectors, batch):
            point = x.detach().expand(len(chunk), *x.shape).clone().requires_grad_()
            product = one(point, chunk.to(x).reshape(len(chunk), *x.shape))
            found.append(product.detach().flatten(1).cpu().to(torch.float64))
    products = torch.cat(found)
    if not bool(products.isfinite().all()):
        raise ObservationError(
            "Expected finite derivatives of the denoiser, got NaN or infinity. Try --dtype float32."
        )
    return products


def _gradient(output: Tensor, of: Tensor, vector: Tensor, *, keep: bool = False) -> Tensor:
    """∂⟨output, vector⟩/∂of; zeros where the output does not depend on it."""
    if not output.requires_grad:
        return torch.zeros_like(of) * (vector.sum() if keep else 1)
    found: Tensor | None
    (found,) = torch.autograd.grad(output, of, vector, create_graph=keep, allow_unused=True)
    return torch.zeros_like(of) if found is None else found


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield


def _gaussian(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def _orthonormal(rows: Tensor) -> Tensor:
    """An orthonormal basis, as rows, of what the rows span."""
    q: Tensor = torch.linalg.qr(rows.T).Q
    return q.T


def _energy(values: Tensor) -> float:
    return float(values.square().sum())

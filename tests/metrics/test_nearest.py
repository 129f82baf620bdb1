"""The nearest few: the direct formula decides, whatever the screen's precision and the scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.metrics import (
    authpct,
    distances,
    memorized_fraction,
    precision_recall_density_coverage,
    realism_scores,
)
from evaluator.metrics.distances import Distances, points_of
from evaluator.metrics.nearest import NOBODY, nearest, nearest_others


def brute_force(
    a: np.ndarray, b: np.ndarray, count: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Keys and indices by Σ (x − y)², the first of equals first."""
    table = np.stack([np.square(row - b).sum(axis=1) for row in a])
    if own is not None:
        table[np.arange(len(a)), own] = np.inf
    order = np.argsort(table, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(table, order, axis=1), order


@st.composite
def sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Lattices, clouds and tight heaps, near zero and far from it, small and large."""
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    dim, count = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    kind = draw(st.sampled_from(["lattice", "cloud", "heap"]))
    unit = draw(st.sampled_from([1.0, 0.1, 1e-18, 1e18]))
    offset = draw(st.sampled_from([0.0, 3.0, 1e5]))
    found = []
    for n in (draw(st.integers(8, 30)), draw(st.integers(8, 30))):
        values = generator.normal(size=(n, dim))
        if kind == "lattice":
            values = np.round(values)
        elif kind == "heap":
            values = values * 1e-6 + 1.0
        found.append((values + offset) * unit)
    # of two dtypes too: a centre between float32 numbers must not be rounded for one set only
    first, second = (draw(st.sampled_from([np.float32, np.float64])) for _ in range(2))
    return found[0].astype(first), found[1].astype(second), count


@settings(max_examples=150, deadline=None)
@given(drawn=sets(), block=st.sampled_from([3, 8, 1024]))
def test_neighbours_and_their_distances_are_those_of_the_direct_formula(
    drawn: tuple[np.ndarray, np.ndarray, int], block: int
) -> None:
    a, b, count = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", block)
        first, second = points_of(torch.from_numpy(a), torch.from_numpy(b))
        across, within = nearest(Distances(first, second), count), nearest_others(first, count)
    a, b = a.astype(np.float64), b.astype(np.float64)
    for found, expected in (
        (across, brute_force(a, b, count)),
        (within, brute_force(a, a, count, np.arange(len(a)))),
    ):
        assert np.array_equal(found.keys, expected[0])
        # a full list at the least distance there is takes nobody else, but the first of equals
        assert np.array_equal(found.indices, expected[1])


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_a_set_of_each_precision_is_compared_as_exactly_as_two_of_one(offset: float) -> None:
    generator = np.random.default_rng(0)
    real, fake = ((generator.normal(size=(n, 32)) + offset).astype("f4") for n in (700, 600))
    expected = precision_recall_density_coverage(real.astype("f8"), fake.astype("f8"))
    assert precision_recall_density_coverage(real, fake.astype("f8")) == expected
    assert precision_recall_density_coverage(real.astype("f8"), fake) == expected


def test_fewer_columns_than_wanted_leave_places_empty() -> None:
    first, second = points_of(torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [2.0]]))
    found = nearest(Distances(first, second), 3)
    assert found.keys.tolist() == [[1.0, 4.0, np.inf], [9.0, 16.0, np.inf]]
    assert found.indices.tolist() == [[0, 1, NOBODY], [1, 0, NOBODY]]
    assert nearest_others(first, 2).indices.tolist() == [[1, NOBODY], [0, NOBODY]]


def test_a_heap_that_float32_cannot_resolve_is_screened_in_float64() -> None:
    generator = np.random.default_rng(0)
    heap = torch.from_numpy(generator.normal(size=(400, 6)) * 1e-5)
    heap[-1] = 100.0  # so that the mean does not help
    (points,) = points_of(heap)
    asked = []

    class Watched(Distances):
        def approximate(self, rows: slice, columns: slice, dtype: torch.dtype):
            asked.append(dtype)
            return super().approximate(rows, columns, dtype)

    found = nearest(Watched(points, points), 2, own=np.arange(400))
    assert asked == [torch.float32, torch.float64]
    expected = brute_force(heap.numpy(), heap.numpy(), 2, np.arange(400))
    assert np.array_equal(found.keys, expected[0])


@pytest.fixture
def coarse_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def test_coarse_float32_products_are_not_trusted(coarse_products: None) -> None:
    (points,) = points_of(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    assert Distances(points, points).precisions == (torch.float64,)


@pytest.mark.parametrize("dim", [3, 200])
def test_float32_features_give_the_bits_of_their_float64_copies(dim: int) -> None:
    generator = np.random.default_rng(1)
    real, fake = ((generator.normal(size=(n, dim)) + 7.0).astype(np.float32) for n in (150, 120))
    wide = real.astype(np.float64), fake.astype(np.float64)
    for function in (
        precision_recall_density_coverage,
        authpct,
        lambda a, b: realism_scores(a, b).tolist(),
        lambda a, b: memorized_fraction(a, b, threshold=0.9),
    ):
        assert function(real, fake) == function(*wide) == function(real, wide[1])
        assert function(torch.from_numpy(real), torch.from_numpy(fake)) == function(*wide)

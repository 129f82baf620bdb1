"""Great circles, lines, and the smoothness of paths whose lengths are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import geometric_slerp

from evaluator.errors import ProbeError
from evaluator.probes.interpolation import lerp, norm_ratio, path_smoothness, slerp

WEIGHTS = [0.0, 0.25, 0.5, 0.75, 1.0]


def ends(seed: int, size: tuple[int, ...] = (4, 64, 64)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator), torch.randn(size, generator=generator)


def test_unit_vectors_go_the_way_that_scipy_goes():
    first, last = (x.double() / x.double().norm() for x in ends(0, (7,)))
    expected = geometric_slerp(first.numpy(), last.numpy(), WEIGHTS)
    np.testing.assert_allclose(slerp(first, last, WEIGHTS).numpy(), expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_both_ways_begin_and_end_where_they_should(seed: int):
    first, last = ends(seed, (3, 5))
    for path in (slerp(first, last, WEIGHTS), lerp(first, last, WEIGHTS)):
        torch.testing.assert_close(path[0], first)
        torch.testing.assert_close(path[-1], last)


def test_the_circle_keeps_the_norm_and_the_line_loses_it():
    first, last = ends(1)
    assert norm_ratio(slerp(first, last, WEIGHTS)) == pytest.approx(1.0, abs=0.01)
    assert norm_ratio(lerp(first, last, WEIGHTS)) == pytest.approx(math.sqrt(0.5), abs=0.01)


def test_nearly_parallel_ends_take_the_line_and_opposite_ones_are_refused():
    first, _ = ends(2, (8,))
    torch.testing.assert_close(slerp(first, 2 * first, WEIGHTS), lerp(first, 2 * first, WEIGHTS))
    with pytest.raises(ProbeError, match="got opposite ones"):
        slerp(first, -first, WEIGHTS)


def test_a_straight_line_has_ratio_one_and_a_half_circle_half_pi():
    line = np.linspace(0, 1, 9)[:, None] * np.ones((1, 5))
    found = path_smoothness(line)
    assert found.ratio == pytest.approx(1.0)
    assert (found.largest_step, found.jumps) == (pytest.approx(1.0), ())
    angle = np.linspace(0, np.pi, 400)
    circle = path_smoothness(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    assert circle.ratio == pytest.approx(np.pi / 2, rel=1e-4)


def test_a_jump_is_named_by_its_place():
    points = np.array([0.0, 1.0, 2.0, 2.9, 6.0, 7.0])[:, None]
    assert path_smoothness(points).jumps == (3,)
    points[4:] = points[4:] - 0.2  # 2.9 medians are no jump yet
    assert path_smoothness(points).jumps == ()
    assert path_smoothness(np.array([[0.0], [1.0], [50.0]])).jumps == ()


def test_ends_in_one_point_have_no_ratio():
    found = path_smoothness(np.array([[0.0], [1.0], [0.0]]))
    assert math.isnan(found.ratio)
    assert found.length == 2.0
    with pytest.raises(ProbeError, match="at least 2 points"):
        path_smoothness(np.zeros((1, 3)))


@pytest.mark.parametrize("place", [0, 3, 7])
@pytest.mark.parametrize("length", [4.0, 40.0])
def test_one_long_step_of_a_smooth_path_is_the_only_jump(place: int, length: float):
    """A path of even steps in changing directions, one of them longer than three."""
    angles = np.linspace(0.0, np.pi, 8)
    steps = np.stack([np.cos(angles), np.sin(angles), 0.1 * angles], axis=1)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    smooth = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    assert path_smoothness(smooth).jumps == ()
    steps[place] *= length
    broken = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    found = path_smoothness(broken)
    assert found.jumps == (place,)
    assert found.largest_step == pytest.approx(length)
    steps[place] *= 2.9 / length
    assert path_smoothness(np.cumsum(steps, axis=0)).jumps == ()


def test_noise_around_an_even_path_is_rarely_a_jump():
    """Steps of 50 numbers that vary by a tenth: none of 500 paths has one three times as long."""
    generator = np.random.default_rng(0)
    for _ in range(500):
        steps = generator.normal(1.0, 0.1, (8, 50))
        assert path_smoothness(np.cumsum(steps, axis=0)).jumps == ()

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from evaluator.probes.attention_statistics import (
    attention_statistics,
    log_normaliser,
    text_maps,
)
from evaluator.probes.fused import attend
from evaluator.probes.layers import Grid, grid_of
from evaluator.probes.schemas import ATTENTION_STATISTICS

GRID = Grid(4, 6)


def statistics_of(maps, grid=GRID):
    """(heads, N) of one token → name → value."""
    values = attention_statistics(torch.as_tensor(maps, dtype=torch.float32)[:, None, :], grid)
    return dict(zip(ATTENTION_STATISTICS, values[:, 0].tolist(), strict=True))


def delta(row, column, grid=GRID):
    maps = torch.zeros(grid.num_positions)
    maps[row * grid.width + column] = 1.0
    return maps


def test_a_uniform_map_has_full_entropy_and_lies_in_the_middle():
    found = statistics_of(torch.full((2, 24), 0.25))
    assert found["mass"] == found["peak"] == pytest.approx(0.25)
    assert found["peak_ratio"] == pytest.approx(1)
    assert found["top10_share"] == pytest.approx(3 / 24)
    assert found["entropy"] == pytest.approx(1, abs=1e-6)
    assert found["sharpness"] == pytest.approx(0, abs=1e-6)
    assert (found["centroid_y"], found["centroid_x"]) == pytest.approx((0.5, 0.5))
    # The variance of k evenly spaced cells of the unit interval is (1 − 1/k²) / 12.
    variance = (1 - 1 / 16) / 12 + (1 - 1 / 36) / 12
    assert found["spread"] == pytest.approx(math.sqrt(variance), rel=1e-5)
    assert found["head_diversity"] == pytest.approx(0, abs=1e-6)


def test_a_single_point_has_no_entropy_and_lies_where_it_is():
    found = statistics_of(delta(3, 1)[None].repeat(3, 1))
    assert (found["entropy"], found["sharpness"]) == (0, 1)
    assert (found["centroid_y"], found["centroid_x"]) == pytest.approx((3.5 / 4, 1.5 / 6))
    assert found["spread"] == pytest.approx(0, abs=1e-3)
    assert found["peak_ratio"] == pytest.approx(24)
    assert found["top10_share"] == pytest.approx(1)


def test_heads_on_different_points_are_as_diverse_as_can_be():
    disjoint = torch.stack([delta(0, 0), delta(1, 2), delta(2, 4), delta(3, 5)])
    assert statistics_of(disjoint)["head_diversity"] == pytest.approx(1)
    # Two heads on one point, two on another: H = ln 2 over ln 4.
    pairs = torch.stack([delta(0, 0), delta(0, 0), delta(3, 5), delta(3, 5)])
    assert statistics_of(pairs)["head_diversity"] == pytest.approx(0.5)
    assert statistics_of(pairs[:1])["head_diversity"] == 0


def test_head_diversity_agrees_with_scipy_and_ignores_mass():
    maps = torch.rand(2, 24, generator=torch.Generator().manual_seed(1))
    expected = jensenshannon(maps[0].numpy(), maps[1].numpy()) ** 2 / math.log(2)
    weighted = maps * torch.tensor([[1.0], [0.01]])
    assert statistics_of(maps)["head_diversity"] == pytest.approx(expected, rel=1e-4)
    assert statistics_of(weighted)["head_diversity"] == pytest.approx(expected, rel=1e-4)


def test_statistics_agree_with_their_formulas_in_numpy():
    maps = torch.rand(3, 24, generator=torch.Generator().manual_seed(2))
    mean = maps.double().numpy().mean(0)
    density = mean / mean.sum()
    rows, columns = np.divmod(np.arange(24), 6)
    y, x = (rows + 0.5) / 4, (columns + 0.5) / 6
    centre = (density @ y, density @ x)
    expected = {
        "mass": mean.mean(),
        "peak": mean.max(),
        "peak_ratio": mean.max() / mean.mean(),
        "top10_share": np.sort(density)[-3:].sum(),
        "entropy": -(density * np.log(density)).sum() / np.log(24),
        "centroid_y": centre[0],
        "centroid_x": centre[1],
        "spread": math.sqrt(density @ (y - centre[0]) ** 2 + density @ (x - centre[1]) ** 2),
    }
    found = statistics_of(maps)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_token_without_mass_has_no_shape():
    found = statistics_of(torch.zeros(2, 24))
    assert found["mass"] == 0
    assert math.isnan(found["entropy"])
    assert math.isnan(found["centroid_x"])


def test_one_position_has_no_entropy():
    assert math.isnan(statistics_of(torch.full((2, 1), 0.5), Grid(1, 1))["entropy"])


def test_probabilities_are_a_softmax_over_all_text_positions_cut_to_some():
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(2, 4, 24, 8, generator=generator)
    key = torch.randn(2, 4, 12, 8, generator=generator)
    expected = (query @ key.mT * 0.3).softmax(-1)[..., [0, 2, 7]].mT
    normaliser = log_normaliser(query, key, None, scale=0.3)
    found = text_maps(query, key[:, :, [0, 2, 7]], None, normaliser, scale=0.3)
    torch.testing.assert_close(found.probabilities, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.logs, expected.log(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["boolean", "added"])
def test_masked_positions_get_nothing(kind):
    generator = torch.Generator().manual_seed(4)
    query = torch.randn(2, 4, 24, 8, generator=generator)
    key = torch.randn(2, 4, 12, 8, generator=generator)
    attended = torch.arange(12).expand(2, 1, 1, 12) < 7
    mask = attended if kind == "boolean" else torch.zeros(2, 1, 1, 12).masked_fill(~attended, -1e4)
    normaliser = log_normaliser(query, key, mask, scale=0.5)
    found = text_maps(query, key, mask, normaliser, scale=0.5).probabilities
    expected = (query @ key[:, :, :7].mT * 0.5).softmax(-1).mT
    torch.testing.assert_close(found[..., :7, :], expected, atol=1e-6, rtol=0)
    assert found[..., 7:, :].abs().max() == 0
    statistics = attention_statistics(found, GRID, logs=None)
    assert torch.isfinite(statistics[..., :7]).all()


@pytest.mark.parametrize("rows", [1, 24])
def test_the_normaliser_does_not_depend_on_how_it_is_cut(monkeypatch, rows):
    generator = torch.Generator().manual_seed(9)
    query = torch.randn(2, 4, 24, 8, generator=generator)
    key = torch.randn(2, 4, 12, 8, generator=generator)
    mask = torch.rand(2, 1, rows, 12, generator=generator) < 0.8
    logits = (query @ key.mT * 0.5).masked_fill(~mask, -math.inf)
    monkeypatch.setattr("evaluator.probes.attention_statistics.MAX_LOGIT_BYTES", 4 * 2 * 4 * 12 * 7)
    found = log_normaliser(query, key, mask, scale=0.5)
    torch.testing.assert_close(found, logits.logsumexp(-1), atol=1e-5, rtol=1e-5)


def test_text_mass_and_share_are_those_of_the_columns_that_are_the_prompts():
    generator = torch.Generator().manual_seed(5)
    maps = torch.rand(2, 3, 5, 24, generator=generator) / 9
    present = torch.tensor([[True, True, False, True, False], [True] * 5])
    found = attention_statistics(maps, GRID, present=present)
    mass, share = (found[ATTENTION_STATISTICS.index(n)] for n in ("text_mass", "text_share"))
    for row in range(2):
        own = maps[row, :, present[row]].double().numpy()
        text = own.sum(1)
        assert mass[row].tolist() == pytest.approx([text.mean()] * 5, rel=1e-5)
        expected = (own / text[:, None]).mean((0, 2))
        assert share[row, present[row]].tolist() == pytest.approx(list(expected), rel=1e-5)
        assert share[row, present[row]].sum() == pytest.approx(1, rel=1e-5)


def test_a_head_that_gives_the_text_nothing_does_not_spoil_the_share():
    maps = torch.rand(2, 4, 24, generator=torch.Generator().manual_seed(6))
    maps[0, :, 5] = 0
    share = attention_statistics(maps, GRID)[ATTENTION_STATISTICS.index("text_share")]
    assert float(share.sum()) == pytest.approx(47 / 48, rel=1e-5)


def test_a_text_that_padding_drowns_out_keeps_its_shares():
    logits = torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(7)) * 3
    logits[0, :4] -= 110  # less than float32 holds, beside padding of e⁰
    logits[1, :4] -= 60
    query, key = torch.eye(24).expand(2, 24, 24), logits
    maps = text_maps(query, key, None, logits.logsumexp(dim=1), scale=1.0)
    present = torch.tensor([True] * 4 + [False] * 2)
    found = attention_statistics(maps.probabilities, GRID, logs=maps.logs, present=present)
    share = found[ATTENTION_STATISTICS.index("text_share"), :4]
    expected = logits.double()[:, :4].softmax(1).mean((0, 2))
    assert share.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_token_with_hardly_any_mass_has_a_finite_peak():
    maps = torch.full((2, 24), 1e-45)
    maps[:, 0] = 2e-44
    found = statistics_of(maps)
    assert 1 <= found["peak_ratio"] <= 24
    assert math.isfinite(
        statistics_of(torch.where(delta(1, 1) > 0, 1e-44, 0.0).expand(2, -1))["peak_ratio"]
    )


@pytest.mark.parametrize(
    ("query_shape", "key_shape"), [((3, 2, 64, 8), (3, 2, 12, 8)), ((2, 4, 80, 16),) * 2]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", [None, "boolean", "added"])
def test_the_fused_kernel_gives_the_same_bits_and_its_normaliser(
    query_shape, key_shape, dtype, mask
):
    generator = torch.Generator().manual_seed(7)
    query = torch.randn(query_shape, generator=generator, dtype=dtype)
    key, value = torch.randn(2, *key_shape, generator=generator, dtype=dtype)
    attended = torch.rand(key_shape[0], 1, 1, key_shape[2], generator=generator) < 0.7
    given = {
        None: None,
        "boolean": attended,
        "added": torch.zeros(attended.shape, dtype=dtype).masked_fill(~attended, -1e4),
    }[mask]
    fused = attend(query, key, value, given, scale=0.4)
    bare = torch.nn.functional.scaled_dot_product_attention(query, key, value, given, scale=0.4)
    assert torch.equal(fused.output, bare)
    expected = log_normaliser(query, key, given, scale=0.4)
    torch.testing.assert_close(fused.normaliser, expected, atol=1e-5, rtol=1e-5)


def test_gradients_and_other_kernels_are_left_to_torch():
    query = torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(8))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert attend(query, query, query, None, scale=None) is None
    query.requires_grad_()
    assert attend(query, query, query, None, scale=None) is None


@pytest.mark.parametrize(
    ("num_positions", "grid"), [(63, (7, 9)), (20, (4, 5)), (6, (2, 3)), (2, (1, 2)), (1, (1, 1))]
)
def test_a_grid_is_found_for_latents_that_do_not_halve_evenly(num_positions, grid):
    assert grid_of(num_positions, height=7, width=9) == grid

"""Any tensor in text and as a picture."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from evaluator.errors import ProbeError
from evaluator.probes import describe
from evaluator.probes.summary import histogram
from evaluator.probes.tiles import NOT_FINITE


def noise(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_numbers_are_those_of_numpy_and_scipy():
    x = noise(2, 4, 16, 16) * 3 + 1
    found, values = describe(x), x.double().numpy()
    assert (found.shape, found.dtype, found.num_values) == ((2, 4, 16, 16), "float32", 2048)
    expected = {
        "min": values.min(), "max": values.max(), "mean": values.mean(), "std": values.std(),
        "kurtosis": stats.kurtosis(values, axis=None), "rms": math.sqrt((values**2).mean()),
    }  # fmt: skip
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-12)
    assert found.channel_mean == pytest.approx(values.mean((0, 2, 3)))
    assert found.channel_std == pytest.approx(values.std((0, 2, 3)))
    counts, edges = np.histogram(values, bins=32)
    assert found.histogram.counts == tuple(counts)
    assert (found.histogram.low, found.histogram.high) == (edges[0], edges[-1])
    assert found.nonfinite == 0


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool],
)
def test_every_dtype_is_described_by_its_values(dtype):
    x = (noise(3, 8, 8).abs() * 4).to(dtype)
    found, values = describe(x), x.double().numpy()
    assert found.dtype == str(dtype).removeprefix("torch.")
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.max == values.max()
    assert found.image().size[0] > 0


def test_complex_numbers_are_described_by_their_magnitudes():
    x = torch.complex(torch.full((2, 2), 3.0), torch.full((2, 2), -4.0))
    found = describe(x)
    assert (found.min, found.max, found.dtype) == (5.0, 5.0, "complex64")
    assert "magnitudes: 5 to 5" in str(found)


def test_values_that_are_not_finite_are_counted_and_left_out():
    x = noise(1, 1, 8, 8)
    clean = describe(x[0, 0, 1:])
    x[0, 0, 0] = torch.tensor([math.nan] * 4 + [math.inf] * 3 + [-math.inf])
    found = describe(x)
    assert (found.nan, found.positive_infinite, found.negative_infinite) == (4, 3, 1)
    assert (found.mean, found.std) == pytest.approx((clean.mean, clean.std))
    assert "not finite 8 (4 NaN, 3 +inf, 1 −inf)" in repr(found)
    pixels = np.asarray(found.image())
    magenta = (pixels == NOT_FINITE).all(axis=-1)
    assert magenta.sum() == 8 * 8 * 8, "eight values, each 8 x 8 pixels"


@pytest.mark.parametrize("shape", [(0,), (0, 4, 8, 8), (2, 0)])
def test_an_empty_tensor_has_no_numbers_and_no_picture(shape):
    found = describe(torch.empty(shape))
    assert found.num_values == 0
    assert math.isnan(found.mean)
    assert found.histogram is None
    assert str(found) == f"float32 {list(shape)} on cpu, 0 values"
    with pytest.raises(ProbeError, match="with values to draw"):
        found.image()


def test_nothing_but_nan_has_a_picture_and_no_histogram():
    found = describe(torch.full((4, 4), math.nan))
    assert found.histogram is None
    assert math.isnan(found.min)
    assert (np.asarray(found.image()) == NOT_FINITE).all(axis=-1).any()
    assert "all finite" not in str(found)


def test_one_number_is_constant():
    found = describe(torch.tensor(2.5))
    assert (found.shape, found.mean, found.std) == ((), 2.5, 0.0)
    assert math.isnan(found.kurtosis)
    assert sum(found.histogram.counts) == 1
    assert found.image().size == (64 + 6, 64 + 6)
    assert "kurtosis —" in str(found)


def test_values_at_the_limits_of_their_type_have_a_histogram():
    huge = torch.finfo(torch.float64).max
    assert sum(histogram(torch.tensor([-huge, 0.0, huge], dtype=torch.float64)).counts) == 3
    assert sum(describe(torch.tensor([-(2**62), 2**62])).histogram.counts) == 2
    assert describe(torch.tensor([[1e300, -1e300]], dtype=torch.float64)).image() is not None


def test_the_text_says_it_all_in_a_few_lines():
    text = str(describe(noise(1, 2, 32, 32)))
    first, *rest = text.splitlines()
    assert first == "float32 [1, 2, 32, 32] on cpu, 2,048 values"
    assert [line.split()[0] for line in rest] == [
        "range",
        "moments",
        "histogram",
        "channels",
        "all",
    ]
    assert repr(describe(noise(1, 2, 32, 32))) == text


def test_a_picture_has_a_row_a_sample_and_a_tile_a_channel(tmp_path):
    x = torch.zeros(2, 3, 64, 32)
    x[1, 2] = 1
    path = describe(x).png(tmp_path / "x.png")
    with Image.open(path) as picture:
        assert picture.info["Description"] == "float32 [2, 3, 64, 32]"
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 67 + 3, 3 * 35 + 3, 3)
    assert (pixels[70:134, 73:105] == 255).all(), "the last tile is white"
    assert (pixels[3:67, 3:35] == 0).all(), "the first is black"
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_the_picture_is_of_the_values_when_they_were_described():
    x = torch.zeros(1, 1, 4, 4)
    x[..., 0] = 1
    found = describe(x)
    before = np.asarray(found.image())
    x.zero_()
    assert (np.asarray(found.image()) == before).all()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2048, 2048), (512 + 6, 512 + 6)),
        ((20, 40, 64, 64), (16 * 67 + 3, 8 * 67 + 3)),
        ((1, 4, 5, 64, 64), (4 * 67 + 3, 64 + 6)),
        ((100,), (100 + 6, 1 + 6)),
    ],
)
def test_pictures_stay_small(shape, size):
    assert describe(torch.zeros(shape)).image().size == size


def test_packed_latents_are_unpacked_by_their_grid():
    x = noise(2, 6, 16, 8)
    packed = x.flatten(2).transpose(1, 2)
    found = describe(packed, grid=(16, 8))
    assert found.shape == (2, 128, 6)
    assert found.channel_mean == describe(x).channel_mean
    assert np.array_equal(np.asarray(found.image()), np.asarray(describe(x).image()))
    with pytest.raises(ProbeError, match=r"\(B, 64, C\) for grid=\(8, 8\)"):
        describe(packed, grid=(8, 8))


def test_arrays_and_lists_are_taken_and_other_things_refused():
    assert describe(np.arange(6.0).reshape(2, 3)).mean == 2.5
    assert describe([1, 2, 3]).dtype == "int64"
    assert describe(torch.eye(3).to_sparse()).max == 1
    with pytest.raises(ProbeError, match="got str"):
        describe("latents")
    with pytest.raises(ProbeError, match="meta"):
        describe(torch.empty(2, device="meta"))


def test_a_tensor_that_needs_gradients_is_only_read():
    x = noise(2, 2).requires_grad_()
    describe(x).image()
    assert x.grad is None

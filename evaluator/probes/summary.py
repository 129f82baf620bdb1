"""What any tensor holds, in a few lines of text and one picture: latents, noise, predictions.

print(describe(latents))            shape, range, moments, histogram, values that are not finite
describe(latents).png("x.png")      a tile for each sample and channel
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.probes.latent_statistics import moments
from evaluator.probes.tiles import Tiles, tiles_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

NUM_BINS = 32
_BLOCKS = " ▁▂▃▄▅▆▇█"
_MAX_CHANNELS = 16
"""Channels whose moments are written out."""


class Histogram(NamedTuple):
    """Counts of finite values in bins of equal width."""

    low: float
    high: float
    counts: tuple[int, ...]

    def __str__(self) -> str:
        """`low ▁▂▅█▅▂▁ high`; any value at all shows at least the lowest block."""
        most = max(self.counts)
        bars = (_BLOCKS[math.ceil(8 * count / most)] for count in self.counts)
        return f"{_short(self.low)} {''.join(bars)} {_short(self.high)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """What `describe` found. Moments are of the finite values; NaN where there are none."""

    shape: tuple[int, ...]
    dtype: str
    device: str
    num_values: int
    nan: int
    positive_infinite: int
    negative_infinite: int
    min: float
    max: float
    mean: float
    std: float
    """Divisor is the number of values."""
    kurtosis: float
    """Excess: 0 for normal values; NaN for constant ones."""
    rms: float
    """Root of the mean square: 1 for unit noise."""
    histogram: Histogram | None
    """None without finite values."""
    channel_mean: tuple[float, ...]
    """Of each channel, for tensors that have channels and height and width; else empty."""
    channel_std: tuple[float, ...]
    is_complex: bool = False
    """Whether the numbers are of the magnitudes."""
    _tiles: Tiles | None = field(repr=False, default=None)

    @property
    def nonfinite(self) -> int:
        """Values that are NaN or infinite."""
        return self.nan + self.positive_infinite + self.negative_infinite

    def image(self) -> Image:
        """RGB picture: a row for each sample, a tile for each channel, one grey scale for all.

        Black and white are the lowest and highest finite value drawn; what is not finite is
        magenta. At most 8 samples and 16 channels, the first ones; of a video the first frame.
        """
        if self._tiles is None:
            raise ProbeError(
                f"Expected a tensor with values to draw; got shape {self.shape}. Describe another."
            )
        return self._tiles.image()

    def png(self, path: str | Path) -> Path:
        """Write `image()` as PNG, at once or not at all; returns the path."""
        import io

        from PIL.PngImagePlugin import PngInfo

        from evaluator.durable import write_atomically

        note, buffer = PngInfo(), io.BytesIO()
        note.add_text("Description", f"{self.dtype} {list(self.shape)}")
        self.image().save(buffer, "png", pnginfo=note)
        write_atomically(Path(path), buffer.getvalue())
        return Path(path)

    def __str__(self) -> str:
        of = "magnitudes: " if self.is_complex else ""
        lines = [f"{self.dtype} {list(self.shape)} on {self.device}, {self.num_values:,} values"]
        if self.histogram is not None:
            lines += [
                f"  range     {of}{_short(self.min)} to {_short(self.max)}",
                f"  moments   mean {_short(self.mean)}, std {_short(self.std)}, "
                f"rms {_short(self.rms)}, kurtosis {_short(self.kurtosis)}",
                f"  histogram {self.histogram}",
            ]
        if self.channel_mean:
            rows = zip(self.channel_mean, self.channel_std, strict=True)
            shown = [f"{_short(m)} ± {_short(s)}" for m, s in rows][:_MAX_CHANNELS]
            more = len(self.channel_mean) - len(shown)
            lines.append(f"  channels  {', '.join(shown)}{f', {more} more' if more else ''}")
        if self.nonfinite:
            kinds = (("NaN", self.nan), ("+inf", self.positive_infinite),
                     ("−inf", self.negative_infinite))  # fmt: skip
            said = ", ".join(f"{count:,} {name}" for name, count in kinds if count)
            lines.append(f"  not finite {self.nonfinite:,} ({said})")
        elif self.num_values:
            lines.append("  all finite")
        return "\n".join(lines)

    __repr__ = __str__


def describe(tensor: Any, *, grid: tuple[int, int] | None = None) -> TensorSummary:
    """Shape, range, moments, histogram and picture of a tensor at any stage of (de)noising.

    `tensor` has any shape and dtype: latents (B, C, H, W), one sample (C, H, W), a map (H, W), a
    video (B, C, F, H, W); or packed latents (B, positions, C), whose (height, width) in positions
    `grid` says. Arrays and nested lists are taken too. Of complex numbers the magnitudes are
    described; of booleans, 0 and 1. Computed in float64 where the tensor lies.
    """
    import torch

    values = _tensor(tensor)
    real = values.abs() if values.is_complex() else values
    # float64 holds every narrower type exactly, integers up to 2^53; Apple's GPUs have none.
    exact = real.to(torch.float32 if real.device.type == "mps" else torch.float64)
    if grid is not None:
        exact = _unpacked(exact, grid)
    flat = exact.reshape(-1)
    finite = flat[torch.isfinite(flat)]
    nothing = finite.numel() == 0
    found = moments(finite) if not nothing else None
    by_channel = _channel_moments(exact)
    return TensorSummary(
        shape=tuple(values.shape),
        dtype=str(values.dtype).removeprefix("torch."),
        device=str(values.device),
        num_values=values.numel(),
        nan=int(torch.isnan(flat).sum()),
        positive_infinite=int((flat == math.inf).sum()),
        negative_infinite=int((flat == -math.inf).sum()),
        min=math.nan if nothing else float(finite.min()),
        max=math.nan if nothing else float(finite.max()),
        mean=math.nan if found is None else float(found.mean),
        std=math.nan if found is None else float(found.std),
        kurtosis=math.nan if found is None else float(found.kurtosis),
        rms=math.nan if nothing else float(finite.square().mean().sqrt()),
        histogram=None if nothing else histogram(finite),
        channel_mean=by_channel[0],
        channel_std=by_channel[1],
        is_complex=values.is_complex(),
        _tiles=tiles_of(exact) if values.numel() else None,
    )


def histogram(values: Tensor, *, num_bins: int = NUM_BINS) -> Histogram:
    """(d,) finite → counts between their minimum and maximum; the last bin holds its end."""
    import torch

    low, high = float(values.min()), float(values.max())
    width = (high / 2 - low / 2) * 2 / num_bins
    if width <= 0 or not math.isfinite(width):
        counts = [0] * num_bins
        counts[num_bins // 2] = values.numel()
        return Histogram(low, high, tuple(counts))
    at = ((values - low) / width).floor().clamp(0, num_bins - 1).long()
    return Histogram(low, high, tuple(torch.bincount(at, minlength=num_bins).tolist()))


def _tensor(given: Any) -> Tensor:
    import torch

    try:
        values = given if isinstance(given, torch.Tensor) else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProbeError(
            f"Expected a tensor, an array or numbers; got {type(given).__name__}. Describe one "
            "tensor at a time."
        ) from error
    values = values.detach()
    if values.device.type == "meta":
        raise ProbeError("Expected a tensor with values; got one on 'meta'. Load it first.")
    return values.to_dense() if values.layout is not torch.strided else values


def _unpacked(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, positions, C) or (positions, C) → (B, C, height, width)."""
    height, width = grid
    if values.ndim not in (2, 3) or values.shape[-2] != height * width:
        raise ProbeError(
            f"Expected packed latents (B, {height * width}, C) for grid={grid}; got shape "
            f"{tuple(values.shape)}. Give the height and width in positions, or leave grid out."
        )
    packed = values.reshape(-1, height, width, values.shape[-1])
    return packed.permute(0, 3, 1, 2)


def _channel_moments(values: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel of (…, C, H, W), over finite values; (C, H, W) has them too."""
    import torch

    if values.ndim < 3 or values.numel() == 0:
        return (), ()
    axis = 0 if values.ndim == 3 else 1
    means, stds = [], []
    for channel in values.movedim(axis, 0).reshape(values.shape[axis], -1):
        finite = channel[torch.isfinite(channel)]
        found = moments(finite) if finite.numel() else None
        means.append(math.nan if found is None else float(found.mean))
        stds.append(math.nan if found is None else float(found.std))
    return tuple(means), tuple(stds)


def _short(value: float) -> str:
    """Four significant digits; a dash for NaN."""
    if math.isnan(value):
        return "—"
    return f"{value:.4g}".replace("-", "−")

"""Columns of the probes' tables. `sample` is the index in the batch; the runner adds the key.

Statistics are float32: float16 loses the small probabilities of long prompts, and most tools
read it poorly; compression earns the size back. Undefined values are null.
"""

from __future__ import annotations

import pyarrow as pa

_NAME = pa.dictionary(pa.int32(), pa.string())
_VECTOR = pa.list_(pa.float32())

ATTENTION_STATISTICS = (
    "mass",
    "peak",
    "peak_ratio",
    "top10_share",
    "entropy",
    "sharpness",
    "centroid_y",
    "centroid_x",
    "spread",
    "head_diversity",
    "text_mass",
    "text_share",
)
"""In the order of `attention_statistics`; the formulas are there."""

ATTENTION_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        ("step", pa.int16()),
        ("timestep", pa.float32()),
        ("log_snr", pa.float32()),
        ("layer", _NAME),
        ("token", pa.int16()),
        ("token_text", _NAME),
        ("word", pa.int16()),
        ("branch", _NAME),
        ("num_positions", pa.int32()),
        *((name, pa.float32()) for name in ATTENTION_STATISTICS),
        ("note", _NAME),
    ]
)
"""One row for each (sample, observed step, layer or group of layers, token)."""

PAIR_STATISTICS = ("soft_iou", "cosine", "js")
"""In the order of `pair_statistics`; the formulas are there."""

PAIR_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        ("step", pa.int16()),
        ("log_snr", pa.float32()),
        ("layer", _NAME),
        ("token", pa.int16()),
        ("other", pa.int16()),
        ("token_text", _NAME),
        ("other_text", _NAME),
        ("word", pa.int16()),
        ("other_word", pa.int16()),
        *((name, pa.float32()) for name in PAIR_STATISTICS),
    ]
)
"""One row for each (sample, observed step, layer or group, pair of content tokens); token < other
and both are read by the same encoder."""

TOKEN_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("token", pa.int16(), nullable=False),
        ("id", pa.int32()),
        ("piece", _NAME),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("word", pa.int16()),
        ("word_text", _NAME),
        ("encoder", _NAME),
    ]
)
"""One row for each (sample, token): what stands at which text position. Characters are counted in
the prompt as its encoder reads it; `word` is −1 for begin and end of text and for templates."""

LAYER_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        ("name", _NAME),
        ("kind", _NAME),
        ("group", _NAME),
        ("height", pa.int16()),
        ("width", pa.int16()),
        ("heads", pa.int16()),
    ]
)
"""One row for each layer that was observed, in the order in which they ran; under the first
sample of each batch. `group` is the layer's name in `attention` where layers are grouped."""

LAYER_MAP_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        ("step", pa.int16()),
        ("layer", _NAME),
        ("num_layers", pa.int16()),
        ("heads", pa.int16()),
        ("word", pa.int16()),
        ("token", pa.int16()),
        ("token_text", _NAME),
        ("height", pa.int16()),
        ("width", pa.int16()),
        ("map", _VECTOR),
    ]
)
"""One row for each (mapped sample, observed step, layer or group, content token): the mean over
heads and the group's `num_layers` layers, at their own resolution."""

HEATMAP_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        ("step", pa.int16()),
        ("num_steps", pa.int16()),
        ("word", pa.int16()),
        ("token", pa.int16()),
        ("token_text", _NAME),
        ("height", pa.int16()),
        ("width", pa.int16()),
        ("map", _VECTOR),
    ]
)
"""One row for each (mapped sample, observed step or −1 for all of them, token); begin and end of
text are word −1. The mean over heads and layers of the sum over `num_steps` steps, as DAAM has it
(`evaluator.probes.daam`): divided by `num_steps` it is a probability."""

LATENT_STATISTICS = (
    "mean",
    "std",
    "min",
    "max",
    "kurtosis",
    "norm",
    "norm_ratio",
    "cosine_previous",
    "x0_mean",
    "x0_std",
    "x0_kurtosis",
    "eps_mean",
    "eps_std",
    "eps_kurtosis",
    "eps_normality",
    "guidance_norm",
)
"""In the order of `latent_statistics`; the formulas are there."""

LATENTS_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("step", pa.int16(), nullable=False),
        ("timestep", pa.float32()),
        ("log_snr", pa.float32()),
        *((name, pa.float32()) for name in LATENT_STATISTICS),
        ("channel_mean", _VECTOR),
        ("channel_std", _VECTOR),
        ("nonfinite", pa.int32()),
    ]
)
"""One row for each (sample, observed step)."""

SCHEDULE_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        pa.field("timestep", pa.float64(), nullable=False),
        pa.field("alpha", pa.float64(), nullable=False),
        pa.field("sigma", pa.float64(), nullable=False),
        pa.field("alpha_cumprod", pa.float64(), nullable=False),
        pa.field("beta", pa.float64(), nullable=False),
        pa.field("log_snr", pa.float64(), nullable=False),
        ("train_log_snr", pa.float64()),
    ]
)
"""One row for each step; float64, ±inf where there is no signal or no noise.

`alpha` and `sigma` are a and b of x_t = a·x0 + b·ε; see `evaluator.probes.schedule` for the rest.
"""

SCHEDULES_SCHEMA = pa.schema(
    [
        pa.field("schedule", pa.string(), nullable=False),
        pa.field("scheduler", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("grid", pa.string(), nullable=False),
        *SCHEDULE_SCHEMA,
        ("noise_to_signal", pa.float64()),
        ("posterior_variance", pa.float64()),
    ]
)
"""Several schedules: `grid` is training or sampling, `noise_to_signal` b/a (σ of Karras et al.)."""

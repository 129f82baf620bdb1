"""Columns of the probes' tables. `sample` is the index in the batch; the runner adds the key.

Undefined values are null. The schemas say float32; a run's attention tables hold their statistics
and heat maps as float16 by default (`probes.attention.dtype`), which reads as float32 again.
Measured on 64 prompts of the digits world (10 of 20 steps, 5 layer groups; zstd, dictionaries for
strings only):

    bytes a sample       float32   float16
    attention             15,504     7,879    450 rows
    attention_pairs       10,245     5,355    1,050 rows
    heatmaps              17,020     7,992    77 maps of 8x8

float16 keeps each statistic within 4.9e-4 of itself, or within 3e-8 where it is below 6.1e-5: a
mass of 1e-6, as a token among many thousands may have, is 3 % off (the smallest js here, 2e-6, was
1.1 % off). What lies above 65504 is null with a note. The effects of the three claims of
`evaluator.probes.claims` move by 0.0004, 0.00004 and 0.0014 of half their intervals.

DuckDB 1.3 and polars 1.35 read such columns, and newer ones; DuckDB 1.2 takes them for bytes,
polars 1.20 fails, and few functions of pyarrow take them: `evaluator.store.schemas.read_table`
gives float32. Byte-stream-split takes another 9 % off float16, but DuckDB (2.0, too) and polars
1.35 refuse it there; on float32, where all of them read it, it takes 11 % and is used.
Dictionaries for numbers that repeat (step, timestep, token) save 0.5 %, and are not.
"""

from __future__ import annotations

import pyarrow as pa

from evaluator.protocols import STANDING

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
"""One row for each (sample, observed step, layer or group of layers, token). `attention_full` has
the same columns: every step and every layer of the samples chosen with `full`, always float32."""

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
    ],
    metadata=STANDING,
)
"""One row for each layer that was observed, in the order in which they ran. A run has them once a
shard, under its first sample, and again under the sample from which on they are others, as where
image sizes differ. `group` is the layer's name in `attention` where layers are grouped."""

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

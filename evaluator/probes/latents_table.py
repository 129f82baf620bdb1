"""Rows of the table `latents`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from evaluator.probes.schemas import LATENT_STATISTICS, LATENTS_SCHEMA
from evaluator.probes.watch import StepTime

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.latent_statistics import LatentTables


def latents_table(
    parts: Sequence[LatentTables], *, samples: Sequence[int], times: Mapping[int, StepTime]
) -> pa.Table:
    """Table of `LATENTS_SCHEMA`, sorted by sample and step.

    `parts` follow each other in time and together hold the steps of `times`; `samples` (B,) says
    which prompt each row of the batch belongs to.
    """
    scalars = torch.cat([part.scalars for part in parts], dim=1).transpose(1, 2)
    num_samples, num_steps = scalars.shape[1:]
    levels = [time.level for time in times.values() if time.level is not None]
    columns: dict[str, Any] = {
        "sample": np.repeat(np.array(samples), num_steps),
        "step": np.tile(np.array(list(times)), num_samples),
        "timestep": np.tile([time.timestep for time in times.values()], num_samples),
        "log_snr": np.tile([level.log_snr for level in levels], num_samples),
        "channel_mean": _lists([part.channel_mean for part in parts]),
        "channel_std": _lists([part.channel_std for part in parts]),
        "nonfinite": torch.cat([part.nonfinite for part in parts]).T.reshape(-1).numpy(),
    }
    for name, statistic in zip(LATENT_STATISTICS, scalars, strict=True):
        columns[name] = _nullable(statistic)
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field in LATENTS_SCHEMA
        for column in [columns[field.name]]
    ]
    return pa.table(arrays, LATENTS_SCHEMA)


def _nullable(values: Tensor) -> pa.Array:
    """(…) → float32, flat, null where NaN."""
    flat = values.reshape(-1).numpy().astype(np.float32)
    return pa.array(flat, pa.float32(), from_pandas=True)


def _lists(parts: Sequence[Tensor]) -> pa.Array:
    """Parts (S, B, C) → B · S lists of C values."""
    values = torch.cat(list(parts)).transpose(0, 1)
    num_lists, length = values.shape[0] * values.shape[1], values.shape[2]
    offsets = np.arange(num_lists + 1, dtype=np.int32) * length
    return pa.ListArray.from_arrays(pa.array(offsets), _nullable(values))

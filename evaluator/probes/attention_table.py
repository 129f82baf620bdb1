"""Rows of the table `attention`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from evaluator.probes.attention_recorder import StatisticSums
from evaluator.probes.schemas import ATTENTION_SCHEMA, ATTENTION_STATISTICS
from evaluator.probes.tokens import SPECIAL, TokenizedPrompt
from evaluator.probes.watch import StepTime

CONDITIONAL = "conditional"
INDISTINCT = "conditional embedding equals the unconditional one"


@dataclass(frozen=True, slots=True)
class AttentionRows:
    """One batch, by row of the conditional branch."""

    statistics: Mapping[str, StatisticSums]
    """Layer or group → (10, S, B, T)."""
    samples: Sequence[int]
    """(B,): index in the batch of prompts."""
    prompts: Sequence[TokenizedPrompt]
    """(B,)."""
    indistinct: Sequence[bool]
    """(B,): prompts that get a single row of nulls."""
    steps: Sequence[int]
    """(S,): the observed steps."""
    times: Mapping[int, StepTime]
    """Of the observed steps."""


def attention_table(rows: AttentionRows) -> pa.Table:
    """Table of `ATTENTION_SCHEMA`, sorted by sample, step, layer and token."""
    labels = list(rows.statistics)
    stacked = np.stack([rows.statistics[label].means().numpy() for label in labels])
    values = stacked.transpose(3, 2, 0, 4, 1)  # (L, 10, S, B, T) => (B, S, L, T, 10)
    ran = np.stack([rows.statistics[label].counts.cpu().numpy() > 0 for label in labels])
    distinct = ~np.array(rows.indistinct)
    tokens = _TokenGrid(rows.prompts, values.shape[3])
    wanted = tokens.present & distinct[:, None]
    mask = wanted[:, None, None, :] & ran.T[None, :, :, None]
    row, step, layer, token = np.nonzero(mask)

    samples = np.array(rows.samples)
    columns: dict[str, Any] = {
        "sample": samples[row],
        "step": np.array(rows.steps)[step],
        "layer": _named(layer, labels),
        "token": token,
        "token_text": _named(tokens.codes[row, token], tokens.names),
        "word": tokens.words[row, token],
        "branch": _named(np.zeros_like(row), [CONDITIONAL]),
        "num_positions": np.array([rows.statistics[x].grid.num_positions for x in labels])[layer],
        "note": pa.nulls(len(row), pa.dictionary(pa.int32(), pa.string())),
    }
    columns |= _step_columns(rows, step)
    for name, statistic in zip(ATTENTION_STATISTICS, values[mask].T, strict=True):
        columns[name] = pa.array(statistic, pa.float32(), from_pandas=True)
    table = pa.table([_typed(columns[f.name], f.type) for f in ATTENTION_SCHEMA], ATTENTION_SCHEMA)
    return _with_null_rows(table, samples[~distinct])


def _named(indices: np.ndarray, names: Sequence[str]) -> pa.DictionaryArray:
    values = pa.array(list(names), pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), values)


def _typed(column: Any, kind: pa.DataType) -> pa.Array:
    return column if isinstance(column, pa.Array) else pa.array(column, kind)


def _step_columns(rows: AttentionRows, step: np.ndarray) -> dict[str, pa.Array]:
    timesteps, log_snr = [], []
    for index in rows.steps:
        time = rows.times.get(index)
        level = time.level if time is not None else None
        timesteps.append(time.timestep if time is not None else math.nan)
        log_snr.append(level.log_snr if level is not None else math.nan)
    return {
        name: pa.array(np.array(values, np.float32)[step], pa.float32(), from_pandas=True)
        for name, values in (("timestep", timesteps), ("log_snr", log_snr))
    }


class _TokenGrid:
    """The prompts' tokens by (row, text position); absent positions are padding."""

    def __init__(self, prompts: Sequence[TokenizedPrompt], num_positions: int) -> None:
        shape = (len(prompts), num_positions)
        self.present = np.zeros(shape, bool)
        self.codes = np.zeros(shape, np.int32)
        self.words = np.full(shape, SPECIAL, np.int16)
        codes: dict[str, int] = {}
        for row, prompt in enumerate(prompts):
            for token in prompt.tokens:
                self.present[row, token.position] = True
                self.codes[row, token.position] = codes.setdefault(token.text, len(codes))
                self.words[row, token.position] = token.word
        self.names = list(codes)


def _with_null_rows(table: pa.Table, samples: np.ndarray) -> pa.Table:
    """One row for each of `samples`, with nulls and a note, in its place among the others."""
    if not len(samples):
        return table
    columns: dict[str, Any] = {
        field.name: pa.nulls(len(samples), field.type) for field in ATTENTION_SCHEMA
    }
    columns["sample"] = pa.array(samples, pa.int32())
    columns["note"] = _named(np.zeros(len(samples)), [INDISTINCT])
    nulls = pa.table([columns[name] for name in ATTENTION_SCHEMA.names], ATTENTION_SCHEMA)
    both = pa.concat_tables([table, nulls]).unify_dictionaries()
    order = np.argsort(both.column("sample").to_numpy(), kind="stable")
    return both.take(pa.array(order)).combine_chunks()

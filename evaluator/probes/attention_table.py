"""Rows of the tables `attention`, `attention_pairs`, `attention_tokens` and `attention_layers`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from evaluator.probes.attention_recorder import LayerFacts, StatisticSums
from evaluator.probes.schemas import (
    ATTENTION_SCHEMA,
    ATTENTION_STATISTICS,
    LAYER_SCHEMA,
    PAIR_SCHEMA,
    TOKEN_SCHEMA,
)
from evaluator.probes.tokens import SPECIAL, Token, TokenizedPrompt
from evaluator.probes.watch import StepTime

CONDITIONAL = "conditional"
INDISTINCT = "conditional embedding equals the unconditional one"


@dataclass(frozen=True, slots=True)
class AttentionRows:
    """One batch, by row of the conditional branch."""

    statistics: Mapping[str, StatisticSums]
    """Layer or group → (12, S, B, T)."""
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
    positions: Sequence[int]
    """(T,): the text position of each column of the statistics."""


def attention_table(rows: AttentionRows) -> pa.Table:
    """Table of `ATTENTION_SCHEMA`, sorted by sample, step, layer and token."""
    labels = list(rows.statistics)
    stacked = np.stack([rows.statistics[label].means().numpy() for label in labels])
    values = stacked.transpose(3, 2, 0, 4, 1)  # (L, 12, S, B, T) => (B, S, L, T, 12)
    ran = np.stack([rows.statistics[label].counts.numpy() > 0 for label in labels])
    distinct = ~np.array(rows.indistinct)
    tokens = _TokenGrid(rows.prompts, rows.positions)
    wanted = tokens.present & distinct[:, None]
    mask = wanted[:, None, None, :] & ran.T[None, :, :, None]
    row, step, layer, token = np.nonzero(mask)

    samples = np.array(rows.samples)
    columns: dict[str, Any] = {
        "sample": samples[row],
        "step": np.array(rows.steps)[step],
        "layer": _named(layer, labels),
        "token": np.array(rows.positions)[token],
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
    """The prompts' tokens by (row, column of the statistics); absent ones are padding."""

    def __init__(self, prompts: Sequence[TokenizedPrompt], positions: Sequence[int]) -> None:
        columns = {position: column for column, position in enumerate(positions)}
        shape = (len(prompts), len(positions))
        self.present = np.zeros(shape, bool)
        self.codes = np.zeros(shape, np.int32)
        self.words = np.full(shape, SPECIAL, np.int16)
        codes: dict[str, int] = {}
        for row, prompt in enumerate(prompts):
            for token in prompt.tokens:
                column = columns[token.position]
                self.present[row, column] = True
                self.codes[row, column] = codes.setdefault(token.text, len(codes))
                self.words[row, column] = token.word
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


def pair_table(rows: AttentionRows, *, pairs: Mapping[str, StatisticSums]) -> pa.Table:
    """Table of `PAIR_SCHEMA`, sorted by sample, step, layer and pair; `pairs` hold (3, S, B, T, T).

    Prompts that equal their unconditional text have no rows.
    """
    labels = list(pairs)
    means = {label: pairs[label].means().numpy() for label in labels}
    columns = {position: column for column, position in enumerate(rows.positions)}
    records: dict[str, list[Any]] = {name: [] for name in PAIR_SCHEMA.names}
    for row, prompt in enumerate(rows.prompts):
        couples = [] if rows.indistinct[row] else _couples(prompt)
        for place, step in enumerate(rows.steps):
            time = rows.times.get(step)
            level = time.level if time is not None else None
            for label in labels:
                for one, other in couples if pairs[label].counts[place] else ():
                    values = means[label][
                        :, place, row, columns[one.position], columns[other.position]
                    ]
                    told = (rows.samples[row], step, level.log_snr if level else None, label)
                    who = (one.position, other.position, one.text, other.text, one.word, other.word)
                    whole = zip(PAIR_SCHEMA.names, (*told, *who, *values), strict=True)
                    for name, value in whole:
                        records[name].append(value)
    arrays = [pa.array(records[f.name], f.type, from_pandas=True) for f in PAIR_SCHEMA]
    return pa.table(arrays, PAIR_SCHEMA)


def _couples(prompt: TokenizedPrompt) -> list[tuple[Token, Token]]:
    content = prompt.content
    return [
        (one, other)
        for i, one in enumerate(content)
        for other in content[i + 1 :]
        if one.encoder == other.encoder
    ]


def token_table(samples: Sequence[int], prompts: Sequence[TokenizedPrompt]) -> pa.Table:
    """Table of `TOKEN_SCHEMA`, sorted by sample and text position."""
    records = []
    for sample, prompt in zip(samples, prompts, strict=True):
        words = prompt.text.split()
        for token in prompt.tokens:
            word = words[token.word] if token.word != SPECIAL else None
            place = (sample, token.position, token.id, token.text, token.start, token.end)
            records.append((*place, token.word, word, token.encoder))
    return _from_records(records, TOKEN_SCHEMA)


def layer_table(sample: int, facts: Sequence[LayerFacts]) -> pa.Table:
    """Table of `LAYER_SCHEMA`, in the order in which the layers ran; it is the whole batch's."""
    records = [
        (sample, f.layer.name, f.layer.kind, f.group, f.grid.height, f.grid.width, f.heads)
        for f in facts
    ]
    return _from_records(records, LAYER_SCHEMA)


def _from_records(records: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*records, strict=True)) or [()] * len(schema)
    pairs = zip(columns, schema, strict=True)
    return pa.table([pa.array(list(column), field.type) for column, field in pairs], schema)

"""What the claims about attention are computed from: a bounded part of a run, reduced by shard.

The rows of each prompt are averaged over what a claim averages over anyway, so that a prompt of
thousands of rows leaves a few dozen. The claims come out as they would from the whole tables of the
same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_PROMPTS = 384
"""Prompts that the claims are computed from; of larger runs, evenly spaced ones."""
MAX_SHARDS = 24
"""Shards that they are taken from."""
MAX_ROWS = 200_000
"""Rows of (prompt, token, layer, noise level); at every step and layer they are many."""

ATTENTION_COLUMNS = ("key", "step", "log_snr", "layer", "token", "word", "entropy")
TOKEN_COLUMNS = ("key", "token", "word_text")
PAIR_COLUMNS = ("key", "word", "other_word", "soft_iou", "cosine", "js")
_MEASURES = PAIR_COLUMNS[3:]


@dataclass
class ClaimTables:
    """Reduced tables of the prompts so far."""

    num_shards: int = 0
    """Shards that are read for the claims."""
    texts: dict[str, str] = field(default_factory=dict)
    """Key → prompt, of the prompts that have attention rows."""
    by_token: list[pa.Table] = field(default_factory=list)
    """Mean entropy by (key, token)."""
    by_level: list[pa.Table] = field(default_factory=list)
    """Mean entropy by (key, token, layer, log-SNR)."""
    pairs: list[pa.Table] = field(default_factory=list)
    """Mean overlap by (key, word, other word)."""
    has_pairs: bool = False
    """Whether a shard that was read has the table `attention_pairs`."""
    rows: int = 0
    sampled: bool = False
    """Whether prompts of a shard that was read were left out."""

    @property
    def quota(self) -> int:
        """Prompts to take of each shard."""
        return -(-MAX_PROMPTS // max(1, self.num_shards))

    def add(
        self, samples: pa.Table, attention: pa.Table, tokens: pa.Table, pairs: pa.Table | None
    ) -> None:
        """Add prompts of one shard; tables without the columns of a claim add nothing."""
        if not _has(attention, ATTENTION_COLUMNS) or not _has(tokens, TOKEN_COLUMNS):
            return
        if self.rows >= MAX_ROWS:
            self.sampled = True
            return
        having = _prompts(samples, attention)
        chosen = _spread(having, self.quota)
        self.sampled = self.sampled or len(chosen) < len(having)
        self.texts |= chosen
        keys = pa.array(list(chosen), pa.string())
        seen = _of(attention, keys)
        seen = seen.filter(pc.is_finite(seen.column("entropy")))
        self.by_token.append(_named(_means(seen, ["key", "token"], ["entropy"]), tokens))
        places = ["key", "token", "layer", "log_snr"]
        levels = _named(_means(seen, places, ["entropy"]), tokens)
        self.rows += levels.num_rows
        self.by_level.append(levels)
        if pairs is not None and _has(pairs, PAIR_COLUMNS):
            self.has_pairs = True
            chosen_pairs = _of(pairs, keys)
            self.pairs.append(_means(chosen_pairs, ["key", "word", "other_word"], _MEASURES))


def _has(table: pa.Table, names: Sequence[str]) -> bool:
    return set(names) <= set(table.column_names)


def _prompts(samples: pa.Table, attention: pa.Table) -> dict[str, str]:
    """Key → prompt of the shard's samples that have attention rows, in the order of the plan."""
    seen = set(pc.unique(attention.column("key")).to_pylist())
    columns = (samples.column(name).to_pylist() for name in ("key", "prompt"))
    return {key: prompt or "" for key, prompt in zip(*columns, strict=True) if key in seen}


def _spread(texts: dict[str, str], most: int) -> dict[str, str]:
    """At most so many of them, evenly spaced."""
    keys = list(texts)
    places = np.linspace(0, len(keys) - 1, min(most, len(keys))).round().astype(int)
    return {keys[i]: texts[keys[i]] for i in places}


def _of(table: pa.Table, keys: pa.Array) -> pa.Table:
    """Rows of some prompts; words as strings: two shards number their entries differently."""
    table = table.filter(pc.is_in(table.column("key").cast(pa.string()), keys))
    for i, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(i, column.name, table.column(i).cast(pa.string()))
    return table


def _means(table: pa.Table, by: Sequence[str], measures: Sequence[str]) -> pa.Table:
    """Means of `measures` under their own names; null where a group has no finite value."""
    for name in measures:
        column = table.column(name).cast(pa.float64())
        finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
        table = table.set_column(table.column_names.index(name), name, finite)
    groups = table.group_by(list(by), use_threads=False)
    means = groups.aggregate([(name, "mean") for name in measures])
    return means.rename_columns([name.removesuffix("_mean") for name in means.column_names])


def _named(table: pa.Table, tokens: pa.Table) -> pa.Table:
    """The reduced table with the column `word_text`: the word that each token is part of."""
    chosen = _of(tokens, pc.unique(table.column("key")))
    columns = (chosen.column(name).to_pylist() for name in TOKEN_COLUMNS)
    words = {(key, token): word for key, token, word in zip(*columns, strict=True)}
    places = zip(*(table.column(name).to_pylist() for name in ("key", "token")), strict=True)
    return table.append_column(
        "word_text", pa.array([words.get(place) for place in places], pa.string())
    )

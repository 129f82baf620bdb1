"""Curves over many samples, accumulated one shard at a time.

Attention: per prompt the mean over its tokens, then mean and 95 % interval over prompts.
Latents: median and the band from the 10th to the 90th percentile over samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.probes.words import FUNCTION_WORDS
from evaluator.report.text import plain

ATTENTION_MEASURES = ("sharpness", "top10_share", "mass")
LATENT_MEASURES = (
    *("std", "eps_std", "eps_kurtosis", "eps_normality", "x0_std"),
    *("norm_ratio", "cosine_previous", "guidance_norm"),
)

MAX_STEPS = 100
"""Steps kept for quantiles; of a longer trajectory, evenly spaced ones."""


class Moments(NamedTuple):
    """Count, mean and sum of squared differences from the mean."""

    num: int
    mean: float
    squares: float

    def merged(self, other: Moments) -> Moments:
        """Moments of both groups together (Chan et al. 1979)."""
        num = self.num + other.num
        shift = other.mean - self.mean
        mean = self.mean + shift * other.num / num
        squares = self.squares + other.squares + shift**2 * self.num * other.num / num
        return Moments(num, mean, squares)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of the mean (Student's t); 0 for a single value."""
        if self.num < 2:
            return 0.0
        error = math.sqrt(self.squares / (self.num - 1) / self.num)
        return student_t(self.num - 1) * error


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2, else Cornish and Fisher's series."""
    if freedom <= 2:
        return (12.706, 4.303)[freedom - 1]
    z, v = 1.959964, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


class Point(NamedTuple):
    """One place on a curve of means."""

    step: int
    log_snr: float
    moments: Moments


@dataclass
class AttentionCurves:
    """Statistics of the words of prompts, by layer group and step."""

    by_layer: dict[tuple[str, str, int], Moments] = field(default_factory=dict)
    """(measure, layer, step) → content words."""
    by_kind: dict[tuple[str, str, int], Moments] = field(default_factory=dict)
    """(measure, `content words` or `function words`, step) → mean over layers."""
    log_snr: dict[int, float] = field(default_factory=dict)
    prompts: int = 0
    unseen: Counter[str] = field(default_factory=Counter)
    """Why samples have no attention → how many of them."""

    def add(self, table: pa.Table) -> None:
        """Add one shard's attention table; columns that are not there are passed over."""
        if "note" in table.column_names:
            notes = table.column("note").drop_null().to_pylist()
            self.unseen.update(plain(str(note), limit=120) for note in notes)
        measures = [name for name in ATTENTION_MEASURES if name in table.column_names]
        if not {"key", "step", "token_text"} <= set(table.column_names):
            return
        table = _of_words(_as_text(table, ("layer", "token_text", "branch")))
        self.prompts += pc.count_distinct(table.column("key")).as_py()
        self._note_log_snr(table)
        kinds = pa.array(_kinds(table.column("token_text").to_pylist()), pa.string())
        table = table.append_column("kind", kinds)
        content = table.filter(pc.equal(table.column("kind"), "content words"))
        for measure in measures:
            _merge(self.by_layer, content, measure, "layer")
            _merge(self.by_kind, table, measure, "kind")

    def curve(self, measure: str, name: str, *, kinds: bool = False) -> list[Point]:
        """The points of one curve in the order of the steps."""
        source = self.by_kind if kinds else self.by_layer
        found = [(s, m) for (at, of, s), m in source.items() if (at, of) == (measure, name)]
        return [Point(step, self.log_snr.get(step, math.nan), m) for step, m in sorted(found)]

    def names(self, measure: str, *, kinds: bool = False) -> list[str]:
        """Layers (or kinds of word) that have a value, in order of appearance."""
        source = self.by_kind if kinds else self.by_layer
        return list(dict.fromkeys(name for at, name, _ in source if at == measure))

    def _note_log_snr(self, table: pa.Table) -> None:
        if "log_snr" not in table.column_names:
            return
        means = table.group_by("step").aggregate([("log_snr", "mean")])
        for row in means.to_pylist():
            if row["log_snr_mean"] is not None:
                self.log_snr.setdefault(row["step"], row["log_snr_mean"])


def _of_words(table: pa.Table) -> pa.Table:
    """Rows of words: no begin and end of text, no unconditional branch."""
    names = table.column_names
    if "word" in names:
        table = table.filter(pc.greater_equal(table.column("word"), 0))
    if "branch" in names:
        known = pc.is_in(table.column("branch"), pa.array(["uncond", "unconditional", "negative"]))
        table = table.filter(pc.invert(known))
    if "layer" not in names:
        table = table.append_column("layer", pa.array(["all layers"] * table.num_rows))
    return table


def _as_text(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """Dictionary columns as strings: two shards number their entries differently."""
    for name in set(names) & set(table.column_names):
        index = table.column_names.index(name)
        table = table.set_column(index, name, table.column(name).cast(pa.string()))
    return table


def _kinds(tokens: list[str | None]) -> list[str | None]:
    known = {token: word_kind(token or "") for token in set(tokens)}
    return [known[token] for token in tokens]


def word_kind(token: str) -> str | None:
    """`content words`, `function words`, or None for punctuation."""
    word = token.replace("</w>", "").strip("▁Ġ_ .,;:!?\"'()").lower()
    if not any(c.isalnum() for c in word):
        return None
    return "function words" if word in FUNCTION_WORDS else "content words"


_Groups = dict[tuple[str, str, int], Moments]


def _merge(into: _Groups, table: pa.Table, measure: str, by: str) -> None:
    """Group by prompt first, so that one prompt counts once however many images it has."""
    finite = pc.is_finite(table.column(measure))
    table = table.filter(pc.and_(finite, pc.is_valid(table.column(by))))
    prompts = table.group_by(["key", by, "step"], use_threads=False).aggregate([(measure, "mean")])
    ways = ("count", "mean", "variance")
    groups = prompts.group_by([by, "step"], use_threads=False)
    for row in groups.aggregate([(f"{measure}_mean", way) for way in ways]).to_pylist():
        num, mean, variance = (row[f"{measure}_mean_{way}"] for way in ways)
        place = (measure, row[by], row["step"])
        added = Moments(num, mean, variance * num)
        into[place] = into[place].merged(added) if place in into else added


class Quantiles(NamedTuple):
    """Median and band over samples, for each step."""

    steps: list[int]
    median: list[float]
    low: list[float]
    high: list[float]


@dataclass
class LatentCurves:
    """Statistics of latents by step; holds the values, so its caller bounds the samples."""

    values: dict[tuple[str, int], list[NDArray[np.float32]]] = field(default_factory=dict)
    steps: frozenset[int] = frozenset()
    samples: int = 0
    nonfinite: int = 0

    def add(self, table: pa.Table) -> None:
        """Add one shard's latents table; columns that are not there are passed over."""
        if not table.num_rows or "step" not in table.column_names:
            return
        step = table.column("step").to_numpy()
        present = np.unique(step)
        if not self.steps:
            chosen = np.unique(np.linspace(0, len(present) - 1, MAX_STEPS).round().astype(int))
            self.steps = frozenset(present[chosen].tolist())
        self.samples += int((step == present[0]).sum())
        if "nonfinite" in table.column_names:
            self.nonfinite += pc.sum(table.column("nonfinite")).as_py() or 0
        for measure in LATENT_MEASURES:
            if measure in table.column_names:
                column = table.column(measure).to_numpy().astype(np.float32)
                for at, chosen in _rows_of(step, self.steps):
                    self.values.setdefault((measure, at), []).append(column[chosen])

    def curve(self, measure: str) -> Quantiles:
        """Quantiles over samples; steps without a finite value are left out."""
        curve = Quantiles([], [], [], [])
        for step in sorted(self.steps):
            values = np.concatenate(self.values.get((measure, step), [np.empty(0, np.float32)]))
            values = values[np.isfinite(values)].astype(np.float64)
            if values.size:
                low, median, high = np.quantile(values, [0.1, 0.5, 0.9]).tolist()
                curve.steps.append(step)
                curve.median.append(median)
                curve.low.append(low)
                curve.high.append(high)
        return curve


def _rows_of(
    step: NDArray[np.integer], steps: frozenset[int]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    for at in sorted(steps):
        yield at, step == at

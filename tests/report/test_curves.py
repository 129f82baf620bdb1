"""Curves over samples: the right means, intervals and quantiles, however the run is cut."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from evaluator.report.chart_tables import curves_csv
from evaluator.report.charts import attention_charts, latent_charts
from evaluator.report.curves import (
    MAX_STEPS,
    AttentionCurves,
    LatentCurves,
    student_t,
    word_kind,
)
from evaluator.report.svg import Chart, Series


def attention(num_prompts: int, *, images: int = 1, start: int = 0) -> pa.Table:
    rng = np.random.default_rng(start)
    rows = [
        {
            "key": f"k{start + i}", "image_index": j, "step": step, "log_snr": float(step) - 1,
            "layer": "mid", "token": token, "token_text": text, "word": token - 1,
            "branch": "conditional", "sharpness": float(rng.normal(0.5, 0.1)),
        }
        for i in range(num_prompts) for j in range(images) for step in (0, 1)
        for token, text in enumerate(("<|startoftext|>", "a", "red", "seven", "."))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_attention_mean_is_over_prompts_of_content_words() -> None:
    table = attention(5, images=3)
    curves = AttentionCurves()
    curves.add(table)
    rows = [r for r in table.to_pylist() if r["token_text"] in ("red", "seven") and r["step"] == 1]
    prompts = [np.mean([r["sharpness"] for r in rows if r["key"] == f"k{i}"]) for i in range(5)]
    point = curves.curve("sharpness", "mid")[1]
    assert point.log_snr == 0.0
    assert point.moments.num == 5
    assert point.moments.mean == pytest.approx(np.mean(prompts), rel=1e-12)
    low, _ = stats.t.interval(0.95, 4, np.mean(prompts), stats.sem(prompts))
    assert point.moments.mean - point.moments.half_width == pytest.approx(low, rel=1e-3)


def test_samples_without_attention_are_counted_by_their_reason() -> None:
    why = "conditional embedding equals the \x1b[31munconditional one"
    table = attention(2)
    nothing = dict.fromkeys(table.column_names) | {"key": "e", "image_index": 0}
    rows = [*table.to_pylist(), nothing | {"note": why}, nothing | {"image_index": 1, "note": why}]
    schema = table.schema.append(pa.field("note", pa.string()))
    curves, alone = AttentionCurves(), AttentionCurves()
    curves.add(pa.Table.from_pylist(rows, schema=schema))
    alone.add(table)
    assert curves.unseen == {"conditional embedding equals the unconditional one": 2}
    assert alone.unseen == {}
    assert curves.curve("sharpness", "mid") == alone.curve("sharpness", "mid")


def test_shards_merge_to_the_same_moments() -> None:
    first, second = attention(7), attention(4, start=7)
    apart, together = AttentionCurves(), AttentionCurves()
    apart.add(first)
    apart.add(second)
    together.add(pa.concat_tables([first, second]))
    for one, other in zip(
        apart.curve("sharpness", "mid"), together.curve("sharpness", "mid"), strict=True
    ):
        assert one.moments == pytest.approx(other.moments, rel=1e-10)


def test_absent_columns_are_passed_over() -> None:
    curves = AttentionCurves()
    curves.add(attention(3).drop_columns(["log_snr", "branch", "layer", "word"]))
    assert curves.names("sharpness") == ["all layers"]
    curves.add(pa.table({"key": ["a"]}))
    latents = LatentCurves()
    latents.add(pa.table({"step": [0, 1], "std": [1.0, None]}))
    assert latents.curve("std").steps == [0]
    assert latents.curve("eps_std").steps == []


def test_function_words_and_punctuation_are_no_content() -> None:
    kinds = {w: word_kind(w) for w in ("red", "The", "Ġof", "▁on</w>", ",", "", "sept")}
    assert [w for w, kind in kinds.items() if kind == "content words"] == ["red", "sept"]
    assert kinds[","] is None
    assert kinds["Ġof"] == "function words"


def test_latent_band_is_the_quantiles_over_samples() -> None:
    values = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    curves = LatentCurves()
    for part in (values[:150], values[150:]):
        steps = np.tile([0, 1], len(part))
        curves.add(pa.table({"step": steps, "std": part.ravel()}))
    curve = curves.curve("std")
    assert curves.samples == 400
    assert curve.low == pytest.approx(np.quantile(values, 0.1, axis=0), abs=1e-6)
    assert curve.median == pytest.approx(np.median(values, axis=0), abs=1e-6)


def test_long_trajectories_keep_a_bounded_number_of_steps() -> None:
    curves = LatentCurves()
    curves.add(pa.table({"step": np.arange(1000), "std": np.ones(1000)}))
    steps = curves.curve("std").steps
    assert len(steps) == MAX_STEPS
    assert (steps[0], steps[-1]) == (0, 999)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 100, 10_000])
def test_student_t_is_scipys(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.012)


def test_every_point_of_every_curve_is_in_the_table() -> None:
    words, noise = AttentionCurves(), LatentCurves()
    words.add(attention(5))
    rng = np.random.default_rng(1)
    std = rng.normal(1.0, 0.2, (40, 3))
    noise.add(pa.table({"step": np.tile(np.arange(3), 40), "std": std.ravel()}))
    charts = [*attention_charts(words), *latent_charts(noise)]
    rows = list(csv.DictReader(io.StringIO(curves_csv(charts))))
    drawn = [(chart.slug, line.name) for chart in charts for line in chart.series for _ in line.x]
    assert [(row["chart"], row["line"]) for row in rows] == drawn
    found = [row for row in rows if row["chart"] == "latents-std"]
    for step, row in enumerate(found):
        assert (float(row["x"]), row["x_is"], row["value_is"]) == (step, "step", "std")
        numbers = [float(row[name]) for name in ("low", "value", "high")]
        expected = np.quantile(std[:, step].astype(np.float32).astype(float), [0.1, 0.5, 0.9])
        assert numbers == pytest.approx(expected.tolist(), abs=1e-12)
    (mid, *_) = words.curve("sharpness", "mid")
    row = next(row for row in rows if row["line"] == "mid")
    assert float(row["value"]) == mid.moments.mean
    assert float(row["high"]) - float(row["value"]) == pytest.approx(mid.moments.half_width)


def test_a_line_without_a_band_and_a_hostile_name_fit_the_table() -> None:
    line = Series("=1+1\x1b[31m", [0.0, 1.0], [2.0, math.nan])
    chart = Chart("c", "t", "d", "step", "std", [line])
    assert curves_csv([chart]).splitlines()[1:] == [
        "c,'=1+1,0.0,step,2.0,std,,",
        "c,'=1+1,1.0,step,,std,,",
    ]

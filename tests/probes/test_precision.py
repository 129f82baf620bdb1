"""Half precision on disk: each number as it was, to eleven bits, or null and the reason."""

import numpy as np
import pyarrow as pa
import pytest

from evaluator.errors import ConfigError
from evaluator.probes import AttentionProbe
from evaluator.probes.precision import LARGEST, stored
from evaluator.probes.schemas import (
    ATTENTION_SCHEMA,
    ATTENTION_STATISTICS,
    HEATMAP_SCHEMA,
    PAIR_STATISTICS,
)
from evaluator.store.schemas import read_table, write_table

TEXTS = ("a red seven", "", "a blue fox and a dog")


def attention(**columns):
    """A table of `ATTENTION_SCHEMA` with some columns, null elsewhere."""
    num_rows = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[f.name], f.type)
        if f.name in columns
        else pa.array([0] * num_rows, f.type) if not f.nullable else pa.nulls(num_rows, f.type)
        for f in ATTENTION_SCHEMA
    ]  # fmt: skip
    return pa.table(arrays, ATTENTION_SCHEMA)


def rounded(values):
    """The nearest float16, by brute force over all of them; ties to the even one."""
    bits = np.arange(0x7C00, dtype=np.uint16)
    candidates = bits.view(np.float16).astype(np.float64)
    found = []
    for value in values:
        distance = np.abs(candidates - abs(value))
        nearest = np.flatnonzero(distance == distance.min())
        found.append(np.copysign(candidates[min(nearest, key=lambda i: bits[i] % 2)], value))
    return found


def test_numbers_are_rounded_to_the_nearest_half():
    draw = np.random.default_rng(0)
    values = np.exp(draw.uniform(np.log(1e-9), np.log(6e4), 300)).astype(np.float32)
    values = np.concatenate([values, [0, 1, 65504, 65519, 2**-24, 2**-25, 1 + 2**-11]])
    table = stored(attention(mass=values.astype(np.float32)), ATTENTION_STATISTICS, "float16")
    assert table.schema.field("mass").type == pa.float16()
    found = table.column("mass").to_pylist()
    assert found == rounded(values.astype(np.float32).astype(np.float64))
    error = np.abs(np.array(found) - values.astype(np.float32))
    assert (error <= np.maximum(values * 2.0**-11, 2.0**-25)).all()


def test_what_half_cannot_hold_is_null_and_says_so():
    ratios = [65519.0, 65520.0, 1e6, None, np.inf, 2.0]
    notes = [None, None, "before", None, None, None]
    table = attention(peak_ratio=ratios, mass=[0.5, 0.25, 0.125, None, 1.0, 1.0], note=notes)
    half = stored(table, ATTENTION_STATISTICS, "float16")
    assert half.column("peak_ratio").to_pylist() == [LARGEST, None, None, None, np.inf, 2.0]
    said = f"peak_ratio is above {LARGEST}, which float16 cannot hold"
    assert half.column("note").to_pylist() == [None, said, f"before; {said}", None, None, None]
    assert half.column("mass").to_pylist() == table.column("mass").to_pylist()
    assert stored(table, ATTENTION_STATISTICS, "float32") is table


def test_maps_keep_their_rows_and_lengths():
    maps = [[0.1, 0.2, 0.3], [], [1e-9], [0.25] * 4]
    rows = [
        dict.fromkeys(HEATMAP_SCHEMA.names, 0) | {"token_text": "a", "map": values}
        for values in maps
    ]
    table = pa.Table.from_pylist(rows, HEATMAP_SCHEMA).slice(1)
    half = stored(table, ("map",), "float16")
    assert half.schema.field("map").type == pa.list_(pa.float16())
    expected = [np.array(values, np.float16).tolist() for values in maps[1:]]
    assert half.column("map").to_pylist() == expected
    assert stored(HEATMAP_SCHEMA.empty_table(), ("map",), "float16").schema == half.schema


def test_the_probe_gives_the_same_rows_in_half(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    settings = {"steps": 2, "pairs": True, "maps": 1, "full": 1}
    single = tiny.observe(model, prompts, AttentionProbe(**settings)).tables
    half = tiny.observe(model, prompts, AttentionProbe(**settings, dtype="float16")).tables
    assert single.keys() == half.keys()
    changed = {"attention": ATTENTION_STATISTICS, "attention_pairs": PAIR_STATISTICS,
               "heatmaps": ("map",), "heatmaps_layers": ("map",)}  # fmt: skip
    for name, table in half.items():
        columns = changed.get(name, ())
        for field in table.schema:
            before, after = single[name].column(field.name), table.column(field.name)
            if field.name not in columns:
                assert after.equals(before), (name, field.name)
                continue
            assert after.null_count == before.null_count
            if field.name == "map":
                assert field.type == pa.list_(pa.float16())
                flat = [np.concatenate(c.to_pylist()) for c in (before, after)]
                np.testing.assert_array_equal(flat[0].astype(np.float16), flat[1])
                continue
            assert field.type == pa.float16()
            nearest = before.to_numpy().astype(np.float16)
            np.testing.assert_array_equal(nearest, after.to_numpy())


def test_half_is_read_as_single_wherever_it_lies_in_a_row(tmp_path):
    table = pa.table({
        "key": ["a", "b"],
        "mass": pa.array([0.5, None], pa.float16()),
        "map": pa.array([[0.25, 1.0], []], pa.list_(pa.float16())),
        "features": pa.array([[1.0, 2.0], None], pa.list_(pa.float16(), 2)),
        "log_snr": pa.array([-4.25, np.inf], pa.float32()),
    })  # fmt: skip
    write_table(table, tmp_path / "t.parquet", kind="attention")
    found = read_table(tmp_path / "t.parquet", kind="attention")
    assert found.to_pydict() == table.to_pydict()
    assert found.schema.field("mass").type == pa.float32()
    assert found.schema.field("map").type == pa.list_(pa.float32())
    assert found.schema.field("features").type == pa.list_(pa.float16(), 2)
    only = read_table(tmp_path / "t.parquet", kind="attention", columns=["mass"])
    assert only.column("mass").to_pylist() == [0.5, None]


def test_a_dtype_that_no_statistic_is_stored_as_is_refused():
    with pytest.raises(ConfigError, match=r"dtype: expected one of float16, float32; got 'half'"):
        AttentionProbe(dtype="half")

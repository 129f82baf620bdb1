"""Two tables that ought to say the same, but for what rounding in another order changes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def assert_same_tables(found: pa.Table, expected: pa.Table, *, rtol: float, atol: float) -> None:
    """Equal schemas and rows; floats within a tolerance, NaN and null where the other has them."""
    assert found.schema == expected.schema
    assert found.num_rows == expected.num_rows > 0
    for name in found.column_names:
        ours, others = found[name].combine_chunks(), expected[name].combine_chunks()
        while pa.types.is_list(ours.type) or pa.types.is_fixed_size_list(ours.type):
            assert ours.value_lengths().equals(others.value_lengths()), name
            ours, others = ours.flatten(), others.flatten()
        assert ours.is_null().equals(others.is_null()), name
        if pa.types.is_floating(ours.type):
            values = [np.asarray(column.drop_null(), np.float64) for column in (ours, others)]
            np.testing.assert_allclose(*values, rtol=rtol, atol=atol, err_msg=name)
        else:
            assert ours.equals(others), name

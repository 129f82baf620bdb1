"""Which set an update belongs to, and what a metric says about single samples."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from evaluator.errors import MetricError
from evaluator.metrics import FrechetDistance, Result, SampleRows, VendiScore
from evaluator.metrics.accumulators import FAKE, HELD_OUT, REAL, GatheredMetric


class Nearest(GatheredMetric):
    """A metric of three sides that says something about each sample."""

    default_names = ("sum",)
    directions = (True,)
    sides = (FAKE, REAL, HELD_OUT)

    def _results(self) -> tuple[Result, ...]:
        counts = [len(self._in_plan_order(side)) for side in self.sides]
        fake = self._in_plan_order(FAKE)
        order = self._plan_order(FAKE)
        self._rows = SampleRows(
            positions=self._joined("fake_positions")[order].numpy(),
            columns={"double": 2 * fake.numpy()},
        )
        return (self._result(float(sum(counts)), counts[0]),)


def filled() -> Nearest:
    metric = Nearest(shape=())
    for start, side in enumerate(({}, {"real": True}, {"held_out": True})):
        indices = torch.tensor([4, 2, 7]) + start
        metric.update(indices.double(), indices, torch.zeros_like(indices), **side)
    return metric


def test_three_sets_are_kept_apart_and_rows_come_in_plan_order() -> None:
    metric = filled()
    assert metric.sample_rows() is None
    assert (metric.compute()[0].value, metric.compute()[0].n) == (9.0, 3)
    rows = metric.sample_rows()
    assert rows.positions.tolist() == [2, 4, 7]
    assert rows.columns["double"].tolist() == [4.0, 8.0, 14.0]
    assert rows.nearest is None
    assert metric._in_plan_order(HELD_OUT).tolist() == [4.0, 6.0, 9.0]


def test_rows_last_as_long_as_the_result() -> None:
    metric = filled()
    metric.compute()
    copy = pickle.loads(pickle.dumps(metric))
    assert np.array_equal(copy.sample_rows().positions, metric.sample_rows().positions)
    metric.update(torch.ones(1), torch.tensor([9]), torch.tensor([0]))
    assert metric.sample_rows() is None
    for forget in (copy.reset, lambda: copy.merge_state(filled())):
        copy.compute()
        assert copy.sample_rows() is not None
        forget()
        assert copy.sample_rows() is None


def test_a_metric_without_rows_says_none() -> None:
    metric = VendiScore(2)
    metric.update(torch.eye(2), torch.arange(2), torch.arange(2))
    metric.compute()
    assert metric.sample_rows() is None


@pytest.mark.parametrize(
    ("metric", "sides", "message"),
    [
        (
            Nearest(shape=(2,)),
            {"real": True, "held_out": True},
            "samples of one set, got real=True",
        ),
        (FrechetDistance(2), {"held_out": True}, "FrechetDistance: expected no held-out samples"),
        (VendiScore(2), {"real": True}, "VendiScore: expected generated samples only"),
    ],
)
def test_a_set_that_the_metric_does_not_take_is_refused(metric, sides, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        metric.update(torch.eye(2), torch.arange(2), torch.arange(2), **sides)

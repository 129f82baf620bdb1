"""The training of the digits world: resumable to the bit, and painting what the data paint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluator.demo import architecture
from evaluator.demo.digits import PAIRS, load, tint
from evaluator.demo.fitting import Loss, Progress, Schedule, fit


class PowerCut(Exception):
    """Stands for whatever ends a training early."""


def _toy_loss(model: nn.Module, *, fail_at: int | None = None) -> Loss:
    """Least squares on drawn points; raises at call number `fail_at`."""
    calls = iter(range(1000))

    def loss(generator: torch.Generator) -> Tensor:
        if next(calls) == fail_at:
            raise PowerCut
        points = torch.randn((8, 4), generator=generator)
        return (model(points) - points.sum(1, keepdim=True)).square().mean()

    return loss


def _train(work: Path, *, fail_at: int | None = None) -> tuple[dict[str, Tensor], Progress]:
    model = architecture.seeded(lambda: nn.Linear(4, 1))
    schedule = Schedule(steps=30, learning_rate=0.05, warmup=3)
    loss = _toy_loss(model, fail_at=fail_at)
    progress = fit(
        "toy", model, loss, schedule=schedule, work=work, seconds_between_checkpoints=0.0
    )
    return model.state_dict(), progress


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, progress = _train(tmp_path / "whole")
    with pytest.raises(PowerCut):
        _train(tmp_path / "cut", fail_at=17)
    resumed, again = _train(tmp_path / "cut")
    assert progress.step == again.step == 30
    assert progress.loss == again.loss
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    whole, _ = _train(tmp_path)
    again, progress = _train(tmp_path, fail_at=0)
    assert progress.step == 30
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_builders_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = architecture.text_encoder(), architecture.text_encoder()
    assert torch.equal(before, torch.random.get_rng_state())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_paints_what_the_data_paint() -> None:
    pytest.importorskip("sklearn", reason="the training data come from scikit-learn")
    from evaluator.demo.recipes import Tints

    digits = load("train")
    ink = digits.ink[: len(PAIRS)]
    painted = Tints(torch.device("cpu")).paint(torch.from_numpy(ink), torch.arange(len(PAIRS)))
    expected = np.stack([tint(one, *pair) for one, pair in zip(ink, PAIRS, strict=True)])
    levels = ((painted + 1) * 127.5).round()
    assert (levels - torch.from_numpy(expected)).abs().max() <= 1

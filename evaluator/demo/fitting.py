"""The training loop of the digits world: seeded, resumable, with averaged weights."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluator.seeds import stream_seed

_SECONDS_BETWEEN_LINES = 20.0

Loss = Callable[[torch.Generator], Tensor]
"""Draws a batch with the generator and returns its scalar loss."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    learning_rate: float
    """The peak, reached after `warmup` steps; then a cosine down to 1 % of it."""
    warmup: int = 100
    decay: float = 0.999
    """Of the exponential moving average of the weights, which is what ships."""
    weight_decay: float = 0.01

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))

    def memory(self, step: int) -> float:
        """Decay of the average at a step: young averages forget the initial weights fast."""
        return min(self.decay, (1 + step) / (10 + step))


@dataclass(slots=True)
class Progress:
    """What a finished or interrupted training has to say for itself."""

    step: int = 0
    loss: float = math.nan
    """Mean over about the last 100 steps."""
    cpu_seconds: float = 0.0
    """Processor time of all threads, which other work on the machine does not stretch."""
    wall_seconds: float = 0.0


def fit(
    name: str,
    model: nn.Module,
    loss: Loss,
    *,
    schedule: Schedule,
    work: Path,
    seconds_between_checkpoints: float = 120.0,
) -> Progress:
    """Train `model` in place and leave the averaged weights in it.

    A step's draws depend on (name, step) only, so a training that was interrupted goes on as if
    it had not been.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    average = {key: value.clone() for key, value in model.state_dict().items()}
    device = next(model.parameters()).device
    progress = _resume(work / f"{name}.pt", model, average, optimizer)
    model.train()
    clock = _Clock(name, schedule, progress)
    while progress.step < schedule.steps:
        generator = torch.Generator(device).manual_seed(stream_seed(0, name, progress.step))
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(progress.step)
        value = loss(generator)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _average(average, model, decay=schedule.memory(progress.step))
        clock.tick(float(value.detach()))
        if clock.checkpoint_due(seconds_between_checkpoints) or progress.step == schedule.steps:
            _save(work / f"{name}.pt", model, average, optimizer, progress)
    model.load_state_dict(average)
    model.eval()
    return progress


@torch.no_grad()
def _average(average: dict[str, Tensor], model: nn.Module, *, decay: float) -> None:
    """Move the average towards the model's present weights."""
    state = model.state_dict()
    floating = [key for key, value in state.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[k] for k in floating], [state[k] for k in floating], 1 - decay)


def _save(
    path: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write everything a resumed training needs; the rename makes it whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
        "progress": {slot: getattr(progress, slot) for slot in Progress.__slots__},
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _resume(
    path: Path, model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> Progress:
    """Load the checkpoint into model, average and optimizer, if there is one."""
    if not path.exists():
        return Progress()
    device = next(model.parameters()).device
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    average.update(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


class _Clock:
    """Keeps the progress record, and says now and then where the training stands."""

    def __init__(self, name: str, schedule: Schedule, progress: Progress) -> None:
        self.name, self.schedule, self.progress = name, schedule, progress
        self.started = self.said = self.saved = self.wall = time.monotonic()
        self.cpu = time.process_time()
        self.first = progress.step

    def tick(self, loss: float) -> None:
        """Count one step, and print a line when the last is old."""
        now, cpu, progress = time.monotonic(), time.process_time(), self.progress
        progress.step += 1
        progress.wall_seconds += now - self.wall
        progress.cpu_seconds += cpu - self.cpu
        self.wall, self.cpu = now, cpu
        # A running mean over 1, 2, ... 100 steps: early losses do not linger in it.
        share = 1 / min(progress.step, 100)
        old = 0.0 if math.isnan(progress.loss) else progress.loss
        progress.loss = old + share * (loss - old)
        if now - self.said > _SECONDS_BETWEEN_LINES or progress.step == self.schedule.steps:
            self.said = now
            left = (self.schedule.steps - progress.step) * (now - self.started)
            left /= progress.step - self.first
            print(
                f"{self.name}: step {progress.step}/{self.schedule.steps} loss {progress.loss:.4f}"
                f" cpu {progress.cpu_seconds:.0f} s, {left / 60:.1f} min left",
                flush=True,
            )

    def checkpoint_due(self, seconds: float) -> bool:
        """Whether the last checkpoint is that old; if so, this one counts as made."""
        due = time.monotonic() - self.saved >= seconds
        if due:
            self.saved = time.monotonic()
        return due

"""The base of all metrics here: samples named by their place in the plan, on any process.

What torchmetrics leaves open is fixed in one place: a process without samples takes part in a
synchronization like any other, generated and real samples never share a state, float64 stays
float64, states are saved with `state_dict`, and a sample that was counted twice is an error.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics.intervals import NUM_GROUPS, Integers, Interval, jackknife_groups
from evaluator.metrics.options import confidence, group_count, whole_number
from evaluator.metrics.results import Result, SampleRows
from evaluator.metrics.rows import gathered, held, in_order
from evaluator.metrics.updates import FAKE as FAKE
from evaluator.metrics.updates import HELD_OUT as HELD_OUT
from evaluator.metrics.updates import REAL as REAL
from evaluator.metrics.updates import check_samples, side_of


class PlannedMetric(Metric):  # type: ignore[misc]  # torchmetrics is not typed
    """Accumulates samples by position; `compute()` returns a tuple of `Result`.

    ```
    metric.update(values, positions, clusters)             # generated samples
    metric.update(values, positions, clusters, real=True)  # the reference
    metric.update(values, positions, clusters, held_out=True)  # where `sides` has it
    metric.compute()                                       # the same on every process
    ```
    """

    full_state_update = False
    default_names: tuple[str, ...] = ()
    """Names of the results, when the constructor is given none."""
    directions: tuple[bool | None, ...] = ()
    """Whether higher is better, for each result."""
    sides: tuple[str, ...] = (FAKE,)
    """Which sets the metric takes."""
    paired: bool = False
    """Whether `positions` of real samples are those of the generated samples they belong to."""

    def __init__(
        self,
        *,
        names: Sequence[str] | None = None,
        groups: int = NUM_GROUPS,
        seed: int = 0,
        level: float = 0.95,
        **kwargs: Any,
    ) -> None:
        """Settings that all metrics share; `kwargs` go to torchmetrics.

        `names` of the results; `groups` of prompts in the jackknife, 0 for no interval; `seed` of
        every random draw; confidence `level`.
        """
        super().__init__(**kwargs)
        self.names = tuple(names) if names is not None else self.default_names
        if len(self.names) != len(self.default_names):
            raise ConfigError(
                f"names: expected {len(self.default_names)}, got {len(self.names)}; "
                f"name the results {', '.join(self.default_names)}"
            )
        self.groups = group_count("groups", groups)
        self.seed = whole_number("seed", seed, at_least=0)
        self.level = confidence("level", level)
        self._rows: SampleRows | None = None
        self._shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for side in self.sides:
            self._add_list(f"{side}_positions", (), torch.int64)

    # --- what a metric implements

    @abstractmethod
    def _accept(self, values: Tensor, clusters: Tensor, side: str) -> None:
        """Take checked values and int64 clusters of one side into the states."""

    @abstractmethod
    def _results(self) -> tuple[Result, ...]:
        """The results, from states that hold the samples of all processes."""

    @abstractmethod
    def _sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample's values: (D,) features, () a score."""

    # --- accumulate

    def update(
        self,
        values: Tensor,
        positions: Tensor,
        clusters: Tensor,
        *,
        real: bool = False,
        held_out: bool = False,
    ) -> None:
        """Add N samples: values (N, D) or (N,), any float dtype, taken as float64.

        `positions` (N,) int64: each sample's place in the plan, unique within its set.
        `clusters` (N,) int64: number of its prompt, from 0.
        """
        side = side_of(type(self).__name__, self.sides, real=real, held_out=held_out)
        self._rows = None
        values, positions, clusters = (
            x.detach().to(self.device) for x in (values, positions, clusters)
        )
        check_samples(values, positions, clusters, self._sample_shape())
        getattr(self, f"{side}_positions").append(positions.to(torch.int64))
        self._accept(values, clusters.to(torch.int64), side)

    # --- states

    def _add_list(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """A state of one row a sample."""
        self._shapes[name] = (shape, dtype)
        self.add_state(name, default=[], dist_reduce_fx="cat", persistent=True)

    def _pieces(self, name: str) -> list[Tensor]:
        """A list state as a list of at least one tensor, of the right shape without samples."""
        state = getattr(self, name)
        if isinstance(state, Tensor):
            return [state]
        shape, dtype = self._shapes[name]
        return [torch.empty(0, *shape, dtype=dtype, device=self.device), *state]

    def _joined(self, name: str) -> Tensor:
        """A list state as one tensor."""
        return torch.cat(self._pieces(name))

    def _plan_order(self, side: str) -> Tensor:
        """The permutation that sorts a side's samples by position; raises on a repeat."""
        positions = self._joined(f"{side}_positions")
        ordered, order = positions.sort(stable=True)
        repeats = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeats):
            raise MetricError(
                f"{side} samples: expected each position once, got {repeats[:10].tolist()} more "
                "than once; each process must update with its own range of the plan"
            )
        return order

    def _group_of(self, clusters: Tensor) -> Integers:
        """Jackknife group of each sample; all 0 without groups."""
        if not self.groups:
            return np.zeros(len(clusters), dtype=np.int64)
        return jackknife_groups(clusters.cpu().numpy(), groups=self.groups, seed=self.seed)

    # --- compute

    def compute(self) -> tuple[Result, ...]:
        """The results over all samples of all processes."""
        for side in self.sides:
            self._plan_order(side)
        return self._results()

    def sample_rows(self) -> SampleRows | None:
        """What `compute()` found out about each generated sample; None before, or if nothing."""
        return self._rows

    def _result(
        self,
        value: float | None,
        n: int,
        *,
        index: int = 0,
        interval: Interval | None = None,
        warnings: Sequence[str] = (),
        details: dict[str, float] | None = None,
    ) -> Result:
        """The result number `index`, with its name and direction."""
        direction = self.directions[index]
        return Result(
            self.names[index], value, n, direction, interval, tuple(warnings), details or {}
        )

    def _refused(self, why: str, n: int) -> tuple[Result, ...]:
        """No number, and the sentence that says why."""
        indices = range(len(self.names))
        return tuple(self._result(None, n, index=index, warnings=(why,)) for index in indices)

    # --- torchmetrics, where it would lose something

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None
    ) -> None:
        """Gather each list as exactly one tensor a process, in the same order everywhere."""
        group = process_group or self.process_group
        for name in self._shapes:
            setattr(self, name, gathered(self._joined(name), dist_sync_fn, group))

    @property
    def update_called(self) -> bool:
        """Always: a process without samples computes like the others."""
        return True

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Nothing: states stay as wide as they are."""
        return self

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the samples of another metric with the same settings."""
        if isinstance(incoming_state, PlannedMetric):
            self._same_settings(incoming_state.get_extra_state())
        super().merge_state(incoming_state)
        self._computed = self._rows = None

    def get_extra_state(self) -> dict[str, Any]:
        """What decides the meaning of the states; saved with them."""
        return {
            "metric": type(self).__name__,
            "shape": list(self._sample_shape()),
            "groups": self.groups,
            "seed": self.seed,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuse states of a metric with other settings."""
        self._same_settings(state)

    def _same_settings(self, other: dict[str, Any]) -> None:
        own = self.get_extra_state()
        if own != other:
            raise MetricError(
                f"states: expected those of {own}, got those of {other}; "
                "build the metric with the same settings"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load copies, so that no later update writes into the caller's dictionary."""
        for name in self._defaults:
            value = state_dict.get(prefix + name)
            if isinstance(value, Tensor):
                state_dict[prefix + name] = value.clone().to(self.device)
            elif value is not None:
                state_dict[prefix + name] = [item.clone().to(self.device) for item in value]
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._computed = self._rows = None

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._rows = None


class GatheredMetric(PlannedMetric):
    """A metric that needs every sample in one place: features, logits or scores, and prompts.

    Holds 4·D bytes a sample on each process after a synchronization, 8·D with float64 among them.
    """

    def __init__(self, *, shape: tuple[int, ...], **kwargs: Any) -> None:
        """`shape` of one sample's values."""
        self._shape = shape
        super().__init__(**kwargs)
        for side in self.sides:
            self._add_list(f"{side}_values", shape, torch.float32)
        self._add_list("fake_clusters", (), torch.int64)

    def _sample_shape(self) -> tuple[int, ...]:
        return self._shape

    def _accept(self, values: Tensor, clusters: Tensor, side: str) -> None:
        getattr(self, f"{side}_values").append(held(values))
        if side == FAKE:
            self.fake_clusters.append(clusters)

    def _in_plan_order(self, side: str, *, wide: bool = True) -> Tensor:
        """The values of one side by position, the states sorted with them; float64 if `wide`."""
        order = self._plan_order(side)
        for name in (name for name in self._shapes if name.startswith(f"{side}_")):
            setattr(self, name, [in_order(self._pieces(name), order)])
        values: Tensor = getattr(self, f"{side}_values")[0]
        return values.to(torch.float64) if wide else values

    def _clusters_in_plan_order(self) -> Tensor:
        """The prompt numbers of the generated samples, sorted by position."""
        return self._joined("fake_clusters")[self._plan_order(FAKE)]

"""The four kinds of part that anyone may add: model, extractor, metric, probe.

Nothing is inherited and nothing registers itself. A part is found by a built-in name, by an
installed entry point in the group `evaluator.<kind>`, or as `module:attr`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from evaluator.errors import SampleError
    from evaluator.records import Prompt


STANDING = {"evaluator.rows": "standing"}
"""Schema metadata of an observation's table that holds for its sample and all that follow, until
another takes its place: a run leaves out what repeats within a shard."""


@runtime_checkable
class GenerativeModel(Protocol):
    """What makes (or reads) images."""

    fingerprint: str
    """SHA-256 over the weights and all settings that change an image."""

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline that probes attach to; None where there is none."""

    def generate(
        self, prompts: Sequence[Prompt], image_indices: Sequence[int], seeds: Sequence[int]
    ) -> list[Tensor | SampleError]:
        """One image for each prompt, in order: (3, H, W) uint8 on the CPU.

        A prompt whose own fault prevents its image gives a `SampleError` in its place.
        Row i depends on `prompts[i]` and `seeds[i]` alone.
        """

    def truncated(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Whether each prompt is longer than the text encoder takes."""

    def describe(self) -> Mapping[str, Any]:
        """Provenance: class, revision, weights hash, scheduler, dtype, device."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """What turns images into features. One forward pass gives every output."""

    name: str
    outputs: Mapping[str, int]
    """Output name → dimension. `features` is always there; logits and others may follow."""
    fingerprint: str
    """SHA-256 over weights, preprocessing and dtype; library versions are recorded elsewhere."""

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → the network's input, one image; runs beside the device."""

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """A stack of preprocessed images → each output as (N, dim) float32 on the CPU."""


@runtime_checkable
class TextExtractor(Protocol):
    """The text side of an extractor that has one (CLIP, SigLIP)."""

    def embed_text(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """(N, dim) float32 text features, and whether each text was truncated."""


@runtime_checkable
class SampleMetric(Protocol):
    """What turns a pass over samples into numbers: a torchmetrics `Metric` with this `update`.

    Built as `factory(dim=…, **options)`, once on every process; torchmetrics synchronizes the
    states before `compute`.
    """

    def update(self, values: Tensor, positions: Tensor, clusters: Tensor) -> None:
        """Take some samples, in any order; possibly none.

        `values` is (N, dim) float32 features or logits, or (N,) float64 scores; `positions` (N,)
        int64 places in the plan; `clusters` (N,) int64 numbers of the samples' prompts. A metric
        that compares also takes `real: bool` by keyword, and one with a held-out set `held_out:
        bool`: True for samples of that side.
        """

    def compute(self) -> Sequence[Any]:
        """The numbers, each an `evaluator.metrics.Result`."""


@runtime_checkable
class Probe(Protocol):
    """What watches a model while it generates. It must not change one bit of the images.

    One that has a method `check(model)` is asked there, before anything is made, to raise what
    speaks against watching this model.
    """

    name: str
    """Name of the table that its rows go to."""

    def attach(
        self, model: GenerativeModel, prompts: Sequence[Prompt], positions: Sequence[int]
    ) -> AbstractContextManager[Observation]:
        """Watch one call of `model.generate(prompts, …)`; `positions` are places in the plan."""


@runtime_checkable
class Observation(Protocol):
    """What a probe saw during one batch."""

    def tables(self) -> Mapping[str, pa.Table]:
        """Table name → rows. The int32 column `sample` says which prompt of the batch.

        Tables whose schema has the metadata `STANDING` are kept where they change only.

        Raises ProbeError when something ran that should have been seen and was not.
        """

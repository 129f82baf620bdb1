"""From images to an extractor's table: fixed batches, a padded tail, nulls for no image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from evaluator.protocols import FeatureExtractor, TextExtractor
from evaluator.runner.memory import MicroBatch
from evaluator.runner.stopwatch import Stopwatch
from evaluator.store.schemas import features_schema

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.records import Prompt

LOSSLESS = ("none", "png", "webp")
"""Ways to keep images that do not change a pixel."""

TEXT_SCORES = (("text_cosine", pa.float64()), ("text_truncated", pa.bool_()))
"""Per-sample scores of an extractor with a text side: cosine of image and prompt in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Embedder:
    """An extractor, with the batches and the storage that a configuration gives it."""

    name: str
    """What tables and metrics call it: the configuration's word, whatever the class says."""
    extractor: FeatureExtractor
    batch_size: int
    storage: str = "float32"
    memory: MicroBatch = field(default_factory=lambda: MicroBatch("embedding"), compare=False)

    @property
    def micro_batch(self) -> int:
        """Samples that go through at once; less than a batch where the memory does not suffice."""
        return self.memory.size or self.batch_size

    def fingerprint(self, images: str) -> str:
        """Of the features: the extractor's, and what changes them after it.

        That is the codec of the kept `images` where it loses pixels, and half precision.
        """
        lossy = [images] if images not in LOSSLESS else []
        lossy += [self.storage] if self.storage != "float32" else []
        if not lossy:
            return self.extractor.fingerprint
        return hashlib.sha256("\n".join([self.extractor.fingerprint, *lossy]).encode()).hexdigest()


@dataclass
class EmbeddedRows:
    """The rows of one extractor's table, batch by batch, in plan order.

    Batches are cut every `batch_size` samples from the shard's first, whatever the batches in
    which images arrive: the same companions then share a forward pass, in the run and later.
    """

    embedder: Embedder
    watch: Stopwatch = field(default_factory=Stopwatch)
    """Told of every batch, as stage `embed:<extractor>`."""
    outputs: dict[str, list[np.ndarray]] = field(default_factory=dict)
    valid: list[bool] = field(default_factory=list)
    cosines: list[float | None] = field(default_factory=list)
    truncated: list[bool | None] = field(default_factory=list)
    _waiting: list[tuple[Tensor | None, Prompt]] = field(default_factory=list)

    def add(self, images: Sequence[Tensor | None], prompts: Sequence[Prompt]) -> None:
        """Take the next samples; `images` holds None where a sample has no image."""
        for pair in zip(images, prompts, strict=True):
            self._waiting.append(pair)
            if len(self._waiting) == self.embedder.batch_size:
                self._embed()

    def finish(self) -> None:
        """Embed the shard's tail."""
        if self._waiting:
            self._embed()

    def _embed(self) -> None:
        """Embed what waits, on the watch."""
        rows = range(len(self.valid), len(self.valid) + len(self._waiting))
        with self.watch.stage(f"embed:{self.embedder.name}", rows) as lap:
            self._embed_batch()
            lap.micro_batch = self.embedder.micro_batch

    def _embed_batch(self) -> None:
        """Embed what waits, padded to a full batch.

        A row's bits then do not depend on how many companions the tail of a shard has.
        """
        import torch

        images = [image for image, _ in self._waiting]
        prompts = [prompt for _, prompt in self._waiting]
        self._waiting.clear()
        batch_size, extractor = self.embedder.batch_size, self.embedder.extractor
        present = [image for image in images if image is not None]
        filler = present[-1] if present else torch.zeros(3, 64, 64, dtype=torch.uint8)
        padded = [filler if image is None else image for image in images]
        padded += [padded[-1]] * (batch_size - len(padded))
        inputs = torch.stack([extractor.preprocess(image) for image in padded])
        parts = self.embedder.memory.split(len(inputs), lambda a, b: extractor.embed(inputs[a:b]))
        # Asked for on the CPU, but code that forgot works everywhere else.
        embedded = {
            name: torch.cat([part[name] for part in parts]).cpu() for name in extractor.outputs
        }
        for name, values in embedded.items():
            self.outputs.setdefault(name, []).append(values[: len(images)].numpy())
        self.valid += [image is not None for image in images]
        if isinstance(extractor, TextExtractor):
            self._score_texts(extractor, embedded["features"], prompts)

    def _score_texts(
        self, extractor: TextExtractor, features: Tensor, prompts: Sequence[Prompt]
    ) -> None:
        import torch

        count = len(prompts)
        texts = [prompt.text or "" for prompt in prompts]
        texts += [texts[-1]] * (self.embedder.batch_size - count)
        parts = self.embedder.memory.split(
            len(texts), lambda a, b: extractor.embed_text(texts[a:b])
        )
        text_features = torch.cat([features for features, _ in parts]).cpu()
        cut = [is_cut for _, cuts in parts for is_cut in cuts]
        cosines = torch.nn.functional.cosine_similarity(features.double(), text_features.double())
        for i in range(count):
            has_text = prompts[i].text is not None
            self.cosines.append(float(cosines[i]) if has_text and self.valid[i - count] else None)
            self.truncated.append(cut[i] if has_text else None)

    def note(self, fingerprint: str) -> dict[str, object]:
        """What the table's metadata says about where its numbers come from."""
        return {
            "extractor": self.embedder.name,
            "fingerprint": fingerprint,
            "extractor_fingerprint": self.embedder.extractor.fingerprint,
            "logits": getattr(self.embedder.extractor, "logits", None),
        }

    def table(self, keys: Sequence[str], image_indices: Sequence[int]) -> pa.Table:
        """The extractor's table for these samples."""
        outputs, scored = self.embedder.extractor.outputs, bool(self.cosines)
        storage = self.embedder.storage
        schema = features_schema(outputs, TEXT_SCORES if scored else (), storage)
        missing = pa.array([not valid for valid in self.valid], pa.bool_())
        columns: list[pa.Array] = [
            pa.array(keys, pa.string()),
            pa.array(image_indices, pa.int32()),
        ]
        for name, dim in outputs.items():
            values = np.concatenate(self.outputs[name]).astype(storage, copy=False)
            values = np.where(np.asarray(self.valid)[:, None], values, np.dtype(storage).type(0))
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, dim, mask=missing))
        if scored:
            columns += [pa.array(self.cosines, pa.float64()), pa.array(self.truncated, pa.bool_())]
        return pa.table(columns, schema=schema)

"""From images to an extractor's table: fixed batches, a padded tail, nulls for no image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from evaluator.protocols import FeatureExtractor, TextExtractor
from evaluator.store.schemas import features_schema

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.records import Prompt

TEXT_SCORES = (("text_cosine", pa.float64()), ("text_truncated", pa.bool_()))
"""Per-sample scores of an extractor with a text side: cosine of image and prompt in [-1, 1]."""


@dataclass
class EmbeddedRows:
    """The rows of one extractor's table, batch by batch, in plan order."""

    extractor: FeatureExtractor
    outputs: dict[str, list[np.ndarray]] = field(default_factory=dict)
    valid: list[bool] = field(default_factory=list)
    cosines: list[float | None] = field(default_factory=list)
    truncated: list[bool | None] = field(default_factory=list)

    def add_batch(
        self, images: Sequence[Tensor | None], prompts: Sequence[Prompt], batch_size: int
    ) -> None:
        """Embed one batch; `images` holds None where a sample has no image.

        The batch is padded to `batch_size`, so that a row's bits do not depend on how many
        companions the tail of a shard has.
        """
        import torch

        present = [image for image in images if image is not None]
        filler = present[-1] if present else torch.zeros(3, 64, 64, dtype=torch.uint8)
        padded = [filler if image is None else image for image in images]
        padded += [padded[-1]] * (batch_size - len(padded))
        inputs = torch.stack([self.extractor.preprocess(image) for image in padded])
        embedded = self.extractor.embed(inputs)
        for name in self.extractor.outputs:
            self.outputs.setdefault(name, []).append(embedded[name][: len(images)].numpy())
        self.valid += [image is not None for image in images]
        if isinstance(self.extractor, TextExtractor):
            self._score_texts(embedded["features"], prompts, len(images), batch_size)

    def _score_texts(
        self, features: Tensor, prompts: Sequence[Prompt], count: int, batch_size: int
    ) -> None:
        import torch

        assert isinstance(self.extractor, TextExtractor)
        texts = [prompt.text or "" for prompt in prompts]
        texts += [texts[-1]] * (batch_size - len(texts))
        text_features, cut = self.extractor.embed_text(texts)
        cosines = torch.nn.functional.cosine_similarity(features.double(), text_features.double())
        for i in range(count):
            has_text = prompts[i].text is not None
            self.cosines.append(float(cosines[i]) if has_text and self.valid[i - count] else None)
            self.truncated.append(cut[i] if has_text else None)

    def note(self, fingerprint: str) -> dict[str, object]:
        """What the table's metadata says about where its numbers come from."""
        return {
            "extractor": self.extractor.name,
            "fingerprint": fingerprint,
            "logits": getattr(self.extractor, "logits", None),
        }

    def table(self, keys: Sequence[str], image_indices: Sequence[int]) -> pa.Table:
        """The extractor's table for these samples."""
        scored = bool(self.cosines)
        schema = features_schema(self.extractor.outputs, TEXT_SCORES if scored else ())
        missing = pa.array([not valid for valid in self.valid], pa.bool_())
        columns: list[pa.Array] = [
            pa.array(keys, pa.string()),
            pa.array(image_indices, pa.int32()),
        ]
        for name, dim in self.extractor.outputs.items():
            values = np.concatenate(self.outputs[name]).astype(np.float32, copy=False)
            values = np.where(np.asarray(self.valid)[:, None], values, np.float32(0))
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, dim, mask=missing))
        if scored:
            columns += [pa.array(self.cosines, pa.float64()), pa.array(self.truncated, pa.bool_())]
        return pa.table(columns, schema=schema)

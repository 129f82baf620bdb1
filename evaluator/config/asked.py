"""What is asked of the samples: references, features, metrics. It may grow while samples stay."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evaluator.config.sections import NumericSection


class _Reading(NumericSection):
    """How a source is read."""

    limit: int | None = Field(None, ge=1)
    """Take the first N only."""
    key_column: str | None = None
    """Column that holds the keys; found by its name when not given."""
    text_column: str | None = None
    """Column that holds the text; found by its name when not given."""
    image_column: str | None = None
    """Column that holds the images; found by its name when not given."""
    captions: str | None = None
    """Captions of images: `.jsonl`, `.csv` with `file_name`; `.txt`, a line an image by name."""


class SourceConfig(_Reading):
    """Where prompts or images come from."""

    source: str
    """File, folder, zip, tar shards, pack; `package://…`, `s3://…`, `gs://…` or `hf://…`."""


class ReferenceConfig(_Reading):
    """What a run is compared with: images, another run, published moments."""

    source: str | None = None
    """Real images, in any of the forms that `prompts.source` takes."""
    run: str | None = None
    """Run directory of another evaluation, instead of `source`."""
    moments: str | None = None
    """`.npz` with `mu` and `sigma`, which Fréchet distances take in place of the images'."""

    @model_validator(mode="after")
    def _something_to_compare_with(self) -> ReferenceConfig:
        if self.source is not None and self.run is not None:
            raise ValueError("expected 'source' or 'run', got both")
        if self.source is None and self.run is None and self.moments is None:
            raise ValueError("expected one of 'source', 'run' and 'moments', got none")
        return self

    @property
    def images(self) -> SourceConfig | None:
        """The real images, where the reference is made from some."""
        if self.source is None:
            return None
        return SourceConfig.model_validate(self.model_dump(include=set(SourceConfig.model_fields)))


class FeatureConfig(NumericSection):
    """One extractor."""

    name: str
    """What tables and metrics call it: `clip`."""
    kind: str | None = None
    """Built-in kind, entry point in `evaluator.extractor`, or `module:attr`; None: the name."""
    id: str | None = None
    """Weights: hub id, folder, file, or `package://name/path`; None takes the kind's own."""
    revision: str | None = None
    """Branch, tag or commit of the weights."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the network's arithmetic."""
    batch_size: int | None = Field(None, ge=1)
    """Images a forward pass; None takes that of `runtime`."""
    storage: Literal["float32", "float16"] = "float32"
    """Type that features are stored as; float16 halves the tables and is part of the numbers."""
    options: dict[str, Any] = Field({})
    """Further keyword arguments: `resize: legacy` of `inception`, or those of your own."""

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.]*", value):
            raise ValueError("expected lower-case letters, digits, '_' and '.': it names files")
        return value


class MetricConfig(BaseModel):
    """One metric; fields that are not named here are its options (`k: 5`)."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """`fid`, `kid`, `prdc`, `fd_<extractor>`, or `module:attr`."""
    extractor: str | None = None
    """Features to compute it from; None takes the metric's own."""
    reference: str | None = None
    """Which reference; None takes the only one."""
    held_out: str | None = None
    """Reference with real images that the model was not trained on, where a metric asks for it."""
    by: str | None = None
    """Tag of the prompts; the metric is computed for each of its values too."""

    @property
    def options(self) -> dict[str, Any]:
        """What the metric itself understands."""
        return dict(self.model_extra or {})

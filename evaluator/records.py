"""The nouns that travel through an evaluation: Prompt, Sample, Shard."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
"""What a key may look like. It names tar members, so it holds no dot and no separator."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def is_safe_key(key: str) -> bool:
    """Whether `key` may be used as it is: letters, digits, `_` and `-`, at most 200."""
    return SAFE_KEY.match(key) is not None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one sample is made from."""

    key: str
    """Identity of the prompt in its pack; matches `SAFE_KEY`."""
    text: str | None = None
    """The text prompt; None for unconditional models and for images without a caption."""
    negative_prompt: str | None = None
    """What guidance steers away from; None takes the configuration's."""
    class_label: int | None = None
    """Class index for class-conditional models."""
    tags: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Names to group results by: category, region, challenge."""
    objects: tuple[Mapping[str, Any], ...] = ()
    """Objects that the image should show, for judges that look for them."""
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """Anything else the source said about the prompt."""
    attachments: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Name (`control`, `init`, `mask`) → part of the packed sample that holds it."""

    def to_json(self) -> str:
        """The prompt as one line of canonical JSON: sorted keys, no defaults."""
        record: dict[str, Any] = {"key": self.key}
        for name in ("text", "negative_prompt", "class_label"):
            if getattr(self, name) is not None:
                record[name] = getattr(self, name)
        for name in ("tags", "metadata", "attachments"):
            if getattr(self, name):
                record[name] = dict(getattr(self, name))
        if self.objects:
            record["objects"] = [dict(item) for item in self.objects]
        return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Prompt:
        """The inverse of `to_json`; raises ValueError on anything that is not a prompt."""
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(record.get("key"), str):
            raise ValueError("expected a JSON object with a string 'key'")
        record["objects"] = tuple(record.get("objects", ()))
        return cls(**record)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image to be made (or read) and judged: a row in every table."""

    position: int
    """Place in the plan, from 0; the order in which everything is computed."""
    key: str
    """Key of the prompt."""
    image_index: int
    """Which of the prompt's images, from 0."""
    seed: int
    """Seed of this sample's generator, 32 bits."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of the plan: what one worker claims, makes and commits in one step."""

    index: int
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """Name of the shard's directory: `00007`."""
        return f"{self.index:05d}"

"""What every raw source yields before it is packed, and the rules they all share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evaluator.errors import InputError
from evaluator.records import Prompt

MAX_MEMBER_BYTES = 256 * 1024 * 1024
"""Nothing larger goes into a pack: it would be no image, and it is held in memory as a whole."""


class Place(NamedTuple):
    """Where in a source something stands, for messages: `coco.jsonl, line 12`."""

    source: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.number}" if self.unit else self.source


@dataclass(frozen=True, slots=True)
class RawPart:
    """A file that goes into the pack beside the prompt. Its bytes are kept as they are."""

    part: str
    """Extension of the tar member: `png`, `init.jpg`."""
    original: str
    """What the source calls it."""
    load: Callable[[], bytes]
    """Reads it; called once, when its turn to be written has come."""


@dataclass(frozen=True, slots=True)
class RawSample:
    """One prompt, with its image and attachments where it has them."""

    prompt: Prompt
    place: Place
    original: str
    parts: tuple[RawPart, ...] = ()


@dataclass(frozen=True)
class RawSource:
    """A source that can be packed."""

    path: Path
    inputs: tuple[Path, ...]
    """Every file that the pack's bytes depend on, so that a change of one is noticed."""
    samples: Callable[[], Iterator[RawSample]]
    captions: Path | None = None
    """Which of the inputs holds captions and lies elsewhere: its own name does not matter."""


def checked(samples: Iterator[RawSample], *, source: Path) -> Iterator[RawSample]:
    """The samples as they come, once they keep the rules of every source.

    Raises InputError when two share a key, when some have a text and others none (a caption
    that went missing would bias every score), or when there are none at all.
    """
    first_with_key: dict[str, int] = {}
    first: RawSample | None = None
    for sample in samples:
        first = first or sample
        key = sample.prompt.key
        if key in first_with_key:
            raise InputError(
                f"{sample.place}: expected each key once, got {key!r} again (first at"
                f" {sample.place.unit or 'sample'} {first_with_key[key]}); rename one of them"
            )
        first_with_key[key] = sample.place.number
        if (sample.prompt.text is None) != (first.prompt.text is None):
            bare, texted = (sample, first) if sample.prompt.text is None else (first, sample)
            raise InputError(
                f"{bare.place} ({bare.original}): expected a text for every sample or for none,"
                f" got none here and one at {texted.place}; add it, or remove the sample"
                ' (an intended empty prompt is "text": "" in JSON lines)'
            )
        yield sample
    if first is None:
        raise InputError(f"{source}: expected at least one prompt or image, got none; fill it")


def load_file(path: Path, *, name: str | None = None) -> bytes:
    """The bytes of `path`; InputError if it cannot be read or is larger than a member may be."""
    try:
        size = path.stat().st_size
        if size <= MAX_MEMBER_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{name or path}: expected a readable file, got {error.strerror};"
            " check its path and permissions"
        ) from error
    raise InputError(
        f"{name or path}: expected at most {MAX_MEMBER_BYTES} bytes, got {size}; remove it"
    )

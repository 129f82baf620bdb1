"""Indexing tars: those just packed, and those that somebody else wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator.data.images import IMAGE_SUFFIXES
from evaluator.data.index import Row
from evaluator.data.keys import derive_keys, printable
from evaluator.data.tars import BrokenTarError, Member, split_name, walk_tar
from evaluator.errors import EvaluatorError, InputError
from evaluator.remote import RemotePath

ROLES: Mapping[str, tuple[str, ...]] = {
    "an image": (*IMAGE_SUFFIXES, "img"),
    "a caption (txt)": ("txt",),
    "a description (json)": ("json",),
    "a class (cls)": ("cls",),
}
"""What every sample of a set has, or none: parts by the role they play."""


@dataclass(frozen=True, slots=True)
class TarSample:
    """Members of one tar that stand together under one base name."""

    base: str
    """Unique in the set of tars."""
    tar: str
    parts: tuple[tuple[str, Member], ...]
    """(part, member), in the order of the tar."""


def index_packed_tar(root: Path, tar: str, *, originals: Mapping[str, str]) -> list[Row]:
    """Rows of a tar that was just written, read back from the disk.

    `originals` maps member names to what the source called them.
    """
    return [
        Row(sample.base, part, tar, *member[1:], originals[member.name])
        for sample in scan_tar(root, tar)
        for part, member in sample.parts
    ]


def index_tars(root: Path | RemotePath, tars: Sequence[str]) -> list[Row]:
    """Rows of tars that exist already, in their order, under safe keys.

    Raises InputError for whatever would lose, merge or mix up samples without a word.
    """
    samples: list[TarSample] = []
    tar_of: dict[str, str] = {}
    for tar in tars:
        before = len(samples)
        for sample in scan_tar(root, tar):
            if sample.base in tar_of:
                raise InputError(
                    f"{root / tar}: expected each key once in all tars, got {sample.base!r}"
                    f" again (first in {tar_of[sample.base]}); rename the members"
                )
            tar_of[sample.base] = tar
            samples.append(sample)
        if len(samples) == before:
            raise InputError(
                f"{root / tar}: expected samples in every tar, got none; write it again, or remove"
                " it"
            )
    _require_roles(samples, root=root)
    keys = derive_keys([sample.base for sample in samples])
    return [
        Row(key, part, sample.tar, *member[1:], printable(member.name))
        for key, sample in zip(keys, samples, strict=True)
        for part, member in sample.parts
    ]


def scan_tar(root: Path | RemotePath, tar: str) -> Iterator[TarSample]:
    """The samples of one tar; InputError names the tar and the member at fault."""
    seen: set[str] = set()
    base = ""
    parts: dict[str, Member] = {}
    try:
        for member in walk_tar(root / tar):
            name = split_name(member.name)
            if name.base != base:
                if parts:
                    yield _sample(base, tar, parts)
                if name.base in seen:
                    raise BrokenTarError(
                        f"expected the members of a sample side by side, got {member.name!r}"
                        f" after other samples; write the tar in sorted order (tar --sort=name)"
                    )
                seen.add(name.base)
                base, parts = name.base, {}
            if name.part in parts:
                raise BrokenTarError(
                    f"expected each member once, got {member.name!r} again; remove it"
                )
            parts[name.part] = member
        if parts:
            yield _sample(base, tar, parts)
    except BrokenTarError as fault:
        raise InputError(f"{root / tar}: {fault}") from fault
    except EvaluatorError:
        raise
    except OSError as error:
        raise InputError(
            f"{root / tar}: expected a readable tar, got {error.strerror}; check the path"
        ) from error


def _sample(base: str, tar: str, parts: dict[str, Member]) -> TarSample:
    """One sample. Dots in its name are part of it, unless that would merge two samples.

    webdataset takes `img.v1.jpg` and `img.v2.jpg` for two parts of one sample `img`.
    """
    middles = {part.rpartition(".")[0] for part in parts}
    if "" in middles:
        return TarSample(base, tar, tuple(parts.items()))
    if len(middles) > 1:
        names = [member.name for member in parts.values()]
        raise BrokenTarError(
            f"expected keys without dots, got {names[0]!r} and {names[-1]!r}, which webdataset"
            f" merges into one sample {base!r}; rename them ({base}_{sorted(middles)[0]}.…)"
        )
    middle = middles.pop()
    plain = tuple((part.rpartition(".")[2], member) for part, member in parts.items())
    return TarSample(f"{base}.{middle}", tar, plain)


def _require_roles(samples: Sequence[TarSample], *, root: Path | RemotePath) -> None:
    """InputError when some samples lack a part that others have.

    That goes for second images too: `a.jpg` and `a.v2.jpg` are one sample with an attachment if
    every sample has a `v2.jpg`, and probably two samples if only some have.
    """
    count: Counter[str] = Counter()
    without: dict[str, TarSample] = {}
    seconds = {p for s in samples for p, _ in s.parts if "." in p and p.endswith(IMAGE_SUFFIXES)}
    roles = {**ROLES, **{f"a part {part!r}": (part,) for part in sorted(seconds)}}
    for sample in samples:
        names = {part for part, _ in sample.parts}
        for role, suffixes in roles.items():
            if names.isdisjoint(suffixes):
                without.setdefault(role, sample)
            else:
                count[role] += 1
    for role, number in count.items():
        if number < len(samples):
            lacking = without[role]
            raise InputError(
                f"{root / lacking.tar}: expected {role} in every sample, as in {number} of"
                f" {len(samples)}, got none in {lacking.base!r}, only"
                f" {[part for part, _ in lacking.parts]}; the tar may have been cut: write it"
                " again, or leave that part out everywhere"
            )
    if not count:
        raise InputError(
            f"{root}: expected samples with {', '.join(ROLES)}, got parts"
            f" {[part for part, _ in samples[0].parts]}; add one of these"
        )

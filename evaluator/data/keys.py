"""Keys: safe, unique names for samples, derived from whatever the source called them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from evaluator.errors import InputError
from evaluator.records import is_safe_key

_MAX_LENGTH = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def row_key(number: int) -> str:
    """The key of a line or row that declares none: its number from 1, zero-padded.

    The width is fixed, so a file that grows keeps the keys (and so the seeds) it had.
    """
    return f"{number:07d}"


def printable(name: str) -> str:
    """`name` as valid Unicode; bytes that the file system could not decode become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def derive_keys(names: Sequence[str], *, stems: Sequence[str] | None = None) -> list[str]:
    """A safe key for each of the (distinct) `names`, in their order.

    A key is the stem with every other character replaced by `_`. Stems that end up alike are
    told apart by a suffix hashed from the full name, except for one that was safe as it was.
    The result does not depend on the order of the names.
    """
    stems = names if stems is None else stems
    cleaned = [_UNSAFE.sub("_", stem) for stem in stems]
    alike = Counter(cleaned)
    unchanged = Counter(stem for stem, clean in zip(stems, cleaned, strict=True) if stem == clean)
    plain = {
        clean
        for clean, stem in zip(cleaned, stems, strict=True)
        if is_safe_key(clean) and (alike[clean] == 1 or (stem == clean and unchanged[clean] == 1))
    }
    keys: list[str] = []
    for name, stem, clean in zip(names, stems, cleaned, strict=True):
        keeps = clean in plain and (alike[clean] == 1 or stem == clean)
        keys.append(clean if keeps else _suffixed(clean, name, taken=plain))
    if len(set(keys)) != len(keys):
        again = sorted(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"expected distinct names, got some twice: {again[:3]}; rename them")
    return keys


def _suffixed(clean: str, name: str, *, taken: set[str]) -> str:
    """`clean`, shortened to fit, and enough hex digits of the name's hash to be unique."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    for digits in (16, 32, 64):
        key = f"{clean[: _MAX_LENGTH - digits - 1]}_{digest[:digits]}"
        if key not in taken:
            return key
    raise InputError(f"no safe key can be derived for {printable(name)!r}; rename it")

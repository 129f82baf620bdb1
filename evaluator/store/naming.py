"""What runs are called where several stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def distinct_names(runs: Sequence[tuple[str, Path]]) -> list[str]:
    """A name for each (name, path); those that several have become the ends of their paths."""
    given = [name for name, _ in runs]
    names = list(given)
    for name in dict.fromkeys(given):
        alike = [i for i, each in enumerate(given) if each == name]
        if len(alike) < 2:
            continue
        parts = [runs[i][1].resolve().parts for i in alike]
        for length in range(1, max(map(len, parts)) + 1):
            tails = ["/".join(each[-length:]) for each in parts]
            if len(set(tails)) == len(tails):
                break
        for i, tail in zip(alike, tails, strict=True):
            names[i] = tail
    if len(set(names)) < len(names):  # an end of a path that is another run's name
        return [f"{names[i]} ({path.resolve()})" for i, (_, path) in enumerate(runs)]
    return names

"""Prompts that a configuration names by key: they must be there before anything is made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from evaluator.config.schema import RunConfig
from evaluator.errors import ConfigError

_NUMBER = re.compile(r"0*(\d+)")

MAX_HINTS = 10
"""Unknown keys that get a near miss, each from one pass over the keys."""
MAX_COMPARED = 10_000
"""Keys that an unknown one is compared with letter by letter."""


def check_named(
    config: RunConfig, keys: Sequence[str], *, whole: Callable[[], Sequence[str]] | None = None
) -> None:
    """Raise ConfigError with every key that the probes name and no prompt has.

    `whole` gives the keys of the source without its limit: some may be there, but beyond it.
    """
    attention = config.probes.attention
    if attention is None or not keys:
        return
    known = frozenset(keys)
    unknown: dict[str, list[str]] = {}
    for name, chosen in (("maps", attention.maps), ("full", attention.full)):
        for key in () if isinstance(chosen, int) else chosen:
            if key not in known:
                unknown.setdefault(key, []).append(f"probes.attention.{name}")
    if not unknown:
        return
    limit = config.prompts.limit
    beyond = frozenset(whole()) if whole is not None and limit is not None else frozenset[str]()
    of = f"the first {limit} prompts" if limit is not None else "the prompts"
    faults = []
    for i, (key, places) in enumerate(unknown.items()):
        hint = _near_miss(key, keys) if i < MAX_HINTS and key not in beyond else ""
        if key in beyond:
            hint = f"; it is there, but beyond the limit of {limit} (prompts.limit, --limit)"
        faults.append(f"{' and '.join(places)}: {key!r}{hint}")
    raise ConfigError(
        f"expected keys of {of} of {config.prompts.source} ({keys[0]!r} to {keys[-1]!r}); got "
        f"{len(faults)} that none of them has:",
        tuple(faults),
    )


def _near_miss(key: str, keys: Sequence[str]) -> str:
    """The key that is the same but for case and leading zeros, or the one written most like it.

    Nothing where several are as near as each other: one of them would be a guess.
    """
    plain = _plain(key)
    near = [known for known in keys if _plain(known) == plain]
    near = near or difflib.get_close_matches(key, keys[:MAX_COMPARED], n=2)
    likeness = [difflib.SequenceMatcher(None, known, key).ratio() for known in near[:2]]
    if not near or (len(near) > 1 and likeness[0] == likeness[1]):
        return ""
    return f"; did you mean {near[0]!r}?"


def _plain(key: str) -> str:
    return _NUMBER.sub(r"\1", key.lower())

"""Finding parts by name: built in, installed entry point, or `module:attr`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from evaluator.errors import ConfigError
from evaluator.locations import CODE

GROUPS = {kind: f"evaluator.{kind}" for kind in ("model", "extractor", "metric", "probe")}
"""Kind → the group in which packages declare their entry points."""


def installed(kind: str) -> dict[str, str]:
    """Names that installed packages declare for a kind → `module:attr`. Imports nothing."""
    return {point.name: point.value for point in entry_points(group=GROUPS[kind])}


def is_known(kind: str, name: str, built_in: Mapping[str, str]) -> bool:
    """Whether `name` is built in or declared by an installed package."""
    return name in built_in or name in installed(kind)


def check(kind: str, name: str, built_in: Mapping[str, str], *, allow_code: bool) -> None:
    """Raise ConfigError unless `name` can be found. Imports nothing."""
    if is_known(kind, name, built_in):
        return
    if CODE.match(name):
        if not allow_code:
            raise ConfigError(
                f"{kind} '{name}' names code to run, and a configuration file is not trusted to "
                "do that. Add --allow-code if you trust it."
            )
        return
    names = sorted({*built_in, *installed(kind)})
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(names)}."
    raise ConfigError(f"{kind} '{name}': expected a known name or module:attr. {hint}")


def find(kind: str, name: str, built_in: Mapping[str, str], *, allow_code: bool) -> Any:
    """Import and return the part called `name`. Raises ConfigError when it cannot be found."""
    check(kind, name, built_in, allow_code=allow_code)
    target = built_in.get(name) or installed(kind).get(name) or name
    module, _, attribute = target.partition(":")
    here = str(Path.cwd())
    added = CODE.match(name) is not None and here not in sys.path
    if added:
        sys.path.insert(0, here)  # a user's own module lies beside the configuration
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{kind} '{name}': expected to import {target}, got: {error}. "
            "Check the name, and that its package is installed."
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    return found

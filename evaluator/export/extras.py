"""Packages that are needed for one target only."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from evaluator.errors import ConfigError


def require(package: str, extra: str, what: str) -> Any:
    """Import an optional package; ConfigError with the command that installs it."""
    require_installed(package, extra, what)
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{what}: expected to import the package '{package}', got: {error}. Install it again: "
            f"pip install --force-reinstall diffusion-evaluator[{extra}]"
        ) from error


def require_installed(package: str, extra: str, what: str) -> None:
    """The same, without importing it."""
    if find_spec(package) is None:
        raise ConfigError(
            f"{what}: expected the package '{package}', got none installed. Install it: "
            f"pip install diffusion-evaluator[{extra}]"
        )

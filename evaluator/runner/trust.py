"""What a configuration file may do on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trust:
    """What a configuration may do here."""

    allow_code: bool = False
    """Whether `module:attr` in it is imported."""
    relative_to: Path | None = None
    """Folder of the configuration file: relative paths are looked for there first."""

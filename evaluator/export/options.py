"""What a user may say about an export, and which target takes it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from evaluator.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of all targets; one that its target does not take is refused."""

    dataset: str | None = None
    """Id on the hub of the data set that the model was evaluated on: `org/name`."""
    dataset_revision: str | None = None
    """Its git revision on the hub."""
    metrics: tuple[str, ...] | None = None
    """Names of the numbers to hand on; None: all that are not of a group."""
    source_url: str | None = None
    """Where the evaluation can be read about."""
    model: str | None = None
    """The model's name on its card."""
    allow_incomplete: bool = False
    """Publish numbers of a run that lacks samples."""
    project: str | None = None
    """The trackers' project; None: `evaluator`."""
    images: int | None = None
    """Kept images of each run to hand on; None: 8."""
    overwrite: bool = False
    """Replace files, and trackio's runs, that no export wrote, or that are of another run."""

    def require_taken_by(self, target: str) -> None:
        """Raise ConfigError where an option was given that the target would ignore."""
        taken = _TAKEN[target]
        for field in fields(self):
            if field.name not in taken and getattr(self, field.name) != field.default:
                option = "--" + field.name.replace("_", "-")
                takers = [name for name, options in _TAKEN.items() if field.name in options]
                raise ConfigError(
                    f"{option}: expected with --to {' or '.join(takers)}, got --to {target}. "
                    "Leave it out."
                )


_PUBLISHED = {"dataset", "dataset_revision", "metrics", "source_url", "allow_incomplete"}
_TAKEN: dict[str, set[str]] = {
    "csv": {"overwrite"},
    "json": {"overwrite"},
    "parquet": {"overwrite"},
    "eval-results": _PUBLISHED | {"overwrite"},
    "model-card": _PUBLISHED | {"model"},
    "wandb": {"project", "images"},
    "tensorboard": {"images", "overwrite"},
    "trackio": {"project", "images", "overwrite"},
}
"""Target → the options that it takes."""

TARGETS = tuple(_TAKEN)
"""What `--to` takes."""

NUM_IMAGES = 8
"""Kept images of a run that trackers get, unless another number is asked for."""

PROJECT = "evaluator"
"""The trackers' project, unless another is named."""

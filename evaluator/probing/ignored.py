"""What was asked for, and what the verb or the model would ignore: refused, or said."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from evaluator.errors import ConfigError
from evaluator.models.arguments import guidance_argument
from evaluator.pipelines import denoiser_of
from evaluator.probing.inputs import ProbedModel, load_extractor

if TYPE_CHECKING:
    from evaluator.protocols import FeatureExtractor


def require_asked_for(
    probed: ProbedModel,
    *,
    prompt: bool = False,
    class_label: bool = False,
    guidance: float | None = None,
) -> None:
    """ConfigError for a text, a class or a guidance scale that the pipeline would ignore."""
    name = type(probed.pipeline).__name__
    if prompt and not probed.takes_text:
        what = "a class, not a text" if probed.takes_class else "no text"
        raise ConfigError(f"--prompt: {name} takes {what}; leave it out")
    if class_label and not probed.takes_class:
        raise ConfigError(f"--class-label: {name} takes no class; leave it out")
    if guidance is not None and not guided_by(probed):
        raise ConfigError(f"--guidance: {name} takes none; leave it out")


def guided_by(probed: ProbedModel) -> bool:
    """Whether the pipeline takes a guidance scale."""
    return _guidance(probed) is not None


def chosen_extractor(
    name: str | None, probed: ProbedModel, *, weights: str | None
) -> FeatureExtractor | None:
    """The extractor of that name; None without one, and ConfigError for weights of none."""
    if name is None and weights is not None:
        raise ConfigError(
            f"--weights: expected them with --extractor, whose weights they are, got {weights} "
            "alone; name the extractor too, or leave them out"
        )
    return None if name is None else load_extractor(name, probed, weights=weights)


def guidance_notes(
    probed: ProbedModel, *, given: float | None, unconditional: bool = False
) -> tuple[str, ...]:
    """What a verb that guides by 1 unless told otherwise says of the scale that was given.

    Without a condition both branches are the same, unless the scale is an input of the denoiser or
    a negative prompt stands on one side.
    """
    if getattr(denoiser_of(probed.pipeline), "config", {}).get("guidance_embeds"):
        said = "the guidance scale is an input of this model, and 1 was given; --guidance sets it"
        return (said,) if given is None else ()
    told_apart = _guidance(probed) != "guidance_scale" or probed.config.generation.negative_prompt
    if given is None or not unconditional or told_apart:
        return ()
    return (
        f"--guidance {given:g} changes nothing here: with --unconditional both branches are the "
        "same",
    )


def _guidance(probed: ProbedModel) -> str | None:
    return guidance_argument(inspect.signature(probed.pipeline.__call__).parameters)

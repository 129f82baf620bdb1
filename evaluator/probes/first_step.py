"""The first step of a pipeline, watched and then left: what its parts are given there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError
from evaluator.pipelines import denoiser_of, has_compiled_part
from evaluator.probes.patching import replaced

if TYPE_CHECKING:
    from torch import Tensor

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
LATENT_INPUTS = ("sample", "hidden_states", "x")
"""What denoisers call the latents when they come by name."""


class DenoiserCall(NamedTuple):
    """One call of the denoiser."""

    latents: Tensor
    """(R, …)."""
    inputs: Mapping[str, Tensor]
    """Every other tensor, by the name of its argument; those inside dicts as `outer.inner`."""

    @property
    def num_rows(self) -> int:
        """R."""
        return int(self.latents.shape[0])


class FirstStep(NamedTuple):
    """What was seen until `scheduler.step` was called for the first time."""

    sample: Tensor
    """The latents that the pipeline began with, as the scheduler sees them."""
    calls: tuple[DenoiserCall, ...]
    input_ids: Mapping[str, Tensor]
    """Text encoder → (B, T) ids of its first call: the prompts as they went in."""
    embeddings: tuple[tuple[int, ...], ...]
    """Shapes of the tensors that `encode_prompt` first returned."""


class _Seen(Exception):
    """Leaves the pipeline at its first step."""


def first_step(
    pipeline: Any, generate: Callable[[], object], *, hook_denoiser: bool = True
) -> FirstStep:
    """Watch one call of the pipeline up to its first step; it goes no further.

    Without `hook_denoiser`, its calls stay unknown, and it may be compiled. ProbeError for a
    pipeline that has no denoiser, or never calls its scheduler.
    """
    denoiser = denoiser_of(pipeline)
    scheduler = getattr(pipeline, "scheduler", None)
    if denoiser is None or scheduler is None:
        lacks = "no unet and no transformer" if denoiser is None else "no scheduler"
        raise ProbeError(
            f"Expected a pipeline with a denoiser and a scheduler; {type(pipeline).__name__} has "
            f"{lacks}. What happens inside it cannot be watched."
        )
    if hook_denoiser and has_compiled_part(denoiser):
        raise ProbeError(
            f"Expected a denoiser whose inputs can be watched; {type(pipeline).__name__}'s is "
            "compiled. Set model.compile to false for this probe."
        )
    calls: list[DenoiserCall] = []
    ids: dict[str, Tensor] = {}
    embeddings: list[tuple[tuple[int, ...], ...]] = []
    samples: list[Tensor] = []

    @functools.wraps(scheduler.step)
    def step(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        samples.append(given["sample"].detach().clone())
        raise _Seen

    signature = inspect.signature(scheduler.step)
    with ExitStack() as stack:
        stack.enter_context(replaced(scheduler, "step", step))
        _watch_encode_prompt(stack, pipeline, embeddings)
        for name in TEXT_ENCODERS:
            _watch_text_encoder(stack, name, getattr(pipeline, name, None), ids)
        if hook_denoiser:
            hook = denoiser.register_forward_pre_hook(
                lambda module, args, kwargs: calls.append(_denoiser_call(module, args, kwargs)),
                with_kwargs=True,
            )
            stack.callback(hook.remove)
        try:
            generate()
        except _Seen:
            return FirstStep(samples[0], tuple(calls), ids, embeddings[0] if embeddings else ())
    raise ProbeError(
        f"Expected a run that calls scheduler.step; {type(pipeline).__name__} did not. What "
        "happens inside it cannot be watched."
    )


def _watch_encode_prompt(stack: ExitStack, pipeline: Any, seen: list[Any]) -> None:
    original = getattr(pipeline, "encode_prompt", None)
    if original is None:
        return

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        encoded = original(*args, **kwargs)
        items = encoded if isinstance(encoded, tuple) else (encoded,)
        seen.append(tuple(tuple(item.shape) for item in items if hasattr(item, "shape")))
        return encoded

    stack.enter_context(replaced(pipeline, "encode_prompt", encode_prompt))


def _watch_text_encoder(stack: ExitStack, name: str, encoder: Any, seen: dict[str, Tensor]) -> None:
    if not hasattr(encoder, "register_forward_pre_hook"):
        return

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        if name not in seen and ids is not None:
            seen[name] = ids.detach().cpu().clone()

    hook = encoder.register_forward_pre_hook(before, with_kwargs=True)
    stack.callback(hook.remove)


def _denoiser_call(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DenoiserCall:
    """Copies of what a denoiser is given, each under the name of its argument."""
    import torch

    given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    tensors = {
        name: value.detach().clone()
        for name, value in _flat(given)
        if isinstance(value, torch.Tensor)
    }
    latents = next((name for name in LATENT_INPUTS if name in tensors), None)
    if latents is None:
        raise ProbeError(
            f"Expected a denoiser that is given latents; {type(module).__name__} was given "
            f"{', '.join(tensors) or 'no tensor'}. What happens inside it cannot be watched."
        )
    return DenoiserCall(tensors.pop(latents), tensors)


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

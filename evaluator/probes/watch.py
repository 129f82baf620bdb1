"""Follow one run of a pipeline: encode_prompt, the denoiser's calls, the scheduler's steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from evaluator.errors import ObservationError, ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.branches import BranchRows, PromptEncodings
from evaluator.probes.noise import NoiseFamily, NoiseLevel, level_of_call
from evaluator.probes.patching import replaced
from evaluator.probes.steps import Place, StepChoice, num_steps_of, place_of_call

if TYPE_CHECKING:
    from torch import Tensor


class StepTime(NamedTuple):
    """When a step happens."""

    timestep: float
    level: NoiseLevel | None
    """None where the scheduler's noise levels are not known."""


class StepCall(NamedTuple):
    """One call of `scheduler.step`, before it happens."""

    time: StepTime
    model_output: Tensor
    """What the model predicted, after guidance; (B, …)."""


class Listener(Protocol):
    """What a probe does with a run. Called only on the first model evaluation of a step."""

    def denoiser_starts(self, step: int, latents: Tensor, rows: BranchRows | None) -> None:
        """The denoiser is about to see `latents` (R, C, H, W) on an observed step."""

    def denoiser_ends(self, step: int, output: Tensor, rows: BranchRows | None) -> None:
        """The denoiser has answered `output` (R, …) on an observed step."""

    def stepping(self, step: int, latents: Tensor, call: StepCall | None) -> None:
        """The scheduler is about to move `latents`, x_t; `call` is None on unobserved steps."""


class PipelineWatch:
    """Counts steps, recognises branches, and tells a listener what happens."""

    def __init__(
        self, pipeline: Any, listener: Listener, *, steps: StepChoice, family: NoiseFamily | None
    ) -> None:
        if getattr(pipeline, "scheduler", None) is None:
            raise ProbeError(
                "Expected a model with a diffusers pipeline and its scheduler; got "
                f"{type(pipeline).__name__}. Remove the probes for this model."
            )
        self.encodings = PromptEncodings()
        self.observed: tuple[int, ...] = ()
        """Indices of the observed steps; known from the first denoiser call or step on."""
        self._num_steps = 0
        self.num_calls = 0
        """Calls of `scheduler.step` so far."""
        self._pipeline = pipeline
        self._listener = listener
        self._choice = steps
        self._family = family
        self.denoiser_inputs: dict[str, Any] = {}
        """The keywords of the denoiser's last observed call."""
        self._rows: BranchRows | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch while inside; everything is put back on the way out, errors included."""
        denoiser = denoiser_of(self._pipeline)
        scheduler = self._pipeline.scheduler
        with (
            self.encodings.watching(self._pipeline),
            replaced(scheduler, "step", self._watched_step(scheduler)),
            nullcontext() if denoiser is None else self._watched_denoiser(denoiser),
        ):
            yield

    @contextmanager
    def _watched_denoiser(self, denoiser: Any) -> Iterator[None]:
        """Hear of the denoiser's calls from outside: nothing within it changes.

        A module that was compiled in place calls its compiled form past all hooks, and hooks would
        have it compiled again; there, the compiled form is replaced by one that also tells.
        """
        compiled = getattr(denoiser, "_compiled_call_impl", None)
        if compiled is not None:

            @functools.wraps(compiled)
            def call(*args: Any, **kwargs: Any) -> Any:
                self._before_denoiser(denoiser, args, kwargs)
                output = compiled(*args, **kwargs)
                self._after_denoiser(denoiser, args, output)
                return output

            with replaced(denoiser, "_compiled_call_impl", call):
                yield
            return
        handles = [
            denoiser.register_forward_pre_hook(self._before_denoiser, with_kwargs=True),
            denoiser.register_forward_hook(self._after_denoiser),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _place(self) -> Place:
        """Where the coming (or running) call of the scheduler lies."""
        scheduler = self._pipeline.scheduler
        if not self.observed:
            # Only pipelines know how many timesteps they take (image-to-image skips some).
            known = getattr(self._pipeline, "_num_timesteps", None)
            num_calls = known if isinstance(known, int) else len(scheduler.timesteps)
            self._num_steps = num_steps_of(scheduler, num_calls)
            self.observed = self._choice.select(self._num_steps)
        place = place_of_call(scheduler, self.num_calls)
        if place.step >= self._num_steps:
            raise ObservationError(
                f"Expected one run of {self._num_steps} steps for all prompts of a batch; a probe "
                "that is attached saw another step. Generate them in one call of the pipeline, or "
                "attach the probe for each call."
            )
        return place

    def _before_denoiser(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        place = self._place()
        if not place.first or place.step not in self.observed:
            return
        latents: Any = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        hidden = kwargs.get("encoder_hidden_states", args[2] if len(args) > 2 else None)
        self._rows = self.encodings.rows(hidden)
        self.denoiser_inputs = kwargs
        self._listener.denoiser_starts(place.step, latents, self._rows)

    def _after_denoiser(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        place = self._place()
        if place.first and place.step in self.observed:
            answer = output[0] if isinstance(output, tuple) else output.sample
            self._listener.denoiser_ends(place.step, answer, self._rows)

    def _watched_step(self, scheduler: Any) -> Any:
        """A `step` that looks like the original: pipelines inspect its signature."""
        original = scheduler.step
        signature = inspect.signature(original)

        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            place = self._place()
            if place.first:
                given = signature.bind(*args, **kwargs).arguments
                observed = place.step in self.observed
                call = self._step_call(scheduler, given) if observed else None
                self._listener.stepping(place.step, given["sample"], call)
            result = original(*args, **kwargs)
            self.num_calls += 1
            return result

        return step

    def _step_call(self, scheduler: Any, given: dict[str, Any]) -> StepCall:
        timestep = given["timestep"]
        level = None
        if self._family is not None:
            level = level_of_call(scheduler, self._family, timestep)
        return StepCall(StepTime(float(timestep), level), given["model_output"])

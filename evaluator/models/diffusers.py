"""Any diffusers pipeline as a model: seeded sample by sample, and left as it is."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import (
    ConfigError,
    EvaluatorError,
    GenerationError,
    SampleError,
    SettingsError,
)
from evaluator.models.arguments import (
    argument_faults,
    base_arguments,
    prompt_arguments,
    prompt_faults,
    size_faults,
)
from evaluator.models.inputs import AttachmentSource, PromptInputs, input_arguments
from evaluator.models.loading import load_pipeline, starts_from_an_image
from evaluator.models.pixels import to_pixels
from evaluator.models.refiner import Refiner
from evaluator.models.schedulers import scheduler_record
from evaluator.models.truncation import truncated
from evaluator.models.unseeded import global_generator_states

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from evaluator.config.pipeline import DiffusersModelConfig
    from evaluator.config.schema import GenerationConfig
    from evaluator.records import Prompt


class DiffusersModel:
    """A diffusers pipeline as a GenerativeModel.

    One CPU generator per sample: the initial noise depends on the sample's seed alone, not on
    the device, the batch or the process. Prompts' attachments are read from `attachments`.
    """

    def __init__(
        self,
        config: DiffusersModelConfig,
        generation: GenerationConfig,
        *,
        device: str = "cpu",
        relative_to: Path | None = None,
        attachments: AttachmentSource | None = None,
    ) -> None:
        self._config = config
        self._generation = generation
        self._device = device
        self._pipeline, self._weights, self._added = load_pipeline(
            config, device=device, relative_to=relative_to
        )
        self._scheduler = scheduler_record(self._pipeline)
        self._parameters = inspect.signature(self._pipeline.__call__).parameters
        self._inputs = self._checked_inputs(attachments)
        self._refiner = self._load_refiner(relative_to)
        self._arguments = base_arguments(self._parameters, config, generation)
        self.fingerprint = self._hash_of_all_that_decides()

    def for_generation(
        self, generation: GenerationConfig, *, attachments: AttachmentSource | None = None
    ) -> DiffusersModel:
        """The same weights, not read again, for images sampled in another way."""
        other = copy.copy(self)
        other._generation = generation
        other._inputs = other._checked_inputs(attachments)
        other._arguments = base_arguments(self._parameters, self._config, generation)
        other.fingerprint = other._hash_of_all_that_decides()
        return other

    @property
    def pipeline(self) -> Any:
        """The pipeline itself, for probes."""
        return self._pipeline

    @property
    def refiner_pipeline(self) -> Any:
        """The pipeline that takes the last steps over; None where there is no refiner."""
        return None if self._refiner is None else self._refiner.pipeline

    def generate(
        self, prompts: Sequence[Prompt], image_indices: Sequence[int], seeds: Sequence[int]
    ) -> list[Tensor | SampleError]:
        """One call of the pipeline for the whole batch; (3, H, W) uint8 for each prompt.

        Pixels that are not finite are an error in the image's place. Raises GenerationError when
        the pipeline drew from the global generator: the image would depend on what ran before it.
        """
        import torch

        faults = prompt_faults(self._pipeline, self._parameters, prompts)
        arguments = self._arguments | prompt_arguments(
            self._pipeline, self._parameters, self._config, self._generation, prompts
        )
        if self._inputs is not None:
            images, unread = self._inputs.read(prompts)
            arguments |= images
            faults = [fault or other for fault, other in zip(faults, unread, strict=True)]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        before = global_generator_states(self._device)
        output = self._call(arguments, generators)
        if not all(map(torch.equal, before, global_generator_states(self._device))):
            raise GenerationError(self._unseeded())
        pixels = self._pixels(output.images)
        return [
            image if fault is None else SampleError(fault)
            for image, fault in zip(pixels, faults, strict=True)
        ]

    def _call(self, arguments: Mapping[str, Any], generators: list[torch.Generator]) -> Any:
        """The pipeline's output; what it says against its settings becomes a SettingsError."""
        try:
            output = self._run(arguments, generators)
        except EvaluatorError:
            raise
        except (NotImplementedError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise SettingsError(
                f"{self._config.id}: expected settings that {type(self._pipeline).__name__} can "
                f"follow, got: {reason}. Check generation, model.scheduler and model.arguments."
            ) from error
        self._check_size(output.images)
        return output

    def _check_size(self, images: np.ndarray[Any, Any]) -> None:
        """Raise SettingsError where (B, H, W, C) images have another size than was asked for."""
        asked = (self._arguments.get("height"), self._arguments.get("width"))
        made = images.shape[1:3]
        if None not in asked and asked != made:
            raise SettingsError(
                f"expected images of generation.height x width = {asked[0]}x{asked[1]}, got "
                f"{made[0]}x{made[1]}: {type(self._pipeline).__name__} rounds to what its patches "
                "and autoencoder can make. Ask for that size."
            )

    def _run(self, arguments: Mapping[str, Any], generators: list[torch.Generator]) -> Any:
        if self._refiner is None:
            return self._pipeline(**arguments, generator=generators, output_type="np")
        stopping = {**arguments, **self._refiner.base_arguments()}
        latents = self._pipeline(**stopping, generator=generators).images
        return self._refiner.finish(latents, arguments, generators)

    def _load_refiner(self, relative_to: Path | None) -> Refiner | None:
        if (config := self._config.refiner) is None:
            return None
        if "denoising_end" not in self._parameters:
            raise ConfigError(
                f"model.refiner: expected a pipeline that can stop in the middle, got "
                f"{type(self._pipeline).__name__}. Only SDXL's can; leave it out."
            )
        refiner = Refiner(
            config,
            self._config,
            scheduler=self._pipeline.scheduler,
            device=self._device,
            relative_to=relative_to,
        )
        self._added["refiner"] = refiner.sha256
        return refiner

    def truncated(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Whether any of the pipeline's text encoders reads less than the whole prompt."""
        texts = [prompt.text or "" for prompt in prompts]
        return truncated(self._pipeline, self._parameters, self._arguments, texts)

    def describe(self) -> Mapping[str, Any]:
        """Provenance: everything that decides an image, and where it ran."""
        return {
            "kind": "diffusers",
            "id": self._config.id,
            "revision": self._weights.revision,
            "weights_sha256": self._weights.sha256,
            "added_weights_sha256": self._added,
            "fingerprint": self.fingerprint,
            "pipeline": type(self._pipeline).__name__,
            "scheduler": type(self._pipeline.scheduler).__name__,
            "dtype": self._config.dtype,
            "device": self._device,
        }

    def _unseeded(self) -> str:
        """Why images that do not follow their seeds are an error, and what may be done."""
        if self._inputs is None:
            remedy = (
                "Choose a scheduler that draws no noise (model.scheduler: {name: DDIMScheduler}), "
                "or one that this pipeline passes its generators to."
            )
        else:
            remedy = (
                "Some pipelines encode the images that prompts bring along with noise of their "
                "own, as Stable Diffusion 3's does for a ControlNet: they cannot be used."
            )
        return (
            f"{type(self._pipeline).__name__} with {type(self._pipeline.scheduler).__name__} drew "
            "from the global random generator: its images depend on what ran before them, not on "
            f"their seeds. {remedy}"
        )

    def _checked_inputs(self, attachments: AttachmentSource | None) -> PromptInputs | None:
        """What reads the attachments; None where the pipeline takes none.

        Raises ConfigError with every setting that does not fit the pipeline.
        """
        generation, pipeline = self._generation, self._pipeline
        named = input_arguments(
            self._parameters,
            has_controlnet=getattr(pipeline, "controlnet", None) is not None,
            starts=starts_from_an_image(pipeline, self._config),
        )
        faults = argument_faults(pipeline, self._parameters, self._config, generation)
        faults += size_faults(pipeline, self._parameters, generation, named)
        if named and attachments is None:
            faults.append(
                f"model: expected a source of the attachments {', '.join(sorted(named))}, got none"
            )
        if faults:
            raise ConfigError(f"{self._config.id}: the pipeline does not fit:", tuple(faults))
        if not named:
            return None
        assert attachments is not None
        assert generation.height is not None
        assert generation.width is not None
        return PromptInputs(attachments, named, height=generation.height, width=generation.width)

    def _pixels(self, images: np.ndarray[Any, Any]) -> list[Tensor | SampleError]:
        """(B, H, W, C) floats from 0 to 1 → (3, H, W) uint8 each."""
        import torch

        values = torch.from_numpy(images).permute(0, 3, 1, 2)
        return to_pixels(values, remedy="try model.dtype: float32 or bfloat16")

    def _hash_of_all_that_decides(self) -> str:
        """SHA-256 over weights, scheduler and settings.

        Settings left at their default do not count, so that a run goes on when there are new ones.
        """
        settings = self._config.model_dump(mode="json", exclude_defaults=True)
        # Where weights are found is not what they are.
        for name in ("id", "revision", "cpu_offload"):
            settings.pop(name, None)
        parts = (settings.get("controlnet", {}), settings.get("refiner", {}))
        for added in (*settings.get("loras", ()), *parts):
            for name in ("id", "revision", "weight_name"):
                added.pop(name, None)
        record = [
            self._weights.sha256,
            self._added,
            type(self._pipeline).__name__,
            self._scheduler,
            settings,
            self._generation.model_dump(mode="json"),
        ]
        return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()

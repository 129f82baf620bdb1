"""Any diffusers pipeline: loaded from safetensors, seeded sample by sample, and left as it is."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError, GenerationError, InputError, SampleError
from evaluator.weights import Weights, find_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from evaluator.config.schema import DiffusersModelConfig, GenerationConfig, SchedulerConfig
    from evaluator.records import Prompt


class DiffusersModel:
    """A diffusers pipeline as a GenerativeModel.

    One CPU generator per sample: the initial noise depends on the sample's seed alone, not on
    the device, the batch or the process.
    """

    def __init__(
        self,
        config: DiffusersModelConfig,
        generation: GenerationConfig,
        *,
        device: str = "cpu",
        relative_to: Path | None = None,
    ) -> None:
        self._config = config
        self._generation = generation
        self._device = device
        self._weights = find_weights(config.id, revision=config.revision, relative_to=relative_to)
        self._pipeline = load_pipeline(self._weights, config, device=device)
        self._parameters = inspect.signature(self._pipeline.__call__).parameters
        self._check_arguments()
        self.fingerprint = hashlib.sha256(
            json.dumps(
                [
                    self._weights.sha256,
                    type(self._pipeline).__name__,
                    _scheduler_record(self._pipeline),
                    config.model_dump(mode="json", exclude={"id", "revision"}),
                    generation.model_dump(mode="json"),
                ],
                sort_keys=True,
                default=str,
            ).encode()
        ).hexdigest()

    @property
    def pipeline(self) -> Any:
        """The pipeline itself, for probes."""
        return self._pipeline

    def generate(
        self, prompts: Sequence[Prompt], image_indices: Sequence[int], seeds: Sequence[int]
    ) -> list[Tensor | SampleError]:
        """One call of the pipeline for the whole batch; (3, H, W) uint8 for each prompt.

        Raises GenerationError when the pipeline drew from the global generator (the image would
        depend on what ran before it) or gave pixels that are not finite.
        """
        import torch

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        before = _global_generator_states()
        arguments = self._call_arguments(prompts)
        output = self._pipeline(**arguments, generator=generators, output_type="np")
        if not all(map(torch.equal, before, _global_generator_states())):
            raise GenerationError(
                f"{type(self._pipeline).__name__} with {type(self._pipeline.scheduler).__name__} "
                "drew from the global random generator: its images depend on what ran before "
                "them, not on their seeds. Choose a scheduler that draws no noise (model.scheduler:"
                " {name: DDIMScheduler}), or one that this pipeline passes its generators to."
            )
        images = torch.from_numpy(output.images)
        if not bool(torch.isfinite(images).all()):
            bad = [p.key for p, x in zip(prompts, images, strict=True) if not x.isfinite().all()]
            raise GenerationError(
                f"{self._config.id}: expected finite pixels, got NaN or infinity for "
                f"{', '.join(sorted(set(bad))[:5])}. Try model.dtype: float32 or bfloat16."
            )
        pixels = (images * 255).round().to(torch.uint8).permute(0, 3, 1, 2).contiguous()
        return [
            SampleError("expected a prompt with a text, got none: this pipeline is text-to-image")
            if prompt.text is None and "prompt" in self._parameters
            else image
            for prompt, image in zip(prompts, pixels, strict=True)
        ]

    def truncated(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Whether any of the pipeline's tokenizers cuts the prompt."""
        cut = [False] * len(prompts)
        texts = [prompt.text or "" for prompt in prompts]
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
            tokenizer = getattr(self._pipeline, name, None)
            limit = getattr(tokenizer, "model_max_length", None)
            if tokenizer is None or limit is None or limit > 1_000_000:
                continue
            for i, ids in enumerate(tokenizer(texts, truncation=False, verbose=False).input_ids):
                cut[i] |= len(ids) > limit
        return cut

    def describe(self) -> Mapping[str, Any]:
        """Provenance: everything that decides an image, and where it ran."""
        return {
            "kind": "diffusers",
            "id": self._config.id,
            "revision": self._weights.revision,
            "weights_sha256": self._weights.sha256,
            "fingerprint": self.fingerprint,
            "pipeline": type(self._pipeline).__name__,
            "scheduler": type(self._pipeline.scheduler).__name__,
            "dtype": self._config.dtype,
            "device": self._device,
        }

    def _call_arguments(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """What the pipeline is called with; only what its signature knows."""
        generation = self._generation
        wanted: dict[str, Any] = {
            "num_inference_steps": generation.steps,
            "guidance_scale": generation.guidance_scale,
            "height": generation.height,
            "width": generation.width,
        }
        if "prompt" in self._parameters:
            wanted["prompt"] = [prompt.text or "" for prompt in prompts]
            negatives = [p.negative_prompt or generation.negative_prompt or "" for p in prompts]
            if any(negatives):
                wanted["negative_prompt"] = negatives
        elif "class_labels" in self._parameters:
            wanted["class_labels"] = [_class_label(prompt) for prompt in prompts]
        else:
            wanted["batch_size"] = len(prompts)
        known = {k: v for k, v in wanted.items() if k in self._parameters and v is not None}
        return {**known, **self._config.arguments}

    def _check_arguments(self) -> None:
        """Refuse settings that the pipeline would ignore or does not know, all at once."""
        faults = [
            f"model.arguments.{name}: {type(self._pipeline).__name__} takes no such argument"
            for name in self._config.arguments
            if name not in self._parameters
        ]
        for name in ("height", "width", "negative_prompt"):
            if getattr(self._generation, name) is not None and name not in self._parameters:
                faults.append(
                    f"generation.{name}: {type(self._pipeline).__name__} takes no such argument"
                )
        if "generator" not in self._parameters:
            faults.append(f"model: {type(self._pipeline).__name__} takes no generator")
        if faults:
            raise ConfigError(f"{self._config.id}: the pipeline does not fit:", tuple(faults))


def load_pipeline(weights: Weights, config: DiffusersModelConfig, *, device: str) -> Any:
    """Load a pipeline folder without running any code that comes with it."""
    import torch
    from diffusers import DiffusionPipeline
    from safetensors import SafetensorError

    index = weights.folder / "model_index.json"
    if not index.is_file():
        raise InputError(
            f"{config.id}: expected a diffusers pipeline (model_index.json), got "
            f"{', '.join(sorted(p.name for p in weights.folder.iterdir())[:5]) or 'nothing'}."
        )
    components = json.loads(index.read_text())
    # A safety checker replaces images by black ones: a score would judge it, not the model.
    without = {"safety_checker": None} if "safety_checker" in components else {}
    if "requires_safety_checker" in components:
        without["requires_safety_checker"] = False  # type: ignore[assignment]
    try:
        pipeline: Any = DiffusionPipeline.from_pretrained(
            weights.folder,
            dtype=getattr(torch, config.dtype),
            variant=config.variant,
            use_safetensors=True,
            local_files_only=True,
            **without,
        )
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{config.id}: expected a pipeline that diffusers can load, got: {error}"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    if config.scheduler is not None:
        pipeline.scheduler = swap_scheduler(pipeline.scheduler, config.scheduler)
    return pipeline.to(device)


def swap_scheduler(current: Any, config: SchedulerConfig) -> Any:
    """Another scheduler with the settings of the pipeline's, and the given arguments on top."""
    import diffusers

    chosen: Any = getattr(diffusers, config.name, None)
    is_scheduler = inspect.isclass(chosen) and issubclass(chosen, diffusers.SchedulerMixin)
    if not is_scheduler:
        raise ConfigError(
            f"model.scheduler.name: expected a scheduler class of diffusers, got '{config.name}'."
        )
    # As keywords, not merged into the config: from_config ignores keys that the saved config
    # lists among its own defaults.
    scheduler = chosen.from_config(current.config, **config.arguments)
    ignored = [k for k, v in config.arguments.items() if scheduler.config.get(k, None) != v]
    if ignored:
        raise ConfigError(
            f"model.scheduler.arguments: {config.name} takes no {', '.join(sorted(ignored))}."
        )
    return scheduler


def _class_label(prompt: Prompt) -> int:
    if prompt.class_label is None:
        raise GenerationError(
            f"{prompt.key}: expected a class_label for a class-conditional pipeline, got none."
        )
    return prompt.class_label


def _scheduler_record(pipeline: Any) -> dict[str, Any]:
    config = dict(pipeline.scheduler.config)
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    return {"class": type(pipeline.scheduler).__name__, **public}


def _global_generator_states() -> list[torch.Tensor]:
    import torch

    states = [torch.random.get_rng_state()]
    if torch.cuda.is_available():
        states += torch.cuda.get_rng_state_all()
    return states

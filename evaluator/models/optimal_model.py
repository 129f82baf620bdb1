"""The optimal denoiser as a model: a diffusers pipeline whose "UNet" is a training set."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from diffusers import (
    ConfigMixin,
    DDIMScheduler,
    DiffusionPipeline,
    ImagePipelineOutput,
    ModelMixin,
)
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from evaluator.errors import ConfigError, GenerationError, InputError, SampleError
from evaluator.models.optimal_denoiser import optimal_denoiser
from evaluator.models.pixels import to_pixels
from evaluator.models.schedulers import swap_scheduler
from evaluator.models.unseeded import global_generator_states

if TYPE_CHECKING:
    from evaluator.config.schema import GenerationConfig, OptimalDenoiserModelConfig
    from evaluator.records import Prompt


class TrainingImages(Protocol):
    """Where the training images are read from: a pack."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys in order."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""

    def image(self, key: str) -> Tensor:
        """(3, H, W) uint8; raises SampleError when it cannot be decoded."""


class OptimalUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts the noise from the training images, where a UNet predicts it from its weights.

    Takes what a UNet of a variance-preserving schedule takes: a·y + b·n with a² + b² = 1.
    Timesteps between two of the schedule's lie between them in log σ, as schedulers have it.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        self.register_buffer("images", torch.empty(0, dtype=torch.uint8), persistent=False)
        self.register_buffer("log_sigmas", torch.empty(0), persistent=False)

    @classmethod
    def of(cls, images: Tensor, alphas_cumprod: Tensor) -> OptimalUNet:
        """From (N, C, H, W) uint8 images and a schedule's ᾱ."""
        channels, height, width = images.shape[1:]
        size = height if height == width else (height, width)
        unet: OptimalUNet = cls(size, channels, channels)
        unet.images = images
        cumprod = alphas_cumprod.to(torch.float64)
        unet.log_sigmas = ((1 - cumprod) / cumprod.clamp_min(1e-12)).log() / 2
        return unet

    @property
    def dtype(self) -> torch.dtype:
        """Of what goes in and comes out; the arithmetic is float64."""
        return torch.float32

    def forward(self, sample: Tensor, timestep: Tensor | float, return_dict: bool = True) -> Any:
        """(B, C, H, W) noisy images and a timestep, or (B,) of them => the predicted noise."""
        sigma = self._sigma(torch.as_tensor(timestep)).to(sample.device)
        alpha = (1 + sigma.square()).rsqrt()
        clean = optimal_denoiser(sample, self.images, alpha=alpha, sigma=alpha * sigma)
        form = (-1, *[1] * (sample.ndim - 1))
        a, b = alpha.reshape(form), (alpha * sigma).reshape(form)
        noise = ((sample - a * clean) / b).to(sample.dtype)
        return UNet2DOutput(sample=noise) if return_dict else (noise,)

    def _sigma(self, timestep: Tensor) -> Tensor:
        """σ = b/a, () or (B,) float64."""
        table = self.log_sigmas.cpu()
        place = timestep.detach().cpu().to(torch.float64).clamp(0, len(table) - 1)
        below = place.floor().long().clamp_max(max(len(table) - 2, 0))
        above = (below + 1).clamp_max(len(table) - 1)
        return torch.lerp(table[below], table[above], place - below).exp()


class OptimalDenoiserPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Unconditional sampling in pixels with any scheduler that predicts noise."""

    def __init__(self, unet: OptimalUNet, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = 50,
        output_type: str = "np",
        return_dict: bool = True,
    ) -> Any:
        """`images` (B, H, W, 3) float32 from 0 to 1, or (B, 3, H, W) with `output_type="pt"`."""
        self.scheduler.set_timesteps(num_inference_steps)
        shape = (batch_size, *self.unet.images.shape[1:])
        device = self.unet.images.device
        x = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        x = x * self.scheduler.init_noise_sigma
        takes = inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if "generator" in takes else {}
        for timestep in self.scheduler.timesteps:
            noise = self.unet(self.scheduler.scale_model_input(x, timestep), timestep).sample
            x = self.scheduler.step(noise, timestep, x, **extra).prev_sample
        images = (x / 2 + 0.5).clamp(0, 1).cpu()
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=images) if return_dict else (images,)


class OptimalDenoiserModel:
    """The optimal denoiser of a set of images as a GenerativeModel.

    A prompt gives its key, and so its seed; its text is not looked at. One CPU generator per
    sample, as for any model.
    """

    def __init__(
        self,
        config: OptimalDenoiserModelConfig,
        generation: GenerationConfig,
        training: TrainingImages,
        *,
        device: str = "cpu",
    ) -> None:
        self._device = device
        self._generation = generation
        self._training = training.fingerprint
        images = read_images(training).to(device)
        self._num_images = len(images)
        scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        faults: list[str] = []
        if config.scheduler is not None:
            try:
                scheduler = swap_scheduler(scheduler, config.scheduler)
            except ConfigError as error:
                faults.append(str(error))
        _check(scheduler, generation, images, faults)
        unet = OptimalUNet.of(images, scheduler.alphas_cumprod)
        self._pipeline = OptimalDenoiserPipeline(unet, scheduler)
        self._pipeline.set_progress_bar_config(disable=True)
        self.fingerprint = self._hash_of_all_that_decides()

    def for_generation(self, generation: GenerationConfig) -> OptimalDenoiserModel:
        """The same training images, not read again, sampled in another way."""
        _check(self._pipeline.scheduler, generation, self._pipeline.unet.images, [])
        other = copy.copy(self)
        other._generation = generation
        other.fingerprint = other._hash_of_all_that_decides()
        return other

    def _hash_of_all_that_decides(self) -> str:
        """SHA-256 over the training images, the scheduler and the settings."""
        scheduler = self._pipeline.scheduler
        public = {k: v for k, v in scheduler.config.items() if not k.startswith("_")}
        settings = self._generation.model_dump(mode="json")
        record = [self._training, type(scheduler).__name__, public, settings]
        return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def pipeline(self) -> Any:
        """The pipeline itself, for probes."""
        return self._pipeline

    def generate(
        self, prompts: Sequence[Prompt], image_indices: Sequence[int], seeds: Sequence[int]
    ) -> list[Tensor | SampleError]:
        """One sample for each prompt: (3, H, W) uint8.

        Raises GenerationError when the scheduler drew noise that the seeds do not control.
        """
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        before = global_generator_states(self._device)
        images = self._pipeline(
            batch_size=len(seeds),
            generator=generators,
            num_inference_steps=self._generation.steps,
            output_type="pt",
        ).images
        if not all(map(torch.equal, before, global_generator_states(self._device))):
            raise GenerationError(
                f"{type(self._pipeline.scheduler).__name__} drew from the global random generator:"
                " its images depend on what ran before them. Choose another model.scheduler."
            )
        return to_pixels(images, remedy="choose another model.scheduler")

    def truncated(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Nothing is encoded, so nothing is cut."""
        return [False] * len(prompts)

    def describe(self) -> Mapping[str, Any]:
        """Provenance: the training images, the scheduler, and where it ran."""
        return {
            "kind": "optimal_denoiser",
            "content": self._training,
            "num_images": self._num_images,
            "fingerprint": self.fingerprint,
            "pipeline": type(self._pipeline).__name__,
            "scheduler": type(self._pipeline.scheduler).__name__,
            "dtype": "float64",
            "device": self._device,
        }


def read_images(training: TrainingImages) -> Tensor:
    """All training images as (N, 3, H, W) uint8.

    Raises InputError when there are none, when one cannot be decoded, or when their sizes differ.
    """
    images: list[Tensor] = []
    for key in training.keys:
        try:
            image = training.image(key)
        except SampleError as error:
            raise InputError(
                f"model.source: expected images, got one that cannot be decoded: {key}: {error}; "
                "leave it out"
            ) from error
        if images and image.shape != images[0].shape:
            sizes = " and ".join(f"{i.shape[2]}x{i.shape[1]}" for i in (images[0], image))
            raise InputError(
                f"model.source: expected training images of one size, got {sizes} ({key}); resize "
                "them to one size first"
            )
        images.append(image)
    if not images:
        raise InputError("model.source: expected at least one training image, got none")
    return torch.stack(images)


def _check(scheduler: Any, generation: GenerationConfig, images: Tensor, faults: list[str]) -> None:
    """Refuse what the training images or the noise prediction do not fit, with other `faults`."""
    prediction = scheduler.config.get("prediction_type")
    if not hasattr(scheduler, "alphas_cumprod") or prediction != "epsilon":
        faults.append(
            f"model.scheduler: expected one that has alphas_cumprod and predicts epsilon (DDIM, "
            f"Euler, Heun, DPM-Solver), got {type(scheduler).__name__} ({prediction})"
        )
    for name, size in zip(("height", "width"), images.shape[-2:], strict=True):
        asked = getattr(generation, name)
        if asked is not None and asked != size:
            faults.append(
                f"generation.{name}: expected {size}, the size of the training images, or none, "
                f"got {asked}"
            )
    if faults:
        raise ConfigError("the optimal denoiser cannot sample as asked:", tuple(faults))

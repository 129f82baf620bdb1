"""What may be said about a diffusers pipeline: weights, what is added to them, how it computes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from evaluator.config.sections import NumericSection, Section


class SchedulerConfig(Section):
    """Which scheduler takes the place of the pipeline's own."""

    name: str
    """Class name in diffusers: `DPMSolverMultistepScheduler`."""
    arguments: dict[str, Any] = Field({})
    """Arguments that replace those of the pipeline's scheduler."""


class LoraConfig(NumericSection):
    """Low-rank weights that are added to the model's own when it is loaded."""

    id: str
    """Hub id, folder, or a `.safetensors` file."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    weight_name: str | None = None
    """Which file, where there are several."""
    scale: float = Field(1.0, allow_inf_nan=False)
    """Factor of the weights; 0 leaves the model as it is."""


class ControlNetConfig(NumericSection):
    """A network that steers the denoiser by an image: each prompt's attachment `control`."""

    id: str
    """Hub id or folder of a ControlNet in diffusers' format."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    scale: float = Field(1.0, allow_inf_nan=False)
    """How strongly it steers: `controlnet_conditioning_scale`."""
    start: float = Field(0.0, ge=0, le=1)
    """From which fraction of the steps on."""
    end: float = Field(1.0, ge=0, le=1)
    """Until which fraction of the steps."""

    @model_validator(mode="after")
    def _some_steps(self) -> ControlNetConfig:
        if not self.start < self.end:
            raise ValueError(f"expected start < end, got {self.start} and {self.end}")
        return self


class RefinerConfig(NumericSection):
    """A second pipeline that takes the last steps over, as SDXL's refiner does.

    It goes on with the first one's scheduler, prompts, guidance and further arguments.
    """

    id: str
    """Hub id or folder of the refiner."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    start: float = Field(0.8, gt=0, lt=1)
    """After which fraction of the steps it takes over."""


class DiffusersModelConfig(Section):
    """A diffusers pipeline, by id on the hub or by folder."""

    kind: Literal["diffusers"]
    """Any diffusers pipeline."""
    id: str
    """Hub id, folder, or `package://name/path` inside an installed package."""
    revision: str | None = None
    """Branch, tag or commit; the commit it stands for is pinned in the run."""
    variant: str | None = None
    """Weights variant, such as `fp16`."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type that weights are loaded as."""
    task: Literal["text-to-image", "image-to-image", "inpainting"] | None = None
    """What the checkpoint is used for; None: what it was saved for. Other tasks start from the
    prompts' attachments `init` and `mask`, brought to generation.height and width."""
    scheduler: SchedulerConfig | None = None
    """Another scheduler than the pipeline's own."""
    loras: tuple[LoraConfig, ...] = ()
    """Low-rank weights added to the model's own, in this order."""
    controlnet: ControlNetConfig | None = None
    """A ControlNet, which reads the prompts' attachment `control`."""
    refiner: RefinerConfig | None = None
    """A pipeline that takes the last steps over; probes watch the first one."""
    arguments: dict[str, Any] = Field({})
    """Further arguments for every call of the pipeline, such as `eta` or `clip_skip`; a text for
    single encoders (`prompt_2`) is one for all samples."""
    compile: bool = Field(False, strict=True)
    """Compile the denoiser with torch.compile: faster after the first batch, and the images may
    differ in the last bits. Attention cannot be observed then."""
    attention_backend: str | None = None
    """An attention backend of diffusers, such as `native` or `flash`, for models that take one."""
    vae_slicing: bool = Field(False, strict=True)
    """Decode image by image: less memory."""
    vae_tiling: bool = Field(False, strict=True)
    """Decode in overlapping tiles: less memory, and large images change a little."""
    cpu_offload: Literal["model", "sequential"] | None = None
    """Keep parts in main memory until they are needed: whole components or single layers. Needs a
    GPU; images stay the same."""

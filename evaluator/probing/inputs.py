"""What a verb works on: a model, images and an extractor, read as `run` reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.config import RunConfig, load_config
from evaluator.config.asked import FeatureConfig, SourceConfig
from evaluator.config.load import parse_record
from evaluator.errors import ConfigError, InputError, ProbeError, SampleError
from evaluator.probes.latent_space import image_size
from evaluator.records import Prompt
from evaluator.runner.parts import build_extractor, build_model
from evaluator.runner.quiet import quiet_libraries
from evaluator.runner.surroundings import cache_folder, open_pack
from evaluator.runner.trust import Trust

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from evaluator.data import Pack
    from evaluator.protocols import FeatureExtractor, GenerativeModel

CONFIG_SUFFIXES = (".yaml", ".yml")
BATCH_SIZE = 16
"""Images in one forward pass of an extractor or an autoencoder on its own."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which model, and what differs from its own settings."""

    model: str
    """Pipeline folder, hub id or `package://name/path`; or a configuration of `run` (YAML)."""
    device: str | None = None
    """Such as `cuda:1`; None takes the GPU if there is one."""
    dtype: str | None = None
    """`float32`, `float16` or `bfloat16`."""
    steps: int | None = None
    """Denoising steps."""
    guidance_scale: float | None = None
    """Classifier-free guidance."""
    seed: int | None = None
    """Seed that every draw of the verb comes from."""
    overrides: tuple[str, ...] = ()
    """`a.b=value`, for anything else that a configuration may say."""
    allow_code: bool = False
    """Whether `module:attr` in the configuration is imported."""


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """A model, loaded on its device, with the configuration that it was loaded by."""

    name: str
    """What the output folder is called after."""
    model: GenerativeModel
    config: RunConfig
    device: str
    trust: Trust

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline; ProbeError where the model has none."""
        pipeline = self.model.pipeline
        if pipeline is None:
            raise ProbeError(
                f"Expected a model with a diffusers pipeline to look into; {self.name} has none. "
                "Name a pipeline folder, a hub id, or a configuration of kind diffusers."
            )
        return pipeline

    @property
    def batch_size(self) -> int:
        """Samples in one call of the model: `runtime.batch_size`."""
        return self.config.runtime.batch_size

    @property
    def seed(self) -> int:
        """The seed that every draw of the verb comes from."""
        return self.config.generation.seed


class ProbedImages(NamedTuple):
    """Images and what was said about them, in the order of their source."""

    prompts: tuple[Prompt, ...]
    images: tuple[Tensor, ...]
    """(3, H, W) uint8 each; sizes may differ."""
    fingerprint: str
    """Hash of the content."""
    refused: tuple[str, ...]
    """Why each of the others is missing here."""


def load_model(request: ModelRequest) -> ProbedModel:
    """Load the model of a folder, of the hub or of a configuration; ConfigError, InputError."""
    config, relative_to = _model_config(request)
    trust = Trust(allow_code=request.allow_code, relative_to=relative_to)
    device = request.device or _device()
    quiet_libraries(generates=config.model.kind != "images")
    try:
        model = build_model(config, None, device=device, trust=trust)
    except RuntimeError as error:
        if device == "cpu" or "device" not in str(error).lower():
            raise
        raise ConfigError(
            f"--device: expected a device of this machine, got {device!r} ({error}); leave it out"
        ) from error
    return ProbedModel(config.name, model, config, device, trust)


def _model_config(request: ModelRequest) -> tuple[RunConfig, Path | None]:
    """The configuration that a request stands for, and the folder that it lies in."""
    settings = [
        f"{path}={value}"
        for path, value in (
            ("model.dtype", request.dtype),
            ("generation.steps", request.steps),
            ("generation.guidance_scale", request.guidance_scale),
            ("generation.seed", request.seed),
        )
        if value is not None
    ]
    settings += request.overrides
    path = Path(request.model)
    if path.suffix in CONFIG_SUFFIXES:
        return load_config(path, settings), path.parent
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-._")
    record = {
        "name": stem[:100] or "model",
        "model": {"kind": "diffusers", "id": request.model},
        "prompts": {"source": "none"},
    }
    return parse_record(record, settings, where=request.model), None


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_texts(source: str, probed: ProbedModel) -> tuple[str, ...]:
    """The texts of any source of prompts that `run` packs; InputError without any."""
    texts = [p.text for p in _open(source, probed, limit=None).prompts() if p.text is not None]
    if not texts:
        raise InputError(f"{source}: expected prompts with a text, got none; name a file of them")
    return tuple(texts)


def _open(source: str, probed: ProbedModel, *, limit: int | None) -> Pack:
    # a path on the command line is the user's, not the configuration's
    trust = Trust(allow_code=probed.trust.allow_code, relative_to=Path.cwd())
    reading = SourceConfig(source=source, limit=limit)
    return open_pack(reading, cache_folder(probed.config), trust)


def load_images(source: str, probed: ProbedModel, *, limit: int) -> ProbedImages:
    """The first `limit` images of any source that `run` packs; InputError without any.

    An image that cannot be decoded is left out, and said to be.
    """
    pack = _open(source, probed, limit=limit)
    if pack.image_part(pack.keys[0]) is None:
        raise InputError(f"{source}: expected images, got prompts without any; name the images")
    prompts, images, refused = [], [], []
    for prompt in pack.prompts():
        try:
            images.append(pack.image(prompt.key))
            prompts.append(prompt)
        except SampleError as error:
            refused.append(f"{prompt.key}: {error}")
    if not images:
        raise InputError(f"{source}: expected images, got none that can be decoded: {refused[0]}")
    return ProbedImages(tuple(prompts), tuple(images), pack.fingerprint, tuple(refused))


def images_size(probed: ProbedModel) -> tuple[int, int]:
    """Height and width of the model's images: the configuration's, else the pipeline's own."""
    generation = probed.config.generation
    own = image_size(probed.pipeline) or (None, None)
    height, width = generation.height or own[0], generation.width or own[1]
    if height is None or width is None:
        raise ConfigError(
            f"{probed.name}: expected a pipeline that knows the size of its images, got "
            f"{type(probed.pipeline).__name__}; set generation.height and generation.width"
        )
    return height, width


def fit_images(images: Sequence[Tensor], *, height: int, width: int) -> Tensor:
    """Images of any size → (N, 3, height, width) uint8.

    The largest centred part of the asked shape, resized by Pillow's bicubic filter; an image that
    has the size already is taken as it is.
    """
    import numpy as np
    import torch
    from PIL import Image

    fitted = []
    for image in images:
        if image.shape[-2:] == (height, width):
            fitted.append(image)
            continue
        rows, columns = image.shape[-2:]
        scale = min(rows / height, columns / width)
        top, left = (rows - scale * height) / 2, (columns - scale * width) / 2
        box = (left, top, left + scale * width, top + scale * height)
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        resized = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
        fitted.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1))
    return torch.stack(fitted).contiguous()


def load_extractor(name: str, probed: ProbedModel, *, weights: str | None) -> FeatureExtractor:
    """An extractor by name, with the weights given here, else those of the configuration."""
    configured = {feature.name: feature for feature in probed.config.features}
    feature = configured.get(name) or FeatureConfig.model_validate({"name": name})
    if weights is not None:
        feature = feature.model_copy(update={"id": weights})
    return build_extractor(feature, device=probed.device, trust=probed.trust)


def embed_images(extractor: FeatureExtractor, images: Tensor) -> np.ndarray:
    """(N, 3, H, W) uint8 → `features` (N, D) float64."""
    import numpy as np
    import torch

    parts = []
    for start in range(0, len(images), BATCH_SIZE):
        inputs = [extractor.preprocess(image) for image in images[start : start + BATCH_SIZE]]
        parts.append(extractor.embed(torch.stack(inputs))["features"].double().numpy())
    return np.concatenate(parts)

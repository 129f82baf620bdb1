"""Images that a verb looks at: those given, else those that the run or configuration names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.config.asked import SourceConfig
from evaluator.data import decode_image, parse_member, read_image_tar
from evaluator.errors import ConfigError, InputError, ObservationError, SampleError
from evaluator.probes.latent_space import LatentSpace, image_size, scale_factor, to_pixels
from evaluator.probing.inputs import ProbedImages, ProbedModel, given_pack, own_pack
from evaluator.records import Prompt
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from evaluator.data import Pack
    from evaluator.protocols import FeatureExtractor

BATCH_SIZE = 16
"""Images in one forward pass of an extractor or an autoencoder on its own."""


def load_images(source: str, probed: ProbedModel, *, limit: int) -> ProbedImages:
    """The first `limit` images of any source that `run` packs, or of a run; InputError without any.

    An image that cannot be decoded is left out, and said to be.
    """
    if (Path(source) / "init").is_dir():
        return kept_images(RunDirectory.open(Path(source)), limit=limit)
    pack = given_pack(source, probed, limit=limit)
    if pack.image_part(pack.keys[0]) is None:
        raise InputError(f"{source}: expected images, got prompts without any; name the images")
    return _decoded(pack, source, limit)


def chosen_images(
    given: str | None, probed: ProbedModel, *, limit: int, option: str = "--images"
) -> ProbedImages:
    """The images given, else those of the configuration's first reference, else of its prompts.

    ConfigError without any.
    """
    if given is not None:
        return load_images(given, probed, limit=limit)
    named: list[tuple[str, SourceConfig]] = []
    if probed.has_prompts:
        named = [
            (f"the reference '{name}'", reference.images)
            for name, reference in probed.config.references.items()
            if reference.images is not None
        ]
        named.append(("the prompts", probed.config.prompts))
    for what, source in named:
        pack = own_pack(probed, source, limit=limit)
        if pack.image_part(pack.keys[0]) is not None:
            note = f"images of {what}: {source.source}"
            return _decoded(pack, source.source, limit)._replace(note=note)
    knows = "has no reference or prompts with images" if named else "is a model alone"
    raise ConfigError(
        f"{option}: expected images, got none, and {probed.name} {knows}; give a folder, .zip, "
        ".npz, .parquet, .tar, pack, or package://…"
    )


def keeps_images(run: RunDirectory) -> bool:
    """Whether a run kept the images of any committed shard."""
    return any((run.shard_path(shard) / "images.tar").is_file() for shard in run.committed())


def kept_images(run: RunDirectory, *, limit: int) -> ProbedImages:
    """The first images that a run made and kept, with their prompts' texts; keys are `key__index`.

    InputError for a run that kept none.
    """
    prompts: list[Prompt] = []
    images: list[Tensor] = []
    refused: list[str] = []
    digest = hashlib.sha256()
    for shard in run.committed():
        path = run.shard_path(shard) / "images.tar"
        if not path.is_file():
            run.files(shard).require_never_there(path.name)
        texts = _texts(run, shard)
        for kept in read_image_tar(path) if path.is_file() else ():
            if len(prompts) + len(refused) == limit:
                break
            digest.update(kept.data)
            try:
                images.append(decode_image(kept.data, name=kept.key))
                prompts.append(Prompt(kept.key, texts.get(parse_member(kept.key).key)))
            except SampleError as error:
                refused.append(str(error))
    if not images:
        raise InputError(
            f"--images: expected a run that kept images, got none in {run.path}; give images"
        )
    note = f"images of the run {run.path}"
    return ProbedImages(tuple(prompts), tuple(images), digest.hexdigest(), tuple(refused), note)


def _texts(run: RunDirectory, shard: int) -> dict[str, str | None]:
    """Key → text of a shard's prompts."""
    table = run.read(shard, "samples.parquet", kind="samples", columns=["key", "prompt"])
    keys, texts = (table.column(name).to_pylist() for name in ("key", "prompt"))
    return dict(zip(keys, texts, strict=True))


def _decoded(pack: Pack, source: str, limit: int) -> ProbedImages:
    prompts, images, refused = [], [], []
    for prompt in pack.prompts(0, limit):
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
    # packed latents are patches of 2×2
    multiple = scale_factor(probed.pipeline) * (1 + hasattr(probed.pipeline, "_pack_latents"))
    if height % multiple or width % multiple:
        raise ConfigError(
            f"{probed.name}: expected images whose sides are multiples of {multiple} pixels, as "
            f"the latents are, got {height}×{width}; set generation.height and generation.width"
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


def encode_images(
    probed: ProbedModel, space: LatentSpace, images: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Images at the model's size, (N, 3, H, W) uint8, and their scaled latents (N, C, h, w).

    ProbeError where the autoencoder gives what is not finite.
    """
    height, width = images_size(probed)
    fitted = fit_images(images, height=height, width=width)
    latents = space.scale(space.encode(to_pixels(fitted).to(probed.device)))
    require_finite(latents, f"latents of {type(space.autoencoder).__name__}")
    return fitted, latents


def require_finite(values: Tensor, what: str) -> None:
    """ProbeError where a network overflowed, or its weights are broken."""
    finite = values.isfinite()
    if bool(finite.all()):
        return
    share = 1 - float(finite.double().mean())
    raise ObservationError(
        f"Expected finite {what}; got NaN or infinity in {100 * share:.3g} % of the numbers. Try "
        "--dtype float32; if it stays, the weights are damaged."
    )


def embed_images(extractor: FeatureExtractor, images: Tensor) -> np.ndarray:
    """(N, 3, H, W) uint8 → `features` (N, D) float64."""
    import numpy as np
    import torch

    parts = []
    for start in range(0, len(images), BATCH_SIZE):
        inputs = [extractor.preprocess(image) for image in images[start : start + BATCH_SIZE]]
        features = extractor.embed(torch.stack(inputs))["features"]
        parts.append(features.cpu().double().numpy())
    return np.concatenate(parts)

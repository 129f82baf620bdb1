"""The weights of the FID network: where they come from, and what they must look like."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError, InputError
from evaluator.features.fetch import PublishedFile, fetch_published
from evaluator.features.settings import brief
from evaluator.locations import PACKAGE_SCHEME, cache_folder, expand
from evaluator.weights import fetch_file, is_hub_id

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = PublishedFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    max_bytes=95_628_359,
)
"""TensorFlow's "2015-12-05" Inception as converted for pytorch-fid, published by torch-fidelity."""

SUFFIXES = (".pth", ".pt", ".safetensors")
_MAX_BYTES = 1 << 29
_COUNTERS = ".num_batches_tracked"
"""What batch normalisation counts while it trains; not every file has it, and nothing reads it."""


def find_inception_weights(
    location: str | None,
    *,
    file: str | None,
    revision: str | None,
    relative_to: Path | None,
    cache: Path | None = None,
) -> Path:
    """The weights file: a path, a package's file, a file of a hub repository, or the published.

    Raises InputError when it is not there, ConfigError when a hub id comes without its `file`.
    """
    if location is None:
        return fetch_published(PUBLISHED, (cache or cache_folder()) / "weights")
    path = expand(location, relative_to=relative_to)
    if path.is_file():
        return path
    if location.startswith(PACKAGE_SCHEME) or path.exists() or not is_hub_id(location):
        raise InputError(
            f"{location}: expected a weights file ({', '.join(SUFFIXES)}) or a hub id "
            f"(owner/name), got {'a folder' if path.is_dir() else 'nothing'} at {path}. Check the "
            "path, or leave `id` out to take the published weights."
        )
    if file is None:
        raise ConfigError(
            f"{location}: expected the option `file` with a hub id, got none; it names the weights "
            f"file inside the repository, such as {PUBLISHED.name}."
        )
    return fetch_file(location, file, revision=revision)


def read_state_dict(path: Path, network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a weights file, which must be those of `network` by name and shape.

    No code of the file runs. Raises InputError when it is damaged, something else, or too large.
    """
    record = _read(path)
    if not isinstance(record, Mapping) or not all(isinstance(name, str) for name in record):
        raise InputError(
            f"{path}: expected the state dict of torch-fidelity's Inception, got "
            f"{type(record).__name__}. Save model.state_dict(), not the model."
        )
    wanted = {name for name in network if not name.endswith(_COUNTERS)}
    found = {name for name in record if not name.endswith(_COUNTERS)}
    if wanted != found:
        raise InputError(
            f"{path}: expected the state dict of torch-fidelity's Inception ({len(wanted)} "
            f"tensors), got {len(found)}; missing: {_some(wanted - found)}; unexpected: "
            f"{_some(found - wanted)}. Leave `id` out to take the published weights."
        )
    for name in sorted(wanted):
        _check_tensor(path, name, record[name], network[name])
    return {name: record[name].detach().float() for name in sorted(wanted)}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values: the same for .pth and .safetensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].contiguous().numpy()
        digest.update(f"{name}\n{values.shape}\n".encode())
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _check_tensor(path: Path, name: str, got: object, wanted: Tensor) -> None:
    import torch

    if not isinstance(got, torch.Tensor) or got.layout != torch.strided or got.is_meta:
        raise InputError(
            f"{path}: expected '{name}' to be a dense tensor, got {type(got).__name__}."
        )
    if got.shape != wanted.shape or not got.is_floating_point():
        raise InputError(
            f"{path}: expected '{name}' of shape {tuple(wanted.shape)} and a floating type, got "
            f"{tuple(got.shape)} {str(got.dtype).removeprefix('torch.')}. It is another network; "
            "leave `id` out to take the published weights."
        )
    if not bool(torch.isfinite(got).all()):
        raise InputError(
            f"{path}: expected finite weights, got NaN or infinity in '{name}'. Fetch it again."
        )


def _read(path: Path) -> Any:
    """Whatever a weights file holds, without running code of its."""
    import torch
    from safetensors.torch import load_file

    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path}: expected weights as {', '.join(SUFFIXES)}, got '{path.suffix}'. Rename the "
            "file if it is one of these."
        )
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise InputError(
            f"{path}: expected the weights of torch-fidelity's Inception (about 96 MB), got "
            f"{size // 1_000_000} MB."
        )
    _refuse_compressed(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says about odd pickles, refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file may raise anything
        raise InputError(
            f"{path}: expected a weights file without code in it, got one that cannot be read: "
            f"{_reason(error)}. Fetch it again, or save it anew as .safetensors."
        ) from error


def _refuse_compressed(path: Path) -> None:
    """A compressed archive may unfold to any size; torch.save and safetensors do not compress."""
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise InputError(
            f"{path}: expected a weights file, got a damaged archive: {_reason(error)}. "
            "Fetch it again."
        ) from error
    if unfolded > path.stat().st_size:
        raise InputError(
            f"{path}: expected an archive as torch.save writes it, uncompressed; got "
            f"{unfolded} bytes folded into {path.stat().st_size}. Save it anew as .safetensors."
        )


def _reason(error: BaseException) -> str:
    """What was wrong in a few words; never torch's own advice to run the code after all."""
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL (\S+)", str(error))
        return f"it wants to run {named[1]}" if named else "it is no pickle of tensors"
    return brief(error)


def _some(names: set[str]) -> str:
    first = sorted(names)[:3]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "") if first else "none"

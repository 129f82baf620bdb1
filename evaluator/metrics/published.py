"""Reference moments in files, as pytorch-fid, clean-fid, EDM and guided-diffusion publish them.

An `.npz` with the arrays `mu` (D,) and `sigma` (D, D); guided-diffusion's batches hold `mu_s` and
`sigma_s` of the spatial features too, beside gigabytes of images that are not read. No pickle is
ever loaded, and no array before its header says that it is as large as it should be.
"""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from evaluator.durable import write_atomically
from evaluator.errors import InputError
from evaluator.metrics.frechet import negative_tolerance

MAX_DIM = 16_384
"""Wider moments are taken for a mistake: 2 GiB of covariance."""
MAX_TEXT = 1_024
"""Bytes of a fingerprint or a name."""
ASYMMETRY = 1e-6
"""Largest difference of mirrored entries, relative to the largest entry: rounding to float32."""

_TEXTS = ("fingerprint", "extractor", "features_fingerprint")
"""What our own files say beside the numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceMoments:
    """Mean and covariance of a reference set's features."""

    mean: NDArray[np.float64]
    """(D,)."""
    covariance: NDArray[np.float64]
    """(D, D), symmetric, positive semidefinite to rounding."""
    n: int | None
    """Number of samples behind them; None where the file does not say."""
    fingerprint: str | None
    """Of the extractor; None where the file does not say."""
    origin: str
    """Where they come from, for messages."""
    extractor: str | None = None
    """Name of the extractor; None where the file does not say."""
    features_fingerprint: str | None = None
    """Fingerprint of the features, with what a lossy codec or half precision did to them."""
    remarks: tuple[str, ...] = ()
    """Sentences for the reader of numbers against this reference."""


def read_moments(path: Path | str, *, spatial: bool = False) -> ReferenceMoments:
    """The moments in an `.npz` file; `spatial` takes `mu_s` and `sigma_s`, which sFID needs.

    Raises InputError: no file, a pickle, a damaged archive, missing keys, wrong shapes, objects,
    NaN, or a matrix that is no covariance beyond what rounding to float32 explains.
    """
    path = Path(path)
    _refuse_other_formats(path)
    keys = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            missing = [key for key in keys if key not in members]
            if missing:
                raise InputError(
                    f"{path}: expected the arrays {' and '.join(keys)}, got "
                    f"{', '.join(sorted(members)[:20]) or 'none'}; give a file of moments, or "
                    "embed the images as a reference"
                )
            mean = _array(path, archive, members, keys[0], _vector_fault)
            covariance = _array(path, archive, members, keys[1], _square_fault)
            n = _number(path, archive, members)
            texts = {key: _text(path, archive, members, key) for key in _TEXTS}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path}: expected a whole .npz file, got a damaged one ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable .npz file, got {error.strerror or error}; check the path"
        ) from error
    covariance, remarks = _checked(path, keys, mean, covariance)
    return ReferenceMoments(mean, covariance, n, origin=str(path), remarks=remarks, **texts)


def write_moments(
    path: Path | str, moments: ReferenceMoments, *, spatial: ReferenceMoments | None = None
) -> None:
    """Write `mu`, `sigma` and, where known, `n` and what the features were: plain arrays.

    `spatial` are those of the spatial features, written as `mu_s` and `sigma_s`. pytorch-fid and
    clean-fid read the file. It appears whole or not at all; the same moments give the same bytes.
    """
    known = {key: getattr(moments, key) for key in ("n", *_TEXTS)}
    arrays = {"mu": np.asarray(moments.mean), "sigma": np.asarray(moments.covariance)}
    if spatial is not None:
        arrays |= {"mu_s": np.asarray(spatial.mean), "sigma_s": np.asarray(spatial.covariance)}
    arrays |= {key: np.array(value) for key, value in known.items() if value is not None}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(Path(path), content.getvalue())


def _refuse_other_formats(path: Path) -> None:
    """What is no archive, said by what it is."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable .npz file, got {error.strerror or error}; check the path"
        ) from error
    if start[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
        raise InputError(
            f"{path}: expected an .npz file, got a pickle, which can run any code when it is "
            "loaded; where you trust it, load it yourself and save its arrays with "
            "numpy.savez(path, mu=..., sigma=...)"
        )
    if start == b"\x93NUMPY":
        raise InputError(
            f"{path}: expected an .npz file with mu and sigma, got a single .npy array; save both "
            "with numpy.savez(path, mu=..., sigma=...)"
        )


def _vector_fault(shape: tuple[int, ...]) -> str | None:
    if len(shape) != 1 or not 1 <= shape[0] <= MAX_DIM:
        return f"shape (D,) with D from 1 to {MAX_DIM}"
    return None


def _square_fault(shape: tuple[int, ...]) -> str | None:
    if len(shape) != 2 or shape[0] != shape[1] or not 1 <= shape[0] <= MAX_DIM:
        return f"shape (D, D) with D from 1 to {MAX_DIM}"
    return None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and dtype that an `.npy` member says it has."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # written by Python 2: read all the same
            shape, _, dtype = read(file)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        raise
    except Exception as error:  # a header is parsed as Python, which fails in many ways
        raise ValueError(f"a header that is none ({type(error).__name__})") from error
    return shape, dtype


def _whole(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    """An array whose header was accepted, read to its end, where its checksum is."""
    with archive.open(name) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise InputError(
                f"{path}: {name}: expected {array.nbytes} bytes as its header says, got more; "
                "fetch the file again"
            )
    return array


def _array(
    path: Path,
    archive: zipfile.ZipFile,
    members: dict[str, str],
    key: str,
    fault: Callable[[tuple[int, ...]], str | None],
) -> NDArray[np.float64]:
    """A finite float64 array, read after its header was checked."""
    try:
        with archive.open(members[key]) as file:
            shape, dtype = _header(file)
        expected = "numbers" if dtype.kind not in "fiu" else fault(shape)
        if expected is not None:
            raise InputError(
                f"{path}: {key}: expected {expected}, got {dtype} of shape {shape}; save the mean "
                "and the covariance of the features with numpy.savez(path, mu=..., sigma=...)"
            )
        array = _whole(path, archive, members[key])
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: {key}: expected a whole array, got {error}; fetch the file again"
        ) from error
    if not np.isfinite(array).all():
        raise InputError(
            f"{path}: {key}: expected finite numbers, got {int((~np.isfinite(array)).sum())} that "
            "are not; compute the moments again"
        )
    return array.astype(np.float64)


def _small(
    path: Path, archive: zipfile.ZipFile, members: dict[str, str], key: str, kinds: str
) -> NDArray[np.generic] | None:
    """A single optional value of one of the dtype `kinds`."""
    if key not in members:
        return None
    try:
        with archive.open(members[key]) as file:
            shape, dtype = _header(file)
        if int(np.prod(shape)) == 1 and dtype.kind in kinds and dtype.itemsize <= 4 * MAX_TEXT:
            return _whole(path, archive, members[key]).reshape(())
    except ValueError as error:
        raise InputError(f"{path}: {key}: expected one value, got {error}; remove it") from error
    raise InputError(
        f"{path}: {key}: expected one {'number' if 'i' in kinds else 'text'}, got {dtype} of shape "
        f"{shape}; remove it or write it again"
    )


def _number(path: Path, archive: zipfile.ZipFile, members: dict[str, str]) -> int | None:
    value = _small(path, archive, members, "n", "iu")
    if value is None:
        return None
    if int(value) < 2:
        raise InputError(f"{path}: n: expected at least 2 samples, got {int(value)}; remove it")
    return int(value)


def _text(path: Path, archive: zipfile.ZipFile, members: dict[str, str], key: str) -> str | None:
    value = _small(path, archive, members, key, "U")
    return None if value is None else str(value)


def _checked(
    path: Path, keys: tuple[str, str], mean: NDArray[np.float64], cov: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The covariance, symmetric to the bit, and what is to be said about it."""
    import torch

    if len(mean) != len(cov):
        raise InputError(
            f"{path}: expected {keys[0]} and {keys[1]} of one dimension, got {len(mean)} and "
            f"{len(cov)}; save both of the same features"
        )
    scale = float(np.abs(cov).max())
    difference = float(np.abs(cov - cov.T).max())
    if difference > ASYMMETRY * scale:
        raise InputError(
            f"{path}: {keys[1]}: expected a symmetric matrix, got mirrored entries that differ by "
            f"{difference:.3g}; compute the covariance again"
        )
    cov = (cov + cov.T) / 2.0
    tensor = torch.from_numpy(cov)
    lowest = float(torch.linalg.eigvalsh(tensor)[0])
    allowed = negative_tolerance(tensor)
    if lowest < -allowed:
        raise InputError(
            f"{path}: {keys[1]}: expected a positive semidefinite matrix, got one with the "
            f"eigenvalue {lowest:.3g}, more than rounding to float32 explains ({-allowed:.3g}); "
            "compute the covariance again"
        )
    if lowest < -1e-12 * scale * len(cov):
        return cov, (
            f"the reference's covariance has eigenvalues down to {lowest:.3g}, as rounding to "
            "float32 leaves them; where they matter they are taken as 0",
        )
    return cov, ()

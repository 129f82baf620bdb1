"""SSCD (Pizzi et al. 2022): descriptors that find copies, from the published TorchScript files.

A TorchScript file is a program. One is loaded only when its SHA-256 is known here, or stated by
the user, and then from the very bytes that were hashed.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError, InputError
from evaluator.features.fetch import PublishedFile, fetch_published
from evaluator.features.resize import resize_pillow
from evaluator.features.settings import brief, fingerprint, imagenet_normalised, torch_dtype
from evaluator.locations import cache_folder, expand

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_FILE = "sscd_disc_large.torchscript.pt"
"""The descriptor (1024 numbers) that memorization studies report similarities of."""
KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56": (
            "sscd_disc_mixup.torchscript.pt"
        )
    }
)
"""SHA-256 → published file. That of the default file is not known here: the user states it."""
_ADDRESS = "https://dl.fbaipublicfiles.com/sscd-copy-detection/"
_MAX_BYTES = 1 << 29
_SIZE = 320


class SscdExtractor:
    """SSCD descriptors, `features` (N, 1024) for the large model; 512 for the others.

    Images become 320 x 320 whatever their aspect (8-bit Pillow bilinear, the authors' "skew
    320"), x / 255, normalised by ImageNet's mean and standard deviation. The published programs
    bring descriptors to length one themselves; nothing is added here.

    `id` is the file (or `package://`), and `sha256` what it must be: needed for every file that
    is not in `KNOWN`. Without `id` the default file is fetched, and `sha256` decides whether it
    is run.
    """

    def __init__(
        self,
        *,
        name: str = "sscd",
        id: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        relative_to: Path | None = None,
        cache: Path | None = None,
        sha256: str | None = None,
    ) -> None:
        self.name = name
        self._device = device
        self._dtype = torch_dtype(name, dtype)
        wanted = _stated(name, sha256)
        path = _find(name, id, wanted, relative_to, (cache or cache_folder()) / "weights")
        program, weights_sha256 = _read(path, wanted)
        self._network = _load(path, program).to(device, self._dtype).eval()
        self.outputs: Mapping[str, int] = {"features": self._dimension(path)}
        preprocessing = f"sscd, Pillow bilinear to {_SIZE}, ImageNet mean and std"
        self.fingerprint = fingerprint(weights_sha256, preprocessing, dtype)

    def preprocess(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → (3, 320, 320) float32: squashed, scaled, normalised."""
        return imagenet_normalised(resize_pillow(image, _SIZE, "bilinear"))

    def embed(self, batch: Tensor) -> Mapping[str, Tensor]:
        """(N, 3, 320, 320) → `features` (N, D) float32, as the program gives them."""
        import torch

        # A program that is optimised while it runs may change bits on the way.
        as_written = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
        with torch.inference_mode(), as_written:
            features: Tensor = self._network(batch.to(self._device, self._dtype))
        return {"features": features.float().cpu()}

    def _dimension(self, path: Path) -> int:
        """How wide the descriptor of a black image is."""
        import torch

        black = self.preprocess(torch.zeros(3, 8, 8, dtype=torch.uint8))
        try:
            shape = self.embed(black[None])["features"].shape
        except (RuntimeError, AttributeError) as error:
            raise InputError(
                f"{path}: expected a program that takes (N, 3, {_SIZE}, {_SIZE}) and gives "
                f"descriptors, got: {brief(error, line=-1)}."
            ) from error
        if len(shape) != 2 or shape[0] != 1:
            raise InputError(
                f"{path}: expected one descriptor an image, (1, D), got {tuple(shape)}. It is "
                "another network."
            )
        return int(shape[1])


def _stated(name: str, sha256: object) -> str | None:
    """The hash that the user stated, in lower case."""
    if sha256 is None:
        return None
    # YAML reads 64 decimal digits as a number.
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(
            f"features: '{name}': expected sha256 as 64 hexadecimal digits in quotes, got "
            f"{sha256!r}."
        )
    return sha256.lower()


def _find(
    name: str, location: str | None, wanted: str | None, relative_to: Path | None, fetched: Path
) -> Path:
    """The program's file: as named, or the default one fetched when its hash was stated."""
    if location is not None:
        path = expand(location, relative_to=relative_to)
        if not path.is_file():
            raise InputError(
                f"{location}: expected a TorchScript file, got "
                f"{'a folder' if path.is_dir() else 'nothing'} at {path}. Fetch one such as "
                f"{_ADDRESS}{DEFAULT_FILE}."
            )
        return path
    if wanted is None:
        raise ConfigError(
            f"features: '{name}': expected the option `sha256`, or `id` with a file whose hash is "
            f"known ({', '.join(KNOWN.values())}); got neither. A TorchScript file is a program: "
            f"fetch {_ADDRESS}{DEFAULT_FILE} from a place that you trust, and state what "
            "`sha256sum` says about it."
        )
    published = PublishedFile(
        KNOWN.get(wanted, DEFAULT_FILE), _ADDRESS + KNOWN.get(wanted, DEFAULT_FILE), wanted,
        _MAX_BYTES,
    )  # fmt: skip
    return fetch_published(published, fetched)


def _read(path: Path, wanted: str | None) -> tuple[bytes, str]:
    """The bytes of the file, and their SHA-256, which must be the stated or a known one."""
    with path.open("rb") as file:
        program = file.read(_MAX_BYTES + 1)
    if len(program) > _MAX_BYTES:
        raise InputError(
            f"{path}: expected a TorchScript file of at most {_MAX_BYTES >> 20} MiB, got more."
        )
    got = hashlib.sha256(program).hexdigest()
    if wanted is not None and got != wanted:
        raise InputError(
            f"{path}: expected a file with SHA-256 {wanted}, got {got}. It was not loaded: fetch "
            "it again, or correct the option `sha256`."
        )
    if wanted is None and got not in KNOWN:
        known = ", ".join(f"{digest} ({name})" for digest, name in KNOWN.items())
        raise InputError(
            f"{path}: expected a file with a known SHA-256, {known}; got {got}. A TorchScript file "
            f"is a program, and it was not loaded: if you trust it, say sha256: '{got}' in the "
            "options."
        )
    return program, got


def _load(path: Path, program: bytes) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer torch prefers other formats
            return torch.jit.load(io.BytesIO(program), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: expected a TorchScript file, got one that cannot be read: "
            f"{brief(error)}. Fetch it again."
        ) from error

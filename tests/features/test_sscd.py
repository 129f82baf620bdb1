"""SSCD: a program is run when its hash is known or stated, and never otherwise."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from evaluator.errors import ConfigError, InputError
from evaluator.features.sscd import KNOWN, SscdExtractor
from evaluator.protocols import FeatureExtractor
from tests.features.tiny_programs import Descriptor, save

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
IMAGE = torch.arange(3 * 50 * 90).remainder(241).to(torch.uint8).reshape(3, 50, 90)


class Maps(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :2, :2]


class Words(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(x, torch.ones(2, 2))


@pytest.fixture(scope="module")
def module() -> Descriptor:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Descriptor().eval()


@pytest.fixture(scope="module")
def saved(module: Descriptor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("sscd") / "small.torchscript.pt"
    return path, save(module, path)


def as_published(image: torch.Tensor) -> torch.Tensor:
    """`skew_320` of the authors' README."""
    steps = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize([320, 320]),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return steps(Image.fromarray(image.permute(1, 2, 0).numpy()))


def test_descriptors_are_the_programs_own(saved: tuple[Path, str], module: Descriptor) -> None:
    path, digest = saved
    extractor = SscdExtractor(id=str(path), sha256=digest.upper())
    assert isinstance(extractor, FeatureExtractor)
    assert extractor.outputs == {"features": 8}
    images = [IMAGE, IMAGE.flip(-1), IMAGE[:, :, :20]]
    for image in images:
        assert torch.equal(extractor.preprocess(image), as_published(image))
    got = extractor.embed(torch.stack([extractor.preprocess(image) for image in images]))
    with torch.inference_mode():
        expected = module(torch.stack([as_published(image) for image in images]))
    assert torch.equal(got["features"], expected)
    torch.testing.assert_close(got["features"].norm(dim=1), torch.ones(3))
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_smaller_type_gives_float32_close_by(saved: tuple[Path, str], dtype: str) -> None:
    path, digest = saved
    exact = SscdExtractor(id=str(path), sha256=digest)
    low = SscdExtractor(id=str(path), sha256=digest, dtype=dtype)
    inputs = exact.preprocess(IMAGE)[None]
    got, want = low.embed(inputs)["features"], exact.embed(inputs)["features"]
    assert got.dtype == torch.float32
    assert (got - want).norm() < 0.02
    assert low.fingerprint != exact.fingerprint


def test_a_program_that_nobody_vouched_for_is_not_loaded(
    saved: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = saved
    with pytest.raises(InputError, match=f"known SHA-256, {next(iter(KNOWN))}.*got {digest}"):
        SscdExtractor(id=str(path))
    other = "0" * 64
    with pytest.raises(InputError, match=f"SHA-256 {other}, got {digest}. It was not loaded"):
        SscdExtractor(id=str(path), sha256=other)
    # Not even read as a program: what follows the hash check would fail in another way.
    noise = tmp_path / "noise.pt"
    noise.write_bytes(b"not a program")
    with pytest.raises(InputError, match="expected a file with a known SHA-256"):
        SscdExtractor(id=str(noise))


def test_without_a_file_the_hash_decides() -> None:
    with pytest.raises(
        ConfigError, match="expected the option `sha256`, .* state what `sha256sum`"
    ):
        SscdExtractor()
    with pytest.raises(InputError, match=r"sscd_disc_large.torchscript.pt: .*HF_HUB_OFFLINE"):
        SscdExtractor(sha256="a" * 64)
    with pytest.raises(InputError, match=r"sscd_disc_mixup.torchscript.pt: .*HF_HUB_OFFLINE"):
        SscdExtractor(sha256=next(iter(KNOWN)))
    for wrong in ("abc", 7, "g" * 64):
        with pytest.raises(ConfigError, match="expected sha256 as 64 hexadecimal digits"):
            SscdExtractor(sha256=wrong)  # type: ignore[arg-type]


def nothing(path: Path) -> None:
    path.touch()


def cut_short(path: Path) -> None:
    save(Descriptor(), path)
    path.write_bytes(path.read_bytes()[:-400])


def state_dict(path: Path) -> None:
    torch.save(Descriptor().state_dict(), path)


def empty_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "3")


def maps(path: Path) -> None:
    save(Maps(), path)


def words(path: Path) -> None:
    save(Words(), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nothing, "expected a TorchScript file, got one that cannot be read"),
        (cut_short, "expected a TorchScript file, got one that cannot be read"),
        (state_dict, "expected a TorchScript file, got one that cannot be read"),
        (empty_archive, "expected a TorchScript file, got one that cannot be read"),
        (maps, r"expected one descriptor an image, \(1, D\), got \(1, 3, 2, 2\)"),
        (words, r"expected a program that takes \(N, 3, 320, 320\) and gives descriptors, got: "),
    ],
)
def test_what_is_no_descriptor_is_refused_shortly(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "program.pt"
    spoil(path)
    with pytest.raises(InputError, match=message) as caught:
        SscdExtractor(id=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.pt: expected a TorchScript file, got nothing"):
        SscdExtractor(id=str(tmp_path / "nowhere.pt"))
    with pytest.raises(InputError, match="expected a TorchScript file, got a folder"):
        SscdExtractor(id=str(tmp_path))

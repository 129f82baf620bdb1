"""Inception as an extractor: its outputs, its identity, and every wrong weights file by name."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from evaluator.errors import ConfigError, EvaluatorError, InputError
from evaluator.features.inception import InceptionExtractor
from evaluator.features.inception_network import InceptionNetwork
from evaluator.features.inception_weights import read_state_dict
from evaluator.features.resize import resize_clean, resize_legacy
from evaluator.protocols import FeatureExtractor, TextExtractor
from tests.features.random_inception import random_state_dict, save_random_inception

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = torch.arange(3 * 40 * 56).remainder(251).to(torch.uint8).reshape(3, 40, 56)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_inception(tmp_path_factory.mktemp("inception"))


@pytest.fixture(scope="module")
def extractor(weights: Path) -> InceptionExtractor:
    return InceptionExtractor(id=str(weights))


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    """The names and shapes that a file must have."""
    with torch.device("meta"):
        return dict(InceptionNetwork().state_dict())


def test_it_keeps_the_protocol(extractor: InceptionExtractor) -> None:
    assert isinstance(extractor, FeatureExtractor)
    assert not isinstance(extractor, TextExtractor)
    assert extractor.outputs == {"features": 2048, "spatial": 2023, "logits": 1008}
    assert extractor.logits in extractor.outputs


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_type_of_arithmetic_gives_float32(
    weights: Path, extractor: InceptionExtractor, dtype: str
) -> None:
    low = InceptionExtractor(id=str(weights), dtype=dtype)
    got = low.embed(low.preprocess(IMAGE)[None])
    exact = extractor.embed(extractor.preprocess(IMAGE)[None])
    for name, dim in extractor.outputs.items():
        assert got[name].shape == (1, dim)
        assert got[name].dtype == torch.float32
        assert got[name].device.type == "cpu"
    error = (got["features"] - exact["features"]).norm() / exact["features"].norm()
    assert error <= {"float32": 0.0, "float16": 0.02, "bfloat16": 0.1}[dtype]
    assert (low.fingerprint == extractor.fingerprint) == (dtype == "float32")


def test_the_input_is_the_named_resize_centred_on_128(
    weights: Path, extractor: InceptionExtractor
) -> None:
    legacy = InceptionExtractor(id=str(weights), resize="legacy")
    assert torch.equal(extractor.preprocess(IMAGE), (resize_clean(IMAGE, 299) - 128) / 128)
    assert torch.equal(legacy.preprocess(IMAGE), (resize_legacy(IMAGE, 299) - 128) / 128)
    assert legacy.fingerprint != extractor.fingerprint


@pytest.mark.parametrize("resize", [resize_clean, resize_legacy])
def test_a_resize_keeps_constants_range_and_the_right_size(resize: Callable) -> None:
    for value in (0, 77, 255):
        flat = torch.full((3, 31, 64), value, dtype=torch.uint8)
        assert torch.allclose(resize(flat, 299), torch.tensor(float(value)), atol=1e-4)
    checks = (torch.arange(64).view(1, 8, 8) % 2 * 255).expand(3, 8, 8).to(torch.uint8)
    grown = resize(checks, 299)
    assert grown.shape == (3, 299, 299)
    assert float(grown.min()) >= 0
    assert float(grown.max()) <= 255
    square = torch.randint(0, 256, (3, 299, 299), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    assert torch.equal(resize(square, 299), square.float())


def test_the_clean_resize_commutes_with_mirroring() -> None:
    mirrored = resize_clean(IMAGE.flip(-1), 299).flip(-1)
    torch.testing.assert_close(mirrored, resize_clean(IMAGE, 299), rtol=0, atol=1e-4)


def test_the_same_weights_are_known_in_any_container(
    weights: Path, extractor: InceptionExtractor, tmp_path: Path
) -> None:
    state = random_state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    # As files from before PyTorch 1.6 are: no archive, and no counters.
    older = {name: t for name, t in state.items() if "num_batches" not in name}
    torch.save(older, tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    for name in ("weights.safetensors", "weights.pt"):
        assert InceptionExtractor(id=str(tmp_path / name)).fingerprint == extractor.fingerprint
    state["fc.weight"][0, 0] += 1
    save_file(state, tmp_path / "other.safetensors")
    other = InceptionExtractor(id=str(tmp_path / "other.safetensors"))
    assert other.fingerprint != extractor.fingerprint


def test_a_file_of_a_hub_repository_is_named_with_file(
    weights: Path,
    extractor: InceptionExtractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = tmp_path / "models--team--inception"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    os.link(weights, repository / "snapshots" / COMMIT / "net.pth")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = InceptionExtractor(id="team/inception", file="net.pth")
    assert found.fingerprint == extractor.fingerprint
    with pytest.raises(ConfigError, match="expected the option `file` with a hub id, got none"):
        InceptionExtractor(id="team/inception")
    with pytest.raises(InputError, match="expected a repository on the hub with 'other.pth'"):
        InceptionExtractor(id="team/inception", file="other.pth")


def test_a_wrong_option_is_refused_with_the_choices(weights: Path) -> None:
    with pytest.raises(ConfigError, match="resize to be one of 'clean', 'legacy'; got 'pil'"):
        InceptionExtractor(id=str(weights), resize="pil")
    with pytest.raises(ConfigError, match="dtype to be one of 'float32', 'float16', 'bfloat16'"):
        InceptionExtractor(id=str(weights), dtype="float64")


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.pth: expected a weights file .* got nothing"):
        InceptionExtractor(id=str(tmp_path / "nowhere.pth"))
    with pytest.raises(InputError, match="got a folder at"):
        InceptionExtractor(id=str(tmp_path))
    # The tests' environment forbids the hub: so do the published weights stay away.
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids fetching them. Fetch https://"):
        InceptionExtractor()


class Payload:
    """A pickle that would run a program."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def with_code(path: Path) -> None:
    torch.save({"fc.bias": Payload(path.parent / "ran")}, path)


def with_code_of_old(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path.parent / "ran"), protocol=2))


def with_newer_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path.parent / "ran")))


def a_whole_model(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def nested(path: Path) -> None:
    torch.save({"state_dict": {"fc.bias": torch.zeros(1008)}}, path)


def cut_short(path: Path) -> None:
    torch.save({"fc.bias": torch.zeros(1008)}, path)
    path.write_bytes(path.read_bytes()[:-900])


def empty(path: Path) -> None:
    path.touch()


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def folded(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
        archive.writestr("archive/version", b"3")


def laughing(path: Path) -> None:
    """A pickle of a few bytes that stands for 2**200 elements."""
    layers = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(200))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + layers + b".")
        archive.writestr("archive/version", b"3")


def enormous_claim(path: Path) -> None:
    """A tensor that claims to be far larger than any memory, without one byte of it."""
    state = random_state_dict()
    state["fc.bias"] = torch.zeros(1).expand(1 << 45)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("spoil", "suffix", "message"),
    [
        (with_code, ".pth", "without code in it, .*it wants to run posix.mkdir"),
        (with_code_of_old, ".pth", "without code in it, .*it wants to run posix.mkdir"),
        (a_whole_model, ".pth", "it wants to run torch.nn.modules.linear.Linear"),
        (nested, ".pth", r"got 1; missing: Conv2d_1a_3x3.bn.bias, .*unexpected: state_dict"),
        (cut_short, ".pth", "expected a weights file"),
        (empty, ".pth", "expected a weights file without code in it"),
        (noise, ".pth", "it is no pickle of tensors"),
        (noise, ".safetensors", "expected a weights file without code in it"),
        (empty, ".safetensors", "expected a weights file without code in it"),
        (cut_short, ".safetensors", "expected a weights file without code in it"),
        (folded, ".pth", "uncompressed; got 50000001 bytes folded into"),
        (with_newer_code, ".pth", "it is no pickle of tensors"),
        (laughing, ".pt", "expected the state dict of torch-fidelity's Inception, got list"),
        (enormous_claim, ".pth", r"'fc.bias' of shape \(1008,\) .*, got \(35184372088832,\)"),
        (noise, ".bin", r"expected weights as .pth, .pt, .safetensors, got '.bin'"),
    ],
)  # fmt: skip
def test_what_is_no_weights_file_is_refused_in_one_line(
    expected: dict[str, torch.Tensor],
    tmp_path: Path,
    spoil: Callable[[Path], None],
    suffix: str,
    message: str,
) -> None:
    path = tmp_path / f"weights{suffix}"
    spoil(path)
    with pytest.raises(InputError, match=message) as caught:
        read_state_dict(path, expected)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert len(said.removeprefix(str(path))) < 600
    assert "\n" not in said
    assert "weights_only" not in said, "torch's advice to run the code is not passed on"
    assert not (tmp_path / "ran").exists(), "code of the file ran"


def test_tensors_that_do_not_fit_are_named(
    expected: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    cases: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
        r"missing: fc.bias; unexpected: none": lambda s: s.pop("fc.bias"),
        r"missing: none; unexpected: head": lambda s: s.update(head=torch.zeros(2)),
        r"'fc.bias' of shape \(1008,\) .*got \(7,\)": lambda s: s.update({"fc.bias": torch.zeros(7)}),
        r"a floating type, got \(1008,\) int64": lambda s: s.update({"fc.bias": torch.zeros(1008).long()}),
        r"got NaN or infinity in 'fc.bias'": lambda s: s["fc.bias"].fill_(float("nan")),
    }  # fmt: skip
    for message, spoil in cases.items():
        state = random_state_dict()
        spoil(state)
        torch.save(state, tmp_path / "weights.pth")
        with pytest.raises(EvaluatorError, match=message):
            read_state_dict(tmp_path / "weights.pth", expected)

"""Images in .npz archives, as guided-diffusion's sample and reference batches hold them."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluator.data import PackOptions, open_source, pack
from evaluator.data.arrays import holds_moments, read_arrays
from evaluator.errors import InputError


def images(count: int = 5, height: int = 6, width: int = 4) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_pixel_and_label_of_a_batch_comes_through(path: Path, tmp_path: Path, save) -> None:
    save(path, images(), np.array([3, 0, 999, 7, 1]))
    found = pack(path, tmp_path / "out")
    assert found.keys == tuple(f"{number:07d}" for number in range(1, 6))
    for key, expected in zip(found.keys, images()):
        np.testing.assert_array_equal(found.image(key).permute(1, 2, 0).numpy(), expected)
    assert [found.prompt(key).class_label for key in found.keys] == [3, 0, 999, 7, 1]
    assert found.original("0000002") == "samples.npz:2"


def test_stored_or_deflated_a_batch_gives_one_pack(path: Path, tmp_path: Path) -> None:
    np.savez(path, images())
    np.savez_compressed(tmp_path / "deflated.npz", images())
    stored, deflated = (pack(p, tmp_path / p.stem) for p in (path, tmp_path / "deflated.npz"))
    assert stored.fingerprint == deflated.fingerprint
    assert [p.class_label for p in stored.prompts()] == [None] * 5


def test_statistics_beside_the_images_are_left_alone(path: Path, tmp_path: Path) -> None:
    objects = np.array([{}], dtype=object)
    np.savez(path, arr_0=images(), mu=np.zeros(3), sigma=np.eye(3), notes=objects)
    assert pack(path, tmp_path / "out").num_samples == 5
    assert not holds_moments(path)


def test_a_large_batch_is_never_in_memory_as_a_whole(path: Path) -> None:
    batch = images(100, 128, 128)
    np.savez(path, batch)
    size = batch.nbytes
    del batch
    tracemalloc.start()
    for sample in read_arrays(path, captions=None):
        sample.parts[0].load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 10


def test_a_line_for_each_image_captions_a_batch(path: Path, tmp_path: Path) -> None:
    np.savez(path, images(2))
    captions = tmp_path / "captions.txt"
    captions.write_text("a cat\na dog\n\n")
    found = open_source(path, cache=tmp_path / "c", options=PackOptions(captions=captions))
    assert [prompt.text for prompt in found.prompts()] == ["a cat", "a dog"]
    captions.write_text("a cat\n")
    with pytest.raises(InputError, match=r"expected 2 lines.*samples\.npz.*got 1"):
        open_source(path, cache=tmp_path / "c", options=PackOptions(captions=captions))
    table = tmp_path / "captions.jsonl"
    table.write_text("{}\n")
    with pytest.raises(InputError, match=r"images of samples\.npz have no names, got '\.jsonl'"):
        open_source(path, cache=tmp_path / "c", options=PackOptions(captions=table))


FAULTS = [
    ({"arr_0": images().astype(np.float32)}, r"got \(5, 6, 4, 3\) float32; scale them to 0…255"),
    ({"arr_0": images().transpose(0, 3, 1, 2).copy()}, r"got \(5, 3, 6, 4\) uint8; save images\.tr"),
    ({"arr_0": images()[..., 0].copy()}, r"got \(5, 6, 4\) uint8; repeat the grey values"),
    ({"arr_0": images()[..., :2].copy()}, r"got \(5, 6, 4, 2\) uint8; save them in that shape"),
    ({"arr_0": np.asfortranarray(images())}, r"got Fortran order; save numpy\.ascontiguous"),
    ({"arr_0": np.array([images()[0], None], dtype=object)}, "got pickled Python objects"),
    ({"arr_0": images(0)}, "expected at least one prompt or image, got none"),
    ({"mu": np.zeros(3), "sigma": np.eye(3)}, r"got the moments.*references: \{real: \{moments"),
    ({"images": images()}, r"expected an array 'arr_0' with the images, got \['images'\]"),
    ({}, "got no arrays"),
    ({"arr_0": images(), "arr_1": np.arange(4)}, "expected a label for each of 5 images.*got 4"),
    ({"arr_0": images(), "arr_1": np.zeros(5)}, r"expected class labels.*got \(5,\) float64"),
    ({"arr_0": images(), "arr_1": np.eye(5, dtype=int)}, r"expected class labels.*got \(5, 5\)"),
    ({"arr_0": images(), "arr_1": np.array([0, 1, -1, 2, 3])}, r"image 3: expected a class.*-1"),
    ({"arr_0": images(), "arr_1": np.array([1] * 5, dtype=object)}, "'arr_1', got pickled"),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "message"), FAULTS)
def test_an_archive_without_proper_images_is_refused(
    path: Path, tmp_path: Path, arrays, message: str
) -> None:
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"(?s){message}"):
        pack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_moments_are_told_from_images(path: Path, tmp_path: Path) -> None:
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    assert holds_moments(path)
    assert not holds_moments(tmp_path)


def test_a_file_cut_short_is_refused(path: Path, tmp_path: Path) -> None:
    np.savez(path, images())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="got a file that is cut short or something else"):
        pack(path, tmp_path / "out")


def test_an_array_shorter_than_its_header_says_is_refused(path: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", buffer.getvalue()[:-10])
    with pytest.raises(InputError, match="expected 360 bytes for the.*uint8 of 'arr_0', got 350"):
        pack(path, tmp_path / "out")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_is_noticed(path: Path, tmp_path: Path, save) -> None:
    flat = np.repeat(np.arange(50, dtype=np.uint8), 192).reshape(50, 8, 8, 3)
    save(path, flat)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"samples\.npz, image \d+: "):
        pack(path, tmp_path / "out")


def test_an_image_too_large_to_hold_is_refused_by_its_header(path: Path, tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (1, 100_000, 100_000, 3)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue())
    with pytest.raises(InputError, match="expected 30000000000 bytes"):
        pack(path, tmp_path / "out")


def test_png_bytes_do_not_depend_on_the_run(path: Path, tmp_path: Path) -> None:
    np.savez(path, images())
    first, second = (pack(path, tmp_path / name) for name in ("a", "b"))
    assert (first.path / "00000.tar").read_bytes() == (second.path / "00000.tar").read_bytes()
    with Image.open(io.BytesIO(first.read("0000001", "png"))) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (4, 6), "RGB")

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from evaluator.data import decode_image, encode_image, parse_image_format
from evaluator.errors import InputError, SampleError


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tensor() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 5, 7), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("format", ["png", "webp"])
def test_lossless_formats_give_every_pixel_back(tensor: torch.Tensor, format: str) -> None:
    data, extension = encode_image(tensor, format)
    assert extension == format
    assert torch.equal(decode_image(data), tensor)


@pytest.mark.parametrize("format", ["png", "webp", "webp:80"])
def test_encoding_is_deterministic_also_in_threads(tensor: torch.Tensor, format: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = set(threads.map(lambda _: encode_image(tensor, format), range(16)))
    assert len(results) == 1


def test_lossy_webp_takes_its_quality(tensor: torch.Tensor) -> None:
    low, high = encode_image(tensor, "webp:5"), encode_image(tensor, "webp:95")
    assert low.extension == "webp"
    assert low.data != high.data


@pytest.mark.parametrize("format", ["jpg", "webp:", "webp:101", "webp:-1", "webp:x", "png:3", ""])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(InputError, match="expected the image format 'png'"):
        parse_image_format(format)


def test_encoding_wants_a_uint8_image() -> None:
    with pytest.raises(ValueError, match=r"expected an image \(3, H, W\) uint8, got \(1, 2, 2\)"):
        encode_image(torch.zeros(1, 2, 2, dtype=torch.uint8), "png")
    with pytest.raises(ValueError, match=r"torch\.float32"):
        encode_image(torch.zeros(3, 2, 2), "png")


def test_too_large_for_webp_says_so() -> None:
    with pytest.raises(InputError, match="keep images as png"):
        encode_image(torch.zeros(3, 1, 16384, dtype=torch.uint8), "webp")


def test_the_decoded_tensor_is_contiguous_and_its_own(tensor: torch.Tensor) -> None:
    image = decode_image(encode_image(tensor, "png").data)
    assert image.is_contiguous()
    image += 1


def test_transparency_is_composited_over_white() -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    image = decode_image(encoded(Image.fromarray(pixels)))
    assert image[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127]]


def test_palettes_with_and_without_transparency_are_resolved() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    assert decode_image(encoded(image))[:, 0].T.tolist() == [[255, 0, 0], [0, 255, 0]]
    clear = decode_image(encoded(image, transparency=1))
    assert clear[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255]]


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    pixels = np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16)
    image = decode_image(encoded(Image.fromarray(pixels)))
    assert image[0, 0].tolist() == [0, 0, 1, 128, 255]
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "BMP")])  # fmt: skip
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    assert decode_image(encoded(Image.new(mode, (4, 3)), kind)).shape == (3, 3, 4)


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)
    assert decode_image(data).shape == (3, 8, 4)


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(data)[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_cut_images_are_the_samples_error(kind: str, make_picture, monkeypatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # another library's doing
    data = make_picture(kind=kind, size=(64, 64))
    for size in (len(data) // 2, 20, 3, 0):
        with pytest.raises(SampleError, match=r"^cat\.img: undecodable"):
            decode_image(data[:size], name="cat.img")


def test_what_is_no_image_gets_the_same_words_in_every_run() -> None:
    with pytest.raises(SampleError) as error:
        decode_image(b"not an image", name="a.png")
    assert str(error.value) == "a.png: undecodable (cannot identify image file)"


def test_formats_outside_the_list_are_not_tried() -> None:
    for kind in ("GIF", "TIFF", "PPM"):
        with pytest.raises(SampleError, match="undecodable"):
            decode_image(encoded(Image.new("RGB", (2, 2)), kind))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    data = encoded(Image.new("RGB", (40, 30)))
    assert decode_image(data, max_pixels=1200).shape == (3, 30, 40)
    with pytest.raises(SampleError, match="40×30 pixels, more than the 1199 allowed"):
        decode_image(data, max_pixels=1199)


def test_a_bomb_is_an_error_and_not_a_warning() -> None:
    data = encoded(Image.new("1", (10_000, 10_000)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(SampleError, match=r"decompression bomb|more than"):
            decode_image(data)
    assert not seen


def test_too_many_bytes_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("evaluator.data.decode.MAX_IMAGE_BYTES", 10)
    with pytest.raises(SampleError, match="11 bytes, more than the 10 allowed"):
        decode_image(bytes(11))

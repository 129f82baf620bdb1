"""Faults of tars that webdataset passes over in silence: each made for real, found and named.

Where webdataset is silent a control says so, with the options that are said to be the safe ones.
"""

import bz2
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evaluator.data import open_source, pack
from evaluator.data.webdata import secure_webdataset
from evaluator.errors import InputError

BLOCK = 512


def by_webdataset(*tars: Path) -> list[str]:
    """The keys that webdataset reads, with every safeguard that it has."""
    wds = secure_webdataset()
    options = {"shardshuffle": False, "nodesplitter": None, "empty_check": False}
    found = wds.WebDataset(
        [str(tar) for tar in tars], handler=wds.reraise_exception, **options
    )  # fmt: skip
    return [sample["__key__"] for sample in found]


def sample(number: int, image: bytes) -> list[tuple[str, bytes]]:
    caption = json.dumps({"caption": f"number {number}"}).encode()
    return [(f"{number:04d}.jpg", image), (f"{number:04d}.json", caption)]


@pytest.fixture
def samples(make_picture) -> list[tuple[str, bytes]]:
    """Ten samples of an image and a description."""
    image = make_picture(kind="JPEG")
    return [member for number in range(10) for member in sample(number, image)]


def ends(tar: Path) -> list[int]:
    """Where each member ends, in order."""
    with tarfile.open(tar) as file:
        return [info.offset_data + -(-info.size // BLOCK) * BLOCK for info in file]


def test_a_tar_cut_between_two_samples_is_refused(make_tar, samples, cache: Path) -> None:
    tar = make_tar(samples)
    tar.write_bytes(tar.read_bytes()[: ends(tar)[9]])
    assert len(by_webdataset(tar)) == 5
    with pytest.raises(InputError, match=r"a\.tar: cut short: expected blocks of zeros.*missing"):
        open_source(tar, cache=cache)


def test_a_tar_cut_between_an_image_and_its_description_is_refused(
    make_tar, samples, cache: Path
) -> None:
    tar = make_tar(samples)
    tar.write_bytes(tar.read_bytes()[: ends(tar)[8]])
    assert len(by_webdataset(tar)) == 5  # the last of them without its description
    with pytest.raises(InputError, match=r"a\.tar: cut short"):
        open_source(tar, cache=cache)


def test_a_cut_tar_with_an_end_put_to_it_is_refused(make_tar, samples, cache: Path) -> None:
    tar = make_tar(samples)
    tar.write_bytes(tar.read_bytes()[: ends(tar)[8]] + bytes(2 * BLOCK))
    assert len(by_webdataset(tar)) == 5
    message = (
        r"description \(json\) in every sample, as in 4 of 5, got none in '0004', only \['jpg'"
    )
    with pytest.raises(InputError, match=message):
        open_source(tar, cache=cache)


@pytest.mark.parametrize("where", [-1, 1, 100, 511])
def test_a_tar_cut_inside_a_member_is_refused(make_tar, samples, cache: Path, where: int) -> None:
    tar = make_tar(samples)
    tar.write_bytes(tar.read_bytes()[: ends(tar)[9] + where])
    with pytest.raises(InputError, match=r"a\.tar: cut short"):
        open_source(tar, cache=cache)


def test_a_download_that_stopped_and_left_zeros_is_refused(make_tar, samples, cache) -> None:
    tar = make_tar(samples)
    tar.write_bytes(tar.read_bytes()[: ends(tar)[9]] + bytes(3 << 20))
    assert len(by_webdataset(tar)) == 5
    with pytest.raises(InputError, match=r"got more than 1048576 zeros there, as a download that"):
        open_source(tar, cache=cache)
    tar.write_bytes(tar.read_bytes()[: ends(tar)[9]] + bytes(20 * BLOCK))  # as tar itself pads
    assert open_source(tar, cache=cache).num_samples == 5


@pytest.mark.parametrize("empty", [b"", bytes(20 * BLOCK)])
def test_an_empty_tar_in_a_set_is_named(make_tar, samples, cache: Path, empty: bytes) -> None:
    first, second = make_tar(samples, name="0.tar"), make_tar(samples[:2], name="1.tar")
    second.write_bytes(empty)
    if empty:
        assert len(by_webdataset(first, second)) == 10
    with pytest.raises(InputError, match=r"1\.tar: (expected samples in every|expected a tar)"):
        open_source(first.parent, cache=cache)


def test_dots_that_merge_samples_are_refused(make_tar, make_picture, cache: Path) -> None:
    tar = make_tar([(f"img.v{i}.jpg", make_picture(i, "JPEG")) for i in range(4)])
    assert by_webdataset(tar) == ["img"]
    with pytest.raises(InputError, match=r"keys without dots, got 'img\.v0\.jpg' and 'img\.v3\.j"):
        open_source(tar, cache=cache)


def test_interleaved_members_are_refused(make_tar, samples, cache: Path) -> None:
    first, second = samples[0:2], samples[2:4]
    tar = make_tar([first[0], second[0], first[1], second[1]])
    assert by_webdataset(tar) == ["0000", "0001", "0000", "0001"]
    with pytest.raises(InputError, match=r"side by side, got '0000\.json' after other samples"):
        open_source(tar, cache=cache)


def test_a_key_that_comes_again_later_is_refused(make_tar, samples, cache: Path) -> None:
    tar = make_tar([*samples[:4], *samples[:2]])
    with pytest.raises(InputError, match=r"side by side, got '0000\.jpg'"):
        open_source(tar, cache=cache)


@pytest.fixture
def as_a_worker(monkeypatch) -> Callable[[], None]:
    """The environment of one of several workers of one of several nodes."""

    def set_them() -> None:
        for name, value in {
            "WORKER": "1", "NUM_WORKERS": "3", "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)

    return set_them


def test_the_variables_of_a_worker_hide_nothing(
    make_tar, make_folder, samples, as_a_worker, cache: Path, tmp_path: Path
) -> None:
    tars = [make_tar(samples[4 * i : 4 * i + 4], name=f"{i}.tar") for i in range(5)]
    folder = make_folder({f"{i}.jpg": data for i, (_, data) in enumerate(samples[::2])})
    packed = pack(folder, tmp_path / "before")
    before = [sample.key for sample in open_source(tars[0].parent, cache=cache).stream()]
    as_a_worker()
    assert len(by_webdataset(*tars)) < 10
    found = open_source(tars[0].parent, cache=tmp_path / "another")
    assert [sample.key for sample in found.stream()] == before
    assert len(before) == found.num_samples == len(found.prompts()) == 10
    assert [sample.key for sample in found.stream(3, 8)] == before[3:8]
    again = pack(folder, tmp_path / "after")
    assert again.fingerprint == packed.fingerprint
    assert len(list(again.stream())) == 10


def test_torch_workers_see_whole_slices(make_tar, samples, cache: Path) -> None:
    import torch

    tars = [make_tar(samples[4 * i : 4 * i + 4], name=f"{i}.tar") for i in range(5)]
    found = open_source(tars[0].parent, cache=cache)

    class Slices(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, item: int) -> list[str]:
            return [sample.key for sample in found.stream(5 * item, 5 * item + 5)]

    loader = torch.utils.data.DataLoader(
        Slices(), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert [key for keys in loader for key in keys] == list(found.keys)


def add(tar: tarfile.TarFile, name: str, data: bytes = b"x", **fields) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A tar of what a function adds to it."""

    def write(fill: Callable[[tarfile.TarFile], object]) -> Path:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            fill(tar)
        return tmp_path / "a.tar"

    return write


KINDS = {
    "SYMTYPE": "/etc/passwd", "LNKTYPE": "a.txt", "CHRTYPE": "", "BLKTYPE": "", "FIFOTYPE": "",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "target"), KINDS.items())
def test_what_is_no_file_is_refused(written, cache: Path, kind: str, target: str) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "a.txt")
        add(tar, "b.txt", b"", type=getattr(tarfile, kind), linkname=target)
        add(tar, "c.txt")

    tar = written(fill)
    assert by_webdataset(tar) == ["a", "c"]
    with pytest.raises(InputError, match=r"got the link or device 'b\.txt'.*--dereference"):
        open_source(tar, cache=cache)


def test_names_outside_the_folder_are_keys_like_others(written, cache: Path, tmp_path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for name in (f"{tmp_path}/evil.txt", "../../evil.txt", "d/../evil.txt", "C:\\evil.txt"):
            add(tar, name, name.encode())

    before = sorted(os.listdir(tmp_path))
    found = open_source(written(fill), cache=cache)
    assert len(set(found.keys)) == 4
    assert not any(set(key) & set("/\\.") for key in found.keys)
    assert [found.read(key, "txt").decode() for key in found.keys] == [
        found.original(key) for key in found.keys
    ]
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "a.tar", "cache"])
    assert not list(tmp_path.parent.rglob("evil*"))


@pytest.mark.parametrize(
    "name", ["README", "d/README", ".DS_Store", "d/.hidden.txt", "a.", "..txt"]
)
def test_names_without_a_key_or_an_extension_are_refused(written, cache: Path, name: str) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "a.txt")
        add(tar, name)

    with pytest.raises(InputError, match=r"expected members named key\.extension, got"):
        open_source(written(fill), cache=cache)


@pytest.mark.parametrize("name", ["__set__/b.txt", "b.__bad__"])
def test_names_that_webdataset_keeps_for_itself_are_refused(written, cache, name: str) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "a.txt")
        add(tar, name)

    tar = written(fill)
    assert "b" not in by_webdataset(tar)
    with pytest.raises(InputError, match=r"takes for a note to itself because of the '__'"):
        open_source(tar, cache=cache)


def test_folders_and_a_label_are_no_samples(written, cache: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "my archive", b"", type=b"V")
        add(tar, "d", b"", type=tarfile.DIRTYPE)
        add(tar, "d/a.txt")

    assert open_source(written(fill), cache=cache).keys == ("d_a",)


def damaged(tar: Path, at: int, size: bytes) -> Path:
    """The tar with another size in the header at a place, and the checksum that belongs to it."""
    data = bytearray(tar.read_bytes())
    data[at + 124 : at + 136] = size
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    tar.write_bytes(data)
    return tar


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, b"V"])
@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\xff" * 10 + b"\xfe\0", b"\x80" + b"\0" * 4 + b"\x7f" + b"\xff" * 6]
)
def test_impossible_sizes_are_refused(written, cache: Path, size: bytes, kind: bytes) -> None:
    tar = damaged(written(lambda t: [add(t, "a.txt"), add(t, "b.txt", type=kind)]), 1024, size)
    with pytest.raises(InputError, match=r"a\.tar: .*(a damaged header|cut short).*write it again"):
        open_source(tar, cache=cache)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (bz2.compress, "bunzip2 it first"), (lzma.compress, "unxz it first"),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, "unzstd it first"),
        (lambda data: b"PK\x03\x04" + data, r"call it \.zip"),
        (lambda data: b"<html>not found</html>" * 100, "expected a tar, got invalid header"),
    ],
)  # fmt: skip
def test_what_is_no_plain_tar_is_named(written, cache: Path, packed, message: str) -> None:
    tar = written(lambda t: add(t, "a.txt"))
    tar.write_bytes(packed(tar.read_bytes()))
    with pytest.raises(InputError, match=rf"a\.tar: .*{message}"):
        open_source(tar, cache=cache)


def test_every_fault_is_found_in_a_tar_of_a_set(make_tar, samples, cache: Path) -> None:
    def faults() -> Iterator[tuple[str, Path]]:
        names = ["cut", "empty", "mixed"]
        for name, members in zip(names, (samples, samples[:2], samples[:2][::-1]), strict=True):
            renamed = [(f"{name}-{member}", data) for member, data in members]
            yield name, make_tar(renamed, name=f"{name}.tar")

    tars = dict(faults())
    whole = open_source(tars["cut"].parent, cache=cache)
    assert whole.num_samples == 12
    tars["cut"].write_bytes(tars["cut"].read_bytes()[: ends(tars["cut"])[-1]])
    with pytest.raises(InputError, match=r"cut\.tar: cut short"):
        open_source(tars["cut"].parent, cache=cache)

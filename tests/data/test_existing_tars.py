import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from evaluator.data import open_source
from evaluator.errors import InputError


def test_tars_are_indexed_where_they_are(make_tar, make_picture, cache: Path) -> None:
    members = []
    for name in ("a", "b"):
        info = json.dumps({"caption": f"a {name}", "category": "x", "width": 7})
        members += [(f"{name}.jpg", make_picture(kind="JPEG")), (f"{name}.json", info.encode())]
    tar = make_tar(members)
    before = tar.read_bytes()
    found = open_source(tar, cache=cache)
    assert found.root == tar.parent
    assert list(tar.parent.iterdir()) == [tar]
    assert tar.read_bytes() == before
    assert found.keys == ("a", "b")
    prompt = found.prompt("b")
    assert (prompt.text, prompt.tags, prompt.metadata) == ("a b", {"category": "x"}, {"width": 7})
    assert found.image("a").shape == (3, 5, 7)
    assert [sample.key for sample in found.stream(1)] == ["b"]


def test_captions_and_classes_may_stand_alone(make_tar, make_picture, cache: Path) -> None:
    tar = make_tar([("a.cls", b"7\n"), ("a.png", make_picture()), ("a.txt", b" a cat\n")])
    prompt = open_source(tar, cache=cache).prompt("a")
    assert (prompt.text, prompt.class_label) == ("a cat", 7)


def test_unsafe_names_get_safe_keys_and_stay_on_record(make_tar, cache: Path) -> None:
    tar = make_tar([("./../../etc/a b.TXT", b"one"), ("猫.txt", b"two"), ("狗.txt", b"three")])
    found = open_source(tar, cache=cache)
    assert found.original(found.keys[0]) == "./../../etc/a b.TXT"
    assert found.keys[0] == "________etc_a_b"
    assert [p.text for p in found.prompts()] == ["one", "two", "three"]
    assert [sample.parts["txt"] for sample in found.stream()] == [b"one", b"two", b"three"]


def test_a_set_of_tars_is_one_pack_in_order(make_tar, cache: Path) -> None:
    for number in (1, 0):
        tar = make_tar([(f"s{number}.txt", b"x")], name=f"set-{number:04d}.tar")
    braces = tar.parent / "set-{0000..0001}.tar"
    by_braces = open_source(braces, cache=cache)
    by_folder = open_source(tar.parent, cache=cache)
    assert by_braces.keys == by_folder.keys == ("s0", "s1")
    assert by_braces.fingerprint == by_folder.fingerprint


def test_pickled_parts_are_carried_but_never_decoded(make_tar, cache: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    data = pickle.dumps(Bomb())
    members = [("a.pkl", data), ("a.pyd", data), ("a.txt", b"x"), ("__meta__", b"skipped")]
    found = open_source(make_tar(members), cache=cache)
    assert found.prompt("a").text == "x"
    assert found.read("a", "pkl") == data
    assert next(iter(found.stream())).parts["pyd"] == data


def test_second_images_of_every_sample_are_attachments(make_tar, make_picture, cache) -> None:
    image = make_picture()
    members = [(f"{key}{part}.png", image) for key in "ab" for part in ("", ".mask")]
    found = open_source(make_tar(members), cache=cache)
    assert found.parts("a") == ("png", "mask.png")
    assert found.image_part("a") == "png"


def test_a_dotted_name_that_merges_nothing_becomes_a_key(make_tar, cache: Path) -> None:
    tar = make_tar([("img.v1.txt", b"x"), ("other.v1.txt", b"y")])
    found = open_source(tar, cache=cache)
    assert found.keys == ("img_v1", "other_v1")
    assert [sample.parts["txt"] for sample in found.stream(1)] == [b"y"]


def cut(tar: Path, size: int) -> Path:
    tar.write_bytes(tar.read_bytes()[:size])
    return tar


@pytest.mark.parametrize("size", [1024, 2048, 1024 + 512, 1024 + 100, 512 + 3, 300, 0])
def test_a_tar_cut_anywhere_is_refused(make_tar, cache: Path, size: int) -> None:
    # Each member takes 1024 bytes; a reader sees nothing wrong with 1024 or 2048 of them.
    tar = make_tar([("a.txt", b"1" * 400), ("b.txt", b"2"), ("c.txt", b"3")])
    with pytest.raises(InputError, match=r"a\.tar: .*(cut short|expected a tar).*write it again"):
        open_source(cut(tar, size), cache=cache)


def test_a_damaged_header_in_the_middle_is_refused(make_tar, cache: Path) -> None:
    tar = make_tar([("a.txt", b"1"), ("b.txt", b"2"), ("c.txt", b"3")])
    data = bytearray(tar.read_bytes())
    data[1024 + 150] ^= 0xFF
    tar.write_bytes(data)
    with pytest.raises(InputError, match=r"expected nothing after the end.*damaged header"):
        open_source(tar, cache=cache)


def test_tars_put_together_by_cat_are_refused(make_tar, cache: Path) -> None:
    tar = make_tar([("a.txt", b"1")])
    tar.write_bytes(tar.read_bytes() * 2)
    with pytest.raises(InputError, match="put together by cat"):
        open_source(tar, cache=cache)


REFUSED = [
    ([("i.v1.jpg", b""), ("i.v2.jpg", b"")], r"'i\.v1\.jpg' and 'i\.v2\.jpg', which webdataset"),
    ([("a.jpg", b""), ("b.jpg", b""), ("b.v2.jpg", b"")], r"'v2\.jpg' in every sample.*in 'a'"),
    ([("a.jpg", b""), ("b.jpg", b""), ("a.json", b"{}")], r"side by side, got 'a\.json'"),
    ([("a.txt", b""), ("a.TXT", b"")], r"each member once, got 'a\.TXT' again"),
    ([("README", b"")], r"named key\.extension, got 'README'"),
    ([("d/._a.jpg", b"")], r"COPYFILE_DISABLE"),
    ([("a.jpg", b""), ("a.txt", b""), ("b.jpg", b"")], r"caption \(txt\) in every sample.*'b'"),
    ([("a.jpg", b""), ("b.txt", b""), ("c.jpg", b"")], r"an image in every sample.*in 'b'"),
    ([("a.npy", b"")], r"expected samples with an image.*got parts \['npy'\]"),
    ([], r"a\.tar: expected samples in every tar, got none"),
]


@pytest.mark.parametrize(("members", "message"), REFUSED)
def test_members_that_would_get_lost_are_refused(make_tar, cache, members, message: str) -> None:
    with pytest.raises(InputError, match=f"(?s)tars.*{message}"):
        open_source(make_tar(members), cache=cache)


def test_a_key_in_two_tars_is_refused(make_tar, cache: Path) -> None:
    make_tar([("a.txt", b"")], name="0.tar")
    tar = make_tar([("a.txt", b"")], name="1.tar")
    with pytest.raises(InputError, match=r"1\.tar: .*got 'a' again \(first in 0\.tar\)"):
        open_source(tar.parent, cache=cache)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(make_tar, cache: Path, kind: bytes) -> None:
    tar = make_tar([("a.txt", b"x")])
    with tarfile.open(tar, "w") as file:
        info = tarfile.TarInfo("a.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(InputError, match=r"got the link or device 'a\.txt'"):
        open_source(tar, cache=cache)


def test_gzipped_tars_are_refused(make_tar, cache: Path) -> None:
    tar = make_tar([("a.txt", b"x")])
    tar.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(InputError, match="gunzip it first"):
        open_source(tar, cache=cache)


def test_a_missing_tar_of_a_set_is_named(make_tar, cache: Path) -> None:
    tar = make_tar([("a.txt", b"x")], name="s-0.tar")
    with pytest.raises(InputError, match=r"expected 3 tars, got none at .*s-1\.tar \(2 missing\)"):
        open_source(tar.parent / "s-{0..2}.tar", cache=cache)


def test_tars_beside_images_are_ambiguous(make_tar, make_picture, cache: Path) -> None:
    tar = make_tar([("a.txt", b"x")])
    (tar.parent / "b.png").write_bytes(make_picture())
    with pytest.raises(InputError, match="expected tars or images, got both"):
        open_source(tar.parent, cache=cache)


def test_long_member_names_are_found_by_offset(cache: Path, tmp_path: Path) -> None:
    name = "folder/" + "n" * 150
    for style in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        tar = tmp_path / f"{style}.tar"
        with tarfile.open(tar, "w", format=style) as file:
            for number in (1, 2):
                info = tarfile.TarInfo(f"{name}{number}.txt")
                info.size = 1
                file.addfile(info, io.BytesIO(str(number).encode()))
        found = open_source(tar, cache=cache)
        assert [p.text for p in found.prompts()] == ["1", "2"]
        assert [sample.parts["txt"] for sample in found.stream(1)] == [b"2"]

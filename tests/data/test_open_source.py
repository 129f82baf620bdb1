import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from evaluator.data import PackOptions, expand_source, open_source, pack, turns
from evaluator.data import cache as cache_module
from evaluator.data.webdata import secure_webdataset
from evaluator.errors import InputError, StorageError
from tests.waiting import PATIENCE, running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\na dog\na bird\n")
    os.utime(path, (1, 1))
    return path


def packs(cache: Path) -> list[Path]:
    return sorted((cache / "packs").iterdir())


def test_a_raw_source_is_packed_once(source: Path, cache: Path) -> None:
    first = open_source(source, cache=cache)
    (before,) = packs(cache)
    stamp = (before / "index.parquet").stat().st_mtime_ns
    again = open_source(str(source), cache=cache)
    assert packs(cache) == [before]
    assert (before / "index.parquet").stat().st_mtime_ns == stamp
    assert again.fingerprint == first.fingerprint


def test_the_cache_goes_by_content_and_options(source: Path, cache: Path, tmp_path: Path) -> None:
    open_source(source, cache=cache)
    copy = tmp_path / "elsewhere.txt"
    copy.write_bytes(source.read_bytes())
    open_source(copy, cache=cache)
    assert len(packs(cache)) == 1
    open_source(source, cache=cache, options=PackOptions(samples_per_tar=1))
    assert len(packs(cache)) == 2
    source.write_text("a fish\n")
    assert open_source(source, cache=cache).prompts()[0].text == "a fish"


def test_a_settled_source_is_not_hashed_again(source: Path, cache: Path, monkeypatch) -> None:
    open_source(source, cache=cache)
    digest, hashed = cache_module.hashlib.file_digest, []
    monkeypatch.setattr(
        cache_module.hashlib, "file_digest", lambda *a: hashed.append(a) or digest(*a)
    )
    open_source(source, cache=cache)
    assert not hashed
    source.write_text("a fish\n")
    open_source(source, cache=cache)
    assert hashed, "the watch sees a hash when there is one"


def test_a_change_of_the_same_size_within_the_clocks_tick_is_seen(source, cache: Path) -> None:
    source.write_text("a cat\n")
    stamp = source.stat().st_mtime_ns
    open_source(source, cache=cache)
    source.write_text("a dog\n")
    os.utime(source, ns=(stamp, stamp))
    assert open_source(source, cache=cache).prompts()[0].text == "a dog"


def test_folders_are_cached_by_names_and_bytes(make_folder, make_picture, cache: Path) -> None:
    folder = make_folder({"a.png": make_picture(1), "b.png": make_picture(2)})
    first = open_source(folder, cache=cache)
    (folder / "b.png").rename(folder / "c.png")
    assert open_source(folder, cache=cache).keys == ("a", "c")
    (folder / "c.png").rename(folder / "b.png")
    assert open_source(folder, cache=cache).fingerprint == first.fingerprint
    assert len(packs(cache)) == 2


def test_a_source_that_changes_while_packed_is_not_published(
    source: Path, cache: Path, monkeypatch
) -> None:
    write_pack = cache_module.publish.__globals__["write_pack"]

    def disturbed(raw, folder, *, options) -> None:
        write_pack(raw, folder, options=options)
        source.write_text("changed\n")

    monkeypatch.setitem(cache_module.publish.__globals__, "write_pack", disturbed)
    with pytest.raises(InputError, match="changed while it was being packed"):
        open_source(source, cache=cache)
    assert packs(cache) == []


def test_a_limit_takes_the_first_samples(source: Path, cache: Path) -> None:
    assert open_source(source, cache=cache, limit=2).keys == ("0000001", "0000002")
    assert open_source(source, cache=cache, limit=9).num_samples == 3


def test_a_pack_is_opened_as_it_is(source: Path, cache: Path, tmp_path: Path) -> None:
    made = pack(source, tmp_path / "out")
    assert open_source(tmp_path / "out", cache=cache).fingerprint == made.fingerprint
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_says_so(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="expected a writable cache"):
        open_source(source, cache=tmp_path / "file")


def _open(source: Path, cache: Path, barrier, results) -> None:
    barrier.wait(PATIENCE)
    found = open_source(source, cache=cache)
    results.put((str(found.path), found.fingerprint, found.num_samples))


@pytest.mark.parametrize("locked", [True, False])
def test_eight_processes_open_one_pack(
    make_folder, make_picture, cache: Path, locked: bool, monkeypatch
) -> None:
    secure_webdataset()  # imported once, before the fork
    folder = make_folder({f"{i}.png": make_picture(i) for i in range(40)})
    if not locked:  # as on a file system without locks
        monkeypatch.setattr(turns.fcntl, "flock", _no_locks)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=_open, args=(folder, cache, barrier, results)) for _ in range(8)
    ]
    with running(workers):
        found = {results.get(timeout=PATIENCE) for _ in workers}
    assert len(found) == 1
    assert next(iter(found))[2] == 40
    assert len(packs(cache)) == 1


def _no_locks(*_) -> None:
    raise OSError("No locks available")


def test_a_file_in_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "explosive"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "data" / "p.txt").write_text("a cat\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = expand_source("package://explosive/data/p.txt", relative_to=None)
    assert found == package / "data" / "p.txt"
    assert "explosive" not in sys.modules


@pytest.mark.parametrize(
    "source",
    [
        "package://evaluator/../secret", "package://evaluator", "package://no-such/x",
        "package://nosuchpackage/x", "ftp://host/a.tar", "pipe:cat /etc/passwd", "", "a\0b",
        "https://example.org/a.zip", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_addresses_that_are_no_paths_are_refused(source: str, cache: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        expand_source(source, relative_to=None)
    with pytest.raises(InputError, match="expected"):
        open_source(source, cache=cache)


def test_relative_sources_start_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a")
    assert expand_source("p.txt", relative_to=tmp_path) == tmp_path / "p.txt"
    assert expand_source(str(tmp_path / "x"), relative_to=Path("/other")) == tmp_path / "x"


def test_importing_the_room_is_cheap() -> None:
    import subprocess

    code = (
        "import sys, evaluator.data;"
        "print([m for m in ('torch', 'webdataset', 'pyarrow', 'PIL', 'numpy') if m in sys.modules])"
    )
    root = Path(cache_module.__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert out.stdout.strip() == "[]"

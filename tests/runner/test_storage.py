"""File systems that fill up, turn read-only, vanish or refuse: a clear error, and no loss."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluator.errors import StorageError
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import bytes_of
from tests.runner.test_signals import start, undisturbed
from tests.waiting import PATIENCE, until

WORDS = ("--samples", "160")


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"STORAGE FAULTS UNTESTED: mounting is not allowed here: {done.stderr.strip()}")


@contextmanager
def mounted(place: Path, *words: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    _mount(*words, str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def wait_for_shards(run: Path, count: int) -> None:
    shards = run / "shards"
    until(f"{count} shards are there", lambda: shards.is_dir() and len(os.listdir(shards)) >= count)


def assert_ended_with(worker: subprocess.Popen[str], message: str) -> None:
    output, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 1, output + said
    assert output.startswith("StorageError"), output
    assert message in output
    assert "Everything committed so far is kept" in output
    assert "Traceback" not in said


def assert_goes_on(run: Path, other: Path) -> None:
    """Every committed shard is sound, and the same command finishes with the same bytes."""
    directory = RunDirectory.open(run)
    committed = directory.committed()
    assert 0 < len(committed) < directory.num_shards
    for index in committed:
        directory.verify(index)
    worker = start(run, samples=160, seconds=0)
    output, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0, output + said
    assert bytes_of(run) == undisturbed(other, *WORDS)


@pytest.mark.parametrize("lack", ["space", pytest.param("inodes", marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_is_said_and_the_run_goes_on_once_there_is_room(
    lack: str, tmp_path: Path
) -> None:
    options = "size=3m" if lack == "space" else "size=8m,nr_inodes=400"
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", options, "tmpfs") as disk:
        run = disk / "run"
        worker = start(run, samples=160, seconds=0.1)
        wait_for_shards(run, 2)
        fillers = fill_up(disk, lack)
        assert_ended_with(worker, "No space left on device")
        for filler in fillers:
            filler.unlink()
        assert_goes_on(run, tmp_path / "other")


def fill_up(disk: Path, lack: str) -> list[Path]:
    made = []
    for number in range(2000):
        filler = disk / f"filler-{number}"
        made.append(filler)
        try:
            filler.write_bytes(b"\0" * (16384 if lack == "space" else 0))
        except OSError:
            return made if filler.exists() else made[:-1]
    raise AssertionError("it never was full")


def test_a_file_system_that_turns_read_only_is_said(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "tmpfs") as disk:
        run = disk / "run"
        worker = start(run, samples=160, seconds=0.1)
        wait_for_shards(run, 2)
        command = ["mount", "-o", "remount,ro", str(disk)]
        # Not while a file is open for writing.
        until("it can be", lambda: not subprocess.run(command, capture_output=True).returncode)
        assert_ended_with(worker, "the file system is read-only")
        _mount("-o", "remount,rw", str(disk))
        assert_goes_on(run, tmp_path / "other")


def test_a_file_system_that_vanishes_is_said_and_not_begun_anew(tmp_path: Path) -> None:
    real, place = tmp_path / "real", tmp_path / "disk"
    real.mkdir()
    with mounted(place, "--bind", str(real)):
        worker = start(place / "run", samples=160, seconds=0.1)
        wait_for_shards(place / "run", 2)
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        assert_ended_with(worker, "the directory vanished")
        assert list(place.iterdir()) == [], "nothing was written where it had been mounted"
        _mount("--bind", str(real), str(place))
        assert_goes_on(place / "run", tmp_path / "other")


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Become a user to whom permissions apply, where the tests run as root."""

    def drop() -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)

    yield drop
    if os.getuid() == 0:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_no_damage(as_nobody: Callable[[], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        undisturbed(Path(folder) / "run")
        run = RunDirectory.open(Path(folder) / "run")
        paths = [run.shard_path(1) / name for name in ("samples.parquet", "commit.json")]
        for path in paths:
            path.chmod(0)
        as_nobody()
        with pytest.raises(StorageError, match="could not read .*Permission denied.*permissions"):
            run.read(1, "samples.parquet", kind="samples")
        with pytest.raises(StorageError, match="could not read .*commit.json"):
            run.verify(1)
        if os.getuid() == 0:
            os.seteuid(0)


def test_a_claim_that_may_not_be_read_stops_the_worker_and_says_which(tmp_path: Path) -> None:
    run = tmp_path / "run"
    undisturbed(run)
    RunDirectory.open(run).shard_path(3).rename(tmp_path / "gone")
    claim = run / "claims" / "00003.0"
    claim.unlink()
    claim.mkdir()  # not even root reads that
    worker = start(run, seconds=0)
    output, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 1, output + said
    assert "could not read" in output
    assert "00003.0" in output
    claim.rmdir()
    assert start(run, seconds=0).wait(PATIENCE) == 0


def test_the_state_of_a_run_is_told_to_whoever_may_only_read_it(tmp_path: Path, call) -> None:
    run = tmp_path / "run"
    undisturbed(run)
    worker = start(tmp_path / "open", seconds=0.1, samples=8000)
    wait_for_shards(tmp_path / "open", 1)
    try:
        for path, status, state in ((run, 0, "complete: 80/80"), (tmp_path / "open", 3, "done by")):
            with mounted(tmp_path / "mounted", "--bind", str(path)) as place:
                _mount("-o", "remount,bind,ro", str(place))
                ended = call("status", place)
            assert ended.status == status, ended.err
            assert state in ended.out
    finally:
        worker.kill()
        worker.communicate()

"""Damage done to a committed shard: found, set apart with the reason, never in a number, mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from evaluator.config import RunConfig, parse_record
from evaluator.errors import CorruptShardError, InputError
from evaluator.probing.images import kept_images
from evaluator.runner.evaluation import Outcome
from evaluator.runner.late import LateFeatures
from evaluator.runner.repair import Repairs
from evaluator.runner.session import aggregate_session
from evaluator.runner.status import read_status
from evaluator.store import committed
from evaluator.store.claims import Claims, Worker
from evaluator.store.quarantine import set_apart_shard, waiting
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import bytes_of, launch, merged, run_here


def config(*, late: bool = True, **changes):
    """Images that exist already, kept again, in five shards; one extractor is asked for late."""
    options = {"refuse": "", "marker": ""}
    picky = {"name": "picky", "kind": "tests.runner.custom_models:Picky", "options": options}
    record = {
        "name": "damage",
        "model": {"kind": "images"},
        "prompts": {"source": "package://evaluator/demo/data/test.parquet", "limit": 30},
        "features": ["digits", picky] if late else ["digits"],
        "metrics": ["is_digits", "vendi_picky"] if late else ["is_digits"],
        "runtime": {"threads": 1, "batch_size": 4, "shard_size": 6},
    }
    return parse_record(merged(record, changes), (), where="test")


def go_on(path: Path, settings: RunConfig | None = None) -> Outcome:
    return run_here(settings or config(), path, allow_code=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALUATOR_CACHE", str(path.parent / "cache"))
        go_on(path, config(late=False))
        go_on(path)
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDirectory:
    return RunDirectory(shutil.copytree(finished, tmp_path / "run"))


def find(run: RunDirectory, pattern: str, shard: int = 1) -> Path:
    (path,) = run.shard_path(shard).glob(pattern)
    return path


def flip(path: Path) -> None:
    """Change one bit where there are data."""
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            number = {"samples": 0, "features-picky": 2}.get(
                path.stem.rpartition("-")[0] or path.stem, 3
            )
            column = file.metadata.row_group(0).column(number)
        place = column.data_page_offset + column.total_compressed_size // 2
    content[place] ^= 0x10
    path.write_bytes(bytes(content))


def tables_of(run: Path) -> dict[str, bytes]:
    """Every table and image; a shard made again holds what was late before, and lists it."""
    return {name: data for name, data in bytes_of(run).items() if not name.endswith(".json")}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("pattern", ["samples.parquet", "features-digits-*"])
def test_a_run_that_meets_damage_sets_the_shard_apart_and_makes_it_again(
    damage: Callable[[Path], None], pattern: str, run: RunDirectory
) -> None:
    before, numbers = tables_of(run.path), (run.path / "metrics.json").read_bytes()
    damage(find(run, pattern))
    outcome = go_on(run.path)
    assert outcome.exit_status == 0
    assert tables_of(run.path) == before
    assert (run.path / "metrics.json").read_bytes() == numbers
    (place,) = (run.path / "quarantine").iterdir()
    record = json.loads((place / "reason.json").read_text())
    assert record["shard"] == 1
    assert list(record["damage"]) == [find(run, pattern).name]
    assert outcome.damaged == []


def test_aggregate_says_what_is_damaged_and_takes_no_number_from_it(
    run: RunDirectory, call
) -> None:
    flip(find(run, "features-digits-*"))
    ended = call("aggregate", run.path, "--allow-code")
    assert ended.status == 3, "incomplete"
    assert "damaged: shard 00001 was found damaged (features-digits-" in ended.err
    record = json.loads((run.path / "metrics.json").read_text())
    assert {m["name"]: m["n"] for m in record["metrics"]} == {"is_digits": 24, "vendi_picky": 24}
    assert not record["complete"]
    status = read_status(run)
    assert status.exit_status == 3
    assert "shard 00001 was found damaged" in "\n".join(status.lines())
    assert go_on(run.path).exit_status == 0
    assert read_status(run).damaged == ()
    assert aggregate_session(run.path, allow_code=True).exit_status == 0


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_late_table_is_made_again_without_its_shard(
    damage: Callable[[Path], None], run: RunDirectory
) -> None:
    before = tables_of(run.path)
    made = (run.shard_path(1) / "commit.json").stat().st_mtime_ns
    damage(find(run, "features-picky-*"))
    assert go_on(run.path).exit_status == 0
    assert tables_of(run.path) == before
    assert (run.shard_path(1) / "commit.json").stat().st_mtime_ns == made
    (place,) = (run.path / "quarantine").iterdir()
    assert {path.name[:15] for path in place.iterdir()} == {"features-picky-", "reason.json"}


def test_a_run_that_lacks_a_late_table_only_is_not_finished(run: RunDirectory, call) -> None:
    flip(find(run, "features-picky-*"))
    ended = call("status", run.path, "--verify")
    assert ended.status == 3, "there is work left"
    assert "shard 00001 was found damaged (features-picky-" in ended.out
    # Who asks for that table no more is not told of it for ever.
    asked = run.path / "asked.json"
    record = json.loads(asked.read_text())
    del record["fingerprints"]["picky"]
    asked.write_text(json.dumps(record))
    assert call("status", run.path).status == 0
    assert go_on(run.path).exit_status == 0
    assert call("status", run.path).status == 0
    assert "picky" in asked.read_text()


def test_a_late_table_that_failed_for_good_is_no_work_left(run: RunDirectory, call) -> None:
    table = find(run, "features-picky-*")
    flip(table)
    assert call("status", run.path, "--verify").status == 3
    claims = Claims(run.claims_folder, Worker.current(), lease_seconds=60)
    for last in (False, False, True):
        claim = claims.take(f"00001-{table.name}", alone=last)
        assert claim is not None
        claims.fail(claim, "too bright")
    assert call("status", run.path).status == 1


@pytest.mark.parametrize("name", ["images.tar", "commit.json", "features-digits-*"])
def test_an_unfinished_run_that_lost_a_file_makes_its_shard_again(
    name: str, run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tables_of(run.path)
    shutil.rmtree(run.shard_path(4))
    (run.path / "metrics.json").unlink()
    find(run, name, 2).unlink()
    assert go_on(run.path).exit_status == 0
    assert tables_of(run.path) == before
    assert [place.name for place in (run.path / "quarantine").iterdir()] == ["00002.0"]
    (said,) = [x for x in capsys.readouterr().err.splitlines() if "set apart" in x]
    assert "00002: a file that was committed is not there" in said


def damaged(run: RunDirectory, shard: int = 1) -> CorruptShardError:
    return CorruptShardError("expected something else", run.shard_path(shard))


def test_what_another_worker_set_apart_is_not_held_against_this_one(run: RunDirectory) -> None:
    repairs = Repairs()
    flip(find(run, "samples.parquet"))
    assert set_apart_shard(run, 1), "the other was first"
    repairs.set_apart(damaged(run))
    go_on(run.path)
    flip(find(run, "samples.parquet"))
    repairs.set_apart(damaged(run))
    assert not run.is_committed(1)
    go_on(run.path)
    flip(find(run, "samples.parquet"))
    with pytest.raises(CorruptShardError, match="expected something else"):
        repairs.set_apart(damaged(run))  # it set it apart before


def test_a_shard_in_which_nothing_is_found_wrong_is_not_tried_for_ever(run: RunDirectory) -> None:
    with pytest.raises(CorruptShardError, match="expected something else"):
        Repairs().set_apart(damaged(run))
    assert run.is_committed(1)


def test_a_shard_set_apart_while_its_late_table_is_made_is_made_again(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables_of(run.path)
    for index in range(run.num_shards):
        find(run, "features-picky-*", index).unlink()
    table_of = LateFeatures._table

    def meanwhile(self, shard, after_batch):
        made = table_of(self, shard, after_batch)
        if shard.index == 1 and not list((run.path / "quarantine").iterdir()):
            cut(find(run, "samples.parquet"))
            assert set_apart_shard(run, 1), "by another worker"
        return made

    monkeypatch.setattr(LateFeatures, "_table", meanwhile)
    assert go_on(run.path).exit_status == 0
    assert tables_of(run.path) == before


def test_damaged_images_are_found_before_anything_is_computed_from_them(tmp_path: Path) -> None:
    run = go_on(tmp_path / "run", config(late=False)).run
    whole = go_on(tmp_path / "whole").run
    flip(run.shard_path(2) / "images.tar")
    assert go_on(run.path).exit_status == 0
    ours, theirs = (find(r, "features-picky-*", 2).read_bytes() for r in (run, whole))
    assert ours == theirs
    assert (run.path / "quarantine" / "00002.0" / "images.tar").exists()


def test_every_file_is_looked_at_when_asked(run: RunDirectory, call) -> None:
    before = tables_of(run.path)
    flip(run.shard_path(0) / "images.tar")
    cut(run.shard_path(3) / "timings.parquet")
    (run.shard_path(4) / "commit.json").write_text("{")
    assert call("status", run.path).status == 0, "nobody looked"
    ended = call("status", run.path, "--verify")
    assert ended.status == 3
    for shard, name in (("00000", "images.tar"), ("00003", "timings"), ("00004", "commit.json")):
        assert f"shard {shard} was found damaged ({name}" in ended.out
    assert go_on(run.path).exit_status == 0
    assert tables_of(run.path) == before
    assert call("status", run.path, "--verify").status == 0


def test_a_finished_run_that_lost_a_file_is_no_finished_run(run: RunDirectory, call) -> None:
    before = tables_of(run.path)
    settings = run.path.parent / "config.yaml"
    settings.write_text(yaml.safe_dump(config().model_dump(mode="json", exclude_defaults=True)))
    again = ("run", settings, "--output", run.path, "--allow-code")
    assert call(*again).err == "", "it answers at once"
    (run.shard_path(0) / "images.tar").unlink()
    (run.shard_path(4) / "commit.json").write_text("{")
    flip(find(run, "features-picky-*", 2))  # late: made anew once --verify found it
    assert call("status", run.path, "--verify").status == 3
    assert call(*again).status == 0
    assert tables_of(run.path) == before
    (run.shard_path(1) / "images.tar").unlink()
    assert call(*again).status == 0
    assert tables_of(run.path) == before
    assert waiting(run) == []


def test_the_remedy_for_damage_is_one_that_finds_it(run: RunDirectory) -> None:
    (run.shard_path(1) / "images.tar").unlink()
    with pytest.raises(CorruptShardError, match="evaluator status RUN --verify"):
        kept_images(run, limit=30)


def test_a_sound_shard_is_never_moved(run: RunDirectory) -> None:
    for index in range(run.num_shards):
        assert not set_apart_shard(run, index)
        run.verify(index)
    assert waiting(run) == []
    assert list((run.path / "quarantine").iterdir()) == []


def test_two_that_meet_one_damage_do_not_stumble_over_each_other(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(find(run, "samples.parquet"))
    sums = committed.sha256_file

    def meanwhile(path: Path) -> str:
        if path.parent == run.shard_path(1):  # another worker is quicker
            path.parent.rename(run.path / "quarantine" / "00001.0")
        return sums(path)

    monkeypatch.setattr(committed, "sha256_file", meanwhile)
    assert not set_apart_shard(run, 1)
    assert [place.name for place in (run.path / "quarantine").iterdir()] == ["00001.0"]


def test_a_shard_damaged_a_second_time_keeps_both(run: RunDirectory) -> None:
    for _ in range(2):
        flip(find(run, "samples.parquet"))
        assert set_apart_shard(run, 1)
        go_on(run.path)
    places = sorted(path.name for path in (run.path / "quarantine").iterdir())
    assert places == ["00001.0", "00001.1"]


@pytest.mark.slow
def test_processes_of_a_launch_meet_the_damage_together_and_mend_it(
    run: RunDirectory, tmp_path: Path
) -> None:
    before = tables_of(run.path)
    for shard, pattern in ((0, "features-digits-*"), (3, "samples.parquet")):
        flip(find(run, pattern, shard))
    (run.path / "metrics.json").unlink()
    settings = tmp_path / "damage.yaml"
    settings.write_text(yaml.safe_dump(config().model_dump(mode="json", exclude_none=True)))
    words = ["run", str(settings), "--output", str(run.path), "--allow-code"]
    done = launch("accelerate", 2, words, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert tables_of(run.path) == before
    assert len(list((run.path / "quarantine").iterdir())) == 2


def test_a_plan_that_is_damaged_is_no_shard_and_says_so(run: RunDirectory) -> None:
    flip(run.path / "init" / "plan.parquet")
    with pytest.raises(CorruptShardError, match=r"plan.parquet: expected the table 'plan'"):
        go_on(run.path)


def test_a_run_as_reference_is_to_be_finished_by_its_own_command(
    run: RunDirectory, tmp_path: Path
) -> None:
    cut(find(run, "features-digits-*"))
    ours = config(late=False, references={"other": {"run": str(run.path)}}, metrics=["fd_digits"])
    with pytest.raises(InputError, match="expected a complete run to compare with, got 4 of 5"):
        go_on(tmp_path / "ours", ours)

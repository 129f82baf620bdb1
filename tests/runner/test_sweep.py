"""A sweep: a run for each point, loaded once, continued, shared; and one that fails stops none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluator.config.points import Sweep, load_runs
from evaluator.runner.sweep import run_sweep
from evaluator.store.claims import Claims, Worker
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import STARTED, bytes_of, command, launch
from tests.runner.test_worlds import numbers
from tests.waiting import PATIENCE, beside, until

DIGITS = "package://evaluator/demo/data/test.parquet"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A sweep over a model that notes how often it is loaded."""

    def make(sweep: dict[str, Any], name: str = "sweep.yaml", **options: Any) -> Path:
        path = tmp_path / name
        record = {
            "name": "noise",
            "model": {
                "kind": "custom", "target": "tests.runner.custom_models:Counted",
                "options": {"loads": str(tmp_path / "loads"), **options},
            },
            "generation": {"steps": 1},
            "prompts": {"source": DIGITS, "limit": 10},
            "features": ["digits"],
            "metrics": ["is_digits"],
            "runtime": {"threads": 1, "batch_size": 5, "shard_size": 5},
            "sweep": sweep,
        }  # fmt: skip
        path.write_text(yaml.safe_dump(record))
        return path

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def loads(out: Path) -> list[str]:
    return (out.parent / "loads").read_text().split()


SEEDS = {"grid": {"generation.seed": [1, 2, 3]}}


def test_each_point_is_a_run_and_the_model_is_loaded_once(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    config = write(SEEDS)
    ended = call("run", config, "--output", out, "--allow-code")
    assert ended.status == 0, ended.err
    assert loads(out) == ["a"]
    record = json.loads((out / "sweep.json").read_text())
    assert [point["folder"] for point in record["points"]] == ["seed-1", "seed-2", "seed-3"]
    assert record["points"][1]["values"] == {"generation.seed": 2}
    for seed in (1, 2, 3):
        stored = yaml.safe_load((out / f"seed-{seed}" / "init" / "config.yaml").read_text())
        assert (stored["name"], stored["generation"]["seed"]) == (f"noise-seed-{seed}", seed)
    images = [bytes_of(out / f"seed-{seed}")["shards/00000/images.tar"] for seed in (1, 2, 3)]
    assert len(set(images)) == 3
    assert "3 of 3 points complete" in ended.out
    said = call("status", out)
    assert said.status == 0
    assert said.out.startswith("noise: 3 of 3 points complete\nseed-1: complete: 10/10 samples")


def test_only_the_first_batch_of_a_model_that_was_just_loaded_is_a_workers_first(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    paths = {"generation.seed": [1, 2], "model.options.variant": ["a", "b"]}
    assert call("run", write({"grid": paths}), "--output", out, "--allow-code").status == 0
    assert loads(out) == ["a", "b"]
    marks = {}
    for point in sorted(path.parent.name for path in out.glob("*/init")):
        run = RunDirectory.open(out / point)
        tables = [run.read(shard, "timings.parquet", kind="timings") for shard in range(2)]
        rows = [row for table in tables for row in table.to_pylist() if row["stage"] == "generate"]
        marks[point] = [row["first_of_worker"] for row in rows]
    cold = {point for point, found in marks.items() if any(found)}
    assert cold == {f"seed-1_model.options.variant-{variant}" for variant in "ab"}, marks
    assert all(sum(marks[point]) == 1 for point in cold), marks


def test_a_finished_sweep_answers_without_loading_anything(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    config = write(SEEDS)
    first = call("run", config, "--output", out, "--allow-code")
    code = (
        "import sys; from evaluator.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as left: print('STATUS', left.code)\n"
        "print('TORCH', 'torch' in sys.modules)\n"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, "run", str(config), "--output", str(out), "--allow-code"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert again.stdout.startswith(first.out)
    assert "STATUS 0\nTORCH False" in again.stdout
    assert loads(out) == ["a"]


def test_numbers_and_reports_of_all_points_are_made_again_by_one_command(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    call("run", write(SEEDS), "--output", out, "--allow-code")
    before = [numbers(out / f"seed-{seed}") for seed in (1, 2, 3)]
    for seed in (1, 2, 3):
        (out / f"seed-{seed}" / "metrics.json").unlink()
    again = call("aggregate", out)
    assert again.status == 0, again.err
    assert [numbers(out / f"seed-{seed}") for seed in (1, 2, 3)] == before
    assert again.out.startswith("seed  is_digits ↑")
    shutil.rmtree(out / "seed-3")
    assert call("aggregate", out).status == 3
    pages = call("report", out).out.split()[1::2]
    assert pages == [str(out.resolve() / f"seed-{s}" / "report" / "index.html") for s in (1, 2)] + [
        str(out.resolve() / "report" / "index.html")
    ]
    assert 'href="../seed-1/report/index.html"' in Path(pages[-1]).read_text()


def test_a_value_that_is_added_makes_its_point_only(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    call("run", write(SEEDS), "--output", out, "--allow-code")
    before = {path: path.stat().st_mtime_ns for path in out.glob("seed-*/metrics.json")}
    more = write({"grid": {"generation.seed": [0, 1, 2, 3]}})
    ended = call("run", more, "--output", out, "--allow-code")
    assert ended.status == 0, ended.err
    assert "4 of 4 points complete" in ended.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert loads(out) == ["a", "a"]


def test_points_with_one_model_follow_each_other(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    grid = {"generation.seed": [1, 2], "model.options.variant": ["a", "b"]}
    assert call("run", write({"grid": grid}), "--output", out, "--allow-code").status == 0
    assert loads(out) == ["a", "b"]


def test_a_point_that_fails_stops_no_other(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    config = write({"grid": {"model.options.breaks": [True, False]}})
    ended = call("run", config, "--output", out, "--allow-code")
    assert ended.status == 1
    assert "this point breaks the model" in ended.err
    assert "1 of 2 points complete" in ended.out
    assert numbers(out / "model.options.breaks-false")["is_digits"][1] == 10
    again = call("run", config, "--output", out, "--allow-code")
    assert again.status == 1
    said = call("status", out)
    assert said.status != 0
    assert "noise: 1 of 2 points complete" in said.out


def test_a_model_that_cannot_be_built_stops_no_other_point(
    write: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write({"list": [{"model.options.nonsense": 1}, {"generation.seed": 1}]})
    sweep = load_runs(config)
    assert isinstance(sweep, Sweep)
    ended = run_sweep(sweep, out, allow_code=True, relative_to=config.parent)
    assert ended is not None
    assert ended.exit_status == 1
    broken, whole = ended.points
    (trouble,) = broken.troubles
    assert trouble.startswith("failed: TypeError: ")
    assert "unexpected keyword argument 'nonsense'" in trouble
    assert (whole.exit_status, whole.troubles) == (0, [])
    assert "Traceback" in capsys.readouterr().err


def test_a_point_that_lies_in_another_evaluations_folder_is_told_and_the_others_go_on(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    call("run", write(SEEDS), "--output", out, "--allow-code")
    shutil.rmtree(out / "seed-2")
    shutil.copytree(out / "seed-1", out / "seed-2")
    shutil.rmtree(out / "seed-3")
    ended = call("run", write(SEEDS), "--output", out, "--allow-code")
    assert ended.status == 1
    assert "generation.seed" in ended.err
    assert numbers(out / "seed-3")["is_digits"][1] == 10


def test_a_part_that_no_point_can_use_is_refused_before_anything_is_made(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    config = write({"grid": {"features": [["digits"], ["digit"]]}})
    ended = call("run", config, "--output", out, "--allow-code")
    assert ended.status == 2
    assert "digit" in ended.err
    assert not out.exists()


def test_a_run_directory_is_no_folder_for_a_sweep(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    call("run", write(SEEDS), "--set", "sweep=null", "--output", out, "--allow-code")
    ended = call("run", write(SEEDS), "--output", out, "--allow-code")
    assert ended.status == 2
    assert "expected a folder for the runs of a sweep, got a run directory" in ended.err


def test_validate_says_the_points(write: Callable[..., Path], call: Callable[..., Any]) -> None:
    ended = call("validate", write(SEEDS), "--allow-code")
    lines = ended.out.splitlines()
    assert lines[:2] == [
        "noise: the configuration is valid", "sweep: 3 points over generation.seed",
    ]  # fmt: skip
    assert "plan: 10 samples in 2 shards, 2 batches of 5 (at each point)" in lines
    assert lines[-1] == "seed-3: generation.seed=3"
    other = call("validate", write({"grid": {"prompts.limit": [3, 10]}}), "--allow-code")
    assert "prompts.limit-3: prompts.limit=3\n  prompts: 3 from" in other.out
    missing = call("validate", write({"grid": {"prompts.source": [DIGITS, "no.txt"]}}))
    assert missing.status == 2
    assert "no.txt" in missing.err


def test_a_worker_that_finds_all_taken_goes_on_and_comes_back(
    write: Callable[..., Path], out: Path, call: Callable[..., Any]
) -> None:
    config = write(SEEDS)
    call("run", config, "--output", out, "--allow-code")
    before = bytes_of(out / "seed-1")
    shutil.rmtree(out / "seed-1" / "shards" / "00000")
    (out / "seed-1" / "metrics.json").unlink()
    shutil.rmtree(out / "seed-2")
    other = Claims(out / "seed-1" / "claims", Worker.current(7), lease_seconds=600)
    held = other.take("00000")
    assert held is not None
    seen: list[bool] = []

    def release_when_the_next_point_is_done() -> None:
        until("the next point is done", (out / "seed-2" / "metrics.json").is_file)
        seen.append((out / "seed-1" / "metrics.json").exists())
        other.release(held)

    with beside(release_when_the_next_point_is_done):
        ended = call("run", config, "--output", out, "--allow-code")
    assert ended.status == 0, ended.err
    assert seen == [False]
    assert bytes_of(out / "seed-1") == before


# -- real pipelines, real processes ---------------------------------------------------------------


@pytest.fixture
def guided(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """Three guidance scales of an untrained pipeline, all probes on."""
    path = tmp_path / "guided.yaml"
    sweep = {"grid": {"generation.guidance_scale": [1, 3, 5]}}
    record = settings(prompts={"limit": 4}, metrics=["clip_score"])
    clip = [feature for feature in record["features"] if feature != "digits"]
    path.write_text(yaml.safe_dump({**record, "references": {}, "features": clip, "sweep": sweep}))
    return path


def test_a_point_has_the_bytes_of_the_same_run_alone(
    guided: Path, out: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    assert call("run", guided, "--output", out).status == 0
    overrides = ["--set", "sweep=null", "--set", "generation.guidance_scale=5"]
    alone = tmp_path / "alone"
    assert call("run", guided, "--output", alone, *overrides).status == 0
    point = out / "guidance_scale-5"
    assert bytes_of(point) == bytes_of(alone)
    assert numbers(point) == numbers(alone)
    for name in ("schedule.parquet", "init/plan.parquet"):
        assert (point / name).read_bytes() == (alone / name).read_bytes()
    made = [json.loads((p / "init/provenance.json").read_text()) for p in (point, alone)]
    assert made[0]["model"] == made[1]["model"]


def test_processes_of_a_launch_work_on_every_point_together(
    write: Callable[..., Path], out: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    """One point breaks on every process that tries it; the others are done by all."""
    config = write(
        {"list": [{"generation.seed": 1}, {"model.options.breaks": True}, {"generation.seed": 2}]}
    )
    done = launch(
        "torchrun", 2, ["run", str(config), "--output", str(out), "--allow-code"],
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert "this point breaks the model" in done.stderr
    assert "2 of 3 points complete" in done.stdout
    assert done.returncode != 0
    other = tmp_path / "alone"
    call("run", config, "--output", other, "--allow-code")
    for folder in ("seed-1", "seed-2"):
        assert bytes_of(out / folder) == bytes_of(other / folder)
        assert numbers(out / folder) == numbers(other / folder)
        (record,) = (out / folder / "launches").glob("*.json")
        assert json.loads(record.read_text())["world_size"] == 2


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)],
)
def test_a_sweep_that_is_ended_in_the_middle_goes_on(
    number: signal.Signals, status: int, write: Callable[..., Path], out: Path, tmp_path: Path,
    call: Callable[..., Any],
) -> None:  # fmt: skip
    (tmp_path / "slow").touch()
    config = write(SEEDS, slow=str(tmp_path / "slow"))
    arguments = ["run", str(config), "--output", str(out), "--allow-code"]
    worker = subprocess.Popen(
        [*command("python", 1), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    STARTED.append(worker)
    until(
        "the second point has a shard",
        lambda: any((out / "seed-2" / "shards").glob("0*")) or worker.poll() is not None,
    )
    worker.send_signal(number)
    said, _ = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == status, said
    (tmp_path / "slow").unlink()
    assert call("status", out).status == 3
    kept = bytes_of(out / "seed-1")
    for claim in out.glob("*/claims/0*"):  # nobody waits for the lease of a killed worker
        os.utime(claim, (0, 0))
    again = call(*arguments)
    assert again.status == 0, again.err
    assert bytes_of(out / "seed-1") == kept
    assert loads(out) == ["a", "a"]
    assert call("status", out).status == 0

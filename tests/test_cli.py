"""The command line as a user meets it: what it prints, how it leaves, and never a traceback."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import evaluator
from evaluator import cli
from evaluator.runner.identity import versions

IMAGES: dict[str, Any] = {
    "name": "real",
    "model": {"kind": "images"},
    "prompts": {"source": "package://evaluator/demo/data/test.parquet", "limit": 12},
    "references": {"real": {"source": "package://evaluator/demo/data/test.parquet", "limit": 40}},
    "features": ["digits"],
    "metrics": ["fd_digits"],
    "runtime": {"threads": 1, "batch_size": 8, "shard_size": 8},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**IMAGES, **changes}))
        return path

    return make


def test_a_run_prints_its_table_and_where_it_is(call, write, tmp_path):
    ended = call("run", write(), "--output", tmp_path / "run")
    assert ended.status == 0
    assert "fd_digits ↓" in ended.out
    assert "12 / 12" in ended.out
    assert f"run: {tmp_path / 'run'}" in ended.out
    assert call("status", tmp_path / "run").status == 0
    again = call("run", write(), "--output", tmp_path / "run")
    assert again.out == ended.out
    assert again.err == "", "a finished run does no work"


def test_limit_names_its_own_run(call, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call("run", write(), "--limit", 3)
    assert "run: runs/real-limit3" in ended.out
    assert call("ls").out.startswith("real-limit3")


def test_every_config_fault_is_listed_and_the_status_is_2(call, write):
    ended = call("run", write(metric=["fid"], runtime={"batch_sise": 3}))
    assert ended.status == 2
    assert "2 faults" in ended.err
    assert "did you mean 'batch_size'?" in ended.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"kind": "diffusers", "id": "./nowhere"}}, "nowhere: expected a folder with weights or a hub id"),
        ({"prompts": {"source": "nowhere.jsonl"}}, "nowhere.jsonl"),
        ({"references": {"real": {"source": "nowhere/"}}}, "nowhere"),
        ({"features": ["digitz"]}, "Did you mean 'digits'"),
        ({"metrics": ["fd_clipp"]}, "'fd_clipp' needs an extractor; extractor 'clipp'"),
        ({"metrics": ["fid"]}, "weights-inception-2015-12-05-6726825d.pth: expected the published weights"),
        ({"metrics": ["incption_score"]}, "did you mean 'inception_score'"),
        ({"references": {}}, "compares with a reference"),
        ({"features": [{"name": "mine", "kind": "os:system"}]}, "Add --allow-code"),
        ({"model": {"kind": "custom", "target": "os:system"}}, "Add --allow-code"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_before_any_work(call, write, tmp_path, changes, message):
    ended = call("run", write(**changes), "--output", tmp_path / "run")
    assert ended.status == 2
    assert message in ended.err
    assert not (tmp_path / "run" / "shards").exists() or not os.listdir(tmp_path / "run/shards")


def test_validate_lists_all_that_is_missing_at_once(call, write):
    changes = {
        "model": {"kind": "diffusers", "id": "./nowhere"},
        "prompts": {"source": "nowhere.jsonl"},
        "references": {"real": {"source": "elsewhere.zip"}},
        "features": ["digitz"],
        "metrics": ["fd_clipp"],
    }
    ended = call("validate", write(**changes))
    assert ended.status == 2
    for part in ("model.id", "nowhere.jsonl", "elsewhere.zip", "digitz", "clipp"):
        assert part in ended.err
    model = {"kind": "diffusers", "id": "./nowhere", "scheduler": {"name": "DDIMSchedular"}}
    ended = call("validate", write(model=model))
    assert "got 'DDIMSchedular'; did you mean 'DDIMScheduler'?" in ended.err
    fine = call("validate", write())
    assert fine.status == 0
    assert "plan: 12 samples in 2 shards, 2 batches of 8" in fine.out


def test_validate_lists_unknown_settings_beside_what_is_missing(call, write, tmp_path):
    changes = {
        "model": {"kind": "diffusers", "id": "./nowhere"},
        "prompts": {"source": "nowhere.jsonl"},
        "references": {"real": {"source": "elsewhere.zip"}, "other": {"source": 3}},
        "features": ["digits", {"name": "clip", "id": "./no-weights"}, 7],
        "runtime": {"batch_sise": 3},
    }
    ended = call("validate", write(**changes))
    assert (ended.status, ended.out) == (2, "")
    assert "config.yaml: the configuration has 7 faults:\n" in ended.err
    for part in (
        "runtime.batch_sise: unknown key; did you mean 'batch_size'?", "references.other.source",
        "features.2", "model.id: expected a folder or a hub id, got nothing at nowhere",
        "features.clip.id: expected a folder", "prompts: ", "references.real: ",
    ):  # fmt: skip
        assert f"\n  - {part}" in ended.err
    ended = call("validate", write(prompts={"source": "nowhere.jsonl", "limt": 3}))
    assert "1 fault:\n  - prompts.limt: unknown key" in ended.err, "a section at fault is not read"
    ended = call("validate", write(prompts="nowhere.jsonl", references=3, features="digits"))
    assert "3 faults" in ended.err
    sweep = {"grid": {"generation.seed": [0, 1], "prompts.source": ["no.jsonl"]}}
    ended = call("validate", write(sweep=sweep, runtime={"batch_sise": 3}))
    assert "1 fault" in ended.err
    (tmp_path / "none.yaml").write_text("[")
    assert "expected YAML" in call("validate", tmp_path / "none.yaml").err


def test_validate_says_what_a_run_with_a_limit_would_make(call, write):
    ended = call("validate", write(), "--limit", 3)
    assert (ended.status, ended.err) == (0, "")
    assert "prompts: 3 from" in ended.out
    assert "plan: 3 samples in 1 shard, 1 batch of 8" in ended.out
    assert call("validate", write(), "--limit", 0).status == 2


def test_the_version_is_told_with_those_that_numbers_depend_on():
    code = (
        "import sys; from evaluator.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as left: print('LEFT', left.code)\n"
        "print('HEAVY', sorted({'torch', 'diffusers', 'transformers', 'torchmetrics'}"
        " & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, left, heavy = done.stdout.splitlines()
    assert (left, heavy) == ("LEFT 0", "HEAVY []")
    told = dict(line.split(" ") for line in lines)
    assert lines[0] == f"evaluator {evaluator.__version__}"
    assert told == versions()
    for name in ("torch", "diffusers", "torchmetrics"):
        assert told[name] == importlib.metadata.version(name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "", "prompt"),
        ("twice.jsonl", '{"key": "a", "text": "x"}\n{"key": "a", "text": "y"}\n', "twice.jsonl"),
        ("dot.jsonl", '{"key": "a.b", "text": "x"}\n', "a.b"),
        ("path.jsonl", '{"key": "../../etc/a", "text": "x"}\n', "etc"),
        ("broken.jsonl", '{"key": "a", "text": "x"}\n{"key": \n', "2"),
        ("no-text.csv", "number\n1\n", "number"),
    ],
)
def test_bad_prompts_name_file_line_and_key(call, write, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    ended = call("run", write(prompts={"source": str(tmp_path / name)}), "--output", tmp_path / "r")
    assert ended.status == 2
    assert name in ended.err
    assert message in ended.err


@pytest.mark.parametrize("source", ["ftp://host/prompts.jsonl", "pipe:cat prompts.txt"])
def test_a_source_that_is_no_path_is_refused_for_what_it_is(call, write, tmp_path, source):
    ended = call("run", write(prompts={"source": source}), "--output", tmp_path / "run")
    assert ended.status == 2
    assert "got the scheme" in ended.err
    assert "got the scheme" in call("pack", source, tmp_path / "pack").err


def png(color: int, size: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), color, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def test_a_truncated_tar_is_refused(call, write, tmp_path):
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(8):
            info = tarfile.TarInfo(f"img{i}.png")
            info.size = len(png(i))
            tar.addfile(info, io.BytesIO(png(i)))
    path.write_bytes(path.read_bytes()[: 4 * 1024])
    ended = call("run", write(prompts={"source": str(path)}), "--output", tmp_path / "run")
    assert ended.status == 2
    assert "images.tar" in ended.err


@pytest.fixture
def folder_with_faults(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(10):
        (folder / f"img{i}.png").write_bytes(png(20 * i))
    (folder / "img3.png").write_bytes(png(3)[:60])
    # 65,536 x 65,536 pixels that compress to nothing: the header alone says so.
    bomb = bytearray(png(7))
    bomb[16:24] = (65536).to_bytes(4, "big") * 2
    import zlib

    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    (folder / "img7.png").write_bytes(bytes(bomb))
    return folder


def test_undecodable_images_are_rows_that_are_counted(call, write, tmp_path, folder_with_faults):
    config = write(prompts={"source": str(folder_with_faults)}, metrics=["fd_digits"])
    ended = call("run", config, "--output", tmp_path / "run")
    assert ended.status == 1
    assert "10/10 samples, 2 with an error" in ended.out
    assert "img3[0]" in ended.err
    assert "img7[0]" in ended.err
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (fd,) = record["metrics"]
    assert (fd["n"], fd["n_expected"]) == (8, 10)
    assert record["samples"]["errors"] == 2
    again = call("run", config, "--output", tmp_path / "run")
    assert again.status == 1
    for options in ([], ["--verify"], ["--watch"]):
        said = call("status", tmp_path / "run", *options)
        assert said.status == 1, "as the run ended"
        assert "complete: 10/10 samples in 2/2 shards, 2 with an error" in said.out
        assert "img3[0]" in said.out


def test_a_metric_with_too_few_samples_says_so_and_the_others_go_on(call, write, tmp_path):
    config = write(
        prompts={"source": IMAGES["prompts"]["source"], "limit": 3},
        metrics=["prdc_digits", "is_digits", "fd_digits"],
    )
    ended = call("run", config, "--output", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    values = {metric["name"]: metric["value"] for metric in metrics}
    assert values["precision_digits"] is None
    assert values["fd_digits"] is not None
    (why,) = next(m["warnings"] for m in metrics if m["name"] == "precision_digits")
    assert "3" in why
    assert ended.status == 1


def test_a_directory_of_another_evaluation_is_refused(call, write, tmp_path):
    call("run", write(), "--output", tmp_path / "run")
    other = write(runtime={"threads": 1, "shard_size": 4})
    ended = call("run", other, "--output", tmp_path / "run")
    assert ended.status == 2
    assert "runtime.shard_size: the run has 8, this configuration 4" in ended.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("…")
    assert "thesis.tex" in call("run", write(), "--output", tmp_path / "full").err


def test_a_run_directory_is_no_configuration_but_holds_one(call, tmp_path):
    began = tmp_path / "run" / "init" / "config.yaml"
    began.parent.mkdir(parents=True)
    began.write_text("name: x")
    ended = call("run", tmp_path / "run")
    assert ended.status == 2
    assert "expected a configuration (YAML), got a folder. It is a run directory" in ended.err
    assert f"{began} is the configuration that it began with" in ended.err
    assert "Name the file in it" in call("validate", tmp_path).err


@pytest.mark.parametrize("verb", ["validate", "run"])
def test_a_key_beyond_the_limit_is_not_taken_for_a_typing_error(call, write, tmp_path, verb):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"key": "p-{i}", "text": "a {i}"}}\n' for i in range(20)))
    config = write(
        model={"kind": "diffusers", "id": "package://evaluator/demo/weights/pipeline"},
        prompts={"source": str(prompts), "limit": 10},
        references={}, features=[], metrics=[], output=str(tmp_path),
        probes={"attention": {"full": ["p-19", "p-99"]}},
    )  # fmt: skip
    ended = call(verb, config)
    assert ended.status == 2
    assert "'p-19'; it is there, but beyond the limit of 10" in ended.err
    assert "'p-99'; did you mean" in ended.err


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_memory_is_no_store_for_a_command(call, tmp_path, verb):
    places = (tmp_path / "run", "memory://b/a")
    ended = call(verb, *(places if verb == "push" else places[::-1]))
    assert ended.status == 2
    assert "gone when it ends" in ended.err
    assert not (tmp_path / "run").exists()


def test_control_characters_in_a_prompt_do_not_reach_the_terminal(call, write, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x.png").write_bytes(b"\x89PNG no image")
    (tmp_path / "p" / "x.txt").write_text("\x1b[31mred\x1b]0;title\x07")
    ended = call("run", write(prompts={"source": str(tmp_path / "p")}), "--output", tmp_path / "r")
    assert "\x1b" not in ended.out + ended.err


def test_a_full_disk_loses_nothing_committed(call, write, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a full disk is tested on a small tmpfs, and mounting one is not allowed here")
    try:
        config = write(prompts={"source": IMAGES["prompts"]["source"], "limit": 40})
        ended = call("run", config, "--output", disk / "run")
        assert ended.status == 1
        assert "No space left on device" in ended.err
        assert "Everything committed so far is kept" in ended.err
        committed = sorted(os.listdir(disk / "run" / "shards"))
        assert 0 < len(committed) < 5
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert call("run", config, "--output", disk / "run").status == 0
        assert "40/40 samples" in call("status", disk / "run").out
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


def test_pack_then_run_on_the_pack(call, write, tmp_path):
    packed = call("pack", IMAGES["prompts"]["source"], tmp_path / "pack")
    assert "359 samples" in packed.out
    ended = call("run", write(prompts={"source": str(tmp_path / "pack"), "limit": 12}),
                 "--output", tmp_path / "run")  # fmt: skip
    assert ended.status == 0


def test_code_of_ones_own_runs_when_it_is_allowed(call, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import hashlib, torch\n"
        "class MeanColour:\n"
        "    name, outputs = 'mean', {'features': 3}\n"
        "    fingerprint = hashlib.sha256(b'mean colour').hexdigest()\n"
        "    def __init__(self, *, device, dtype): pass\n"
        "    def preprocess(self, image): return image.float().mean((1, 2))\n"
        "    def embed(self, batch): return {'features': batch}\n"
    )
    feature = {"name": "mean", "kind": "mine:MeanColour"}
    config = write(features=[feature], metrics=["fd_mean"])
    ended = call("run", config, "--output", tmp_path / "run", "--allow-code")
    assert ended.status == 0
    assert "fd_mean ↓" in ended.out


def test_aggregate_gives_the_same_table(call, write, tmp_path):
    ended = call("run", write(), "--output", tmp_path / "run")
    assert call("aggregate", tmp_path / "run").out == ended.out
    assert call("aggregate", tmp_path / "nothing").status == 2


@pytest.mark.parametrize("what", ["metrics", "extractors", "models", "probes"])
def test_ls_lists_the_parts(call, what):
    assert call("ls", what).out.strip()


@pytest.mark.parametrize(("world", "status"), [("2", 0), ("1", -signal.SIGABRT)])
def test_what_breaks_while_the_interpreter_ends_fails_no_launch(world: str, status: int) -> None:
    code = (
        "import atexit, os, sys\n"
        "atexit.register(os.abort)\n"  # stands for gloo's threads, which do it once in hundreds
        "sys.argv = ['evaluator', 'ls', '--help']\n"
        "from evaluator.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "WORLD_SIZE": world},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Usage" in done.stdout


def test_a_traceback_is_shown_before_a_process_of_a_launch_ends() -> None:
    code = "from evaluator import __main__, cli\ncli.main = lambda: 1 / 0\n__main__.main()\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "WORLD_SIZE": "2"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_a_configuration_fault_is_told_by_the_first_process_and_the_others_wait_for_it(
    local_rank, capsys, monkeypatch, tmp_path
) -> None:
    """A launcher ends all processes when one has left: the silent ones must not be the first."""
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(cli, "PATIENCE_SECONDS", 0.5)
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    began = time.monotonic()
    try:
        with pytest.raises(SystemExit) as leaving:
            cli.main(["run", str(tmp_path / "nothing.yaml")])
        ends_at_once = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert leaving.value.code == 2
    assert ("nothing.yaml" in capsys.readouterr().err) == (local_rank == "0")
    assert ends_at_once == (local_rank == "1")
    if local_rank == "1":
        assert time.monotonic() - began >= 0.5

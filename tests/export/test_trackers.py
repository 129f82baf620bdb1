"""Trackers get runs offline, and what they wrote is read back by their own means."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluator.errors import ConfigError
from evaluator.export import extras, tensorboard_runs, trackio_runs, wandb_runs
from evaluator.export.options import ExportOptions
from evaluator.export.tracked import Tracked, tracked
from evaluator.export.write import export_runs
from evaluator.runs import find_runs, open_run
from tests.small_runs import build_run

SECRETS = ("hf_verysecret", "sk-hid", "user:pass", "token=abc")
SCALARS = {
    "fd_clip": 12.345678901234567, "fd_clip/low": 11.5, "fd_clip/high": 13.25, "fd_clip/n": 11.0,
    "clip_score": 30.5, "clip_score/low": 29.0, "clip_score/high": 32.0, "clip_score/n": 11.0,
    "clip_score [region==x <i>]": 31.0, "clip_score [region==x <i>]/n": 6.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home_that_must_stay_empty(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    yield
    assert list(home.rglob("*")) == []


def installed(package: str) -> None:
    pytest.importorskip(package, reason=f"NOT TESTED: {package}; pip install -e '.[test]'")


def texts(folder: Path) -> str:
    return "\n".join(p.read_bytes().decode("latin-1") for p in folder.rglob("*") if p.is_file())


def test_what_a_tracker_gets_is_flat_redacted_and_survives_json(hostile_run):
    said = tracked("name", open_run(hostile_run), ExportOptions(images=2))
    assert said.scalars == SCALARS
    assert Tracked.from_record(json.loads(json.dumps(said.record()))) == said
    assert said.settings()["config.generation.guidance_scale"] == 3.0
    assert [image.name for image in said.images] == ["k00-0", "k00-1"]
    for secret in SECRETS:
        assert secret not in json.dumps(said.record())
    assert "\\u001b" not in json.dumps(said.record())
    assert said.identity == tracked("name", open_run(hostile_run), ExportOptions()).identity
    assert said.identity != tracked("other", open_run(hostile_run), ExportOptions()).identity


def test_a_run_without_images_is_tracked_without_them(tmp_path):
    build_run(tmp_path / "run", images=False)
    assert tracked("name", open_run(tmp_path / "run"), ExportOptions()).images == []


def test_tensorboard_reads_scalars_texts_and_images(hostile_run, tmp_path, golden):
    installed("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ExportOptions(images=3)
    [path] = export_runs(find_runs([hostile_run]), "tensorboard", tmp_path / "out", options).files
    assert path.is_relative_to(tmp_path / "out")
    assert path.parent.name == "1_1_script_alert_a_script_b_.._.._c"
    first = path.read_bytes()
    events = EventAccumulator(str(path.parent))
    events.Reload()
    tags = events.Tags()
    scalars = {tag: events.Scalars(tag)[0].value for tag in tags["scalars"]}
    assert scalars["fd_clip"] == pytest.approx(SCALARS["fd_clip"], rel=1e-7)
    assert scalars["fd_clip/high"] == 13.25
    assert len(scalars) == len(SCALARS)
    [image] = events.Images("samples/k01-0")
    assert (image.width, image.height) == (8, 8)
    said = {tag: events.Tensors(tag)[0].tensor_proto.string_val for tag in tags["tensors"]}
    shown = {tag: [text.decode() for text in value] for tag, value in said.items() if "/" in tag}
    golden(
        "tensorboard.json",
        json.dumps({"scalars": scalars, "texts": shown, "images": tags["images"]}, indent=1) + "\n",
    )
    for value in shown.values():
        assert all(line.startswith("    ") for text in value for line in text.splitlines())
    for secret in SECRETS:
        assert secret.encode() not in first
    export_runs(find_runs([hostile_run]), "tensorboard", tmp_path / "out", options)
    assert path.read_bytes() == first
    assert len(list((tmp_path / "out").rglob("*tfevents*"))) == 1


def test_tensorboard_keeps_several_runs_apart(tmp_path):
    installed("tensorboard")
    for folder, name in (("a", "x/y"), ("b", "x y"), ("c", "x?y")):
        build_run(tmp_path / "runs" / folder, name=name)
    files = export_runs(find_runs([tmp_path / "runs"]), "tensorboard", tmp_path / "out").files
    assert len({path.parent for path in files}) == 3
    assert {path.parent.parent for path in files} == {tmp_path / "out"}


def wandb_records(path: Path) -> list[Any]:
    """Records of an offline file: LevelDB's log format with wandb's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, part, records = path.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(part)
            records.append(record)
            part = b""
    return records


def test_wandb_writes_an_offline_run_with_all_that_was_logged(hostile_run, tmp_path, golden):
    installed("wandb")
    out = tmp_path / "out"
    options = ExportOptions(images=2, project="digits")
    [folder] = export_runs(find_runs([hostile_run]), "wandb", out, options).files
    [file] = folder.glob("run-*.wandb")
    records = wandb_records(file)
    [run] = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.host) == ("digits", "")
    assert run.display_name == '=1+1: <script>alert("a")</script>, "b" # ../../c'
    [history] = [r.history for r in records if r.WhichOneof("record_type") == "history"]
    logged = {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item
    }
    assert {name: logged[name] for name in SCALARS} == SCALARS
    assert logged["samples.count"] == 2
    table = json.loads((folder / "files" / logged["results.path"]).read_text())
    golden(
        "wandb.json",
        json.dumps({"scalars": {n: logged[n] for n in SCALARS}, **table}, indent=1) + "\n",
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["config"]["generation"]["steps"] == 4
    for secret in (*SECRETS, "k" * 40):
        assert secret not in texts(out)
    kept = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    staged = [c.local_path for a in kept for c in a.manifest.contents]
    assert all(Path(path).is_file() for path in staged), "what waits to be sent is there"


def test_trackio_reads_its_runs_back(hostile_run, tmp_path, golden):
    installed("trackio")
    build_run(tmp_path / "other", name="other")
    out, options = tmp_path / "out", ExportOptions(images=2, project="digits")
    for _ in range(2):  # the second replaces the first
        runs = find_runs([hostile_run, tmp_path / "other"])
        [database] = export_runs(runs, "trackio", out, options).files
    code = (
        "import json, trackio\n"
        "from trackio.sqlite_storage import SQLiteStorage as S\n"
        "runs = {r.name: r.config for r in trackio.Api().runs('digits')}\n"
        "logs = {name: S.get_logs('digits', name) for name in runs}\n"
        "print('READ', json.dumps([runs, logs]))\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(out), "HOME": str(tmp_path / "read")}
    environment.pop("TRACKIO_SPACE_ID")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    runs, logs = json.loads(done.stdout.partition("READ ")[2])
    assert set(runs) == {"1_1_script_alert_a_script_b_.._.._c", "other"}
    [log] = logs["1_1_script_alert_a_script_b_.._.._c"]
    assert {name: log[name] for name in SCALARS} == SCALARS
    assert runs["other"]["config"]["generation"]["steps"] == 4
    rows = log["results"]["_value"]
    golden(
        "trackio.json",
        json.dumps({"scalars": {n: log[n] for n in SCALARS}, "rows": rows}, indent=1) + "\n",
    )
    assert len(list((out / "media").rglob("*.png"))) == 2 * 2
    assert database == out / "digits.db"
    for secret in SECRETS:
        assert secret not in texts(out)


@pytest.mark.parametrize("module", [wandb_runs, trackio_runs, tensorboard_runs])
def test_a_package_that_is_missing_is_named_with_what_installs_it(tmp_path, monkeypatch, module):
    extra = module.__name__.rpartition(".")[2].removesuffix("_runs")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    options = {} if extra == "tensorboard" else {"project": "p"}
    message = rf"--to {extra}: .*pip install diffusion-evaluator\[{extra}\]"
    with pytest.raises(ConfigError, match=message):
        module.write([], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["doubled", "itself", "deep"])
def test_settings_that_refer_to_themselves_are_not_told(tmp_path, form):
    run = build_run(tmp_path / "run")
    doubled = ["x0: &x0 [a, a, a, a, a, a, a, a]"]
    doubled += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 8)}]" for i in range(1, 30)]
    texts = {"doubled": "\n".join(doubled), "itself": "x: &x [*x]", "deep": "x: " + "[" * 5000}
    (run.path / "init" / "config.yaml").write_text(texts[form])
    config = tracked("run", open_run(run.path), ExportOptions()).settings()
    assert "expected names and values, got" in config["config.unreadable"]

"""Trackers get runs offline, and what they wrote is read back by their own means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluator.errors import ConfigError
from evaluator.export import extras
from evaluator.export.options import ExportOptions
from evaluator.export.tracked import Tracked, tracked
from evaluator.export.write import export_runs
from evaluator.runs import find_runs, open_run
from tests.export.wandb_server import Arrived, recording
from tests.small_runs import HOSTILE_NAME, METRICS, build_run

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


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")
def test_tensorboards_pages_show_settings_beside_numbers_and_numbers_within_margins(
    hostile_run, tmp_path
):
    installed("tensorboard")
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    out = tmp_path / "out"
    export_runs(find_runs([hostile_run]), "tensorboard", out, ExportOptions(images=0))
    events = EventMultiplexer().AddRunsFromDirectory(str(out))
    events.Reload()
    shown = TBContext(data_provider=MultiplexerDataProvider(events, str(out)), multiplexer=events)
    asked = api_pb2.ListSessionGroupsRequest(
        slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS]
    )
    page = list_session_groups.Handler(
        RequestContext(), backend_context.Context(shown), "", asked
    ).run()
    [row] = page.session_groups
    settings = {name: value.number_value for name, value in row.hparams.items()}
    assert settings["generation.steps"] == 4
    assert settings["generation.guidance_scale"] == 3
    assert row.hparams["model.id"].string_value == "some-org/some-model"
    numbers = {value.name.tag: value.value for value in row.metric_values}
    assert numbers == pytest.approx(
        {name: value for name, value in SCALARS.items() if "/" not in name}, rel=1e-7
    )
    layout = CustomScalarsPlugin(shown).layout_impl(RequestContext(), "")
    [category] = json.loads(layout)["category"]
    assert {chart["title"]: chart["margin"]["series"] for chart in category["chart"]} == {
        name: [{"value": name, "lower": f"{name}/low", "upper": f"{name}/high"}]
        for name in ("fd_clip", "clip_score")
    }


def test_tensorboard_keeps_several_runs_apart(tmp_path):
    installed("tensorboard")
    for folder, name in (("a", "x/y"), ("b", "x y"), ("c", "x?y")):
        build_run(tmp_path / "runs" / folder, name=name)
    files = export_runs(find_runs([tmp_path / "runs"]), "tensorboard", tmp_path / "out").files
    assert len({path.parent for path in files}) == 3
    assert {path.parent.parent for path in files} == {tmp_path / "out"}


def synced(folder: Path, home: Path) -> Arrived:
    """What arrives where `wandb sync` sends a run folder to."""
    home.mkdir()
    with recording() as (address, arrived):
        own = {"HOME": str(home), "WANDB_BASE_URL": address, "WANDB_MODE": "online"}
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", str(folder)],
            capture_output=True, text=True, check=False, timeout=100, cwd=home,
            env={**os.environ, **own},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (arrived.unknown, arrived.finished) == ([], True), done.stderr
    return arrived


def test_wandb_sync_sends_all_that_was_exported_from_wherever_the_folder_is(tmp_path, golden):
    installed("wandb")
    run = build_run(tmp_path / "run", name=HOSTILE_NAME).path
    record = json.loads((run / "metrics.json").read_bytes())
    odd = {"region": 'v1.5/a "b" \\ c'}  # dots and slashes are no levels of nesting
    record["metrics"].append({**METRICS[1], "value": 29.87654321098765, "group": odd})
    (run / "metrics.json").write_text(json.dumps(record))
    options = ExportOptions(images=3, project="digits")
    [folder] = export_runs(find_runs([run]), "wandb", tmp_path / "out", options).files
    for secret in (*SECRETS, "k" * 40):
        assert secret not in texts(tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "moved") / "wandb" / folder.name
    arrived = synced(moved, tmp_path / "reader")

    [(name, opened)] = find_runs([run]).items()
    told = tracked(name, opened, options)
    assert told.scalars == {
        **SCALARS,
        **{f"clip_score [region={odd['region']}]{part}": value for part, value in
           (("", 29.87654321098765), ("/low", 29.0), ("/high", 32.0), ("/n", 11.0))},
    }  # fmt: skip
    assert (arrived.run["name"], arrived.run["project"]) == (told.identity, "digits")
    assert arrived.run["displayName"] == told.name
    assert {n: v for n, v in arrived.config.items() if n != "_wandb"} == told.config
    assert told.config["provenance"]["model"]["revision"] == "b" * 40
    [history] = arrived.rows("wandb-history.jsonl")
    summary = json.loads(arrived.files["wandb-summary.json"])
    for said in (history, summary, arrived.rows("wandb-summary.json")[-1]):
        own = {"results", "samples"}
        figures = {n: v for n, v in said.items() if n[0] != "_" and n not in own}
        assert figures == told.scalars
    table = json.loads(arrived.files[summary["results"]["path"]])
    assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == [
        {**row, "warnings": "; ".join(row["warnings"])} for row in told.rows
    ]
    figures = {n: summary[n] for n in told.scalars}
    golden("wandb.json", json.dumps({"scalars": figures, **table}, indent=1) + "\n")
    assert summary["samples"]["captions"] == [f"{i.name}: {i.caption}" for i in told.images]
    assert [arrived.files[path] for path in summary["samples"]["filenames"]] == [
        image.content for image in told.images
    ]


def test_trackio_reads_its_runs_back(hostile_run, tmp_path, golden):
    installed("trackio")
    for name in ("a b", "a/b"):
        build_run(tmp_path / "runs" / name.replace("/", "-"), name=name)
    out, options = tmp_path / "out", ExportOptions(images=2, project="digits.1")
    for _ in range(2):  # the second replaces the first
        runs = find_runs([hostile_run, tmp_path / "runs"])
        [database] = export_runs(runs, "trackio", out, options).files
    code = (
        "import json, trackio\n"
        "from trackio.sqlite_storage import SQLiteStorage as S\n"
        "runs = {r.name: r.config for r in trackio.Api().runs('digits.1')}\n"
        "logs = {name: S.get_logs('digits.1', name) for name in runs}\n"
        "print('READ', json.dumps([runs, logs]))\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(out), "HOME": str(tmp_path / "read")}
    environment.pop("TRACKIO_SPACE_ID")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    runs, logs = json.loads(done.stdout.partition("READ ")[2])
    odd, first, second = sorted(runs)
    assert (odd, first) == ("1_1_script_alert_a_script_b_.._.._c", "a_b")
    assert second.startswith("a_b-")  # one name as part of a path, and yet two runs
    assert [len(log) for log in logs.values()] == [1] * 3
    [log] = logs["1_1_script_alert_a_script_b_.._.._c"]
    assert {name: log[name] for name in SCALARS} == SCALARS
    assert runs["a_b"]["config"]["generation"]["steps"] == 4
    rows = log["results"]["_value"]
    golden(
        "trackio.json",
        json.dumps({"scalars": {n: log[n] for n in SCALARS}, "rows": rows}, indent=1) + "\n",
    )
    assert len(list((out / "media").rglob("*.png"))) == 2 * 3
    assert database == out / "digits1.db"
    for secret in SECRETS:
        assert secret not in texts(out)


@pytest.mark.parametrize("extra", ["wandb", "trackio", "tensorboard"])
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    small_run, tmp_path, monkeypatch, extra
):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    message = rf"--to {extra}: .*pip install diffusion-evaluator\[{extra}\]"
    with pytest.raises(ConfigError, match=message):
        export_runs(find_runs([small_run]), extra, tmp_path / "out")
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

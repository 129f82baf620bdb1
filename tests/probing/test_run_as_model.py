"""A verb that is given a run takes its configuration, its images and prompts, and its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evaluator.config import load_config
from evaluator.demo.quality import held_out
from evaluator.errors import ConfigError, InputError, RunDirectoryError
from evaluator.locations import expand
from evaluator.probing.images import chosen_images, kept_images
from evaluator.probing.inputs import ModelRequest, first_prompts, load_model
from evaluator.probing.jacobian import JacobianRequest, _prompts
from evaluator.probing.named import output_place
from evaluator.probing.schedules import num_steps_of, open_schedule
from evaluator.runner.session import run_session
from evaluator.store.rundir import RunDirectory

from .conftest import DIGITS, IMAGES


def configuration(folder: Path, **changes: Any) -> Path:
    record = {
        "name": "told",
        "model": {"kind": "diffusers", "id": DIGITS},
        "generation": {"steps": 2, "guidance_scale": 3.0, "height": 32, "width": 32},
        "prompts": {"source": IMAGES, "limit": 10},
        "references": {"real": {"source": IMAGES, "limit": 40}},
        "runtime": {"images": "png", "threads": 1},
        **changes,
    }
    path = folder / "told.yaml"
    path.write_text(yaml.safe_dump(record))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten digits of two steps, whose configuration file is gone."""
    folder = tmp_path_factory.mktemp("made")
    runtime = {"images": "png", "threads": 1, "cache": str(folder / "cache")}
    path = configuration(folder, runtime=runtime)
    run_session(load_config(path), folder / "run", allow_code=False, relative_to=folder)
    path.unlink()
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to do anything to."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_verbs_fill_the_runs_own_folders_with_its_own_settings(
    run: Path, call: Callable[..., Any]
) -> None:
    for verb, arguments in {
        "anatomy": (),
        "denoise": ("--limit", 3, "--timesteps", 2),
        "roundtrip": ("--limit", 3),
        "interpolate": ("--pairs", 1, "--frames", 3),
        "ood": (),
    }.items():
        ended = call("probe", verb, run, *arguments, "--device", "cpu")
        assert ended.status == 0, (verb, ended.err)
        record = json.loads((run / "probes" / verb / "result.json").read_text())
        assert record["provenance"]["generation"]["height"] == 32
        assert record["lines"] == ended.out.splitlines(), "and the report can print them"
    told = held_out().captions
    results = {
        verb: json.loads((run / "probes" / verb / "result.json").read_text())
        for verb in ("anatomy", "denoise", "interpolate", "ood")
    }
    assert results["anatomy"]["arguments"]["prompt"] == told[0]
    assert results["interpolate"]["arguments"]["prompts"] == [told[0]]
    probed = load_model(ModelRequest(str(run), device="cpu"))
    trajectories = _prompts(JacobianRequest(ModelRequest(str(run)), samples=3), probed)
    assert [prompt.text for prompt in trajectories] == list(told[:3])
    assert results["denoise"]["result"]["notes"] == [f"images of the reference 'real': {IMAGES}"]
    assert results["ood"]["result"]["num_images"] == 10, "those that it kept"
    assert results["ood"]["result"]["num_fitted"] == 32


def test_a_runs_schedule_is_that_of_its_scheduler_and_steps(
    run: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    assert num_steps_of([str(run)], 50) == 2
    ended = call("schedule", run)
    assert ended.status == 0
    assert (run / "probes" / "schedule" / "schedule.html").is_file()
    record = json.loads((run / "probes" / "schedule" / "result.json").read_text())
    assert record["arguments"]["steps"] == 2
    assert record["files"] == ["schedule.parquet", "schedule.html"]
    assert record["lines"] == ended.out.split("\n\npage:")[0].splitlines()
    made_from = json.loads((run / "init" / "provenance.json").read_text())["model"]
    assert record["provenance"]["model"]["fingerprint"] == made_from["fingerprint"]
    swapped = configuration(tmp_path, model={
        "kind": "diffusers", "id": DIGITS,
        "scheduler": {"name": "DDPMScheduler", "arguments": {"beta_schedule": "linear"}},
    })  # fmt: skip
    loaded = load_model(ModelRequest(str(swapped), device="cpu")).pipeline.scheduler
    found = open_schedule(str(swapped)).scheduler
    assert type(found) is type(loaded)
    assert torch.equal(found.alphas_cumprod, loaded.alphas_cumprod)
    again = open_schedule(str(swapped), {"beta_schedule": "squaredcos_cap_v2"}).scheduler
    assert not torch.equal(again.alphas_cumprod, loaded.alphas_cumprod)
    images = configuration(tmp_path, model={"kind": "images"})
    with pytest.raises(ConfigError, match="expected a model with a noise schedule, got one of"):
        open_schedule(str(images))


def test_kept_images_are_those_that_were_made(run: Path) -> None:
    directory = RunDirectory.open(run)
    probed = load_model(ModelRequest(str(run), device="cpu"))
    found = kept_images(directory, limit=3)
    plan = directory.plan.to_pylist()[:3]
    assert [prompt.key for prompt in found.prompts] == [f"{row['key']}__0000" for row in plan]
    prompts = first_prompts(probed, 3)
    made = probed.generate(prompts, [row["seed"] for row in plan])
    for image, own in zip(found.images, made, strict=True):
        assert (image.int() - own.int()).abs().max() <= 1
    assert [p.text for p in found.prompts] == [prompt.text for prompt in prompts]
    named = chosen_images(str(run), probed, limit=3)
    assert named.fingerprint == found.fingerprint, "a run is a source of images"
    shutil.rmtree(run / "shards" / "00000")
    with pytest.raises(InputError, match="expected a run that kept images"):
        kept_images(directory, limit=3)


def test_outliers_are_scored_beside_the_images_of_a_run(
    run: Path, call: Callable[..., Any]
) -> None:
    ended = call("probe", "ood", run, "--outliers", IMAGES, "--limit", 20, "--device", "cpu")
    assert ended.status == 0, ended.err
    assert "10 images and 20 outliers" in ended.out
    (run / "shards" / "00000" / "images.tar").unlink()
    ended = call("probe", "ood", run, "--outliers", IMAGES, "--limit", 20, "--device", "cpu")
    assert ended.status == 0, ended.err
    assert "0 images and 20 outliers" in ended.out, "it kept none"


def test_a_checkpoint_that_changed_since_the_run_is_refused(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(expand(DIGITS), copy)
    config = configuration(tmp_path, model={"kind": "diffusers", "id": str(copy)})
    assert call("run", config, "--output", tmp_path / "run", "--limit", 1).status == 0
    (file,) = (copy / "unet").glob("*.safetensors")
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, file, metadata={"format": "pt"})
    with pytest.raises(RunDirectoryError, match="expected the weights that the run was made with"):
        load_model(ModelRequest(str(tmp_path / "run"), device="cpu"))
    other = load_model(
        ModelRequest(str(tmp_path / "run"), device="cpu", overrides=(f"model.id={DIGITS}",))
    )
    assert other.config.model.id == DIGITS, "another model that was asked for is no mistake"


def test_relative_paths_of_a_run_are_said_to_be_looked_for_here(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = ModelRequest(str(run), device="cpu", overrides=("references.real.source=digits",))
    with pytest.raises(InputError, match=r"digits.*call this from where the run was started"):
        chosen_images(None, load_model(request), limit=2)


def test_the_place_is_checked_before_anything_is_loaded(run: Path, tmp_path: Path) -> None:
    request = ModelRequest("no/such-model")
    assert output_place("ood", request, None) == Path("probes/ood-such-model")
    assert output_place("ood", ModelRequest(str(run)), None) == run / "probes" / "ood"
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(ConfigError, match="--output: expected a folder, new or not, got the"):
            output_place("ood", request, place)
    with pytest.raises(ConfigError, match="--output: expected a folder of its own, got the run"):
        output_place("ood", request, run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="got an empty folder"):
        output_place("ood", ModelRequest(str(tmp_path / "empty")), None)


def test_an_interrupted_verb_leaves_the_last_result_as_it_was(
    run: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("probe", "roundtrip", run, "--limit", 2).status == 0
    before = (run / "probes" / "roundtrip" / "result.json").read_bytes()

    def interrupt(*images: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluator.probing.roundtrip.reconstruction_errors", interrupt)
    assert call("probe", "roundtrip", run, "--limit", 2).status in (1, 130)
    assert (run / "probes" / "roundtrip" / "result.json").read_bytes() == before


def test_images_of_no_configuration_are_asked_for(tmp_path: Path) -> None:
    alone = load_model(ModelRequest(DIGITS, device="cpu"))
    with pytest.raises(ConfigError, match="stable-diffusion is a model alone; give a folder"):
        chosen_images(None, alone, limit=2)
    path = configuration(tmp_path, references={})
    shown = chosen_images(None, load_model(ModelRequest(str(path), device="cpu")), limit=2)
    assert shown.note == f"images of the prompts: {IMAGES}"
    assert torch.equal(torch.stack(shown.images), held_out().images[:2])

"""Schedulers by folder, package and class, and the table of several."""

import inspect
import json
import pathlib

import diffusers
import numpy as np
import pytest

from evaluator.errors import ConfigError, InputError
from evaluator.probes import compare_schedules, open_scheduler
from evaluator.probes.schedule_comparison import schedules_table
from evaluator.probes.scheduler_sources import parse_settings, pipeline_sigmas, split_settings
from evaluator.probes.schemas import SCHEDULES_SCHEMA

DIGITS = "package://evaluator/demo/weights/stable-diffusion"


def test_a_pipeline_brings_its_scheduler_and_its_class():
    found = open_scheduler(DIGITS)
    assert type(found.scheduler).__name__ == "DDIMScheduler"
    assert found.scheduler.config.beta_end == 0.012
    assert found.pipeline == "StableDiffusionPipeline"
    assert found.sigmas(4) is None


def test_a_folder_with_settings_alone_is_enough(tmp_path):
    diffusers.EulerDiscreteScheduler(beta_end=0.03).save_pretrained(tmp_path)
    found = open_scheduler(str(tmp_path), {"timestep_spacing": "trailing"})
    assert found.scheduler.config.beta_end == 0.03
    assert found.scheduler.config.timestep_spacing == "trailing"
    assert found.pipeline is None


def test_a_class_takes_its_settings():
    found = open_scheduler(
        "DDPMScheduler:beta_schedule=sigmoid,trained_betas=[0.1, 0.2],clip_sample=no"
    )
    assert found.scheduler.config.trained_betas == [0.1, 0.2]
    assert found.scheduler.config.clip_sample is False
    assert open_scheduler("DDPMScheduler", {"beta_end": 0.5}).scheduler.config.beta_end == 0.5
    shifting = "FlowMatchEulerDiscreteScheduler:use_dynamic_shifting=true,mu=0.5"
    assert open_scheduler(shifting).mu == 0.5


def test_settings_are_split_outside_brackets():
    assert split_settings("a=1,b=[2,3],c={x: 1, y: 2}") == ["a=1", "b=[2,3]", "c={x: 1, y: 2}"]
    assert parse_settings(["a=1", "b=trailing", "c=null"]) == {"a": 1, "b": "trailing", "c": None}


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        ("DDIMSchedulr", InputError, "expected a pipeline's folder"),
        ("DIMScheduler", ConfigError, "did you mean 'DDIMScheduler'"),
        ("DDIMSchedule", InputError, "did you mean 'DDIMScheduler'"),
        ("nothing-like-one", InputError, "got nothing at nothing-like-one. Check the path"),
        ("SchedulerMixinScheduler", ConfigError, "expected a scheduler class"),
        ("DDIMScheduler:beta_strat=1", ConfigError, "did you mean 'beta_start'"),
        ("DDIMScheduler:beta_start", ConfigError, "expected key=value, got 'beta_start'"),
        ("DDIMScheduler:beta_schedule=quadratic", ConfigError, "quadratic"),
        ("FlowMatchEulerDiscreteScheduler:mu=big", ConfigError, "mu: expected a number"),
        ("EulerDiscreteScheduler:mu=1", ConfigError, "without it. Add use_dynamic_shifting=true"),
        ("CosineDPMSolverMultistepScheduler", ConfigError, "needs torch, torchsde"),
        ("AmusedScheduler", ConfigError, "mask_token_id"),
        ("package://evaluator/demo/data", InputError, "expected scheduler_config.json"),
        ("/nowhere/at/all", InputError, "Check the path"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_its_remedy(model, error, says):
    with pytest.raises(error, match=says):
        open_scheduler(model)


def test_damaged_settings_are_named(tmp_path):
    (tmp_path / "scheduler_config.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"scheduler_config\.json: expected settings as JSON"):
        open_scheduler(str(tmp_path))
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "os.system"}))
    with pytest.raises(ConfigError, match=r"got 'os\.system'"):
        open_scheduler(str(tmp_path))


TEXT_TO_IMAGE = (
    *("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"),
    *("FluxPipeline", "FluxImg2ImgPipeline", "FluxControlNetPipeline", "PixArtAlphaPipeline"),
    *("PixArtSigmaPipeline", "SanaPipeline", "Lumina2Pipeline", "QwenImagePipeline", "DiTPipeline"),
    *("ChromaPipeline", "HunyuanDiTPipeline", "CogView4Pipeline", "QwenImageEditPipeline"),
)


@pytest.mark.parametrize("name", TEXT_TO_IMAGE)
def test_pipelines_that_set_sigmas_are_those_whose_source_does(name):
    source = pathlib.Path(inspect.getfile(getattr(diffusers, name))).read_text()
    sets = "np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)" in source
    assert (pipeline_sigmas(name, 5) is not None) is sets
    if sets:
        assert pipeline_sigmas(name, 5) == pytest.approx(np.linspace(1.0, 1 / 5, 5))


def test_several_schedules_share_one_table():
    models = ["DDPMScheduler:variance_type=learned_range", "EDMEulerScheduler", DIGITS]
    schedules = compare_schedules([open_scheduler(model) for model in models], num_steps=7)
    table = schedules_table(schedules)
    assert table.schema == SCHEDULES_SCHEMA
    counts = {}
    for row in table.select(["schedule", "grid"]).to_pylist():
        place = tuple(row.values())
        counts[place] = counts.get(place, 0) + 1
    assert counts == {
        (models[0], "training"): 1000,
        (models[0], "sampling"): 7,
        (models[1], "sampling"): 7,
        (models[2], "training"): 1000,
        (models[2], "sampling"): 7,
    }
    ratio = np.exp(-table["log_snr"].to_numpy() / 2)
    assert table["noise_to_signal"].to_numpy() == pytest.approx(ratio, rel=1e-6)
    assert table["posterior_variance"].null_count == 1000 + 3 * 7
    with pytest.raises(ConfigError, match="EDMEulerScheduler more than once"):
        compare_schedules([open_scheduler("EDMEulerScheduler")] * 2, num_steps=7)


def test_dynamic_shifting_without_mu_is_drawn_with_a_warning():
    model = "FlowMatchEulerDiscreteScheduler:use_dynamic_shifting=true"
    (without,) = compare_schedules([open_scheduler(model)], num_steps=8)
    assert "mu was not given" in without.warnings[0]
    given, other = compare_schedules(
        [open_scheduler(f"{model},mu=1.15"), open_scheduler(f"{model},mu=0.5")], num_steps=8
    )
    assert not any("mu was not given" in warning for warning in given.warnings)
    assert given.sampling.equals(without.sampling)
    assert not other.sampling.equals(without.sampling)

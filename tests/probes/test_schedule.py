import math

import diffusers
import numpy as np
import pytest

from evaluator.errors import ProbeError
from evaluator.probes import describe_schedule, schedule_warnings, training_schedule
from evaluator.probes.schemas import SCHEDULE_SCHEMA

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TRAILING_ZERO = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}


def span(scheduler, num_steps=10):
    log_snr = describe_schedule(scheduler, num_steps=num_steps).column("log_snr").to_pylist()
    return log_snr[0], log_snr[-1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"timestep_spacing": "leading", "steps_offset": 1}, (-4.25, 6.37)),
        ({"timestep_spacing": "linspace"}, (-5.36, 7.07)),
        ({"timestep_spacing": "trailing"}, (-5.36, 2.15)),
        (TRAILING_ZERO, (-math.inf, 2.07)),
    ],
)
def test_log_snr_of_stable_diffusion(settings, expected):
    scheduler = diffusers.DDIMScheduler(**BETAS, **settings)
    assert span(scheduler) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_zero_snr_of_sigma_schedulers_is_finite(name):
    scheduler = getattr(diffusers, name)(**BETAS, **TRAILING_ZERO)
    assert span(scheduler) == pytest.approx((-16.64, 2.07), abs=0.006)


def test_log_snr_of_other_families():
    assert span(diffusers.EDMEulerScheduler()) == pytest.approx((-8.76, 12.43), abs=0.006)
    for shift, end in ((1.0, 13.81), (3.0, 9.42)):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        assert span(scheduler, 1000) == pytest.approx((-math.inf, end), abs=0.006)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.HeunDiscreteScheduler(**BETAS),
        diffusers.PNDMScheduler(**BETAS),
        diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True),
        diffusers.FlowMatchHeunDiscreteScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_second_evaluations_are_no_steps(scheduler):
    table = describe_schedule(scheduler, num_steps=7)
    assert table.schema == SCHEDULE_SCHEMA
    assert table.column("step").to_pylist() == list(range(7))
    assert len(set(table.column("timestep").to_pylist())) == 7


def test_the_scheduler_stays_as_it_is():
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(7)
    before = scheduler.timesteps
    describe_schedule(scheduler, num_steps=20)
    assert scheduler.timesteps is before


def test_the_levels_are_those_of_the_run(tiny, shared_pipeline):
    from evaluator.probes import LatentsProbe

    before = shared_pipeline.scheduler
    try:
        for name in ("DDIMScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"):
            shared_pipeline.scheduler = getattr(diffusers, name)(**BETAS)
            table = describe_schedule(shared_pipeline.scheduler, num_steps=5)
            model, prompts = tiny.model(shared_pipeline, steps=5), tiny.prompts("a dog")
            rows = tiny.observe(model, prompts, LatentsProbe()).rows("latents")
            for column in ("timestep", "log_snr"):
                expected = [row[column] for row in rows]
                assert table.column(column).to_pylist() == pytest.approx(expected, rel=1e-5)
    finally:
        shared_pipeline.scheduler = before


def test_the_training_grid_has_every_timestep():
    scheduler = diffusers.DDIMScheduler(**BETAS)
    table = training_schedule(scheduler)
    assert table.num_rows == 1000
    log_snr = table.column("log_snr").to_pylist()
    assert (log_snr[0], log_snr[-1]) == pytest.approx((7.07, -5.36), abs=0.006)
    assert table.column("train_log_snr").to_pylist() == log_snr
    steps = describe_schedule(scheduler, num_steps=5).to_pylist()
    for row in steps:
        assert row["train_log_snr"] == pytest.approx(row["log_snr"], abs=1e-9)
        assert row["log_snr"] == log_snr[int(row["timestep"])]
    with pytest.raises(ProbeError, match="EDMEulerScheduler has none"):
        training_schedule(diffusers.EDMEulerScheduler())
    assert (
        describe_schedule(diffusers.EDMEulerScheduler(), num_steps=3)["train_log_snr"].null_count
        == 3
    )


def test_a_solver_on_flow_sigmas_was_trained_on_the_flow_and_not_on_its_betas():
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    solver = diffusers.DPMSolverMultistepScheduler(**flow)
    plain = diffusers.FlowMatchEulerDiscreteScheduler()
    assert training_schedule(solver).equals(training_schedule(plain))
    steps = describe_schedule(solver, num_steps=4)
    times = steps["timestep"].to_numpy() / 1000
    assert steps["train_log_snr"].to_numpy() == pytest.approx(2 * np.log((1 - times) / times))


def test_a_wide_schedule_gives_no_warning():
    assert schedule_warnings(diffusers.FlowMatchEulerDiscreteScheduler(), num_steps=1000) == ()


def test_a_narrow_schedule_gives_a_note():
    narrow = {**BETAS, "beta_end": 0.01}
    (note,) = schedule_warnings(diffusers.DDIMScheduler(**narrow), num_steps=50)
    assert note.startswith("Note: Trained log-SNR begins at -4.")


def test_zero_snr_without_trailing_steps_gives_a_warning():
    scheduler = diffusers.DDIMScheduler(**BETAS, rescale_betas_zero_snr=True)
    assert any("trailing" in warning for warning in schedule_warnings(scheduler, num_steps=10))
    proper = diffusers.DDIMScheduler(**BETAS, **TRAILING_ZERO)
    assert not any("rescale" in warning for warning in schedule_warnings(proper, num_steps=10))


def test_a_schedule_that_turns_noisier_gives_a_warning():
    class Turning(diffusers.DDIMScheduler):
        def set_timesteps(self, num_inference_steps, device=None):
            super().set_timesteps(num_inference_steps, device)
            self.timesteps = self.timesteps[[0, 2, 1, 3]]

    warnings = schedule_warnings(Turning(**BETAS), num_steps=4)
    assert "falls at steps [2]" in warnings[0]


def test_dynamic_shifting_is_refused_with_its_remedy():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    with pytest.raises(ProbeError, match="use_dynamic_shifting=False"):
        describe_schedule(scheduler, num_steps=10)


@pytest.mark.parametrize("num_steps", [0, -1])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_less_than_one_step_is_refused(name, num_steps):
    with pytest.raises(ProbeError, match=rf"expected 1 or more, got {num_steps}"):
        describe_schedule(getattr(diffusers, name)(), num_steps=num_steps)


def test_timesteps_without_a_noise_level_are_refused():
    scheduler = diffusers.DDIMScheduler(trained_betas=[0.1, 0.2])
    with pytest.raises(ProbeError, match=r"up to 900; DDIMScheduler has 2 of them.*trained_betas"):
        describe_schedule(scheduler, num_steps=10)


def test_a_scheduler_that_was_set_is_described_as_it_stands():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    with pytest.raises(ProbeError, match="Expected a scheduler that has run"):
        describe_schedule(scheduler, num_steps=None)
    scheduler.set_timesteps(5, mu=0.7)
    found = describe_schedule(scheduler, num_steps=None)
    assert found.equals(describe_schedule(scheduler, num_steps=5, mu=0.7))

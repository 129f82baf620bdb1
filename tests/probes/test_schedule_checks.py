"""Warnings of schedules: one broken schedule each, and the sound one beside it."""

import diffusers
import pytest

from evaluator.probes import schedule_warnings

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TRAILING_ZERO = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}


def warnings_of(scheduler, num_steps=10, **options):
    return " ".join(schedule_warnings(scheduler, num_steps=num_steps, **options))


@pytest.mark.parametrize(
    ("sound", "broken", "says"),
    [
        ({}, {"beta_start": 0.01, "beta_end": 0.01}, "constant"),
        ({}, {"trained_betas": [0.1] * 10 + [-0.1] + [0.1] * 10}, "between 0 and 1"),
        ({**TRAILING_ZERO, "prediction_type": "v_prediction"}, TRAILING_ZERO, "v_prediction"),
        ({"timestep_spacing": "trailing"}, {"beta_end": 0.0009}, "of the image's amplitude"),
    ],
)
def test_what_is_broken_is_said_and_what_is_sound_is_not(sound, broken, says):
    good = diffusers.DDIMScheduler(**{**BETAS, **sound})
    bad = diffusers.DDIMScheduler(
        **{**BETAS, "num_train_timesteps": 21 if "trained_betas" in broken else 1000, **broken}
    )
    assert says not in warnings_of(good)
    assert says in warnings_of(bad)


def test_few_steps_that_start_late_are_said():
    leading = diffusers.DDIMScheduler(**BETAS, timestep_spacing="leading")
    assert "starts at timestep 500" in warnings_of(leading, 2)
    trailing = diffusers.DDIMScheduler(**BETAS, timestep_spacing="trailing")
    assert "starts at timestep" not in warnings_of(trailing, 2)


def test_zero_signal_that_is_reached_is_not_said_to_be_missed():
    zero = {**BETAS, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    leading = diffusers.DDIMScheduler(**zero, timestep_spacing="leading")
    assert "sampling never starts at the noise level" in warnings_of(leading)
    for even in (diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler):
        said = warnings_of(even(**zero, timestep_spacing="linspace"))
        assert "Note: rescale_betas_zero_snr is on and timestep_spacing is 'linspace'" in said
        assert "never starts" not in said


def test_steps_that_repeat_a_level_are_said():
    scheduler = diffusers.DDIMScheduler(**BETAS, timestep_spacing="linspace", num_train_timesteps=9)
    assert "repeat the noise level" not in warnings_of(scheduler, 9)
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, num_train_timesteps=2)
    same = diffusers.FlowMatchEulerDiscreteScheduler()
    assert "2 of 4 steps repeat" in warnings_of(same, 4, sigmas=[1.0, 1.0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("name", "value"),
    [("EulerDiscreteScheduler", "14.6"), ("EDMEulerScheduler", "80.0"), ("DDIMScheduler", None)],
)
def test_initial_noise_that_must_be_scaled_is_noted(name, value):
    settings = {} if name.startswith("EDM") else BETAS
    said = warnings_of(getattr(diffusers, name)(**settings))
    if value is None:
        assert "init_noise_sigma" not in said
    else:
        assert f"Note: init_noise_sigma is {value}" in said
        assert "has a standard deviation" not in said


def test_initial_noise_of_another_level_is_said():
    class Unscaled(diffusers.EulerDiscreteScheduler):
        init_noise_sigma = 1.0

    assert "latents of the first step have 14.6" in warnings_of(Unscaled(**BETAS))


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "LMSDiscreteScheduler",
                                  "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler",
                                  "FlowMatchEulerDiscreteScheduler", "PNDMScheduler"])  # fmt: skip
def test_usual_schedulers_have_notes_only(name):
    settings = {} if name.startswith("Flow") else BETAS
    said = schedule_warnings(getattr(diffusers, name)(**settings), num_steps=20)
    assert [line for line in said if not line.startswith("Note:")] == []


def test_inverse_schedules_may_turn_noisier():
    said = warnings_of(diffusers.DDIMInverseScheduler(**BETAS))
    assert "signal-to-noise ratio" not in said


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler",
                                  "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler",
                                  "EulerDiscreteScheduler", "EDMEulerScheduler"])  # fmt: skip
@pytest.mark.parametrize("num_steps", [10, 50])
def test_ordinary_schedules_have_no_remark_on_their_range(name, num_steps):
    said = warnings_of(getattr(diffusers, name)(), num_steps)
    assert "log-SNR" not in said


@pytest.mark.parametrize("num_steps", [20, 50])
def test_sampling_that_starts_above_what_was_trained_is_said(num_steps):
    cosine = {"beta_schedule": "squaredcos_cap_v2"}
    late = schedule_warnings(diffusers.DDIMScheduler(**cosine), num_steps=num_steps)
    (line,) = [line for line in late if "log-SNR" in line]
    assert line.startswith("The model was trained down to log-SNR -19.84, but sampling starts at")
    trailing = diffusers.DDIMScheduler(**cosine, timestep_spacing="trailing")
    assert "log-SNR" not in warnings_of(trailing, num_steps)


@pytest.mark.parametrize(
    ("betas", "says", "not_said"),
    [
        ({"beta_end": 0.008}, "begins at -4.", "ends at"),
        ({"beta_start": 0.01, "beta_end": 0.02}, "ends at 4.60, short of 5", "begins at"),
    ],
)
def test_the_end_of_the_trained_range_that_falls_short_is_named(betas, says, not_said):
    settings = {"timestep_spacing": "trailing", **betas}
    said = schedule_warnings(diffusers.DDIMScheduler(**settings), num_steps=20)
    (line,) = [line for line in said if "log-SNR" in line]
    assert line.startswith("Note: Trained log-SNR")
    assert says in line
    assert not_said not in line

"""Curves of every scheduler of diffusers, against closed forms and against the scheduler itself."""

import math

import diffusers
import numpy as np
import pytest

from evaluator.errors import ProbeError
from evaluator.probes import describe_schedule, training_schedule
from evaluator.probes.schedule import posterior_variance

NUM_TRAIN = 1000
SPAN = {"beta_start": 0.0001, "beta_end": 0.02}
WITHOUT_NOISE = {
    *("BlockRefinementScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler"),
    "KarrasVeScheduler",
}
"""Token schedulers, and those that get their noise levels only while they sample."""
NEED_MORE = {"HeliosScheduler", "HeliosDMDScheduler"}
"""Video schedulers whose steps need a stage of their pipeline."""


def buildable():
    found = {}
    for name in dir(diffusers):
        if name.endswith("Scheduler"):
            try:
                found[name] = getattr(diffusers, name)()
            except (ImportError, TypeError):
                continue  # torchsde is not installed; token schedulers need their vocabulary
    return found


SCHEDULERS = buildable()


def column(table, name):
    return table.column(name).to_numpy()


BETA_SCHEDULES = ("linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2")


def closed_forms():
    steps = np.linspace(0, 1, NUM_TRAIN)
    low, high = SPAN.values()
    yield "linear", low + (high - low) * steps
    yield "scaled_linear", (math.sqrt(low) + (math.sqrt(high) - math.sqrt(low)) * steps) ** 2
    yield "sigmoid", low + (high - low) / (1 + np.exp(-(12 * steps - 6)))
    cosine = np.cos((np.arange(NUM_TRAIN + 1) / NUM_TRAIN + 0.008) / 1.008 * math.pi / 2) ** 2
    yield "squaredcos_cap_v2", np.minimum(1 - cosine[1:] / cosine[:-1], 0.999)


@pytest.mark.parametrize(("name", "betas"), list(closed_forms()), ids=BETA_SCHEDULES)
def test_the_training_grid_is_the_closed_form_of_its_beta_schedule(name, betas):
    table = training_schedule(diffusers.DDPMScheduler(beta_schedule=name, **SPAN))
    cumprod = np.cumprod(1 - betas)
    assert column(table, "beta") == pytest.approx(betas, rel=1e-4, abs=1e-7)
    assert column(table, "alpha_cumprod") == pytest.approx(cumprod, rel=2e-4)
    assert column(table, "alpha") == pytest.approx(np.sqrt(cumprod), rel=1e-4)
    assert column(table, "sigma") == pytest.approx(np.sqrt(1 - cumprod), rel=1e-4, abs=3e-6)
    log_snr = np.log(cumprod / (1 - cumprod))
    assert column(table, "log_snr") == pytest.approx(log_snr, abs=2e-3)


@pytest.mark.parametrize("shift", [0.5, 3.0, 7.0])
def test_a_shifted_flow_lowers_the_log_snr_by_twice_the_log_of_its_shift(shift):
    """σ' = sσ / (1 + (s − 1)σ) makes the odds (1 − σ')/σ' the odds of σ, divided by s."""
    sigmas = np.linspace(1, 0.05, 20)
    flow = diffusers.FlowMatchEulerDiscreteScheduler
    plain, shifted = (
        describe_schedule(flow(shift=s), num_steps=20, sigmas=sigmas) for s in (1.0, shift)
    )
    expected = 2 * np.log((1 - sigmas[1:]) / sigmas[1:])
    assert column(plain, "log_snr")[1:] == pytest.approx(expected, abs=1e-4)
    assert column(shifted, "log_snr")[1:] == pytest.approx(expected - 2 * math.log(shift), abs=1e-4)
    assert column(shifted, "log_snr")[0] == -math.inf


def test_dynamic_shifting_multiplies_the_odds_by_its_exponential():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = np.linspace(1, 1 / 8, 8)
    table = describe_schedule(scheduler, num_steps=8, mu=1.15, sigmas=sigmas)
    expected = 2 * np.log((1 - sigmas[1:]) / sigmas[1:]) - 2 * 1.15
    assert column(table, "log_snr")[1:] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2", "sigmoid"])
def test_the_posterior_variance_is_the_one_that_ddpm_samples_with(schedule):
    scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, variance_type="fixed_small")
    betas = column(training_schedule(scheduler), "beta")
    variance = posterior_variance(betas)
    scheduler.set_timesteps(NUM_TRAIN)
    asked = [float(scheduler._get_variance(t)) for t in range(1, NUM_TRAIN)]
    assert variance[1:] == pytest.approx(asked, rel=2e-3)
    assert variance[0] == 0
    assert (variance <= betas).all()


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_has_curves_or_is_refused_by_name(name):
    scheduler = SCHEDULERS[name]
    if name in WITHOUT_NOISE | NEED_MORE:
        with pytest.raises(ProbeError, match=name):
            describe_schedule(scheduler, num_steps=8)
        return
    table = describe_schedule(scheduler, num_steps=8)
    alpha, sigma, cumprod = (column(table, n) for n in ("alpha", "sigma", "alpha_cumprod"))
    assert (alpha >= 0).all()
    assert (sigma >= 0).all()
    assert cumprod == pytest.approx(alpha**2 / (alpha**2 + sigma**2))
    known = (alpha > 0) & (sigma > 0)
    expected = 2 * np.log(alpha[known] / sigma[known])
    assert column(table, "log_snr")[known] == pytest.approx(expected)
    assert known.sum() >= len(known) - 1
    if name != "RePaintScheduler":
        rises = np.diff(column(table, "log_snr")[known])
        assert (rises < 0).all() if "Inverse" in name else (rises > 0).all()


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "EDMEulerScheduler",
                                  "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])  # fmt: skip
def test_the_betas_of_the_steps_multiply_to_the_noise_of_the_first(name):
    table = describe_schedule(SCHEDULERS[name], num_steps=12)
    product = np.prod(1 - column(table, "beta"))
    assert product == pytest.approx(column(table, "alpha_cumprod")[0], rel=1e-9, abs=1e-12)


def test_trigonometric_schedules_have_their_angle():
    table = describe_schedule(diffusers.SCMScheduler(), num_steps=4)
    angle = np.linspace(math.pi / 2, 0, 5)[:-1]
    assert column(table, "sigma") == pytest.approx(np.sin(angle), abs=1e-6)
    ipndm = diffusers.IPNDMScheduler()
    levels = describe_schedule(ipndm, num_steps=6)
    ipndm.set_timesteps(6)
    assert column(levels, "sigma") == pytest.approx(ipndm.betas[:-1].numpy(), abs=1e-6)
    assert column(levels, "alpha") == pytest.approx(ipndm.alphas[:-1].numpy(), abs=1e-3)

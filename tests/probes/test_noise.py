"""x0 and ε of every supported scheduler, against a model that knows the answer."""

import functools
import math
from types import SimpleNamespace

import diffusers
import pytest
import torch

from evaluator.errors import ProbeError
from evaluator.probes import LatentsProbe
from evaluator.probes.noise import NoiseFamily, NoiseLevel, noise_family

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLEAN = torch.linspace(-1.5, 1.5, 64).view(1, 4, 4, 4) ** 3
NUM_STEPS = 6


class ExactRun:
    """A sampling loop whose model predicts exactly towards CLEAN, for any scheduler."""

    def __init__(self, scheduler):
        self.pipeline = self
        self.scheduler = scheduler

    def generate(self, count):
        scheduler = self.scheduler
        scheduler.set_timesteps(NUM_STEPS)
        shape = (count, *CLEAN.shape[1:])
        torch.manual_seed(1)  # some schedulers draw noise, and are given no generator
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        sigma = getattr(scheduler, "init_noise_sigma", 1.0)
        start = 0.0 if isinstance(sigma, float) and sigma == 1 else CLEAN
        x = x * sigma + start
        if hasattr(scheduler, "alphas_cumprod") and isinstance(start, float):
            a, b = self.training_level(scheduler.timesteps[0])
            x = a * CLEAN + b * x
        for t in scheduler.timesteps:
            given = (
                scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            )
            x = scheduler.step(self.answer(given, x, t), t, x, return_dict=False)[0]
        return x

    def training_level(self, timestep):
        cumprod = float(self.scheduler.alphas_cumprod[round(float(timestep))])
        return math.sqrt(cumprod), math.sqrt(1 - cumprod)

    def answer(self, given, x, t):
        """What the network is trained to say about its input, from the timestep alone."""
        scheduler = self.scheduler
        if hasattr(scheduler, "precondition_outputs"):
            sigma, data = math.exp(4 * float(t)), scheduler.config.sigma_data
            total = sigma**2 + data**2
            return (CLEAN - data**2 / total * x) / (sigma * data / math.sqrt(total))
        if not hasattr(scheduler, "alphas_cumprod"):
            return (x - CLEAN) / (float(t) / 1000)
        a, b = self.training_level(t)
        noise = (given - a * CLEAN) / b
        kind = scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        return a * noise - b * CLEAN if kind == "v_prediction" else CLEAN.expand_as(x)


VP_LIKE = [
    *(("DDIMScheduler", kind) for kind in ("epsilon", "v_prediction", "sample")),
    ("PNDMScheduler", "epsilon"),
    *(("EulerDiscreteScheduler", kind) for kind in ("epsilon", "v_prediction", "sample")),
    *(("HeunDiscreteScheduler", kind) for kind in ("epsilon", "v_prediction")),
    ("LMSDiscreteScheduler", "epsilon"),
    *(("DPMSolverMultistepScheduler", kind) for kind in ("epsilon", "v_prediction", "sample")),
    ("DPMSolverSinglestepScheduler", "epsilon"),
    *(("UniPCMultistepScheduler", kind) for kind in ("epsilon", "v_prediction")),
    ("DEISMultistepScheduler", "epsilon"),
]


def build(name, kind):
    settings = {} if kind is None else {**BETAS, "prediction_type": kind}
    if name in ("DDIMScheduler", "DDPMScheduler"):
        settings |= {"clip_sample": False}
    if name == "PNDMScheduler":
        settings |= {"skip_prk_steps": True}
    if kind is not None and name != "DPMSolverSinglestepScheduler":
        # Whole timesteps, so that the exact model can read its noise level off the grid.
        settings |= {"timestep_spacing": "leading", "steps_offset": 1}
    return getattr(diffusers, name)(**settings)


class ExactCogVideoX(ExactRun):
    """The loop of CogVideoX, whose step() takes the last x0 and the timestep before."""

    def generate(self, count):
        step = self.scheduler.step

        @functools.wraps(step)
        def usual(output, t, x, **options):
            return step(output, None, t, None, x, **options)

        scheduler, self.scheduler = (
            self.scheduler,
            SimpleNamespace(
                step=usual,
                timesteps=[],
                alphas_cumprod=self.scheduler.alphas_cumprod,
                set_timesteps=lambda n: None,
                config=self.scheduler.config,
            ),
        )
        scheduler.set_timesteps(NUM_STEPS)
        self.scheduler.timesteps = scheduler.timesteps
        try:
            return super().generate(count)
        finally:
            self.scheduler = scheduler


class ExactBetweenSteps(ExactRun):
    """A model that knows σ itself: the second evaluation of KDPM2 lies between two timesteps."""

    def answer(self, given, x, t):
        scheduler = self.scheduler
        step = scheduler.index_for_timestep(t)
        step = step if scheduler.step_index is None else scheduler.step_index
        if scheduler.state_in_first_order:
            return (x - CLEAN) / float(scheduler.sigmas[step])
        return (x - CLEAN) / float(scheduler.sigmas_interpol[step - self.lag])

    lag = 0


class ExactBetweenAncestralSteps(ExactBetweenSteps):
    """The ancestral one keeps its levels in between one place earlier."""

    lag = 1


EXACT_RUNS = {
    "CogVideoXDPMScheduler": ExactCogVideoX,
    "KDPM2AncestralDiscreteScheduler": ExactBetweenAncestralSteps,
    "KDPM2DiscreteScheduler": ExactBetweenSteps,
}


def rows_of(scheduler, count=2):
    model = EXACT_RUNS.get(type(scheduler).__name__, ExactRun)(scheduler)
    with LatentsProbe().attach(model, [None] * count, range(count)) as observation:
        model.generate(count)
    return observation.tables()["latents"].to_pylist()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *VP_LIKE,
        ("EDMEulerScheduler", None),
        ("EDMDPMSolverMultistepScheduler", None),
        ("FlowMatchEulerDiscreteScheduler", None),
        ("FlowMatchHeunDiscreteScheduler", None),
    ],
)
def test_an_exact_model_predicts_one_x0_and_one_noise_at_every_step(name, kind):
    rows = rows_of(build(name, kind))
    assert [row["step"] for row in rows] == 2 * list(range(NUM_STEPS))
    clean = CLEAN.double()
    for row in rows:
        first = rows[row["sample"] * NUM_STEPS]
        assert row["x0_mean"] == pytest.approx(float(clean.mean()), abs=2e-4)
        assert row["x0_std"] == pytest.approx(float(clean.std(correction=0)), abs=2e-4)
        for statistic in ("eps_mean", "eps_std", "eps_kurtosis"):
            assert row[statistic] == pytest.approx(first[statistic], abs=0.01)
        assert row["eps_std"] == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler"]
)
def test_samplers_that_add_noise_predict_one_x0(name):
    for row in rows_of(build(name, "epsilon")):
        assert row["x0_std"] == pytest.approx(float(CLEAN.double().std(correction=0)), abs=2e-4)
        assert row["eps_std"] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("DDIMScheduler", NoiseFamily.VP),
        ("DDPMScheduler", NoiseFamily.VP),
        ("PNDMScheduler", NoiseFamily.VP),
        ("LCMScheduler", NoiseFamily.VP),
        ("EulerDiscreteScheduler", NoiseFamily.VE),
        ("EulerAncestralDiscreteScheduler", NoiseFamily.VE),
        ("HeunDiscreteScheduler", NoiseFamily.VE),
        ("DPMSolverMultistepScheduler", NoiseFamily.DPM),
        ("UniPCMultistepScheduler", NoiseFamily.DPM),
        ("DEISMultistepScheduler", NoiseFamily.DPM),
        ("EDMEulerScheduler", NoiseFamily.EDM),
        ("EDMDPMSolverMultistepScheduler", NoiseFamily.EDM),
        ("FlowMatchEulerDiscreteScheduler", NoiseFamily.FLOW),
    ],
)
def test_families_are_told_apart(name, family):
    assert noise_family(getattr(diffusers, name)()) is family


def test_flow_sigmas_make_a_flow_of_any_solver():
    settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    scheduler = diffusers.DPMSolverMultistepScheduler(**settings)
    assert noise_family(scheduler) is NoiseFamily.FLOW


@pytest.mark.parametrize(
    "name",
    [
        *("MiniMaxH3Scheduler", "DDIMInverseScheduler", "RePaintScheduler", "UnCLIPScheduler"),
        *("CMStochasticIterativeScheduler", "ScoreSdeVeScheduler", "IPNDMScheduler"),
    ],
)
def test_unverified_schedulers_are_refused_by_name(name):
    model = SimpleNamespace(pipeline=SimpleNamespace(scheduler=getattr(diffusers, name)()))
    with pytest.raises(ProbeError, match=f"got {name}: .*Choose another"):
        LatentsProbe().attach(model, [None], [0]).__enter__()


def test_pndm_is_refused_with_v_prediction():
    scheduler = diffusers.PNDMScheduler(prediction_type="v_prediction")
    with pytest.raises(ProbeError, match="PNDMScheduler with prediction_type 'v_prediction'"):
        noise_family(scheduler)


ALLOWED = {
    *("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler"),
    *("PNDMScheduler", "LCMScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("LMSDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("UniPCMultistepScheduler", "DEISMultistepScheduler", "EDMEulerScheduler"),
    *("EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"),
    *("FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler", "TCDScheduler"),
    *("SASolverScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
}
DRAWS_NOISE = {
    *("DDPMScheduler", "DDPMParallelScheduler", "LCMScheduler", "CogVideoXDPMScheduler"),
    *("EulerAncestralDiscreteScheduler", "FlowMatchLCMScheduler", "TCDScheduler"),
    *("SASolverScheduler", "KDPM2AncestralDiscreteScheduler"),
}
SCHEDULERS = sorted(name for name in dir(diffusers) if name.endswith("Scheduler"))


def build_default(name):
    """The scheduler, unclipped and on whole timesteps; one without settings if it needs others."""
    scheduler = getattr(diffusers, name)
    try:
        config = scheduler().config
    except (ImportError, TypeError):  # torchsde is missing, or a vocabulary is to be named
        return type(name, (), {"config": {}})()
    wanted = {"clip_sample": False, "timestep_spacing": "leading", "steps_offset": 1,
              "skip_prk_steps": True, "set_alpha_to_one": True}  # fmt: skip
    if "DPMSolverSinglestep" in name:
        wanted = {}
    return scheduler(**{key: value for key, value in wanted.items() if key in config})


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_keeps_an_exact_prediction_or_is_refused_by_name(name):
    scheduler = build_default(name)
    if name not in ALLOWED:
        with pytest.raises(ProbeError, match=f"got {name}: .*Choose another"):
            noise_family(scheduler)
        return
    rows = rows_of(scheduler, count=1)
    assert [row["step"] for row in rows] == list(range(NUM_STEPS))
    for row in rows:
        assert row["x0_std"] == pytest.approx(float(CLEAN.double().std(correction=0)), abs=5e-3)
        if name not in DRAWS_NOISE:
            for statistic in ("eps_mean", "eps_std", "eps_kurtosis", "eps_normality"):
                assert row[statistic] == pytest.approx(rows[0][statistic], abs=0.02)


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_ancestral_kdpm2_is_observed_at_its_own_noise_levels(kind, karras):
    """Of its two evaluations a step, the first is at σ of the step; noise is drawn after both."""
    scheduler = diffusers.KDPM2AncestralDiscreteScheduler(
        **BETAS, prediction_type=kind, use_karras_sigmas=karras
    )

    class Exact(ExactBetweenAncestralSteps):
        def answer(self, given, x, t):
            noise = super().answer(given, x, t)
            if kind == "epsilon":
                return noise
            sigma = (x - CLEAN).flatten()[0] / noise.flatten()[0]
            a, b = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
            return a * noise - b * CLEAN

    model = Exact(scheduler)
    with LatentsProbe().attach(model, [None] * 2, range(2)) as observation:
        made = model.generate(2)
    rows = observation.tables()["latents"].to_pylist()
    assert [row["step"] for row in rows] == 2 * list(range(NUM_STEPS))
    for row in rows:
        sigma = float(scheduler.sigmas[2 * row["step"]])
        assert row["log_snr"] == pytest.approx(-2 * math.log(sigma), abs=1e-5)
        assert row["eps_std"] == pytest.approx(1, abs=0.3)
        assert row["x0_std"] == pytest.approx(float(CLEAN.double().std(correction=0)), abs=2e-4)
    torch.testing.assert_close(made, CLEAN.expand_as(made), atol=1e-3, rtol=0)


class DeterministicTCD(diffusers.TCDScheduler):
    """Returns to its timesteps without new noise (η = 0)."""

    def step(self, model_output, timestep, sample, return_dict=True):
        return super().step(model_output, timestep, sample, eta=0.0, return_dict=return_dict)


@pytest.mark.parametrize(
    "scheduler",
    [
        DeterministicTCD(),
        diffusers.SASolverScheduler(
            tau_func=lambda t: 0, timestep_spacing="leading", steps_offset=1
        ),
    ],
    ids=["TCD", "SASolver"],
)
def test_samplers_of_chosen_noise_keep_one_noise_without_it(scheduler):
    rows = rows_of(scheduler, count=1)
    for statistic in ("eps_mean", "eps_std", "eps_kurtosis", "eps_normality"):
        found = [row[statistic] for row in rows]
        assert found == pytest.approx([found[0]] * NUM_STEPS, abs=1e-3)


def test_inverted_flow_levels_are_refused():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    with pytest.raises(ProbeError, match="with invert_sigmas: its sigmas run from noise to image"):
        noise_family(scheduler)


def test_log_snr_of_the_extremes():
    assert NoiseLevel(0.0, 1.0).log_snr == -math.inf
    assert NoiseLevel(1.0, 0.0).log_snr == math.inf
    assert NoiseLevel(0.6, 0.3).log_snr == pytest.approx(2 * math.log(2))

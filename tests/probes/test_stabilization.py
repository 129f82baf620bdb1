"""Distribution collapse on the digits model: found where the noise is left out, and only there."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from evaluator.errors import ProbeError
from evaluator.locations import expand
from evaluator.probes import LatentsProbe, collapse
from evaluator.probes.stabilization import COLUMNS, TOLERANCE, NoiseContent
from evaluator.records import Prompt

DIGITS = "package://evaluator/demo/weights/stable-diffusion"
SIZE = 256
"""Values of a latent of the digits model."""


class WithoutNoise(DDPMScheduler):
    """DDPM that leaves the stabilizing noise out, from one timestep on downwards."""

    below = 1000

    def _get_variance(self, t, predicted_variance=None, variance_type=None):
        if t >= self.below:
            return super()._get_variance(t, predicted_variance, variance_type)
        return torch.tensor(0.0)


class EulerWithoutNoise(EulerAncestralDiscreteScheduler):
    """Goes down to `sigma_down` and stays there."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        index = self.step_index if self.step_index is not None else 0
        before = sample
        out = super().step(model_output, timestep, sample, generator=generator)
        start, end = float(self.sigmas[index]), float(self.sigmas[index + 1])
        up = math.sqrt(end**2 * (start**2 - end**2) / start**2)
        down = math.sqrt(end**2 - up**2)
        slope = (before - out.pred_original_sample) / start
        bare = before + slope * (down - start)
        return (bare,) if not return_dict else type(out)(bare, out.pred_original_sample)


class Unscaled(EulerDiscreteScheduler):
    """Starts from unit noise, as a loop does that forgets `init_noise_sigma`."""

    init_noise_sigma = 1.0


@pytest.fixture(scope="module")
def digits():
    pipeline = DiffusionPipeline.from_pretrained(
        expand(DIGITS), safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline, scheduler, *, steps=20, num=4, seed=0, guidance=3.0, **settings):
    """The table of one observed run of `num` samples."""
    before = pipeline.scheduler
    pipeline.scheduler = scheduler.from_config(before.config, **settings)

    class Model:
        pass

    Model.pipeline = pipeline
    numbers = ("zero", "three", "seven", "nine")
    prompts = [Prompt(str(i), f"a red {numbers[i % 4]} on a blue background") for i in range(num)]
    generators = [torch.Generator().manual_seed(seed + i) for i in range(num)]
    try:
        with LatentsProbe().attach(Model, prompts, range(num)) as observation:
            pipeline(
                [prompt.text for prompt in prompts],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                output_type="latent",
            )
    finally:
        pipeline.scheduler = before
    return observation.tables()["latents"]


def test_a_sampler_without_its_noise_is_found_at_its_first_step(digits):
    assert collapse(latents(digits, DDPMScheduler)) is None
    found = collapse(latents(digits, WithoutNoise))
    assert found.first_step == 1
    assert found.worst_step > 3
    assert found.norm < 0.8
    assert found.noise < 0.5
    assert "From step 1 (log-SNR" in str(found)
    assert "leave out the noise" in str(found)


def test_noise_left_out_halfway_is_found_halfway(digits):
    class FromTheMiddle(WithoutNoise):
        below = 700

    table = latents(digits, FromTheMiddle, num=8)
    times = table.filter(pa.array(table["sample"].to_numpy() == 0))["timestep"].to_pylist()
    first_without = next(i for i, t in enumerate(times) if t < 700)
    found = collapse(table)
    assert first_without + 1 <= found.first_step <= first_without + 2
    assert first_without > 4


def test_an_ancestral_euler_sampler_without_its_noise_is_found(digits):
    assert collapse(latents(digits, EulerAncestralDiscreteScheduler, num=2)) is None
    found = collapse(latents(digits, EulerWithoutNoise, num=2))
    assert 1 <= found.first_step <= 2


def test_samplers_that_add_no_noise_lose_none(digits):
    assert collapse(latents(digits, DDIMScheduler, num=2)) is None
    assert collapse(latents(digits, EulerDiscreteScheduler, num=2)) is None


def test_initial_noise_that_was_not_scaled_is_told_apart(digits):
    found = collapse(latents(digits, Unscaled, num=2, steps=10))
    assert found.first_step == 0
    assert found.norm < 0.4
    assert "init_noise_sigma" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize(("guidance", "steps"), [(1.0, 20), (3.0, 20), (5.0, 20), (3.0, 50)])
def test_sound_runs_are_not_called_bad_over_many_seeds(digits, guidance, steps):
    """At most 3 % false alarms in runs of a single sample, the hardest case, none in runs of 4.

    With 40 sound runs, a rate of 3 % would show one or more in seven of ten tries.
    """
    num = 40 if steps == 20 else 16
    table = latents(digits, DDPMScheduler, steps=steps, guidance=guidance, num=num, seed=500)
    sample = table["sample"].to_numpy()
    alone = [collapse(table.filter(pa.array(sample == i))) for i in range(num)]
    assert sum(found is not None for found in alone) == 0
    fours = [collapse(table.filter(pa.array(sample // 4 == i))) for i in range(num // 4)]
    assert fours == [None] * (num // 4)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [20, 50])
def test_each_single_sample_without_noise_is_found(digits, steps):
    table = latents(digits, WithoutNoise, steps=steps, num=12, seed=500)
    sample = table["sample"].to_numpy()
    found = [collapse(table.filter(pa.array(sample == i))) for i in range(12)]
    assert all(each is not None and 1 <= each.first_step <= 4 for each in found)


def simulated(content, *, num=3, size=SIZE, seed=0, log_snr=None):
    """A table of runs whose latents hold `content` of the noise at each step, and no image."""
    rng = np.random.default_rng(seed)
    steps = len(content)
    levels = np.linspace(-8, -3, steps) if log_snr is None else log_snr
    rows = []
    for _ in range(num):
        x = rng.standard_normal((steps, size)) * np.array(content)[:, None]
        for step in range(steps):
            rms = math.sqrt((x[step] ** 2).mean())
            rows.append({
                "step": step, "log_snr": levels[step], "mean": x[step].mean(),
                "std": x[step].std(), "norm": rms * math.sqrt(size), "norm_ratio": rms,
                "x0_mean": 0.0, "x0_std": 1.0, "eps_std": x[step].std(),
            })  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_what_chance_does_to_a_single_small_sample_is_allowed_for():
    """Pure noise of 64 values varies by 0.09: 4.5 of these keep 400 runs of 50 steps free."""
    runs = (simulated([1.0] * 50, num=1, size=64, seed=seed) for seed in range(400))
    assert [run for run in runs if collapse(run)] == []


@pytest.mark.parametrize("first", [0, 3, 7])
def test_the_first_step_below_is_named_and_more_samples_see_finer(first):
    content = [1.0] * first + [0.97 ** (i + 1) for i in range(20)]
    found = collapse(simulated(content, num=64, size=4096))
    assert found.first_step == first
    assert found.threshold == 1 - TOLERANCE
    few = collapse(simulated(content, num=1, size=64))
    assert few is None or few.first_step >= first


def test_one_step_below_is_no_collapse():
    assert collapse(simulated([1, 1, 0.5, 1, 1, 1])) is None
    assert collapse(simulated([1, 1, 0.5, 0.5, 1, 1])).first_step == 2
    assert collapse(simulated([0.5])).first_step == 0


def test_steps_where_the_image_prevails_are_not_judged():
    assert collapse(simulated([0.2] * 5, log_snr=np.linspace(3, 8, 5))) is None


@pytest.mark.parametrize("column", ["norm_ratio", "eps_std"])
def test_both_must_fall(column):
    table = simulated([0.5] * 6)
    at = table.column_names.index(column)
    ones = pa.array(np.ones(table.num_rows))
    assert collapse(table.set_column(at, column, ones)) is None


def test_a_model_that_misses_the_noise_from_the_start_is_no_judge():
    table = simulated([1.0] + [0.4] * 6)
    at = table.column_names.index("eps_std")
    little = pa.array(np.full(table.num_rows, 0.3))
    assert collapse(table).first_step == 1
    assert collapse(table.set_column(at, "eps_std", little)) is None


def test_values_that_are_not_finite_are_left_out():
    table = simulated([0.5] * 6)
    rows = table.to_pylist()
    rows[0]["norm_ratio"] = math.nan
    rows[1]["eps_std"] = None
    assert collapse(pa.Table.from_pylist(rows)).num_samples == 3
    empty = table.slice(0, 0)
    assert collapse(empty) is None


def test_shards_in_any_order_give_the_same_finding():
    tables = [simulated([0.96**i for i in range(12)], seed=seed) for seed in range(4)]
    forwards, backwards = NoiseContent(), NoiseContent()
    for table in tables:
        forwards.add(table)
    for table in reversed(tables):
        backwards.add(table)
    assert str(forwards.finding()) == str(backwards.finding())
    whole = collapse(pa.concat_tables(tables))
    assert whole.first_step == forwards.finding().first_step
    assert whole.norm == pytest.approx(forwards.finding().norm, rel=1e-12)


def test_another_table_is_refused_by_the_columns_it_lacks():
    with pytest.raises(ProbeError, match=r"without eps_std, log_snr.*Read latents\.parquet"):
        collapse(simulated([1.0]).drop(["eps_std", "log_snr"]))
    assert set(COLUMNS) == set(simulated([1.0]).column_names)

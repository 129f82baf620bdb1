import functools
import inspect
import math

import diffusers
import pytest
import torch
from scipy import stats

from evaluator.errors import ProbeError
from evaluator.probes import AttentionProbe, LatentsProbe, describe_schedule
from evaluator.probes.latent_statistics import latent_statistics, lilliefors, moments
from evaluator.probes.schemas import LATENT_STATISTICS, LATENTS_SCHEMA

TEXTS = ("a red seven on blue", "a dog", "a dog")
SCHEDULERS = [
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"),
    *("LMSDiscreteScheduler", "LCMScheduler", "KDPM2DiscreteScheduler", "TCDScheduler"),
    *("SASolverScheduler", "KDPM2AncestralDiscreteScheduler"),
]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_gives_a_row_a_step_and_the_same_images(tiny, shared_pipeline, name):
    pipeline = shared_pipeline
    before = pipeline.scheduler
    pipeline.scheduler = getattr(diffusers, name)(**tiny.betas)
    try:
        model, prompts = tiny.model(pipeline, steps=5), tiny.prompts(*TEXTS)
        bare = model.generate(prompts)
        run = tiny.observe(model, prompts, AttentionProbe(steps=3), LatentsProbe())
        assert torch.equal(run.images, bare)
        assert torch.equal(model.generate(prompts), bare)
    finally:
        pipeline.scheduler = before
    rows = run.rows("latents", sample=1)
    assert [row["step"] for row in rows] == list(range(5))
    assert all(row["nonfinite"] == 0 and row["x0_std"] > 0 for row in rows)
    log_snr = [row["log_snr"] for row in rows]
    assert log_snr == sorted(log_snr)
    times = {row["step"]: row["timestep"] for row in rows}
    watched = {row["step"]: row["timestep"] for row in run.rows("attention", sample=1)}
    assert watched == {step: times[step] for step in (0, 2, 4)}


def lilliefors_of(x):
    return stats.kstest(stats.zscore(x.double().numpy(), axis=None).ravel(), "norm").statistic


def test_rows_describe_what_the_scheduler_receives(tiny, shared_pipeline):
    received = []
    scheduler = shared_pipeline.scheduler
    original = scheduler.step

    def recording(model_output, timestep, sample, **options):
        received.append((model_output.clone(), int(timestep), sample.clone()))
        return original(model_output, timestep, sample, **options)

    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    scheduler.step = functools.wraps(original)(recording)
    try:
        run = tiny.observe(model, prompts, LatentsProbe(steps=[1, 4]))
    finally:
        del scheduler.step
    assert run.tables["latents"].schema == LATENTS_SCHEMA
    for step in (1, 4):
        output, timestep, sample = received[step]
        cumprod = float(scheduler.alphas_cumprod[timestep])
        for index in range(3):
            (row,) = run.rows("latents", sample=index, step=step)
            x = sample[index].double()
            last = received[step - 1][2][index].double()
            x0 = (x - math.sqrt(1 - cumprod) * output[index]) / math.sqrt(cumprod)
            expected = {
                "timestep": timestep,
                "log_snr": math.log(cumprod / (1 - cumprod)),
                "mean": x.mean(),
                "std": x.std(correction=0),
                "min": x.min(),
                "max": x.max(),
                "kurtosis": stats.kurtosis(x.flatten()),
                "norm": x.norm(),
                "norm_ratio": x.norm() / math.sqrt(x.numel()),
                "cosine_previous": torch.cosine_similarity(x.flatten(), last.flatten(), dim=0),
                "x0_mean": x0.mean(),
                "x0_std": x0.std(correction=0),
                "x0_kurtosis": stats.kurtosis(x0.flatten()),
                "eps_mean": output[index].double().mean(),
                "eps_std": output[index].double().std(correction=0),
                "eps_kurtosis": stats.kurtosis(output[index].double().flatten()),
                "eps_normality": lilliefors_of(output[index]),
            }
            expected = {name: float(value) for name, value in expected.items()}
            assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
            assert row["channel_mean"] == pytest.approx(x.mean((1, 2)).tolist(), rel=1e-4)
            assert row["channel_std"] == pytest.approx(
                x.std((1, 2), correction=0).tolist(), rel=1e-4
            )


def test_the_first_step_has_no_previous_latents(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    run = tiny.observe(model, prompts, LatentsProbe(steps=2))
    cosines = [row["cosine_previous"] for row in run.rows("latents", sample=0)]
    assert cosines[0] is None
    assert 0.5 < cosines[1] <= 1


def test_guidance_is_measured_between_the_branches(tiny, shared_pipeline):
    outputs = []
    handle = shared_pipeline.unet.register_forward_hook(
        lambda module, args, output: outputs.append(output[0].clone())
    )
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    try:
        run = tiny.observe(model, prompts, LatentsProbe())
    finally:
        handle.remove()
    for step, output in enumerate(outputs):
        unconditional, conditional = output.double().chunk(2)
        expected = (conditional - unconditional).square().mean((1, 2, 3)).sqrt()
        found = [row["guidance_norm"] for row in run.rows("latents", step=step)]
        assert found == pytest.approx(expected.tolist(), rel=1e-5)
    alone = tiny.observe(tiny.model(shared_pipeline, guidance=1.0), prompts, LatentsProbe())
    assert {row["guidance_norm"] for row in alone.rows("latents")} == {None}


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_models_without_text_are_observed(tiny, kind):
    model, prompts = tiny.model(tiny.unconditional(kind), steps=5), tiny.prompts("", "", "")
    bare = model.generate(prompts)
    run = tiny.observe(model, prompts, LatentsProbe())
    assert torch.equal(run.images, bare)
    assert run.tables["latents"].num_rows == 15
    assert {row["guidance_norm"] for row in run.rows("latents")} == {None}
    assert len(run.rows("latents")[0]["channel_mean"]) == 3


def test_a_row_of_a_batch_is_that_of_its_prompt_alone(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    together = tiny.observe(model, prompts, LatentsProbe(steps=2))
    for sample, prompt in enumerate(prompts):
        alone = tiny.observe(model, [prompt], LatentsProbe(steps=2)).rows("latents")
        found = together.rows("latents", sample=sample)
        for name in ("mean", "x0_std", "eps_std", "guidance_norm"):
            assert [row[name] for row in found] == pytest.approx(
                [row[name] for row in alone], rel=1e-3
            )


def test_memory_bounds_do_not_change_the_numbers(tiny, shared_pipeline, monkeypatch):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    whole = tiny.observe(model, prompts, LatentsProbe()).tables["latents"]
    monkeypatch.setattr("evaluator.probes.latents.MAX_PENDING_BYTES", 0)
    assert tiny.observe(model, prompts, LatentsProbe()).tables["latents"].equals(whole)


def test_half_precision_is_digested_in_double(tiny):
    pipeline = tiny.stable_diffusion().to(torch.bfloat16)
    model, prompts = tiny.model(pipeline, steps=3), tiny.prompts(*TEXTS)
    bare = model.generate(prompts)
    run = tiny.observe(model, prompts, LatentsProbe())
    assert torch.equal(run.images, bare)
    exact = tiny.observe(
        tiny.model(tiny.stable_diffusion(), steps=3), prompts, LatentsProbe()
    ).rows("latents")
    for found, expected in zip(run.rows("latents"), exact, strict=True):
        for name in ("std", "norm", "norm_ratio", "eps_std", "guidance_norm"):
            assert found[name] == pytest.approx(expected[name], rel=0.05)


def test_the_step_keeps_its_signature_while_watched_and_comes_back(tiny, shared_pipeline):
    scheduler = shared_pipeline.scheduler
    expected = inspect.signature(scheduler.step)
    with LatentsProbe().attach(tiny.model(shared_pipeline), tiny.prompts("a"), [0]):
        assert "step" in vars(scheduler)
        assert inspect.signature(scheduler.step) == expected
    assert "step" not in vars(scheduler)


def test_seeing_nothing_is_an_error(tiny, shared_pipeline):
    with LatentsProbe().attach(tiny.model(shared_pipeline), tiny.prompts("a"), [0]) as observation:
        pass
    with pytest.raises(ProbeError, match=r"scheduler\.step was never called"):
        observation.tables()


def test_a_step_beyond_the_run_is_an_error(tiny, shared_pipeline):
    model = tiny.model(shared_pipeline)
    with pytest.raises(ProbeError, match="indices below 6"):
        tiny.observe(model, tiny.prompts("a dog"), LatentsProbe(steps=[9]))


@pytest.mark.parametrize("how", [pytest.param("whole", marks=pytest.mark.slow), "in place", "part"])
def test_guidance_of_a_compiled_denoiser_is_measured_and_nothing_compiles_again(tiny, how):
    pipeline = tiny.stable_diffusion()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model, prompts = tiny.model(pipeline, steps=2), tiny.prompts("a dog")
    expected = tiny.observe(model, prompts, LatentsProbe())
    compiled = pipeline.unet.mid_block if how == "part" else pipeline.unet
    if how == "whole":
        pipeline.unet = torch.compile(pipeline.unet, backend=backend)
    else:
        compiled.compile(backend=backend)
    called = vars(compiled).get("_compiled_call_impl")
    run = tiny.observe(model, prompts, LatentsProbe())
    count = len(graphs)
    assert count
    assert torch.equal(model.generate(prompts), run.images)
    assert len(graphs) == count
    assert vars(compiled).get("_compiled_call_impl") is called
    assert not pipeline.unet._forward_hooks
    torch.compiler.reset()
    for found, known in zip(run.rows("latents"), expected.rows("latents"), strict=True):
        assert found["guidance_norm"] == pytest.approx(known["guidance_norm"], rel=1e-4)


def test_guidance_of_three_branches_is_refused(tiny):
    pipeline = tiny.stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline)

    class Thrice(tiny.model):
        """Image guidance, as InstructPix2Pix has it."""

        def generate(self, prompts):
            scheduler = self.pipeline.scheduler
            scheduler.set_timesteps(2)
            latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            text = torch.zeros(3, 12, self.pipeline.unet.config.cross_attention_dim)
            for t in scheduler.timesteps:
                output = self.pipeline.unet(latents.repeat(3, 1, 1, 1), t, text).sample
                latents = scheduler.step(output[:1], t, latents).prev_sample

    with pytest.raises(ProbeError, match="1 samples; got calls of 3 rows"):
        tiny.observe(Thrice(pipeline), tiny.prompts("a dog"), LatentsProbe())


@pytest.mark.parametrize("probe", [LatentsProbe(steps=2), AttentionProbe(steps=1)])
def test_prompts_that_are_generated_one_by_one_are_an_error(tiny, shared_pipeline, probe):
    """The rows of one call would be taken for those of another."""

    class OneByOne(tiny.model):
        def generate(self, prompts):
            return torch.cat([super(OneByOne, self).generate([prompt]) for prompt in prompts])

    model = OneByOne(shared_pipeline, steps=3)
    with pytest.raises(ProbeError, match="one run of 3 steps for all prompts of a batch"):
        tiny.observe(model, tiny.prompts("a dog", "a red fox"), probe)
    assert tiny.observe(model, tiny.prompts("a dog"), probe).tables


def test_a_step_that_another_network_takes_is_an_error(tiny):
    pipeline = tiny.stable_diffusion()

    class Shared(tiny.model):
        """A second network for the last steps, as mixtures of experts have it."""

        def generate(self, prompts):
            scheduler = self.pipeline.scheduler
            scheduler.set_timesteps(3)
            latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            text = torch.zeros(1, 12, self.pipeline.unet.config.cross_attention_dim)
            for t in scheduler.timesteps[:2]:
                output = self.pipeline.unet(latents, t, text).sample
                latents = scheduler.step(output, t, latents).prev_sample
            scheduler.step(latents, scheduler.timesteps[2], latents)

    model, prompts = Shared(pipeline), tiny.prompts("a dog")
    with pytest.raises(ProbeError, match="UNet2DConditionModel to run at every step; at step 2"):
        tiny.observe(model, prompts, LatentsProbe())
    rows = tiny.observe(model, prompts, LatentsProbe(steps=[0, 1])).rows("latents")
    assert [row["step"] for row in rows] == [0, 1]


def test_moments_of_known_values():
    flat = torch.linspace(0, 1, 100001, dtype=torch.float64)
    assert float(moments(flat).kurtosis) == pytest.approx(-1.2, abs=1e-3)
    assert float(moments(flat).std) == pytest.approx(1 / math.sqrt(12), abs=1e-4)
    assert float(moments(torch.tensor([-1.0, 1.0])).kurtosis) == -2
    normal = torch.randn(200000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(moments(normal).kurtosis) == pytest.approx(0, abs=0.05)
    assert math.isnan(float(moments(torch.ones(5)).kurtosis))


@pytest.mark.parametrize("size", [16, 256, 4096])
def test_lilliefors_statistic_is_scipys_and_free_of_scale(size):
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(3, size, generator=generator, dtype=torch.float64)
    found = lilliefors(x)
    assert found.tolist() == pytest.approx([lilliefors_of(row) for row in x], abs=1e-12)
    assert lilliefors(5 * x - 3).tolist() == pytest.approx(found.tolist(), abs=1e-12)
    uniform = torch.rand(1, size, generator=generator, dtype=torch.float64)
    if size > 1000:
        # The uniform distribution, standardised: |Φ(√3 u) − (u + 1)/2| is at most 0.0572.
        assert float(lilliefors(uniform)) == pytest.approx(0.057, abs=0.02)
    assert math.isnan(float(lilliefors(torch.ones(4))))


def test_lilliefors_statistic_of_noise_is_as_large_as_its_docstring_says():
    x = torch.randn(400, 1024, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scaled = lilliefors(x).sort().values * math.sqrt(1024)
    assert float(scaled.mean()) == pytest.approx(0.65, abs=0.03)
    assert float(scaled[380]) == pytest.approx(0.9, abs=0.05)


def statistics_of(x, *, alpha=1.0, sigma=0.0):
    zero = torch.zeros_like(x)
    level = {"alpha": torch.full_like(x[:, :1], alpha), "sigma": torch.full_like(x[:, :1], sigma)}
    return latent_statistics(x, zero, zero, zero, zero, torch.zeros(x.shape[:2]), **level)


def test_the_norm_is_compared_with_what_the_noise_level_makes_it():
    x = torch.randn(1, 1, 4, 64, 64, generator=torch.Generator().manual_seed(0)) * 3
    scalars = statistics_of(x, sigma=math.sqrt(8)).scalars[:, 0, 0]
    found = dict(zip(LATENT_STATISTICS, scalars.tolist(), strict=True))
    assert found["norm_ratio"] == pytest.approx(1, abs=0.02)


def test_values_that_are_not_finite_are_counted():
    x = torch.zeros(1, 2, 3, 4, 4)
    x[0, 1, 0, 0, :2] = torch.tensor([math.nan, math.inf])
    assert statistics_of(x).nonfinite.tolist() == [[0, 2]]


def test_packed_latents_have_their_channels_last():
    x = torch.arange(6.0).expand(1, 2, 10, 6)
    assert statistics_of(x).channel_mean[0, 0].tolist() == list(range(6))


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_image_to_image_starts_at_the_level_that_it_skips_to(tiny, name):
    pipeline = tiny.stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, name)(**tiny.betas)
    model, prompts = tiny.model(pipeline), tiny.prompts("a dog", "a fox")
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def generate():
        generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        return pipeline(
            [prompt.text for prompt in prompts], image=images, strength=0.5,
            num_inference_steps=6, generator=generators, output_type="np",
        ).images  # fmt: skip

    bare = generate()
    with LatentsProbe().attach(model, prompts, range(2)) as observation:
        assert (generate() == bare).all()
    rows = observation.tables()["latents"].to_pylist()
    assert [row["step"] for row in rows] == [0, 1, 2, 0, 1, 2]
    schedule = describe_schedule(pipeline.scheduler, num_steps=6).to_pylist()[3:]
    for row in rows:
        assert row["timestep"] == schedule[row["step"]]["timestep"]
        assert row["log_snr"] == pytest.approx(schedule[row["step"]]["log_snr"], rel=1e-5)


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "LCMScheduler"])
def test_few_step_models_have_as_many_rows_as_steps(tiny, shared_pipeline, name):
    before = shared_pipeline.scheduler
    shared_pipeline.scheduler = getattr(diffusers, name)(**tiny.betas, timestep_spacing="trailing")
    try:
        for steps in (1, 2):
            model = tiny.model(shared_pipeline, steps=steps, guidance=0.0)
            run = tiny.observe(model, tiny.prompts("a dog"), LatentsProbe(steps=10))
            rows = run.rows("latents")
            assert [row["step"] for row in rows] == list(range(steps))
            assert rows[0]["norm_ratio"] == pytest.approx(1, abs=0.2)
            assert rows[0]["guidance_norm"] is None
    finally:
        shared_pipeline.scheduler = before

"""The latents probe on a tiny build of every model family."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
import torch

from evaluator.probes import LatentsProbe, collapse
from evaluator.records import Prompt
from tests.tiny import FAMILIES, call_arguments

TEXTS = ("a red dog", "a fox")
STEPS = 3
FAMILY_OF_SCHEDULER = {"flux": "flow", "sd3": "flow", "lumina2": "flow", "qwen-image": "flow"}
PACKED = {"flux", "qwen-image"}
WITHOUT_GUIDANCE = {"flux", "ddpm", "ddim"}
"""Flux is distilled: its guidance is an input."""


class Model:
    """One call of the pipeline for a batch, with everything that the probe must explain kept."""

    def __init__(self, family, guidance=3.0):
        self.pipeline = FAMILIES[family]()
        self.pipeline.set_progress_bar_config(disable=True)
        self.family, self.guidance = family, guidance

    def generate(self, texts=TEXTS):
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(texts))]
        called = call_arguments(self.family, list(texts), guidance=self.guidance)
        # DDPM's steps draw noise, and DiT's pipeline gives its scheduler no generator.
        torch.manual_seed(0)
        made = self.pipeline(
            **called, num_inference_steps=STEPS, output_type="np", generator=generators
        )
        return torch.from_numpy(made.images)


def observed(model, texts=TEXTS):
    prompts = [Prompt(str(i), text) for i, text in enumerate(texts)]
    calls, outputs, step = [], [], model.pipeline.scheduler.step
    denoiser = getattr(model.pipeline, "transformer", None) or model.pipeline.unet
    handle = denoiser.register_forward_hook(
        lambda module, args, output: outputs.append(output[0].detach().clone())
    )
    with LatentsProbe().attach(model, prompts, range(len(prompts))) as observation:
        watched = model.pipeline.scheduler.step

        def recording(output, t, x, *args, **kwargs):
            calls.append((output.clone(), x.clone()))
            return watched(output, t, x, *args, **kwargs)

        import functools

        vars(model.pipeline.scheduler)["step"] = functools.wraps(step)(recording)
        try:
            images = model.generate(texts)
        finally:
            vars(model.pipeline.scheduler)["step"] = watched
            handle.remove()
    return images, observation.tables()["latents"].to_pylist(), calls, outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_row_a_step_and_the_same_images(family):
    model = Model(family)
    bare = model.generate()
    images, rows, calls, _ = observed(model)
    assert torch.equal(images, bare)
    assert [(row["sample"], row["step"]) for row in rows] == [
        (sample, step) for sample in range(2) for step in range(STEPS)
    ]
    for row in rows:
        sent, x = calls[row["step"]]
        latents = x[row["sample"]].double()
        assert row["nonfinite"] == 0
        assert row["std"] == pytest.approx(float(latents.std(correction=0)), rel=1e-5)
        channels = latents.shape[-1 if family in PACKED else 0]
        axes = (0,) if family in PACKED else (1, 2)
        assert len(row["channel_mean"]) == channels
        assert row["channel_mean"] == pytest.approx(latents.mean(axes).tolist(), abs=1e-5)
        assert row["channel_std"] == pytest.approx(
            latents.std(axes, correction=0).tolist(), rel=1e-4
        )
        share = 1 / (1 + math.exp(-row["log_snr"]))
        alpha, sigma = math.sqrt(share), math.sqrt(1 - share)
        if family in FAMILY_OF_SCHEDULER or getattr(
            model.pipeline.scheduler.config, "use_flow_sigmas", False
        ):
            alpha, sigma = alpha / (alpha + sigma), sigma / (alpha + sigma)
            velocity = sent[row["sample"]].double()
            x0 = latents - sigma * velocity
            assert row["x0_std"] == pytest.approx(float(x0.std(correction=0)), rel=1e-4)
            noise = latents + alpha * velocity
            assert row["eps_std"] == pytest.approx(float(noise.std(correction=0)), rel=1e-4)
        assert 0 < row["eps_normality"] < 1
    assert collapse(pa.Table.from_pylist(rows)) is None, "untrained, but nothing is left out"
    first = [row for row in rows if row["step"] == 0]
    assert all(row["norm_ratio"] == pytest.approx(1, abs=0.25) for row in first)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - WITHOUT_GUIDANCE))
def test_guidance_is_the_distance_of_both_branches_in_every_family(family):
    model = Model(family)
    _, rows, calls, outputs = observed(model)
    per_step = len(outputs) // STEPS
    for step in range(STEPS):
        answers = outputs[step * per_step : (step + 1) * per_step]
        first, second = answers[0].chunk(2) if per_step == 1 else answers
        difference = (first - second).double()
        if difference.ndim == 4:
            difference = difference[:, : calls[0][1].shape[1]]
        expected = difference.flatten(1).square().mean(1).sqrt().tolist()
        found = [row["guidance_norm"] for row in rows if row["step"] == step]
        assert found == pytest.approx(expected, rel=1e-5)
        assert min(found) > 0


@pytest.mark.parametrize("family", sorted(WITHOUT_GUIDANCE))
def test_a_family_without_branches_has_no_guidance(family):
    _, rows, _, _ = observed(Model(family))
    assert {row["guidance_norm"] for row in rows} == {None}


@pytest.mark.parametrize("family", ["dit", "sd3"])
def test_a_single_prompt_is_one_sample_with_and_without_guidance(family):
    for guidance in (3.0, 1.0):
        _, rows, _, _ = observed(Model(family, guidance=guidance), texts=("a red dog",))
        assert [row["sample"] for row in rows] == [0] * STEPS
        assert all((row["guidance_norm"] is None) == (guidance == 1.0) for row in rows)

"""A pipeline taken apart says what is known about its family, found out without knowing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator.errors import ConfigError, ProbeError
from evaluator.probes.anatomy import components_of
from evaluator.probes.first_step import DenoiserCall, FirstStep
from evaluator.probes.guidance import guidance_layout
from evaluator.probing.anatomy import anatomy_of
from evaluator.probing.inputs import ProbedModel

from .conftest import DIGITS

UNCOND_FIRST = "1 call of 2N rows: unconditional, then conditional"
COND_FIRST = "2 calls of N rows: conditional, then unconditional"
EXPECTED = {
    "sd": (UNCOND_FIRST, (4, 8, 8), "vp", "epsilon"),
    "sdxl": (UNCOND_FIRST, (4, 8, 8), "ve", "epsilon"),
    "sd3": (UNCOND_FIRST, None, "flow", "flow_prediction"),
    "flux": ("none: 1 call of N rows, which follows the prompt", None, "flow", "flow_prediction"),
    "pixart-alpha": (UNCOND_FIRST, None, "dpm", "epsilon"),
    "sana": (UNCOND_FIRST, None, "flow", "flow_prediction"),
    "lumina2": (COND_FIRST, None, "flow", "flow_prediction"),
    "qwen-image": (COND_FIRST, None, "flow", "flow_prediction"),
    "dit": ("1 call of 2N rows: conditional, then unconditional", None, None, "epsilon"),
    "ddpm": ("none: 1 call of N rows, which takes no prompt", (3, 8, 8), "vp", "epsilon"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_family_is_seen_as_it_is_known_to_be(name: str, family: Any):
    probed = family(name)
    found = anatomy_of(probed, "a red dog")
    sentence, shape, scheduler, prediction = EXPECTED[name]
    assert found.guidance.sentence() == sentence
    assert found.scheduler.prediction_type == prediction
    if shape is not None:
        assert found.latents.shape == shape
    if scheduler is not None:
        assert found.scheduler.family == scheduler
    assert found.latents.packed == (name in ("flux", "qwen-image"))
    read = [" ".join(tokenizer.tokens) for tokenizer in found.tokenizers]
    expected = {"sdxl": 2, "sd3": 3, "flux": 2, "dit": 0, "ddpm": 0}.get(name, 1)
    assert len(read) == expected
    assert all("red" in text and "dog" in text for text in read), read
    assert all(len(shape) >= 2 and shape[0] == 2 for shape in found.embeddings[:1])


def test_the_digits_model_is_described_by_its_own_numbers(digits: ProbedModel):
    found = anatomy_of(digits, "a red seven")
    unet = next(part for part in found.components if part.name == "unet")
    assert unet.num_parameters == digits.pipeline.unet.num_parameters()
    assert unet.num_bytes == 4 * unet.num_parameters
    assert unet.dtypes == ("float32",)
    assert found.latents.shape == (4, 8, 8)
    assert (found.latents.image, found.latents.pixels_each) == ((32, 32), 4)
    assert found.latents.scaling_factor == digits.pipeline.vae.config.scaling_factor
    (tokenizer,) = found.tokenizers
    words = ("<|startoftext|>", "a</w>", "red</w>", "seven</w>", "<|endoftext|>")
    assert tokenizer.tokens == words
    assert (tokenizer.max_length, tokenizer.num_padding, tokenizer.pad_is_end) == (16, 11, True)
    assert found.conditions == {"encoder_hidden_states": (4, 16, 96)}


def test_watching_leaves_no_trace(digits: ProbedModel):
    from evaluator.records import Prompt

    prompts = [Prompt("a", "a red seven on a blue background")]
    before = digits.model.generate(prompts, [0], [3])
    hooks = len(digits.pipeline.unet._forward_pre_hooks)
    anatomy_of(digits)
    assert torch.equal(before[0], digits.model.generate(prompts, [0], [3])[0])
    assert len(digits.pipeline.unet._forward_pre_hooks) == hooks
    assert "step" not in vars(digits.pipeline.scheduler)
    assert "encode_prompt" not in vars(digits.pipeline)


def test_parts_without_weights_are_named_too(digits: ProbedModel):
    parts = {part.name: part for part in components_of(digits.pipeline)}
    assert parts["safety_checker"].kind == "none"
    assert parts["tokenizer"].num_parameters is None


def step_of(*calls: tuple[torch.Tensor, torch.Tensor]) -> FirstStep:
    watched = tuple(DenoiserCall(latents, {"text": text}) for latents, text in calls)
    return FirstStep(calls[0][0][:2], watched, {}, ())


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1)


def test_rows_that_alternate_between_samples_are_told_apart():
    # rows: sample 0 unconditional, sample 0 conditional, sample 1 unconditional, sample 1 ...
    base = step_of((rows(1, 1, 2, 2), rows(0, 5, 0, 6)))
    told = step_of((rows(1, 1, 2, 2), rows(0, 7, 0, 8)))
    seeded = step_of((rows(3, 3, 2, 2), rows(0, 5, 0, 6)))
    found = guidance_layout(base, told, seeded)
    assert (
        found.sentence() == "1 call of 2N rows: unconditional, then conditional, sample by sample"
    )
    three = step_of((rows(1, 2, 1, 2, 1, 2), rows(0, 0, 5, 6, 5, 6)))
    other = step_of((rows(1, 2, 1, 2, 1, 2), rows(0, 0, 7, 8, 7, 8)))
    moved = step_of((rows(3, 2, 3, 2, 3, 2), rows(0, 0, 5, 6, 5, 6)))
    sentence = "1 call of 3N rows: unconditional, then conditional, then conditional"
    assert guidance_layout(three, other, moved).sentence() == sentence


def test_a_prompt_that_reaches_no_row_is_noticed():
    same = step_of((rows(1, 2), rows(0, 0)), (rows(1, 2), rows(0, 0)))
    seeded = step_of((rows(3, 2), rows(0, 0)), (rows(3, 2), rows(0, 0)))
    sentence = guidance_layout(same, same, seeded).sentence()
    assert sentence.endswith("none of which follows the prompt: it is cut off, or never encoded")


def test_prompts_of_other_lengths_are_not_compared():
    base = step_of((rows(1, 2, 1, 2), torch.zeros(4, 3)))
    longer = step_of((rows(1, 2, 1, 2), torch.zeros(4, 4)))
    with pytest.raises(ProbeError, match="inputs of one shape for prompts of one length"):
        guidance_layout(base, longer, base)


def test_a_compiled_denoiser_is_refused_by_its_setting(family: Any):
    probed = family("sd")
    probed.pipeline.unet.compile(backend="eager")
    with pytest.raises(ProbeError, match="is compiled. Set model.compile to false"):
        anatomy_of(probed, "a red dog")


def test_a_prompt_of_one_word_is_refused(digits: ProbedModel):
    with pytest.raises(ConfigError, match="at least two different words"):
        anatomy_of(digits, "seven")


def test_the_command_prints_and_writes_it(call: Any, tmp_path: Path):
    ended = call("probe", "anatomy", DIGITS, "--output", tmp_path / "out", "--guidance", 1)
    assert ended.status == 0
    assert "unet               UNet2DConditionModel" in ended.out
    assert "latents      4×8×8 → image 32×32" in ended.out
    assert "guidance     none: 1 call of N rows, which follows the prompt" in ended.out
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["result"]["tokenizers"][0]["max_length"] == 16
    assert record["provenance"]["generation"]["guidance_scale"] == 1


def test_a_missing_model_is_an_error_not_a_traceback(call: Any, tmp_path: Path):
    ended = call("probe", "anatomy", tmp_path / "nothing", "--output", tmp_path / "out")
    assert ended.status == 2
    assert "expected a folder with weights or a hub id" in ended.err


def test_a_prompt_that_is_cut_off_is_said_to_be(call: Any, tmp_path: Path):
    long = "a red seven and " * 12 + "a blue two"
    ended = call("probe", "anatomy", DIGITS, "--prompt", long, "--output", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "note: the prompt is longer than what a text encoder reads" in ended.out
    assert "16 positions: <|startoftext|> a</w> red</w>" in ended.out
    assert "+ no padding" in ended.out
    assert "then conditional (guidance scale" in ended.out
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["result"]["truncated"] is True
    assert record["lines"] == ended.out.splitlines()

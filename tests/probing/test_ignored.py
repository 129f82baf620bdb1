"""What a verb was asked for and would ignore is refused; a refusal has one exit status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluator.errors import ConfigError, ObservationError, ProbeError, SettingsError
from evaluator.probing.denoise import probe_denoise
from evaluator.probing.inputs import ModelRequest
from evaluator.probing.interpolate import probe_interpolate
from evaluator.probing.jacobian import JacobianRequest, probe_jacobian
from tests.probing.conftest import DIGITS

IMAGES = "package://evaluator/demo/data/test.parquet"


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("anatomy", ()),
        ("interpolate", ()),
        ("jacobian", ("--samples", 1)),
        ("denoise", ("--images", IMAGES, "--limit", 2)),
    ],
)
def test_a_guidance_scale_that_a_model_takes_none_of_is_refused(
    verb: str, options: tuple[Any, ...], unconditional: Path, tmp_path: Path, call: Any
) -> None:
    command = ("probe", verb, unconditional, *options, "--output", tmp_path / "out")
    ended = call(*command, "--guidance", 3)
    assert ended.status == 2
    assert "--guidance: DDPMPipeline takes none; leave it out" in ended.err


def test_weights_of_no_extractor_are_refused(unconditional: Path, tmp_path: Path, call: Any):
    for verb, options in (
        ("interpolate", ()),
        ("ood", ("--reference", IMAGES, "--images", IMAGES)),
    ):
        ended = call(
            "probe", verb, unconditional, *options, "--weights", "w", "--output", tmp_path / "out"
        )
        assert ended.status == 2
        assert (
            "--weights: expected them with --extractor, whose weights they are, got w" in ended.err
        )


def test_a_strength_of_walks_between_seeds_is_refused(unconditional: Path, tmp_path: Path) -> None:
    request = ModelRequest(str(unconditional), device="cpu", steps=2)
    with pytest.raises(ConfigError, match=r"--strength: expected it with --images, got 0\.2 for"):
        probe_interpolate(request, strength=0.2, output=tmp_path / "out")


def test_more_singular_values_than_dimensions_are_refused(
    unconditional: Path, tmp_path: Path
) -> None:
    model = ModelRequest(str(unconditional), device="cpu", steps=2)
    with pytest.raises(ConfigError, match=r"--values: expected at most 192, .* got 193; leave it"):
        probe_jacobian(JacobianRequest(model, samples=1, values=193), tmp_path / "out")


def test_guidance_between_equal_branches_is_said_to_change_nothing(tmp_path: Path) -> None:
    def notes(guidance: float | None, *, unconditional: bool, negative: str = "null") -> str:
        request = ModelRequest(
            DIGITS, device="cpu", guidance_scale=guidance,
            overrides=(f"generation.negative_prompt={negative}",),
        )  # fmt: skip
        found = probe_denoise(
            request, images=IMAGES, limit=2, timesteps=2, unconditional=unconditional,
            output=tmp_path / "out",
        )  # fmt: skip
        return "\n".join(found.notes)

    said = "--guidance 3 changes nothing here"
    assert said in notes(3, unconditional=True)
    assert said not in notes(3, unconditional=False)
    assert said not in notes(None, unconditional=True)
    assert said not in notes(3, unconditional=True, negative="a blue two")


def test_prompts_that_were_taken_from_the_configuration_are_named(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red seven\na blue two\n")
    config = tmp_path / "own.yaml"
    config.write_text(
        f"name: own\nmodel: {{kind: diffusers, id: '{DIGITS}'}}\n"
        f"generation: {{steps: 2, height: 32, width: 32}}\nprompts: {{source: {prompts}}}\n"
    )
    request = ModelRequest(str(config), device="cpu")

    def notes(**options: Any) -> tuple[str, ...]:
        found = probe_interpolate(request, pairs=2, frames=3, output=tmp_path / "out", **options)
        return found.notes

    assert "prompts of the configuration: 'a red seven', 'a blue two'" in notes()
    assert not any("prompts of the" in note for note in notes(prompt="a red one"))
    one = JacobianRequest(request, samples=1, steps=[1], values=2, vectors=1)
    assert (
        "prompts of the configuration: 'a red seven'" in probe_jacobian(one, tmp_path / "j").notes
    )


def test_what_cannot_be_asked_is_as_wrong_as_a_wrong_option() -> None:
    assert ConfigError("").exit_status == ProbeError.exit_status == SettingsError.exit_status == 2
    assert ObservationError.exit_status == 1


def test_a_run_and_a_verb_refuse_a_model_with_the_same_status(
    unconditional: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    prompts = tmp_path / "keys.jsonl"
    prompts.write_text('{"key": "a"}\n')
    config = tmp_path / "own.yaml"
    config.write_text(
        f"name: own\nmodel: {{kind: diffusers, id: '{unconditional}'}}\n"
        f"generation: {{steps: 2}}\nprompts: {{source: {prompts}}}\n"
    )
    refused = {
        "attention": ("run", config, "--set", "probes.attention.steps=1"),
        "steps": ("run", config, "--set", "probes.latents.steps=[7]"),
        "roundtrip": ("probe", "roundtrip", config, "--images", IMAGES),
        "directions": ("probe", "directions", config, "--pair", "a", "b"),
    }
    ended = {name: call(*command, "--output", tmp_path / name) for name, command in refused.items()}
    assert {name: end.status for name, end in ended.items()} == dict.fromkeys(refused, 2)
    assert "probes.latents.steps: expected indices below 2, the number of steps of this run" in (
        ended["steps"].err
    )

"""Configuration: every fault at once, with its path and the likely meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.config import load_config, parse_config
from evaluator.config.points import load_runs
from evaluator.errors import ConfigError

GOOD = """
name: test
model: {kind: diffusers, id: some/model}
prompts: {source: prompts.txt}
"""


def test_a_small_configuration_gets_the_defaults() -> None:
    config = parse_config(GOOD, where="here")
    assert config.generation.steps == 50
    assert config.runtime.batch_size == 8
    assert config.model.kind == "diffusers"


def test_a_name_alone_stands_for_an_extractor_or_metric() -> None:
    config = parse_config(GOOD + "features: [clip]\nmetrics: [fid, {name: prdc, k: 3}]", where="")
    assert config.features[0].name == "clip"
    assert config.metrics[1].options == {"k": 3}


def test_every_fault_is_reported_at_once_with_its_path() -> None:
    bad = GOOD + "generation: {stepz: 3, guidance_scale: -1}\nmetric: []\nruntime: {images: jpeg}\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(bad, where="bad.yaml")
    text = str(caught.value)
    assert "4 faults" in text
    assert "generation.stepz: unknown key; did you mean 'steps'?" in text
    assert "generation.guidance_scale" in text
    assert "metric: unknown key; did you mean 'metrics'?" in text
    assert "runtime.images: expected 'none', 'png'" in text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("references: {real: {sourc: a}}", r"references.real.sourc: unknown key; did you mean 'source'"),
        ("probes: {attention: {step: 3}}", r"probes.attention.step: unknown key; did you mean 'steps'"),
        ("features: [clip, clip]", r"'clip' is there twice"),
        ("features: [{name: 'a/b'}]", r"features.0.name: expected lower-case letters"),
        ("metrics: [{name: fid, reference: reel}]", r"names reference 'reel'"),
        ("generation: {seeds: {range: 5-1}}", r"expected 'first-last'"),
        ("name: a\nname: b", r"the key 'name' is given twice"),
        ("generation: {steps: yes}", r"generation.steps: expected a number, got True"),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what(extra: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(GOOD + extra, where="bad.yaml")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("lora: []", r"lora: unknown key; did you mean 'loras'"),
        ("loras: [{id: a, scale: yes}]", r"loras.0.scale: expected a number, got True"),
        ("loras: [{id: a, scale: .inf}]", r"loras.0.scale: .*finite number"),
        ("controlnet: {id: a, start: 0.5, end: 0.5}", r"controlnet: expected start < end"),
        ("refiner: {id: a, start: 1.0}", r"refiner.start: .*less than 1"),
        ("task: outpainting", r"task: .*'text-to-image', 'image-to-image' or 'inpainting'"),
        ("compile: 1", r"compile: .*boolean"),
        ("cpu_offload: all", r"cpu_offload: .*'model' or 'sequential'"),
    ],
)
def test_a_fault_in_the_model_says_where_and_what(option: str, message: str) -> None:
    text = GOOD.replace("id: some/model}", f"id: some/model, {option}}}")
    with pytest.raises(ConfigError, match=message):
        parse_config(text, where="bad.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "probes.attention.steps=alll",
            "probes.attention.steps: expected 'all', a whole number or a list in brackets, got 'alll'",
        ),
        (
            "probes.latents.steps=0",
            "probes.latents.steps: expected 'all', a whole number of at least 1 or a list in"
            " brackets, got 0",
        ),
        ("probes.latents.steps=[1, x]", "probes.latents.steps.1: expected a whole number, got 'x'"),
        (
            "probes.attention.map_layers=up",
            "probes.attention.map_layers: expected a list in brackets, got 'up'",
        ),
        ("generation.seed=abc", "generation.seed: expected a whole number, got 'abc'"),
    ],
)
def test_a_value_of_the_wrong_form_is_one_fault(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(GOOD, [override], where="bad.yaml")
    assert caught.value.faults == (message,)


def test_attention_that_is_compiled_away_is_refused_before_anything_is_loaded() -> None:
    text = GOOD.replace("id: some/model}", "id: some/model, compile: true}")
    assert parse_config(text, where="test").model.kind == "diffusers"
    with pytest.raises(ConfigError, match=r"probes.attention: model.compile hides the attention"):
        parse_config(text + "probes: {attention: {}}", where="test")


def test_images_have_no_model_to_watch() -> None:
    text = GOOD.replace("{kind: diffusers, id: some/model}", "{kind: images}")
    with pytest.raises(ConfigError, match="no model to watch"):
        parse_config(text + "probes: {latents: {}}", where="")


def test_set_overrides_reach_into_sections_and_lists() -> None:
    text = GOOD + "metrics: [fid, {name: prdc, k: 3}]"
    config = parse_config(
        text, ["generation.steps=7", "metrics.1.k=5", "generation.guidance_scale=1e-1"], where=""
    )
    assert config.generation.steps == 7
    assert config.metrics[1].options == {"k": 5}
    assert config.generation.guidance_scale == pytest.approx(0.1)


def test_set_overrides_find_features_and_metrics_by_name() -> None:
    text = GOOD + "metrics: [fid, {name: prdc, k: 3}]\nfeatures: [inception]"
    overrides = ["metrics.prdc.k=5", "metrics.0.seed=1", "features.inception.options.resize=legacy"]
    config = parse_config(text, overrides, where="")
    assert [metric.options for metric in config.metrics] == [{"seed": 1}, {"k": 5}]
    assert config.features[0].options == {"resize": "legacy"}
    with pytest.raises(ConfigError, match="a number below 2 after 'metrics', or one of fid, prdc"):
        parse_config(text, ["metrics.prd.k=5"], where="")


@pytest.mark.parametrize("override", ["steps", "=3", "name.x=3", "metrics.9.k=1"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_config(GOOD + "metrics: [fid]", [override], where="")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: expected a configuration file"):
        load_config(tmp_path / "nowhere.yaml")


def test_the_identity_is_what_makes_the_samples() -> None:
    base = parse_config(GOOD, where="").identity()
    same = parse_config(GOOD + "metrics: [fid]\nruntime: {batch_size: 3}", where="").identity()
    other = parse_config(GOOD + "generation: {steps: 3}", where="").identity()
    assert base == same
    assert base != other


def test_code_is_only_named_never_imported() -> None:
    config = parse_config(GOOD + "features: [{name: mine, kind: 'os:system'}]", where="")
    assert config.code() == ["os:system"]


def test_every_shipped_configuration_is_valid() -> None:
    shipped = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
    assert shipped
    assert [load_runs(path).name for path in shipped] == [path.stem for path in shipped]

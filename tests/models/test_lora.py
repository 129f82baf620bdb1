"""Low-rank weights: merged by the published formula, whatever format they come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.errors import ConfigError, InputError
from evaluator.models.diffusers import DiffusersModel
from evaluator.records import Prompt
from tests.tiny import ARGUMENTS, call_arguments, generation, saved

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
CONVOLUTION = "mid_block.resnets.0.conv1"
PROMPTS = [Prompt("a", "a red dog"), Prompt("b", "a blue fox")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def model(family: str, root: Path, loras: list[dict[str, Any]], **config: Any) -> DiffusersModel:
    return DiffusersModel(
        DiffusersModelConfig(
            kind="diffusers",
            id=str(saved(family, root)),
            arguments=ARGUMENTS.get(family, {}),
            loras=loras,
            **config,
        ),
        GenerationConfig(**{"steps": 2, "guidance_scale": 3.0, **generation(family)}),
    )


def made(ours: DiffusersModel) -> torch.Tensor:
    images = ours.generate(PROMPTS, [0, 0], [7, 8])
    return torch.stack([image for image in images if isinstance(image, torch.Tensor)])


def by_hand(root: Path, family: str, changes: dict[str, torch.Tensor]) -> torch.Tensor:
    """Images of the bare pipeline with `changes` added to its weights."""
    bare = DiffusionPipeline.from_pretrained(saved(family, root), local_files_only=True)
    bare.set_progress_bar_config(disable=True)
    for name, change in changes.items():
        component, _, layer = name.partition(".")
        with torch.no_grad():
            getattr(bare, component).get_submodule(layer).weight.add_(change)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    texts = [str(prompt.text) for prompt in PROMPTS]
    called = call_arguments(family, texts)
    images = bare(**called, num_inference_steps=2, generator=generators, output_type="np").images
    return (torch.from_numpy(images) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)


def low_rank(seed: int, outputs: int, inputs: int, rank: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, generator=generator)
    return down, torch.randn(outputs, rank, generator=generator)


DOWN, UP = low_rank(0, 32, 32)


@pytest.mark.parametrize(
    ("keys", "alpha"),
    [
        ("unet.{dots}.lora_A.weight unet.{dots}.lora_B.weight", None),
        ("unet.{dots}.lora.down.weight unet.{dots}.lora.up.weight", None),
        ("unet.{processor}.to_q_lora.down.weight unet.{processor}.to_q_lora.up.weight", None),
        ("lora_unet_{lines}.lora_down.weight lora_unet_{lines}.lora_up.weight", 6.0),
    ],
    ids=["peft", "diffusers", "processors", "kohya"],
)
def test_every_format_is_merged_by_the_formula(
    keys: str, alpha: float | None, root: Path, tmp_path: Path
) -> None:
    processor = QUERY.removesuffix("to_q") + "processor"
    names = keys.format(dots=QUERY, processor=processor, lines=QUERY.replace(".", "_")).split()
    state = dict(zip(names, (DOWN, UP), strict=True))
    if alpha is not None:
        state[names[0].replace("lora_down.weight", "alpha")] = torch.tensor(alpha)
    save_file(state, tmp_path / "weights.safetensors")
    images = made(model("sd", root, [{"id": str(tmp_path), "scale": 0.25}]))
    factor = 0.25 * (1.0 if alpha is None else alpha / 2)
    expected = by_hand(root, "sd", {f"unet.{QUERY}": factor * UP @ DOWN})
    assert torch.equal(images, expected)
    assert not torch.equal(images, by_hand(root, "sd", {}))


def test_several_add_up_and_each_has_its_scale(root: Path, tmp_path: Path) -> None:
    down, up = low_rank(1, 32, 32, rank=3)
    for name, pair in {"one": (DOWN, UP), "two": (down, up)}.items():
        halves = {f"unet.{QUERY}.lora_{h}.weight": x for h, x in zip("AB", pair, strict=True)}
        save_file(halves, tmp_path / f"{name}.safetensors")
    both = [
        {"id": str(tmp_path), "weight_name": "one.safetensors", "scale": 0.25},
        {"id": str(tmp_path / "two.safetensors"), "scale": -0.5},
    ]
    expected = by_hand(root, "sd", {f"unet.{QUERY}": 0.25 * UP @ DOWN - 0.5 * up @ down})
    assert (made(model("sd", root, both)).int() - expected.int()).abs().max() <= 1


def test_convolutions_and_text_encoders_take_them_too(root: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    down = torch.randn(2, 32, 3, 3, generator=generator)
    text = "encoder.layers.0.self_attn.q_proj"
    state = {
        f"unet.{CONVOLUTION}.lora_A.weight": down,
        f"unet.{CONVOLUTION}.lora_B.weight": UP[:, :, None, None].contiguous(),
        f"text_encoder.text_model.{text}.lora_A.weight": DOWN,
        f"text_encoder.text_model.{text}.lora_B.weight": UP.clone(),
    }
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    convolution = torch.einsum("or,rihw->oihw", UP, down) * 0.1
    encoder = DiffusionPipeline.from_pretrained(saved("sd", root), local_files_only=True)
    known = dict(encoder.text_encoder.named_modules())
    text = text if text in known else f"text_model.{text}"
    changes = {f"unet.{CONVOLUTION}": convolution, f"text_encoder.{text}": 0.1 * UP @ DOWN}
    expected = by_hand(root, "sd", changes)
    images = made(model("sd", root, [{"id": str(path), "scale": 0.1}]))
    assert (images.int() - expected.int()).abs().max() <= 1
    for left_out in changes:
        rest = {name: change for name, change in changes.items() if name != left_out}
        assert (images.int() - by_hand(root, "sd", rest).int()).abs().max() > 1


def test_text_encoders_take_kohyas_names(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for name, layer in {
        "self_attn_q_proj": "self_attn.q_proj",
        "self_attn_out_proj": "self_attn.out_proj",
    }.items():
        prefix = f"lora_te_text_model_encoder_layers_1_{name}"
        state = {f"{prefix}.lora_down.weight": DOWN, f"{prefix}.lora_up.weight": UP}
        save_file({**state, f"{prefix}.alpha": torch.tensor(1.0)}, path)
        expected = by_hand(root, "sd", {f"text_encoder.encoder.layers.1.{layer}": 0.5 * UP @ DOWN})
        assert torch.equal(made(model("sd", root, [{"id": str(path)}])), expected)


@pytest.mark.parametrize(
    ("block", "layer"),
    [
        ("input_blocks_3_1_transformer_blocks_0", "down_blocks.1.attentions.0.transformer_blocks.0"),
        ("middle_block_1_transformer_blocks_0", "mid_block.attentions.0.transformer_blocks.0"),
        ("output_blocks_1_1_transformer_blocks_0", "up_blocks.0.attentions.1.transformer_blocks.0"),
    ],
)  # fmt: skip
def test_blocks_may_be_numbered_as_stable_diffusion_xls_own_code_does(
    block: str, layer: str, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    prefix = f"lora_unet_{block}_attn1_to_q"
    bare = DiffusionPipeline.from_pretrained(saved("sdxl", root), local_files_only=True)
    size = bare.unet.get_submodule(f"{layer}.attn1.to_q").weight.shape[0]
    down, up = low_rank(4, size, size)
    save_file({f"{prefix}.lora_down.weight": down, f"{prefix}.lora_up.weight": up}, path)
    expected = by_hand(root, "sdxl", {f"unet.{layer}.attn1.to_q": up @ down})
    assert torch.equal(made(model("sdxl", root, [{"id": str(path)}])), expected)
    assert not torch.equal(expected, by_hand(root, "sdxl", {}))


def test_alpha_may_come_from_the_files_header(root: Path, tmp_path: Path) -> None:
    layer = "transformer_blocks.0.attn.to_q"
    state = {
        f"transformer.{layer}.lora_A.weight": DOWN,
        f"transformer.{layer}.lora_B.weight": UP,
    }
    path = tmp_path / "weights.safetensors"
    header = {"transformer.r": 2, "transformer.lora_alpha": 8}
    save_file(state, path, {"lora_adapter_metadata": json.dumps(header)})
    expected = by_hand(root, "flux", {f"transformer.{layer}": 4 * UP @ DOWN})
    assert torch.equal(made(model("flux", root, [{"id": str(path)}])), expected)
    header["transformer.use_rslora"] = True
    save_file(state, path, {"lora_adapter_metadata": json.dumps(header)})
    with pytest.raises(InputError, match="expected a plain LoRA, got one with transformer.use_rs"):
        model("flux", root, [{"id": str(path)}])


def test_the_fingerprint_knows_weights_and_scale_not_their_place(
    root: Path, tmp_path: Path
) -> None:
    state = {f"unet.{QUERY}.lora_A.weight": DOWN, f"unet.{QUERY}.lora_B.weight": UP}
    one, two, other = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "other"))
    save_file(state, one)
    save_file(state, two)
    save_file({name: 2 * value for name, value in state.items()}, other)
    base = model("sd", root, [{"id": str(one)}]).fingerprint
    assert model("sd", root, [{"id": str(two)}]).fingerprint == base
    different = [[], [{"id": str(one), "scale": 0.5}], [{"id": str(other)}]]
    assert base not in [model("sd", root, loras).fingerprint for loras in different]


@pytest.mark.parametrize(
    ("family", "names", "message"),
    [
        ("sd", ["unet.nowhere.to_q.lora_A.weight"] * 2, "expected two low-rank matrices a layer"),
        ("sd", ["unet.nowhere.to_q.lora_A.weight", "unet.nowhere.to_q.lora_B.weight"],
         "unet.nowhere.to_q of .*, got no such layer: it was trained for another arch"),
        ("sd", ["unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight"],
         r"got a layer of \(16, 4, 3, 3\): it was trained for another architecture"),
        ("pixart-sigma", ["transformer.x.lora_A.weight", "transformer.x.lora_B.weight"],
         "PixArtSigmaPipeline takes no LoRA"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(
    family: str, names: list[str], message: str, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(dict(zip(names, (DOWN.clone(), UP.clone()), strict=True)), path)
    with pytest.raises((ConfigError, InputError), match=rf"model.loras.0: .*{message}"):
        model(family, root, [{"id": str(path)}])


@pytest.mark.parametrize(
    ("changes", "header", "message"),
    [
        ({"lora_B.weight": torch.zeros(32, 3)}, "{}", "expected two low-rank matrices a layer"),
        ({"lora_A.weight": torch.zeros(0, 32), "lora_B.weight": torch.zeros(32, 0)}, "{}",
         "expected two low-rank matrices a layer"),
        ({"alpha": torch.zeros(2)}, "{}", "expected one number as alpha of unet"),
        ({"dora_scale": torch.ones(32)}, "{}", "expected a plain LoRA, got a DoRA .unet"),
        ({}, "{oops", "expected lora_adapter_metadata as JSON in the file's header"),
        ({}, "[1]", "expected lora_adapter_metadata as JSON .* list instead of an object"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_in_words(
    changes: dict[str, torch.Tensor], header: str, message: str, root: Path, tmp_path: Path
) -> None:
    state = {"lora_A.weight": DOWN.clone(), "lora_B.weight": UP.clone(), **changes}
    path = tmp_path / "weights.safetensors"
    named = {f"unet.{QUERY}.{name}": value for name, value in state.items()}
    save_file(named, path, {"lora_adapter_metadata": header})
    with pytest.raises(InputError, match=rf"model.loras.0: .*{message}"):
        model("sd", root, [{"id": str(path)}])


def test_files_that_are_not_safetensors_or_not_named_are_refused(
    root: Path, tmp_path: Path
) -> None:
    for name in ("one.safetensors", "two.safetensors"):
        save_file({"x": DOWN}, tmp_path / name)
    torch.save({}, tmp_path / "pickled.bin")
    for lora, message in [
        ({"id": str(tmp_path / "pickled.bin")}, "expected weights as .safetensors, got pickled"),
        ({"id": str(tmp_path / "no.safetensors")}, "model.loras.0: .* got nothing at .*no.safet"),
        ({"id": str(tmp_path), "weight_name": "a.pt"}, "expected weights as .safetensors, got a"),
        ({"id": str(tmp_path)}, "expected one .safetensors file .* got one.safetensors, two"),
        ({"id": str(tmp_path), "weight_name": "a.safetensors"}, "expected a.safetensors in"),
    ]:
        with pytest.raises(InputError, match=message):
            model("sd", root, [lora])

"""Every family goes through a run, with the images of the bare pipeline to the bit."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from evaluator.config import parse_config
from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.data.kept import read_image_tar
from evaluator.errors import ConfigError, GenerationError
from evaluator.models.arguments import argument_faults, guidance_argument
from evaluator.models.diffusers import DiffusersModel
from evaluator.records import Prompt
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import bytes_of, run_here
from tests.tiny import ARGUMENTS, CLASSES, FAMILIES, TEXTLESS, call_arguments, generation, saved
from tests.tiny.transformers import build_flux

OBSERVED = set(FAMILIES)

TEXTS = ["a red dog", "a fox and a dog", "seven on blue", "a"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def record(family: str, root: Path, *, batch_size: int = 4) -> dict[str, Any]:
    """The configuration of a run of four prompts, a shard a batch."""
    prompts = root / "prompts.jsonl"
    lines = [
        json.dumps({"key": f"k{i}", "text": text, "class_label": i % CLASSES})
        for i, text in enumerate(TEXTS)
    ]
    prompts.write_text("\n".join(lines))
    size = {"batch_size": batch_size, "shard_size": batch_size}
    return {
        "name": family,
        "model": {
            "kind": "diffusers",
            "id": str(saved(family, root)),
            "arguments": ARGUMENTS.get(family, {}),
        },
        "generation": {"steps": 2, "guidance_scale": 3.0, **generation(family)},
        "prompts": {"source": str(prompts)},
        "probes": probes(family),
        "runtime": {"threads": 1, "cache": str(root / "cache"), **size},
    }


def probes(family: str) -> dict[str, Any]:
    """Both, wherever there is something for them to see."""
    latents: dict[str, Any] = {"latents": {}} if family in OBSERVED else {}
    return latents | ({} if family in TEXTLESS else {"attention": {"steps": 2, "maps": 2}})


def kept(run: RunDirectory) -> dict[str, np.ndarray[Any, Any]]:
    """Key → the image that was kept."""
    images = {}
    for index in run.committed():
        for member in read_image_tar(run.shard_path(index) / "images.tar"):
            images[member.key.removesuffix("__0000")] = np.asarray(
                Image.open(io.BytesIO(member.data))
            )
    return images


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_gives_the_images_of_the_bare_pipeline(
    family: str, root: Path, tmp_path: Path
) -> None:
    config = parse_config(json.dumps(record(family, root)), where="test")
    outcome = run_here(config, tmp_path / "run")
    assert not outcome.errors
    run = outcome.run
    bare = DiffusionPipeline.from_pretrained(saved(family, root), local_files_only=True)
    bare.set_progress_bar_config(disable=True)
    seeds = run.plan.column("seed").to_pylist()
    expected = bare(
        **call_arguments(family, TEXTS),
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images
    made = kept(run)
    assert len(made) == len(TEXTS)
    for key, image in zip(run.plan.column("key").to_pylist(), expected, strict=True):
        assert made[key].tobytes() == np.asarray(image).tobytes(), key


@pytest.mark.slow
def test_two_processes_make_the_bytes_of_one(root: Path, tmp_path: Path) -> None:
    for family in FAMILIES:
        path = tmp_path / f"{family}.json"
        path.write_text(json.dumps(record(family, root, batch_size=2)))
    script = Path(__file__).parent / "family_ranks.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(script), str(tmp_path)],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    workers = set()
    for family in FAMILIES:
        config = parse_config((tmp_path / f"{family}.json").read_text(), where="test")
        alone = run_here(config, tmp_path / f"{family}-alone").run
        together = bytes_of(tmp_path / f"{family}-together")
        assert together == bytes_of(alone.path), family
        assert len(together) >= 2 * (3 + (family in OBSERVED)), family
        for shard in (0, 1):
            timings = tmp_path / f"{family}-together" / "shards" / f"{shard:05d}/timings.parquet"
            workers |= {*pq.read_table(timings)["worker"].to_pylist()}
    assert len(workers) == 2


GUIDED = sorted(set(FAMILIES) - {"ddpm", "ddim"})


def model(family: str, root: Path, *, config: Any = None, **settings: Any) -> DiffusersModel:
    """A family's model for two steps, outside a run."""
    options = {"arguments": ARGUMENTS.get(family, {}), **(config or {})}
    return DiffusersModel(
        DiffusersModelConfig(kind="diffusers", id=str(saved(family, root)), **options),
        GenerationConfig(**{"steps": 2, "guidance_scale": 3.0, **generation(family), **settings}),
    )


PROMPTS = [Prompt(f"k{i}", text, class_label=i) for i, text in enumerate(TEXTS[:2])]


@pytest.mark.parametrize("family", GUIDED)
def test_guidance_reaches_the_pipeline(family: str, root: Path) -> None:
    images = [
        model(family, root, guidance_scale=scale).generate(PROMPTS, [0, 0], [7, 8])
        for scale in (0.0, 6.0)
    ]
    for weak, strong in zip(*images, strict=True):
        assert isinstance(weak, torch.Tensor)
        assert isinstance(strong, torch.Tensor)
        assert not torch.equal(weak, strong)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - TEXTLESS - {"flux"}))
def test_a_negative_prompt_reaches_the_pipeline(family: str, root: Path) -> None:
    plain = model(family, root).generate(PROMPTS, [0, 0], [7, 8])
    steered = model(family, root, negative_prompt="a blue fox").generate(PROMPTS, [0, 0], [7, 8])
    assert not torch.equal(plain[0], steered[0])


def test_some_negative_prompts_in_a_batch_of_sdxl_are_refused(root: Path) -> None:
    sdxl = model("sdxl", root)
    mixed = [Prompt("a", "a dog", negative_prompt="a fox"), Prompt("b", "a dog")]
    with pytest.raises(GenerationError, match=r"got 1 of 2. Set generation.negative_prompt"):
        sdxl.generate(mixed, [0, 0], [7, 8])


MIXED = [PROMPTS[0], Prompt("k1", TEXTS[1], negative_prompt="a blue fox")]


def test_true_guidance_of_flux_does_not_depend_on_the_rest_of_the_batch(root: Path) -> None:
    config = {"arguments": {**ARGUMENTS["flux"], "true_cfg_scale": 4.0}}
    guided = model("flux", root, config=config)
    alone, _ = guided.generate(PROMPTS, [0, 0], [7, 8])
    beside, steered = guided.generate(MIXED, [0, 0], [7, 8])
    plain, other = model("flux", root).generate(PROMPTS, [0, 0], [7, 8])
    assert isinstance(alone, torch.Tensor)
    assert isinstance(beside, torch.Tensor)
    assert torch.equal(alone, beside)
    assert not torch.equal(alone, plain)
    assert not torch.equal(steered, other)


@pytest.mark.parametrize(
    ("family", "scale", "message"),
    [
        ("flux", 3.5, "FluxPipeline reads it only with model.arguments.true_cfg_scale above 1"),
        ("qwen-image", 1.0, "reads it only with generation.guidance_scale above 1"),
    ],
)
def test_a_negative_prompt_that_would_be_ignored_is_refused(
    family: str, scale: float, message: str, root: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        model(family, root, negative_prompt="a blue fox", guidance_scale=scale)


@pytest.mark.parametrize(
    ("pipeline", "argument"),
    [
        ("StableDiffusionPipeline", "guidance_scale"),
        ("FluxPipeline", "guidance_scale"),
        ("QwenImagePipeline", "true_cfg_scale"),
        ("QwenImage21Pipeline", "true_cfg_scale"),
        ("DDPMPipeline", None),
    ],
)
def test_guidance_is_the_argument_that_a_pipeline_guides_by(
    pipeline: str, argument: str | None
) -> None:
    parameters = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
    assert guidance_argument(parameters) == argument


def test_controlnet_settings_that_a_pipeline_does_not_take_are_refused() -> None:
    chosen = diffusers.ZImageControlNetPipeline
    pipeline = chosen.__new__(chosen)
    parameters = inspect.signature(chosen.__call__).parameters
    settings: dict[str, Any] = {"kind": "diffusers", "id": "a/b"}
    for controlnet, expected in (
        ({"start": 0.2}, ["model.controlnet.start: ZImageControlNetPipeline takes no control_"]),
        ({"scale": 0.5}, []),
    ):
        config = DiffusersModelConfig(**settings, controlnet={"id": "c/d", **controlnet})
        faults = argument_faults(pipeline, parameters, config, GenerationConfig())
        assert [fault[: len(expected[0])] for fault in faults] == expected


@pytest.mark.parametrize(
    ("family", "argument"),
    [
        ("sdxl", "prompt_2"),
        ("sdxl", "negative_prompt_2"),
        ("sd3", "prompt_3"),
        ("flux", "prompt_2"),
    ],
)
def test_a_text_for_one_encoder_goes_to_every_sample(
    family: str, argument: str, root: Path
) -> None:
    config = {"arguments": {**ARGUMENTS.get(family, {}), argument: "seven"}}
    ours = model(family, root, config=config)
    together = ours.generate(PROMPTS, [0, 0], [7, 8])
    alone = [ours.generate([PROMPTS[i]], [0], [7 + i])[0] for i in range(2)]
    plain = model(family, root).generate(PROMPTS, [0, 0], [7, 8])
    for one, other, bare in zip(together, alone, plain, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert isinstance(bare, torch.Tensor)
        assert (one.int() - other.int()).abs().max() <= 1
        assert not torch.equal(one, bare)


def test_what_is_truncated_is_the_text_that_each_encoder_reads(root: Path) -> None:
    long = "a " * 30 + "dog"
    config = {"arguments": {**ARGUMENTS["flux"], "prompt_2": "a dog"}}
    assert model("flux", root, config=config).truncated([Prompt("k", "a fox")]) == [False]
    config = {"arguments": {**ARGUMENTS["flux"], "prompt_2": long}}
    assert model("flux", root, config=config).truncated([Prompt("k", "a fox")]) == [True]
    with pytest.raises(ConfigError, match=r"prompt_2: expected one text, got \['a'\]"):
        model("flux", root, config={"arguments": {"prompt_2": ["a"]}})


def test_guidance_that_a_distilled_checkpoint_would_ignore_is_refused(tmp_path: Path) -> None:
    schnell = FAMILIES["flux"]()
    schnell.transformer = build_flux(guidance_embeds=False).transformer
    schnell.save_pretrained(tmp_path / "schnell")
    config = DiffusersModelConfig(kind="diffusers", id=str(tmp_path / "schnell"))
    with pytest.raises(ConfigError, match=r"generation.guidance_scale: this checkpoint is dist"):
        DiffusersModel(config, GenerationConfig(guidance_scale=3.5))
    DiffusersModel(config, GenerationConfig(guidance_scale=0))


def test_a_scale_of_merged_weights_is_refused(root: Path) -> None:
    for family, argument in (
        ("sd", "cross_attention_kwargs"),
        ("flux", "joint_attention_kwargs"),
    ):
        arguments = {**ARGUMENTS.get(family, {}), argument: {"scale": 0.5}}
        with pytest.raises(ConfigError, match=rf"{argument}.scale: .* in model.loras"):
            model(family, root, config={"arguments": arguments})


def test_labels_that_the_model_does_not_know_are_the_prompts_fault(root: Path) -> None:
    prompts = [Prompt("a", class_label=3), Prompt("b", class_label=1000), Prompt("c")]
    first, *faults = model("dit", root).generate(prompts, [0] * 3, [7, 8, 9])
    assert isinstance(first, torch.Tensor)
    assert [str(fault) for fault in faults] == [
        "expected a prompt with a class_label from 0 to 999, got 1000",
        "expected a prompt with a class_label from 0 to 999, got None",
    ]


@pytest.mark.parametrize(
    ("family", "argument", "message"),
    [
        ("sd", "etaa", "takes no such argument"),
        ("sd", "cross_attention_kwargs", "expected names and values, got True"),
        ("sd", "guidance_scale", r"it is set by generation.guidance_scale"),
        ("qwen-image", "true_cfg_scale", r"it is set by generation.guidance_scale"),
        ("pixart-sigma", "clean_caption", "needs the packages beautifulsoup4 and ftfy"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(
    family: str, argument: str, message: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bs4", None)
    arguments = {**ARGUMENTS.get(family, {}), argument: True}
    with pytest.raises(ConfigError, match=rf"model.arguments.{argument}: .*{message}"):
        model(family, root, config={"arguments": arguments})


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        *((family, {}) for family in sorted(set(FAMILIES) - TEXTLESS)),
        ("sana", {"complex_human_instruction": ["a red", "dog:"]}),
    ],
)
def test_truncated_is_what_the_shortest_encoder_does_not_read(
    family: str, extra: dict[str, Any], root: Path
) -> None:
    arguments = {**ARGUMENTS.get(family, {}), **extra}
    ours = model(family, root, config={"arguments": arguments})
    texts = ["a " * number + "dog" for number in range(7, 17)]
    cut = ours.truncated([Prompt("k", text) for text in texts])
    assert cut == [reads_less(ours.pipeline, arguments, text) for text in texts]
    assert {*cut} == {False, True}


def reads_less(pipeline: Any, arguments: dict[str, Any], text: str) -> bool:
    """Whether another last word leaves what some encoder is shown as it was."""
    seen: dict[str, list[torch.Tensor]] = {}
    handles = []
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if (encoder := getattr(pipeline, name, None)) is not None:

            def note(module: Any, args: Any, kwargs: Any, name: str = name) -> None:
                ids = args[0] if args else kwargs["input_ids"]
                seen.setdefault(name, []).append(ids)

            handles.append(encoder.register_forward_pre_hook(note, with_kwargs=True))
    arguments = {k: v for k, v in arguments.items() if k in ENCODING}
    outputs = []
    for last in (text, text.removesuffix("dog") + "fox"):
        extra = {"do_classifier_free_guidance": False, "device": torch.device("cpu")}
        known = inspect.signature(pipeline.encode_prompt).parameters
        given = {k: v for k, v in {**extra, **arguments}.items() if k in known}
        given |= {k: None for k in ("prompt_2", "prompt_3") if k in known}
        given |= {"num_images_per_prompt": 1} if "num_images_per_prompt" in known else {}
        outputs.append(pipeline.encode_prompt(prompt=last, **given)[0])
    for handle in handles:
        handle.remove()
    if len(seen) == 1:
        # Qwen-Image and Sana cut what the encoder made of a text, not only what it is shown.
        return torch.equal(*outputs)
    return any(torch.equal(first, second) for first, second in seen.values())


ENCODING = {"max_sequence_length", "complex_human_instruction", "system_prompt"}

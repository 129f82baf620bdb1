"""Attention that another package computes, or that attends to more than the text."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch, attention_processor
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from safetensors.torch import save_file

from evaluator.errors import ProbeError
from evaluator.probes import AttentionProbe
from evaluator.probes.layers import attention_layers
from tests.tiny import FAMILIES, call_arguments
from tests.tiny.unets import build_stable_diffusion

IMAGE_WIDTH = 12
"""Channels of the picture that an IP-Adapter is told of."""


def with_ip_adapter(folder):
    """Stable Diffusion in miniature with an IP-Adapter of random weights, loaded from its file."""
    pipeline = build_stable_diffusion()
    width = pipeline.unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(1)

    def weight(*shape):
        return torch.randn(*shape, generator=generator)

    weights = {
        "image_proj.proj.weight": weight(4 * width, IMAGE_WIDTH),
        "image_proj.proj.bias": weight(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    names = [name for name in pipeline.unet.attn_processors if ".attn2." in name]
    for place, name in enumerate(names):
        layer = pipeline.unet.get_submodule(name.removesuffix(".processor"))
        for part in ("k", "v"):
            key = f"ip_adapter.{2 * place + 1}.to_{part}_ip.weight"
            weights[key] = weight(layer.inner_dim, width)
    save_file(weights, folder / "ip-adapter.safetensors")
    pipeline.load_ip_adapter(
        str(folder), subfolder="", weight_name="ip-adapter.safetensors", image_encoder_folder=None
    )
    return pipeline


class WithPicture:
    """Generates from the prompts and one picture, which its encoder has made numbers of."""

    def __init__(self, pipeline):
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline

    def generate(self, prompts):
        picture = {}
        if self.pipeline.unet.config.encoder_hid_dim_type == "ip_image_proj":
            # unconditional, then conditional
            picture["ip_adapter_image_embeds"] = [torch.ones(2, 1, IMAGE_WIDTH)]
        generators = [torch.Generator().manual_seed(int(prompt.key)) for prompt in prompts]
        made = self.pipeline(
            [prompt.text for prompt in prompts], generator=generators, height=16, width=16,
            num_inference_steps=2, output_type="np", **picture,
        )  # fmt: skip
        return torch.from_numpy(made.images)


def test_an_ip_adapter_is_refused_by_name_until_it_is_unloaded(tiny, tmp_path):
    model = WithPicture(with_ip_adapter(tmp_path))
    kinds = {type(x).__name__ for x in model.pipeline.unet.attn_processors.values()}
    assert "IPAdapterAttnProcessor2_0" in kinds
    prompts = tiny.prompts("a red dog")
    guided = model.generate(prompts)
    with pytest.raises(ProbeError, match=r"an IP-Adapter adds image tokens\. Call unload_ip_adap"):
        tiny.observe(model, prompts, AttentionProbe())
    model.pipeline.unload_ip_adapter()
    run = tiny.observe(model, prompts, AttentionProbe(steps=1))
    assert not torch.equal(run.images, guided)
    plain = tiny.observe(WithPicture(build_stable_diffusion()), prompts, AttentionProbe(steps=1))
    assert run.tables == plain.tables


@pytest.mark.parametrize("setting", ["loaded", "told no more"])
def test_layers_of_an_ip_adapter_are_refused_whatever_the_configuration_says(tmp_path, setting):
    pipeline = with_ip_adapter(tmp_path)
    if setting == "told no more":
        pipeline.unet.register_to_config(encoder_hid_dim_type=None)
    with pytest.raises(ProbeError, match="IP-Adapter"):
        attention_layers(pipeline)


@pytest.mark.parametrize(
    ("family", "path", "processor"),
    [
        (
            "flux",
            "transformer_blocks.0.attn",
            lambda: FluxIPAdapterAttnProcessor(32, 32, dtype=torch.float32),
        ),
        (
            "sd3",
            "transformer_blocks.0.attn",
            lambda: attention_processor.SD3IPAdapterJointAttnProcessor2_0(32, 32, 16, 32),
        ),
    ],
)
def test_transformers_with_an_ip_adapter_are_refused_by_name(family, path, processor):
    pipeline = FAMILIES[family]()
    pipeline.transformer.get_submodule(path).set_processor(processor())
    with pytest.raises(ProbeError, match=rf"{path} uses \w*IPAdapter.*without .*IP-Adapters"):
        attention_layers(pipeline)


@pytest.mark.parametrize(
    ("family", "path", "processor"),
    [
        ("sd", "mid_block.attentions.0.transformer_blocks.0.attn2", "XFormersAttnProcessor"),
        ("sdxl", "mid_block.attentions.0.transformer_blocks.0.attn2", "XFormersAttnProcessor"),
        ("pixart-sigma", "transformer_blocks.0.attn2", "XFormersAttnProcessor"),
        ("sd3", "transformer_blocks.0.attn", "XFormersJointAttnProcessor"),
    ],
)
def test_processors_of_xformers_are_refused_by_name_before_anything_runs(
    tiny, family, path, processor
):
    pipeline = FAMILIES[family]()
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    # What enable_xformers_memory_efficient_attention() sets where the package and a GPU are there.
    denoiser.get_submodule(path).set_processor(getattr(attention_processor, processor)())
    remedy = r"\. Call disable_xformers_memory_efficient_attention\(\), or remove attention"
    with pytest.raises(ProbeError, match=rf"{path} uses {processor}, .*xFormers{remedy}"):
        tiny.observe(SimpleNamespace(pipeline=pipeline), tiny.prompts("a dog"), AttentionProbe())


@pytest.mark.parametrize("where", ["layer", "process"])
def test_a_backend_that_rounds_queries_is_refused_by_name(where, monkeypatch):
    pipeline = FAMILIES["flux"]()
    processor = pipeline.transformer.transformer_blocks[0].attn.processor
    if where == "layer":
        processor._attention_backend = AttentionBackendName._SAGE_QK_INT8_PV_FP16_TRITON
    else:  # as set_attention_backend() of another model, or DIFFUSERS_ATTN_BACKEND, leaves it
        registry = attention_dispatch._AttentionBackendRegistry
        monkeypatch.setattr(registry, "_active_backend", AttentionBackendName.SAGE)
    with pytest.raises(ProbeError, match=r"uses the backend \w*sage.*model\.attention_backend"):
        attention_layers(pipeline)


def test_the_backend_of_xformers_is_observed_exactly(tiny, monkeypatch):
    """Newer layers hand their queries and keys to a backend, where they are seen."""

    class Families:
        def __init__(self, pipeline: Any) -> None:
            pipeline.set_progress_bar_config(disable=True)
            self.pipeline = pipeline

        def generate(self, prompts):
            arguments = call_arguments("flux", [prompt.text for prompt in prompts])
            generators = [torch.Generator().manual_seed(3) for _ in prompts]
            made = self.pipeline(
                **arguments, num_inference_steps=2, output_type="np", generator=generators
            )
            return torch.from_numpy(made.images)

    def attend(query, key, value, mask, dropout, scale):
        """The package's function (B, N, heads, D), which is not installed here."""
        heard.append(query.shape)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        logits = torch.einsum("bnhd,bmhd->bhnm", query, key) * scale
        logits = logits if mask is None else logits + mask
        return torch.einsum("bhnm,bmhd->bnhd", logits.softmax(-1), value)

    heard: list[Any] = []
    prompts, probe = tiny.prompts("a red dog"), AttentionProbe(steps="all", layers="all")
    pipeline = FAMILIES["flux"]()
    plain = tiny.observe(Families(pipeline), prompts, probe)
    monkeypatch.setattr(
        attention_dispatch, "xops", SimpleNamespace(memory_efficient_attention=attend)
    )
    for module in pipeline.transformer.modules():
        if hasattr(getattr(module, "processor", None), "_attention_backend"):
            module.processor._attention_backend = AttentionBackendName.XFORMERS
    bare = Families(pipeline).generate(prompts)
    assert heard
    other = tiny.observe(Families(pipeline), prompts, probe)
    assert torch.equal(other.images, bare)
    found, expected = (run.tables["attention"].to_pydict() for run in (other, plain))
    for name in ("mass", "peak", "entropy"):
        torch.testing.assert_close(
            torch.tensor(found[name]), torch.tensor(expected[name]), rtol=1e-4, atol=1e-6
        )

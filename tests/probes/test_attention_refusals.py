import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from evaluator.errors import ProbeError
from evaluator.probes import AttentionProbe, boundaries
from evaluator.probes.branches import samples_of
from evaluator.records import Prompt


def test_a_model_without_text_is_refused(tiny):
    model = tiny.model(tiny.unconditional("ddim"))
    with pytest.raises(ProbeError, match="text-to-image pipeline with one of"):
        tiny.observe(model, tiny.prompts("a"), AttentionProbe())


def test_sliced_attention_is_refused_by_name(tiny):
    pipeline = tiny.stable_diffusion()
    pipeline.enable_attention_slicing()
    with pytest.raises(ProbeError, match="disable_attention_slicing"):
        tiny.observe(tiny.model(pipeline), tiny.prompts("a dog"), AttentionProbe())


@pytest.mark.parametrize("how", ["whole", "in place", "part"])
def test_a_compiled_denoiser_is_refused_by_name(tiny, how):
    pipeline = tiny.stable_diffusion()
    if how == "whole":
        pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    elif how == "in place":
        pipeline.unet.compile(backend="eager")
    else:
        pipeline.unet.mid_block.compile(backend="eager")
    with pytest.raises(ProbeError, match=r"torch\.compile"):
        tiny.observe(tiny.model(pipeline), tiny.prompts("a dog"), AttentionProbe())


def test_a_layer_that_attends_unseen_is_an_error(tiny):
    pipeline = tiny.stable_diffusion()

    class Unseen:
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
            scores = attn.to_q(hidden_states) @ attn.to_k(encoder_hidden_states).mT
            return attn.to_out[0](scores.softmax(-1) @ attn.to_v(encoder_hidden_states))

    pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(Unseen())
    with pytest.raises(ProbeError, match=r"1 ran unseen .*mid_block"):
        tiny.observe(tiny.model(pipeline), tiny.prompts("a dog"), AttentionProbe(steps=2))


def test_a_layer_that_attends_to_the_text_under_another_name_is_refused(tiny):
    pipeline = tiny.stable_diffusion()
    block = pipeline.unet.mid_block.attentions[0].transformer_blocks[0]
    block.attn2, block.other = None, block.attn2
    with pytest.raises(ProbeError, match=r"one of .*attn.*; mid_block.*other does, too"):
        tiny.observe(tiny.model(pipeline), tiny.prompts("a dog"), AttentionProbe())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ValueError])
def test_nothing_stays_patched_after_an_interruption(tiny, shared_pipeline, kind):
    unet = shared_pipeline.unet
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    functions = F.scaled_dot_product_attention, _AttentionBackendRegistry._backends

    def interrupt(*_):
        raise kind("in the middle of a layer")

    handle = layer.to_out[0].register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(kind, match="in the middle"):
            tiny.observe(tiny.model(shared_pipeline), tiny.prompts("a dog"), AttentionProbe())
    finally:
        handle.remove()
    assert F.scaled_dot_product_attention is functions[0]
    assert _AttentionBackendRegistry._backends is functions[1]
    assert boundaries._current_sink() is None
    assert not any(module._forward_hooks for module in unet.modules())
    assert not {"step", "encode_prompt"} & {
        *vars(shared_pipeline.scheduler),
        *vars(shared_pipeline),
    }
    run = tiny.observe(tiny.model(shared_pipeline), tiny.prompts("a dog"), AttentionProbe(steps=1))
    assert run.tables["attention"].num_rows


def test_encoders_that_read_different_texts_are_refused(tiny):
    pipeline = tiny.stable_diffusion_xl()

    class TwoTexts(tiny.model):
        def generate(self, prompts):
            return self.pipeline([p.text for p in prompts], prompt_2=["a fox"], height=16, width=16,
                                 num_inference_steps=2, output_type="np")  # fmt: skip

    with pytest.raises(ProbeError, match=r"text_encoder_2 read .*\(no prompt_2, no prompt_3\)"):
        tiny.observe(TwoTexts(pipeline), tiny.prompts("a dog"), AttentionProbe())


def test_seeing_nothing_is_an_error(tiny, shared_pipeline):
    model = tiny.model(shared_pipeline)
    with AttentionProbe().attach(model, tiny.prompts("a dog"), [0]) as observation:
        pass
    with pytest.raises(ProbeError, match="no attention layer ran"):
        observation.tables()


def test_rows_that_match_no_prompt_are_refused(tiny):
    pipeline = tiny.stable_diffusion()
    forward = pipeline.unet.forward

    class Shifting:
        """Changes the embeddings between the encoder and the denoiser."""

        def __call__(self, module, args, kwargs):
            kwargs["encoder_hidden_states"] = kwargs["encoder_hidden_states"] + 1
            return args, kwargs

    handle = pipeline.unet.register_forward_pre_hook(Shifting(), with_kwargs=True)
    with pytest.raises(ProbeError, match="match neither"):
        tiny.observe(tiny.model(pipeline), tiny.prompts("a dog"), AttentionProbe())
    handle.remove()
    assert pipeline.unet.forward == forward


def test_several_images_of_a_prompt_in_one_call_are_refused(tiny, shared_pipeline):
    class Doubling(tiny.model):
        def generate(self, prompts):
            return self.pipeline([p.text for p in prompts], num_images_per_prompt=2, height=16,
                                 width=16, num_inference_steps=2, output_type="np")  # fmt: skip

    with pytest.raises(ProbeError, match="one image for each prompt"):
        tiny.observe(Doubling(shared_pipeline), tiny.prompts("a dog", "a fox"), AttentionProbe())


def test_prompts_that_the_model_leaves_out_are_skipped():
    prompts = [Prompt("0", "a"), Prompt("1", "b"), Prompt("2", "b"), Prompt("3", "c")]
    assert samples_of(prompts, ("b", "b"), 2) == [1, 2]
    assert samples_of(prompts, None, 4) == [0, 1, 2, 3]
    with pytest.raises(ProbeError, match="4 prompts; got 2"):
        samples_of(prompts, ("c", "b"), 2)

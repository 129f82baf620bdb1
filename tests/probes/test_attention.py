import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.models.attention_dispatch import _AttentionBackendRegistry, dispatch_attention_fn
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from evaluator.errors import ConfigError
from evaluator.probes import AttentionProbe, LatentsProbe, attention_recorder
from evaluator.probes.attention_statistics import attention_statistics
from evaluator.probes.layers import Grid
from evaluator.probes.schemas import (
    ATTENTION_SCHEMA,
    ATTENTION_STATISTICS,
    PAIR_STATISTICS,
)
from tests.waiting import PATIENCE, beside

TEXTS = ("a red seven on blue", "a dog", "a blue fox and a dog")


def values(rows):
    """Rows → (rows, 10) float64."""
    return torch.tensor(
        [[row[name] for name in ATTENTION_STATISTICS] for row in rows], dtype=torch.float64
    )


@pytest.fixture(scope="module")
def explicit_maps(shared_pipeline):
    """Layer → step → (rows, heads, N, T): what an explicit softmax gives, by another route."""
    recorded = {}

    class Recording(AttnProcessor):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def __call__(self, attn, *args, **kwargs):
            original = attn.get_attention_scores

            def scores(*tensors):
                found = original(*tensors)
                recorded.setdefault(self.name, []).append(found.unflatten(0, (-1, attn.heads)))
                return found

            vars(attn)["get_attention_scores"] = scores
            try:
                return super().__call__(attn, *args, **kwargs)
            finally:
                del vars(attn)["get_attention_scores"]

    def record(generate):
        recorded.clear()
        before = shared_pipeline.unet.attn_processors
        names = [name for name in before if ".attn2." in name]
        fresh = {n: Recording(n.removesuffix(".processor")) for n in names}
        shared_pipeline.unet.set_attn_processor(before | fresh)
        try:
            generate()
        finally:
            shared_pipeline.unet.set_attn_processor(before)
        return dict(recorded)

    return record


def test_images_are_the_same_bits_during_and_after(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    bare = model.generate(prompts)
    state = torch.random.get_rng_state()
    probes = (AttentionProbe(steps=4, maps=2), LatentsProbe())
    assert torch.equal(tiny.observe(model, prompts, *probes).images, bare)
    assert torch.equal(model.generate(prompts), bare)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_statistics_are_those_of_the_explicit_probabilities(tiny, shared_pipeline, explicit_maps):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    maps = explicit_maps(lambda: model.generate(prompts))
    run = tiny.observe(model, prompts, AttentionProbe(layers="all"))
    assert {row["layer"] for row in run.rows("attention")} == set(maps)
    for layer, steps in maps.items():
        grid = Grid(8, 8) if steps[0].shape[2] == 64 else Grid(4, 4)
        for step in (0, 3, 5):
            conditional = steps[step][len(TEXTS) :].mT
            for sample in range(len(TEXTS)):
                found = run.rows("attention", layer=layer, step=step, sample=sample)
                own = conditional[sample, :, : len(found)]
                wanted = attention_statistics(own, grid).T.double()
                torch.testing.assert_close(values(found), wanted, atol=1e-5, rtol=2e-5)


def test_groups_average_the_layers_of_a_block_and_resolution(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    single = tiny.observe(model, prompts, AttentionProbe(steps=[2], layers="all"))
    grouped = tiny.observe(model, prompts, AttentionProbe(steps=[2]))
    names = {row["layer"] for row in grouped.rows("attention")}
    assert names == {"down-8x8", "down-4x4", "mid-4x4", "up-4x4", "up-8x8"}
    layers = sorted({row["layer"] for row in single.rows("attention")})
    of_group = [layer for layer in layers if layer.startswith("up_blocks.1")]
    assert len(of_group) == 2
    parts = [values(single.rows("attention", layer=layer, sample=2)) for layer in of_group]
    found = values(grouped.rows("attention", layer="up-8x8", sample=2))
    torch.testing.assert_close(found, sum(parts) / 2, atol=1e-6, rtol=1e-5)


def test_layers_of_one_form_are_digested_together_and_told_in_the_order_in_which_they_ran(
    tiny, shared_pipeline, monkeypatch
):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    sizes = []

    def counting(probabilities, *args, **kwargs):
        sizes.append(len(probabilities))
        return attention_statistics(probabilities, *args, **kwargs)

    def observed():
        sizes.clear()
        run = tiny.observe(model, prompts, AttentionProbe(steps=2, pairs=True, maps=1))
        tables = ("attention", "attention_pairs", "heatmaps_layers")
        return [run.tables[name] for name in tables]

    monkeypatch.setattr(attention_recorder, "attention_statistics", counting)
    together = observed()
    assert len(sizes) == 2  # 8x8 and 4x4, of the blocks down, mid and up
    monkeypatch.setattr(attention_recorder, "MAX_PENDING_BYTES", 0)
    one_by_one = observed()
    assert set(sizes) == {1}
    layers = together[0].column("layer").unique().to_pylist()
    assert layers == ["down-8x8", "down-4x4", "mid-4x4", "up-4x4", "up-8x8"]
    for many, single in zip(together, one_by_one, strict=True):
        for name in many.column_names:
            found, expected = many.column(name).to_pylist(), single.column(name).to_pylist()
            if name in (*ATTENTION_STATISTICS, *PAIR_STATISTICS):
                expected = pytest.approx(expected, rel=1e-5, abs=1e-6)
            if name == "map":
                found = np.concatenate(found).tolist()
                expected = pytest.approx(np.concatenate(expected).tolist(), rel=1e-5)
            assert found == expected, name


def test_a_row_of_a_batch_is_that_of_its_prompt_alone(tiny, shared_pipeline):
    model = tiny.model(shared_pipeline)
    prompts = tiny.prompts("a red dog", "a blue dog", "a red fox")
    together = tiny.observe(model, prompts, AttentionProbe(steps=3))
    singles = [tiny.observe(model, [prompt], AttentionProbe(steps=3)) for prompt in prompts]
    alone = [values(single.rows("attention", sample=0)) for single in singles]
    for sample in range(3):
        found = values(together.rows("attention", sample=sample))
        torch.testing.assert_close(found, alone[sample], atol=1e-5, rtol=1e-4)
        assert (found - alone[(sample + 1) % 3]).abs().max() > 1e-3


def test_repeated_prompts_keep_their_order(tiny, shared_pipeline):
    model = tiny.model(shared_pipeline)
    prompts = tiny.prompts("a dog", "a dog", "a fox", "a dog")
    run = tiny.observe(model, prompts, AttentionProbe(steps=[5]))
    for sample, prompt in enumerate(prompts):
        alone = tiny.observe(model, [prompt], AttentionProbe(steps=[5]))
        found = values(run.rows("attention", sample=sample))
        torch.testing.assert_close(found, values(alone.rows("attention")), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, None), (5.0, "a red fox"), (5.0, None)])
def test_only_the_conditional_branch_is_kept(
    tiny, shared_pipeline, explicit_maps, guidance, negative
):
    model = tiny.model(shared_pipeline, guidance=guidance)
    prompts = tiny.prompts(*TEXTS, negative=negative)
    maps = explicit_maps(lambda: model.generate(prompts))
    run = tiny.observe(model, prompts, AttentionProbe(steps=[0], layers="all"))
    layer, steps = next(iter(maps.items()))
    assert len(steps[0]) == (3 if guidance == 1 else 6)
    found = run.rows("attention", layer=layer, sample=1)
    expected = attention_statistics(steps[0][-2].mT[:, : len(found)], Grid(8, 8)).T
    torch.testing.assert_close(values(found), expected.double(), atol=1e-5, rtol=2e-5)
    assert {row["branch"] for row in run.rows("attention")} == {"conditional"}


def test_a_prompt_equal_to_its_negative_gives_one_row_of_nulls(tiny, shared_pipeline):
    model = tiny.model(shared_pipeline)
    run = tiny.observe(model, tiny.prompts("a dog", "", "a fox"), AttentionProbe(steps=2, maps=3))
    (row,) = run.rows("attention", sample=1)
    assert row.pop("note") == "conditional embedding equals the unconditional one"
    assert row.pop("sample") == 1
    assert set(row.values()) == {None}
    assert [row["sample"] for row in run.rows("attention")] == sorted(
        row["sample"] for row in run.rows("attention")
    )
    assert {row["sample"] for row in run.rows("heatmaps")} == {0, 2}
    every = tiny.observe(model, tiny.prompts("", ""), AttentionProbe(steps=2, maps=1))
    assert [row["sample"] for row in every.rows("attention")] == [0, 1]
    assert every.tables["heatmaps"].num_rows == 0


def test_rows_name_tokens_words_steps_and_noise(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    run = tiny.observe(model, prompts, AttentionProbe(steps=[0, 5]))
    assert run.tables["attention"].schema == ATTENTION_SCHEMA
    rows = run.rows("attention", sample=0, step=5, layer="mid-4x4")
    assert [row["token"] for row in rows] == list(range(7))
    assert [row["token_text"] for row in rows] == [
        "<|startoftext|>",
        *TEXTS[0].split(),
        "<|endoftext|>",
    ]
    assert [row["word"] for row in rows] == [-1, 0, 1, 2, 3, 4, -1]
    assert {(row["timestep"], row["num_positions"], row["note"]) for row in rows} == {(1, 16, None)}
    assert rows[0]["log_snr"] == pytest.approx(6.373, abs=1e-3)
    assert {row["step"] for row in run.rows("attention")} == {0, 5}
    assert sum(row["mass"] for row in rows) < 1


@pytest.mark.parametrize("steps", [1, 5])
def test_memory_bounds_do_not_change_the_numbers(tiny, shared_pipeline, monkeypatch, steps):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    whole = tiny.observe(model, prompts, AttentionProbe(steps=steps, maps=1))
    monkeypatch.setattr("evaluator.probes.attention_recorder.MAX_PENDING_BYTES", 0)
    piecewise = tiny.observe(model, prompts, AttentionProbe(steps=steps, maps=1))
    for sample in range(3):
        torch.testing.assert_close(
            values(piecewise.rows("attention", sample=sample)),
            values(whole.rows("attention", sample=sample)),
            atol=1e-6,
            rtol=1e-5,
        )


class Dispatching(AttnProcessor2_0):
    """Attends through diffusers' backend registry, as newer models do."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        query, key, value = (
            layer(source).unflatten(-1, (attn.heads, -1))
            for layer, source in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        return attn.to_out[0](dispatch_attention_fn(query, key, value).flatten(2))


@pytest.mark.parametrize("processor", [AttnProcessor, Dispatching])
def test_other_processors_are_seen_too(tiny, processor):
    pipeline = tiny.stable_diffusion()
    model, prompts = tiny.model(pipeline), tiny.prompts(*TEXTS)
    reference = values(tiny.observe(model, prompts, AttentionProbe(steps=2)).rows("attention"))
    for name, module in pipeline.unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(processor())
    bare = model.generate(prompts)
    run = tiny.observe(model, prompts, AttentionProbe(steps=2))
    assert torch.equal(run.images, bare)
    torch.testing.assert_close(values(run.rows("attention")), reference, atol=1e-4, rtol=1e-3)
    assert not any("get_attention_scores" in vars(m) for m in pipeline.unet.modules())


def test_two_text_encoders_share_their_positions(tiny):
    model, prompts = tiny.model(tiny.stable_diffusion_xl()), tiny.prompts(*TEXTS)
    bare = model.generate(prompts)
    run = tiny.observe(model, prompts, AttentionProbe(steps=3), LatentsProbe(steps=3))
    assert torch.equal(run.images, bare)
    rows = run.rows("attention", sample=1, step=0, layer="mid-4x4")
    assert [row["token_text"] for row in rows][1:3] == ["a", "dog"]
    assert all(row["guidance_norm"] > 0 for row in run.rows("latents"))


def test_runs_that_skip_steps_count_the_steps_they_make(tiny):
    class FromImage(tiny.model):
        def generate(self, prompts):
            generators = [torch.Generator().manual_seed(int(prompt.key)) for prompt in prompts]
            images = torch.full((len(prompts), 3, 16, 16), 0.5)
            return torch.from_numpy(
                self.pipeline([prompt.text for prompt in prompts], image=images, strength=0.5,
                              num_inference_steps=10, generator=generators,
                              output_type="np").images)  # fmt: skip

    pipeline = tiny.stable_diffusion(StableDiffusionImg2ImgPipeline)
    prompts = tiny.prompts("a dog", "a fox")
    run = tiny.observe(FromImage(pipeline), prompts, AttentionProbe(steps=2), LatentsProbe())
    assert [row["step"] for row in run.rows("latents", sample=0)] == list(range(5))
    assert {row["step"] for row in run.rows("attention")} == {0, 4}
    times = {(row["step"], row["timestep"]) for row in run.rows("attention")}
    assert times == {(0, 401), (4, 1)}


def test_half_precision_models_are_observed(tiny):
    exact = tiny.model(tiny.stable_diffusion())
    prompts = tiny.prompts(*TEXTS)
    expected = values(tiny.observe(exact, prompts, AttentionProbe(steps=[0])).rows("attention"))
    halved = tiny.stable_diffusion().to(torch.bfloat16)
    # torch before 2.10 draws other numbers for bfloat16: both models start from float32's noise.
    draw = halved.prepare_latents
    halved.prepare_latents = lambda batch, channels, height, width, dtype, *rest: draw(
        batch, channels, height, width, torch.float32, *rest
    ).to(dtype)
    model = tiny.model(halved)
    bare = model.generate(prompts)
    run = tiny.observe(model, prompts, AttentionProbe(steps=[0]), LatentsProbe())
    assert torch.equal(run.images, bare)
    found = values(run.rows("attention"))
    torch.testing.assert_close(found[:, 0], expected[:, 0], atol=0.02, rtol=0.1)
    assert {row["nonfinite"] for row in run.rows("latents")} == {0}


def test_attention_of_other_threads_is_left_alone(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts(*TEXTS)
    begun, stop = threading.Event(), threading.Event()
    query = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))

    def attend():
        while not stop.is_set():
            F.scaled_dot_product_attention(query, query, query)
            begun.set()

    with beside(attend):
        try:
            assert begun.wait(PATIENCE)
            run = tiny.observe(model, prompts, AttentionProbe(steps=3))
        finally:
            stop.set()
    assert run.tables["attention"].num_rows > 0


def test_everything_is_put_back_after_an_error(tiny):
    pipeline = tiny.stable_diffusion()
    model, prompts = tiny.model(pipeline), tiny.prompts(*TEXTS)
    sdpa, backends = F.scaled_dot_product_attention, _AttentionBackendRegistry._backends
    bare = model.generate(prompts)
    layer = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2

    class Failing(AttnProcessor2_0):
        def __call__(self, *args, **kwargs):
            raise RuntimeError("out of memory")

    before = layer.processor
    layer.set_processor(Failing())
    with pytest.raises(RuntimeError, match="out of memory"):
        tiny.observe(model, prompts, AttentionProbe(), LatentsProbe())
    layer.set_processor(before)
    assert F.scaled_dot_product_attention is sdpa
    assert _AttentionBackendRegistry._backends is backends
    assert "step" not in vars(pipeline.scheduler)
    assert "encode_prompt" not in vars(pipeline)
    for module in pipeline.unet.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "get_attention_scores" not in vars(module)
    assert torch.equal(model.generate(prompts), bare)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="layers: expected"):
        AttentionProbe(layers="some")
    with pytest.raises(ConfigError, match="maps: expected"):
        AttentionProbe(maps=-1)

"""Every family with a text: exact probabilities, the same images, rows where they belong."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import _AttentionBackendRegistry, dispatch_attention_fn
from scipy.special import xlogy

from evaluator.errors import ProbeError
from evaluator.probes import AttentionProbe, LatentsProbe
from evaluator.probes.boundaries import LayerBoundary
from evaluator.probes.daam import daam_maps
from evaluator.probes.schemas import PAIR_STATISTICS
from tests.tiny import FAMILIES, TEXTLESS, call_arguments
from tests.tiny.tokenizers import build_gemma_tokenizer

TEXTS = ("a red seven", "a blue fox and a dog")
STEPS = 3
LAYERS = {
    "sd": r".*attn2", "sdxl": r".*attn2", "pixart-alpha": r".*attn2", "pixart-sigma": r".*attn2",
    "sana": r".*attn2", "sd3": r"transformer_blocks.\d.attn",
    "flux": r"(single_)?transformer_blocks.\d.attn", "qwen-image": r"transformer_blocks.\d.attn",
    "lumina2": r"layers.\d.attn",
}  # fmt: skip
TEXTUAL = sorted(set(FAMILIES) - TEXTLESS)
ONE_PASS = {"sd", "sdxl", "sd3", "pixart-alpha", "pixart-sigma", "sana"}
"""Unconditional and conditional rows in one call, in this order."""
MORE = {"lumina2": {"max_sequence_length": 40}}


class FamilyModel:
    def __init__(self, family, **more):
        self.pipeline = FAMILIES[family]()
        self.pipeline.set_progress_bar_config(disable=True)
        self.family = family
        self.more = MORE.get(family, {}) | more
        # Initial weights give nearly uniform attention; sharper queries tell mistakes apart.
        with torch.no_grad():
            for name, module in denoiser(self.pipeline).named_modules():
                if family.startswith(("pixart", "sana")) and name.endswith("attn2"):
                    module.to_q.weight.mul_(4)

    def generate(self, prompts):
        texts = [prompt.text for prompt in prompts]
        generators = [torch.Generator().manual_seed(int(prompt.key)) for prompt in prompts]
        arguments = call_arguments(self.family, texts) | self.more
        made = self.pipeline(
            **arguments, num_inference_steps=STEPS, output_type="np", generator=generators
        )
        return torch.from_numpy(made.images)


def denoiser(pipeline):
    return getattr(pipeline, "unet", None) or pipeline.transformer


@pytest.fixture(scope="module")
def models():
    built = {}

    def model(family):
        return built.setdefault(family, FamilyModel(family))

    return model


def kernel_probabilities(model, prompts):
    """Layer → call → (rows, heads, N, T) float64: what the very kernel of a bare run attends to.

    With the identity for values, the output of attention is its probabilities.
    """
    original = F.scaled_dot_product_attention
    running, found = [], {}

    def leave(*_):
        running.pop()

    def recording(query, key, value, attn_mask=None, *args, **options):
        if running:
            eye = torch.eye(key.shape[2]).expand(*key.shape[:2], -1, -1)
            seen = original(query, key, eye, attn_mask, **options)
            found.setdefault(running[-1], []).append(seen.double())
        return original(query, key, value, attn_mask, *args, **options)

    handles = []
    for name, module in denoiser(model.pipeline).named_modules():
        if re.fullmatch(LAYERS[model.family], name):
            handles.append(
                module.register_forward_pre_hook(lambda *_, name=name: running.append(name))
            )
            handles.append(module.register_forward_hook(leave))
    F.scaled_dot_product_attention = recording
    try:
        model.generate(prompts)
    finally:
        F.scaled_dot_product_attention = original
        for handle in handles:
            handle.remove()
    return found


def conditional_map(family, seen, sample, tokens, num_image):
    """(heads, N, T) of the image's look at the tokens of one sample, cut from a whole map."""
    whole = seen[len(TEXTS) + sample if family in ONE_PASS else sample]
    length = whole.shape[-1] - num_image
    if family == "sd3":
        return whole[:, :num_image, num_image:][..., tokens]
    if family == "lumina2":  # each row's text is as long as its own tokens
        return whole[:, len(tokens) : len(tokens) + num_image][..., tokens]
    if family in {"flux", "qwen-image"}:
        return whole[:, length:][..., tokens]
    return whole[..., tokens]


def expected_statistics(maps):
    """(heads, N, T) → name → (T,), by the formulas, in float64 numpy."""
    maps = maps.numpy()
    heads, num, _ = maps.shape
    mean = maps.mean(0)
    density = mean / mean.sum(0)
    own = maps / maps.sum(1, keepdims=True)
    nats = lambda p: -xlogy(p, p).sum(-2)  # noqa: E731
    text = maps.sum(-1, keepdims=True)
    return {
        "mass": mean.mean(0),
        "peak": mean.max(0),
        "top10_share": np.sort(density, 0)[-int(np.ceil(num / 10)) :].sum(0),
        "entropy": nats(density) / np.log(num),
        "head_diversity": (nats(own.mean(0)) - nats(own).mean(0)) / np.log(heads),
        "text_mass": np.full(maps.shape[-1], text.mean()),
        "text_share": (maps / text).mean((0, 1)),
    }


@pytest.mark.parametrize("family", TEXTUAL)
def test_statistics_are_those_of_the_kernels_own_probabilities(tiny, models, family):
    model, prompts = models(family), tiny.prompts(*TEXTS)
    bare = kernel_probabilities(model, prompts)
    run = tiny.observe(model, prompts, AttentionProbe(layers="all"))
    layers = {row["name"]: row for row in run.rows("attention_layers")}
    assert set(layers) == set(bare)
    assert {row["group"].split("-")[0] for row in layers.values()} <= {
        *("down", "mid", "up", "cross", "joint", "single")
    }
    passes = len(next(iter(bare.values()))) // STEPS
    assert passes == (2 if family in {"lumina2", "qwen-image"} else 1)
    for name, layer in layers.items():
        num_image = layer["height"] * layer["width"]
        for sample in range(len(TEXTS)):
            tokens = [row["token"] for row in run.rows("attention_tokens", sample=sample)]
            for step in (0, STEPS - 1):
                seen = bare[name][passes * step]
                maps = conditional_map(family, seen, sample, tokens, num_image)
                rows = run.rows("attention", layer=name, step=step, sample=sample)
                assert [row["token"] for row in rows] == tokens
                for statistic, expected in expected_statistics(maps).items():
                    found = [row[statistic] for row in rows]
                    assert found == pytest.approx(list(expected), rel=1e-4, abs=2e-5), statistic


@pytest.mark.parametrize("family", TEXTUAL)
def test_images_are_the_same_bits_and_nothing_stays_behind(tiny, models, family):
    model, prompts = models(family), tiny.prompts(*TEXTS)
    sdpa, backends = F.scaled_dot_product_attention, _AttentionBackendRegistry._backends
    bare = model.generate(prompts)
    probes = (AttentionProbe(steps=2, maps=1, pairs=True), LatentsProbe(steps=2))
    assert tiny.observe(model, prompts, *probes).images.numpy().tobytes() == bare.numpy().tobytes()
    assert torch.equal(model.generate(prompts), bare)
    assert F.scaled_dot_product_attention is sdpa
    assert _AttentionBackendRegistry._backends is backends
    for module in denoiser(model.pipeline).modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "get_attention_scores" not in vars(module)


WORDS = {
    family: [*TEXTS[0].split(), *TEXTS[0].split()] if family == "sd3" else TEXTS[0].split()
    for family in TEXTUAL
}


@pytest.mark.parametrize("family", TEXTUAL)
def test_tokens_know_their_word_characters_and_encoder(tiny, models, family):
    run = tiny.observe(models(family), tiny.prompts(*TEXTS), AttentionProbe(steps=1))
    rows = run.rows("attention_tokens", sample=0)
    words = [row for row in rows if row["word"] >= 0]
    assert [row["piece"] for row in words] == [row["word_text"] for row in words] == WORDS[family]
    assert [TEXTS[0][row["start"] : row["end"]] for row in words] == WORDS[family]
    encoders = {row["encoder"] for row in rows}
    shared = "text_encoder+text_encoder_2"
    assert encoders == {
        "sd3": {shared, "text_encoder_3"}, "sdxl": {shared}, "flux": {"text_encoder_2"}
    }.get(family, {"text_encoder"})  # fmt: skip
    positions = [row["token"] for row in rows]
    assert positions == sorted(set(positions))
    if family == "sd3":  # T5 follows the twelve positions of CLIP
        assert min(r["token"] for r in rows if r["encoder"] == "text_encoder_3") == 12


@pytest.mark.parametrize("family", ["sd3", "pixart-sigma", "sana", "qwen-image", "sd"])
def test_a_prompt_equal_to_its_negative_gives_a_null_row(tiny, models, family):
    same = " " if family == "qwen-image" else ""
    run = tiny.observe(models(family), tiny.prompts("a dog", same), AttentionProbe(steps=2, maps=2))
    (row,) = run.rows("attention", sample=1)
    assert row["note"] == "conditional embedding equals the unconditional one"
    assert row["mass"] is None
    assert {row["sample"] for row in run.rows("heatmaps")} == {0}


@pytest.mark.parametrize("family", ["flux", "lumina2", "qwen-image", "sana"])
def test_a_row_of_a_batch_is_that_of_its_prompt_alone(tiny, models, family):
    model, prompts = models(family), tiny.prompts(*TEXTS)
    together = tiny.observe(model, prompts, AttentionProbe(steps=2))
    for sample, prompt in enumerate(prompts):
        alone = tiny.observe(model, [prompt], AttentionProbe(steps=2)).rows("attention")
        rows = together.rows("attention", sample=sample)
        for name in ("mass", "entropy", "text_mass"):
            expected = [row[name] for row in alone]
            assert [row[name] for row in rows] == pytest.approx(expected, rel=2e-4)


def test_the_instruction_before_a_prompt_belongs_to_no_word(tiny):
    instruction = ["draw as told", "on blue:"]
    model = FamilyModel("sana", complex_human_instruction=instruction, max_sequence_length=12)
    run = tiny.observe(model, tiny.prompts("a red dog", "seven"), AttentionProbe(steps=1))
    rows = run.rows("attention_tokens", sample=0)
    length = len(build_gemma_tokenizer().encode("\n".join(instruction))) + 12 - 2
    ids = build_gemma_tokenizer()("\n".join(instruction) + "a red dog").input_ids[:length]
    kept = [ids[0], *ids[length - 11 :]]
    assert [row["id"] for row in rows] == kept
    assert [row["word_text"] for row in rows if row["word"] >= 0][-2:] == ["red", "dog"]


def test_a_joint_layer_that_attends_unseen_is_an_error(tiny):
    model = FamilyModel("flux")

    class Unseen:
        _attention_backend = _parallel_config = None

        def __call__(self, attn, hidden_states, *args, **kwargs):
            query, key, value = (f(hidden_states) for f in (attn.to_q, attn.to_k, attn.to_v))
            return (query @ key.mT).softmax(-1) @ value

    model.pipeline.transformer.single_transformer_blocks[1].attn.set_processor(Unseen())
    with pytest.raises(ProbeError, match=r"1 ran unseen .*single_transformer_blocks\.1"):
        tiny.observe(model, tiny.prompts("a dog"), AttentionProbe(steps=1))


def test_a_layer_that_does_not_run_is_an_error(tiny):
    model = FamilyModel("pixart-sigma")
    block = model.pipeline.transformer.transformer_blocks[1]
    block.forward = lambda hidden_states, *args, **kwargs: hidden_states
    with pytest.raises(ProbeError, match=r"transformer_blocks\.1\.attn2 did not"):
        tiny.observe(model, tiny.prompts("a dog"), AttentionProbe(steps=1))


def test_texts_that_the_encoder_read_otherwise_are_refused(tiny):
    model = FamilyModel("qwen-image")
    before = model.pipeline.prompt_template_encode
    original = model.pipeline._get_qwen_prompt_embeds

    def other(prompt, *args, **kwargs):
        return original([f"{text} indeed" for text in prompt], *args, **kwargs)

    model.pipeline._get_qwen_prompt_embeds = other
    with pytest.raises(ProbeError, match="tokens that text_encoder read"):
        tiny.observe(model, tiny.prompts("a dog"), AttentionProbe(steps=1))
    assert model.pipeline.prompt_template_encode == before


def test_settings_that_hide_layers_are_refused_by_name(tiny):
    from diffusers import FirstBlockCacheConfig

    model = FamilyModel("flux")
    model.pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    with pytest.raises(ProbeError, match="enable_cache"):
        tiny.observe(model, tiny.prompts("a dog"), AttentionProbe(steps=1))
    model = FamilyModel("sd3")
    model.pipeline.transformer = torch.compile(model.pipeline.transformer, backend="eager")
    with pytest.raises(ProbeError, match=r"torch\.compile"):
        tiny.observe(model, tiny.prompts("a dog"), AttentionProbe(steps=1))


@pytest.mark.parametrize("family", sorted(TEXTLESS))
def test_families_without_text_are_refused_by_name(tiny, family):
    model = tiny.model(FAMILIES[family]())
    refusal = pytest.raises(ProbeError, match="text-to-image pipeline with one of .*got D")
    with refusal, AttentionProbe().attach(model, [], []):
        pass


@pytest.mark.parametrize("family", ["sd3", "sd", "pixart-sigma"])
def test_slicing_and_guidance_processors_are_refused_by_name(tiny, family):
    from diffusers.models import attention_processor

    model = FamilyModel(family)
    layer = dict(denoiser(model.pipeline).named_modules())[
        {"sd3": "transformer_blocks.0.attn", "pixart-sigma": "transformer_blocks.0.attn2"}.get(
            family, "mid_block.attentions.0.transformer_blocks.0.attn2"
        )
    ]
    for processor, named in (
        (attention_processor.SlicedAttnProcessor(1), "disable_attention_slicing"),
        (attention_processor.PAGCFGIdentitySelfAttnProcessor2_0(), "perturbed-attention"),
    ):
        layer.set_processor(processor)
        with pytest.raises(ProbeError, match=named):
            tiny.observe(model, tiny.prompts("a dog"), AttentionProbe(steps=1))


def test_fused_projections_are_seen_too(tiny):
    model, prompts = FamilyModel("flux"), tiny.prompts(*TEXTS)
    apart = tiny.observe(model, prompts, AttentionProbe(steps=1)).rows("attention")
    model.pipeline.transformer.fuse_qkv_projections()
    bare = model.generate(prompts)
    run = tiny.observe(model, prompts, AttentionProbe(steps=1))
    assert torch.equal(run.images, bare)
    expected = [row["mass"] for row in apart]
    assert [row["mass"] for row in run.rows("attention")] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("backend", ["native", "_native_math", "flex"])
def test_the_attention_backend_does_not_matter(tiny, backend):
    model, prompts = FamilyModel("flux"), tiny.prompts(*TEXTS)
    expected = tiny.observe(model, prompts, AttentionProbe(steps=1)).rows("attention")
    model.pipeline.transformer.set_attention_backend(backend)
    try:
        bare = model.generate(prompts)
        run = tiny.observe(model, prompts, AttentionProbe(steps=1))
    finally:
        _AttentionBackendRegistry.set_active_backend("native")
    assert torch.equal(run.images, bare)
    for name in ("mass", "entropy", "head_diversity"):
        found = [row[name] for row in run.rows("attention")]
        assert found == pytest.approx([row[name] for row in expected], rel=1e-3, abs=1e-5)


def test_pairs_are_those_of_the_kernels_own_maps(tiny, models):
    from scipy.spatial.distance import cosine, jensenshannon

    model, prompts = models("sd3"), tiny.prompts(*TEXTS)
    bare = kernel_probabilities(model, prompts)
    run = tiny.observe(model, prompts, AttentionProbe(layers="all", pairs=True))
    rows = run.rows("attention_pairs", sample=1, step=1)
    assert len(rows) == 2 * 2 * 15  # layers, encoders, pairs of six words
    for row in rows:
        maps = conditional_map("sd3", bare[row["layer"]][1], 1, [row["token"], row["other"]], 16)
        one, other = maps.mean(0).numpy().T
        one, other = one / one.sum(), other / other.sum()
        expected = (
            np.minimum(one, other).sum() / np.maximum(one, other).sum(),
            1 - cosine(one, other),
            jensenshannon(one, other, base=2) ** 2,
        )
        assert [row[n] for n in PAIR_STATISTICS] == pytest.approx(expected, rel=1e-3, abs=2e-6)


def enlarged(image, size):
    """Bicubic by Keys's kernel with a = −0.75, edges repeated, in plain numpy."""

    def kernel(x):
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    def matrix(before, after):
        weights = np.zeros((after, before))
        for row in range(after):
            at = (row + 0.5) * before / after - 0.5
            for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
                weights[row, min(max(tap, 0), before - 1)] += kernel(at - tap)
        return weights

    return matrix(image.shape[0], size) @ image @ matrix(image.shape[1], size).T


@pytest.mark.parametrize("layers", ["groups", "all"])
def test_word_maps_are_daams_sum_over_heads_layers_and_steps(tiny, models, layers):
    """From every head's own probabilities; the package itself is in tests/parity."""
    model, prompts = models("sd"), tiny.prompts("a red zebra", "a dog")
    bare = kernel_probabilities(model, prompts)
    run = tiny.observe(model, prompts, AttentionProbe(layers=layers, maps=1))
    found = daam_maps(run.tables["heatmaps_layers"], size=(16, 16))
    words = {0: [1], 1: [2], 2: [3, 4, 5, 6, 7]}
    assert {m.word: m.text for m in found} == {0: "a", 1: "red", 2: "zebra"}
    for word_map in found:
        total, count = np.zeros((16, 16)), 0
        for calls in bare.values():
            for seen in calls:
                heads, num_image, _ = seen[2].shape
                side = int(num_image**0.5)
                for head in range(heads):
                    own = [seen[2, head, :, token].numpy() for token in words[word_map.word]]
                    total += np.mean([enlarged(m.reshape(side, side), 16) for m in own], axis=0)
                    count += 1
        np.testing.assert_allclose(word_map.values, total / count, atol=1e-6)


def test_heat_maps_cut_off_each_head_after_its_sum_over_steps(tiny, models):
    """By brute force, from every head's own probabilities: 8x8 and 4x4, the middle left out."""
    model, prompts = models("sd"), tiny.prompts("a red zebra", "a dog")
    bare = kernel_probabilities(model, prompts)
    run = tiny.observe(model, prompts, AttentionProbe(maps=1))
    heads = []
    for name, calls in bare.items():
        if not name.startswith("mid"):
            side = int(calls[0].shape[2] ** 0.5)
            over_steps = sum(seen[2].double() for seen in calls)  # (heads, N, T)
            heads += [head.T.reshape(-1, side, side).numpy() for head in over_steps]
    for row in run.rows("heatmaps", step=-1):
        of_heads = [enlarged(head[row["token"]], 8) for head in heads]
        assert min(float(one.min()) for one in of_heads) < 0
        expected = np.mean([one.clip(min=0) for one in of_heads], axis=0)
        np.testing.assert_allclose(np.reshape(row["map"], (8, 8)), expected, atol=1e-5)


def test_word_maps_of_one_step_and_layer_are_those_rows_alone(tiny, models):
    run = tiny.observe(models("flux"), tiny.prompts(*TEXTS), AttentionProbe(maps=2))
    table = run.tables["heatmaps_layers"]
    (row, *_) = run.rows("heatmaps_layers", sample=1, step=2, word=1, layer="single-early-4x4")
    found = daam_maps(table, size=(4, 4), steps=[2], layers=["single-early-4x4"])
    (one,) = [m for m in found if m.identity == (1,) and m.word == 1]
    np.testing.assert_allclose(one.values.ravel(), row["map"], rtol=1e-6)
    with pytest.raises(ProbeError, match="the table has none"):
        daam_maps(table, size=(4, 4), steps=[99])


def test_layers_that_attend_to_the_text_alone_are_observed_twice_a_block(tiny):
    pipeline = tiny.stable_diffusion()
    torch.manual_seed(0)
    config = pipeline.unet.config
    pipeline.unet = type(pipeline.unet).from_config(config, only_cross_attention=True).eval()
    attending = {
        name
        for name, module in pipeline.unet.named_modules()
        if getattr(module, "is_cross_attention", False)
    }
    assert any(name.endswith("attn1") for name in attending)
    model, prompts = tiny.model(pipeline, steps=2), tiny.prompts(*TEXTS)
    bare = model.generate(prompts)
    run = tiny.observe(model, prompts, AttentionProbe(steps=1, layers="all"))
    assert torch.equal(run.images, bare)
    assert {row["name"] for row in run.rows("attention_layers")} == attending
    assert {row["layer"] for row in run.rows("attention")} == attending


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_a_mask_of_keys_is_read_as_the_backend_reads_it(backend):
    """(B, T), with as many samples as positions, could be taken for one of positions."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 3, 3, 2, 4, generator=generator).unbind(0)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    heard = []
    boundary = LayerBoundary(torch.nn.Module(), heard.append)
    boundary.open()
    try:
        output = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=backend)
    finally:
        boundary.close()
    (call,) = heard
    logits = (call.query @ call.key.mT * call.scale).masked_fill(~call.mask, -torch.inf)
    torch.testing.assert_close(logits.softmax(-1) @ value.transpose(1, 2), output.transpose(1, 2))

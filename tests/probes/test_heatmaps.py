import numpy as np
import pyarrow.compute as pc
import pytest
import torch
import torch.nn.functional as F

from evaluator.errors import ConfigError, ProbeError
from evaluator.probes import AttentionProbe
from evaluator.probes.daam import MapLayers, map_layers, word_map
from evaluator.probes.heatmaps import ALL_STEPS, HeatmapSums, heatmap_table
from evaluator.probes.layers import AttentionLayer, Grid
from evaluator.probes.schemas import HEATMAP_SCHEMA

LAYERS = MapLayers(Grid(8, 8), {"fine": Grid(8, 8), "coarse": Grid(4, 4), "other": Grid(4, 4)})


def clipped(maps):
    """(heads, T, 16) → (heads, T, 8, 8): each head enlarged and cut off by itself."""
    large = F.interpolate(maps.unflatten(-1, (4, 4)), (8, 8), mode="bicubic", align_corners=False)
    return large.clamp(min=0)


def random_maps():
    """Fine and coarse layers on two steps, three rows, four heads, five tokens; sharp peaks."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(2, 3, 4, 5, 64, generator=generator) ** 8
    return fine, torch.rand(4, 3, 4, 5, 16, generator=generator) ** 8


def test_a_map_sums_steps_before_each_head_is_cut_off_and_then_averages_heads_and_layers():
    fine, coarse = random_maps()
    sums = HeatmapSums([2, 0], 2, LAYERS)
    sums.add(fine, Grid(8, 8), [0, 1], layers=["fine", "fine"])
    names = ["coarse", "coarse", "other", "mid"]
    sums.add(coarse, Grid(4, 4), [0, 1, 1, 0], layers=names)
    found = sums.maps()
    assert found.shape == (3, 2, 5, 8, 8)
    for place, row in enumerate([2, 0]):
        own = fine[:, row].unflatten(-1, (8, 8)), coarse[:, row]
        first = torch.cat([own[0][0], clipped(own[1][0])])
        second = torch.cat([own[0][1], clipped(own[1][1]), clipped(own[1][2])])
        both = torch.cat([own[0].sum(0), clipped(own[1][:2].sum(0)), clipped(own[1][2])])
        for at, expected in enumerate([first, second, both]):
            torch.testing.assert_close(found[at, place], expected.mean(dim=0))


def test_cutting_off_heads_by_themselves_is_not_cutting_off_their_sum():
    _, coarse = random_maps()
    assert clipped(coarse[0, 0]).sum(0).sub(clipped(coarse[0, 0].sum(0)[None])[0]).max() > 0.01


def test_maps_of_some_heads_leave_the_others_out():
    fine, coarse = random_maps()
    some, all_ = HeatmapSums([1], 2, LAYERS, heads=[3]), HeatmapSums([1], 2, LAYERS)
    for sums, heads in ((some, slice(None)), (all_, slice(3, 4))):
        sums.add(fine[:, :, heads], Grid(8, 8), [0, 1], layers=["fine", "fine"])
        sums.add(coarse[:2, :, heads], Grid(4, 4), [0, 1], layers=["coarse", "coarse"])
    torch.testing.assert_close(some.maps(), all_.maps())
    beyond = HeatmapSums([1], 2, LAYERS, heads=[0, 4])
    with pytest.raises(ProbeError, match=r"below 4, the heads of fine; got 4"):
        beyond.add(fine, Grid(8, 8), [0, 1], layers=["fine", "fine"])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([(5, 8, 64), (5, 8, 32), (5, 8, 16)], 221_184),  # Stable Diffusion 1.5, 512 pixels
        ([(10, 10, 64), (50, 20, 32)], 4_112_384),  # SDXL, 1,024 pixels
        ([(57, 24, 64)], 16_384),  # Flux, 1,024 pixels
    ],
)
@pytest.mark.parametrize("num_steps", [1, 3])
def test_bytes_of_all_steps_together_are_bounded_however_many_they_are(layers, expected, num_steps):
    """For one token of one sample, as the docstring says."""
    names = [f"{side}.{i}" for count, _, side in layers for i in range(count)]
    grids = {name: Grid(*[int(name.split(".")[0])] * 2) for name in names}
    sums = HeatmapSums([0], num_steps, MapLayers(Grid(64, 64), grids))
    for step in range(num_steps):
        for count, heads, side in layers:
            maps = torch.ones(1, 1, heads, 1, side * side)
            for i in range(count):
                sums.add(maps, Grid(side, side), [step], layers=[f"{side}.{i}"])
    kept = [sums._at_size, *(one.sums for one in sums._apart.values())]
    assert sum(tensor.nbytes for tensor in kept) == expected
    torch.testing.assert_close(sums.maps()[-1], torch.full((1, 1, 64, 64), float(num_steps)))


def test_enlarging_little_by_little_gives_the_same(monkeypatch):
    _, coarse = random_maps()
    found = []
    for limit in (2**26, 1):
        monkeypatch.setattr("evaluator.probes.heatmaps.MAX_ENLARGED_BYTES", limit)
        sums = HeatmapSums([0, 1], 2, LAYERS)
        names = ["coarse", "mid", "other", "coarse"]
        sums.add(coarse, Grid(4, 4), [0, 0, 1, 1], layers=names)
        found.append(sums.maps())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)


class UNet2DConditionModel:
    """What DAAM's choice depends on: four blocks, made for images of eight times `sample_size`."""

    class config:  # noqa: N801
        block_out_channels = (1, 2, 3, 4)
        sample_size = 64


BLOCKS = ("down_blocks.0", "down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.3")


@pytest.mark.parametrize(
    ("sample_size", "image", "size", "left_out"),
    [
        (64, Grid(64, 64), Grid(64, 64), set()),
        (128, Grid(128, 128), Grid(64, 64), set()),
        (96, Grid(96, 96), Grid(96, 96), set()),
        (64, Grid(96, 96), Grid(64, 64), set()),
        (64, Grid(32, 32), Grid(64, 64), {"down_blocks.2", "up_blocks.1"}),
        (8, Grid(8, 8), Grid(8, 8), set()),
        (64, Grid(64, 96), Grid(64, 96), set()),
    ],
)
def test_the_middle_and_layers_an_eighth_as_fine_do_not_count(
    monkeypatch, sample_size, image, size, left_out
):
    monkeypatch.setattr(UNet2DConditionModel.config, "sample_size", sample_size)
    layers = [AttentionLayer(f"{b}.attn2", "cross", b.split("_")[0], None) for b in BLOCKS]
    chosen = map_layers(layers, UNet2DConditionModel(), image)
    assert chosen.size == size
    expected = set(BLOCKS) - {"mid_block"} - left_out
    assert set(chosen.grids) == {f"{block}.attn2" for block in expected}
    assert chosen.grids["down_blocks.0.attn2"] == image


def test_maps_are_kept_for_the_first_samples_of_the_plan(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts("a red dog", "a fox", "a fox")
    probe = AttentionProbe(steps=[0, 5], maps=11)
    with probe.attach(model, prompts, [9, 10, 11]) as observation:
        model.generate(prompts)
    table = observation.tables()["heatmaps"]
    assert table.schema == HEATMAP_SCHEMA
    rows = table.to_pylist()
    assert {row["sample"] for row in rows} == {0, 1}
    told = [(row["step"], row["num_steps"], row["word"], row["token_text"]) for row in rows[:6]]
    assert told == [
        (ALL_STEPS, 2, -1, "<|startoftext|>"),
        (ALL_STEPS, 2, 0, "a"),
        (ALL_STEPS, 2, 1, "red"),
        (ALL_STEPS, 2, 2, "dog"),
        (ALL_STEPS, 2, -1, "<|endoftext|>"),
        (0, 1, -1, "<|startoftext|>"),
    ]
    assert {row["step"] for row in rows} == {ALL_STEPS, 0, 5}
    assert {(row["height"], row["width"], len(row["map"])) for row in rows} == {(8, 8, 64)}


def test_the_mean_of_a_map_is_the_mass_of_its_token(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts("a red dog", "a blue fox")
    probe = AttentionProbe(steps=[3], layers="all", maps=2, map_layers=["*-8x8"])
    run = tiny.observe(model, prompts, probe)
    for row in run.rows("heatmaps", step=3):
        layers = run.rows("attention", sample=row["sample"], token=row["token"])
        mass = [layer["mass"] for layer in layers if layer["num_positions"] == 64]
        assert sum(row["map"]) / 64 == pytest.approx(sum(mass) / len(mass), rel=1e-4)


def test_layers_are_chosen_by_name_or_group(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts("a dog")
    by_group, by_name, everything = (
        tiny.observe(model, prompts, AttentionProbe(steps=[0], maps=1, map_layers=patterns))
        for patterns in (["up-4x4", "up-8x8"], ["up_blocks.*"], None)
    )
    assert by_group.tables["heatmaps"] == by_name.tables["heatmaps"]
    assert by_group.tables["heatmaps"] != everything.tables["heatmaps"]
    with pytest.raises(ProbeError, match=r"got mid-4x4, which fit none\. The groups are down-8x8"):
        tiny.observe(model, prompts, AttentionProbe(maps=1, map_layers=["mid-4x4"]))
    with pytest.raises(ConfigError, match="map_layers: expected a list of patterns; got 'up'"):
        AttentionProbe(map_layers="up")
    with pytest.raises(ConfigError, match="map_heads: expected numbers from 0 on; got"):
        AttentionProbe(map_heads=[-1])
    AttentionProbe(map_heads=[3]).check(model)
    with pytest.raises(ConfigError, match=r"map_heads: expected numbers below 4, .*; got 4\."):
        AttentionProbe(map_heads=[0, 4]).check(model)


def test_heads_are_those_of_the_layers_that_count(tiny):
    """The UNet of SDXL has more heads in its deeper blocks."""
    from diffusers import UNet2DConditionModel

    pipeline = tiny.stable_diffusion()
    config = {**pipeline.unet.config, "attention_head_dim": (2, 4)}
    torch.manual_seed(0)
    pipeline.unet = UNet2DConditionModel.from_config(config).eval()
    model, prompts = tiny.model(pipeline), tiny.prompts("a dog")
    chosen = {"steps": [0], "maps": 1, "map_heads": [3]}
    with pytest.raises(ProbeError, match=r"expected numbers below 2, the heads of down_blocks\.0"):
        tiny.observe(model, prompts, AttentionProbe(**chosen))
    deeper = AttentionProbe(**chosen, map_layers=["down_blocks.1.*", "up_blocks.0.*"])
    deeper.check(model)
    assert tiny.observe(model, prompts, deeper).tables["heatmaps"].num_rows


def test_a_word_is_the_mean_over_its_tokens_wherever_it_stands(tiny, shared_pipeline):
    model = tiny.model(shared_pipeline)
    run = tiny.observe(model, tiny.prompts("a zebra on a dog", "a fox"), AttentionProbe(maps=2))
    table = run.tables["heatmaps"]
    rows = run.rows("heatmaps", sample=0, step=ALL_STEPS)
    maps = np.array([row["map"] for row in rows], np.float64).reshape(-1, 8, 8)
    own = table.filter(pc.and_(pc.equal(table["sample"], 0), pc.equal(table["step"], ALL_STEPS)))
    # The last piece of "zebra" spells "a", too: so the package `daam` has it.
    places = {"a": [1, 6, 8], "zebra": [2, 3, 4, 5, 6], "ON A": [7, 8], "dog": [9]}
    assert [row["word"] for row in rows] == [-1, 0, 1, 1, 1, 1, 1, 2, 3, 4, -1]
    for word, tokens in places.items():
        np.testing.assert_allclose(word_map(own, word), maps[tokens].mean(0))
        share = maps[1:-1] / (maps[1:-1].sum(0) + 1e-6)
        expected = share[np.array(tokens) - 1].mean(0)
        np.testing.assert_allclose(word_map(own, word, normalize=True), expected)
    with pytest.raises(ProbeError, match=r"Expected a word of the prompt \(a z.* got 'cat'"):
        word_map(own, "cat")
    with pytest.raises(ProbeError, match=r"one sample at one step .* those of 14"):
        word_map(table, "a")


def test_maps_of_wide_images_are_wide(tiny, shared_pipeline):
    class Wide(tiny.model):
        def generate(self, prompts):
            return self.pipeline([prompt.text for prompt in prompts], height=16, width=24,
                                 num_inference_steps=2, output_type="np").images  # fmt: skip

    run = tiny.observe(Wide(shared_pipeline), tiny.prompts("a dog"), AttentionProbe(maps=1))
    assert {(row["height"], row["width"]) for row in run.rows("heatmaps")} == {(8, 12)}
    assert {row["layer"] for row in run.rows("attention")} >= {"down-8x12", "mid-4x6"}


def test_without_mapped_samples_the_table_is_empty():
    table = heatmap_table(None, rows=[], samples=[0], prompts=[], steps=[0])
    assert table.schema == HEATMAP_SCHEMA
    assert table.num_rows == 0

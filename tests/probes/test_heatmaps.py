import pytest
import torch
import torch.nn.functional as F

from evaluator.probes import AttentionProbe
from evaluator.probes.heatmaps import ALL_STEPS, HeatmapSums, heatmap_table
from evaluator.probes.layers import Grid
from evaluator.probes.schemas import HEATMAP_SCHEMA


def test_a_map_is_the_mean_over_heads_layers_and_steps_at_the_finest_resolution():
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(2, 3, 4, 5, 64, generator=generator)
    coarse = torch.rand(2, 3, 2, 5, 16, generator=generator)
    sums = HeatmapSums([2, 0], 2)
    sums.add(fine, Grid(8, 8), [0, 1])
    sums.add(coarse, Grid(4, 4), [0, 1])
    sums.add(coarse[1:], Grid(4, 4), [1])
    large = F.interpolate(
        coarse.mean(2).reshape(-1, 5, 4, 4), (8, 8), mode="bilinear", align_corners=False
    ).view(2, 3, 5, 8, 8)
    small = fine.mean(2).view(2, 3, 5, 8, 8)
    found = sums.means()
    assert found.shape == (3, 2, 5, 8, 8)
    torch.testing.assert_close(found[0], ((small[0] + large[0]) / 2)[[2, 0]])
    torch.testing.assert_close(found[1], ((small[1] + 2 * large[1]) / 3)[[2, 0]])
    torch.testing.assert_close(found[2], (2 * found[0] + 3 * found[1]) / 5)


def test_maps_are_kept_for_the_first_samples_of_the_plan(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts("a red dog", "a fox", "a fox")
    probe = AttentionProbe(steps=[0, 5], maps=11)
    with probe.attach(model, prompts, [9, 10, 11]) as observation:
        model.generate(prompts)
    table = observation.tables()["heatmaps"]
    assert table.schema == HEATMAP_SCHEMA
    rows = table.to_pylist()
    assert {row["sample"] for row in rows} == {0, 1}
    assert [(row["step"], row["word"], row["token_text"]) for row in rows[:4]] == [
        (ALL_STEPS, 0, "a"),
        (ALL_STEPS, 1, "red"),
        (ALL_STEPS, 2, "dog"),
        (0, 0, "a"),
    ]
    assert {row["step"] for row in rows} == {ALL_STEPS, 0, 5}
    assert {(row["height"], row["width"], len(row["map"])) for row in rows} == {(8, 8, 64)}


def test_the_mean_of_a_map_is_the_mass_of_its_token(tiny, shared_pipeline):
    model, prompts = tiny.model(shared_pipeline), tiny.prompts("a red dog", "a blue fox")
    run = tiny.observe(model, prompts, AttentionProbe(steps=[3], layers="all", maps=2))
    for row in run.rows("heatmaps", step=3):
        layers = run.rows("attention", sample=row["sample"], token=row["token"])
        expected = sum(layer["mass"] for layer in layers) / len(layers)
        assert sum(row["map"]) / 64 == pytest.approx(expected, rel=1e-4)


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

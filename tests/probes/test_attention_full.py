"""Every step and layer of chosen samples, beside the compact table of all."""

import numpy as np
import pytest
import torch

from evaluator.errors import ConfigError
from evaluator.probes import AttentionProbe, LatentsProbe
from evaluator.probes.samples import SampleChoice
from evaluator.probes.schemas import ATTENTION_SCHEMA, ATTENTION_STATISTICS
from tests.tiny import FAMILIES, call_arguments

TEXTS = ("a red seven", "a blue fox and a dog", "a dog", "a fox on red")
STEPS = 5
FAMILY = ["sd", "sd3", "flux", "lumina2"]
"""Cross-attention, and the three orders of joint attention; Lumina 2 calls each branch by itself,
and its rows' texts have lengths of their own."""


class FamilyModel:
    def __init__(self, family):
        self.pipeline = FAMILIES[family]()
        self.pipeline.set_progress_bar_config(disable=True)
        self.family = family

    def generate(self, prompts):
        generators = [torch.Generator().manual_seed(int(prompt.key)) for prompt in prompts]
        made = self.pipeline(
            **call_arguments(self.family, [prompt.text for prompt in prompts]),
            num_inference_steps=STEPS, output_type="np", generator=generators,
        )  # fmt: skip
        return torch.from_numpy(made.images)


@pytest.fixture(scope="module")
def models():
    built = {}
    return lambda family: built.setdefault(family, FamilyModel(family))


def numbers(table):
    return {name: table.column(name).to_numpy() for name in ATTENTION_STATISTICS}


def names(table):
    """The columns that say which row it is."""
    kept = [name for name in table.column_names if name not in ATTENTION_STATISTICS]
    return table.select(kept).to_pylist()


def of_samples(table, samples):
    return table.filter(np.isin(table.column("sample").to_numpy(), samples))


@pytest.mark.parametrize("family", FAMILY)
def test_the_full_table_is_that_of_every_step_and_layer(tiny, models, family):
    model, prompts = models(family), tiny.prompts(*TEXTS)
    whole = tiny.observe(model, prompts, AttentionProbe(steps="all", layers="all"))
    probe = AttentionProbe(steps=2, full=["1", "3"])
    found = tiny.observe(model, prompts, probe).tables["attention_full"]
    wanted = of_samples(whole.tables["attention"], [1, 3])
    assert found.schema == ATTENTION_SCHEMA
    assert names(found) == names(wanted)
    assert {row["step"] for row in names(found)} == set(range(STEPS))
    expected = numbers(wanted)
    for name, values in numbers(found).items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("family", FAMILY)
def test_the_compact_tables_and_images_are_those_without_it(tiny, models, family):
    model, prompts = models(family), tiny.prompts(*TEXTS)
    bare = model.generate(prompts)
    settings = {"steps": [1, 3], "pairs": True, "maps": ["2"]}
    alone = tiny.observe(model, prompts, AttentionProbe(**settings))
    beside = tiny.observe(model, prompts, AttentionProbe(**settings, full=2), LatentsProbe(steps=2))
    for run in (alone, beside):
        assert run.images.numpy().tobytes() == bare.numpy().tobytes()
    for name, table in alone.tables.items():
        assert table.equals(beside.tables[name]), name
    assert {row["sample"] for row in beside.rows("heatmaps")} == {2}
    assert torch.equal(model.generate(prompts), bare)


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_full_sample_has_its_numbers_in_any_batch(tiny, models, family):
    model, prompts = models(family), tiny.prompts(*TEXTS)
    probe = AttentionProbe(steps=2, full=["1"])
    together = tiny.observe(model, prompts, probe).tables["attention_full"]
    alone = tiny.observe(model, prompts[1:2], probe).tables["attention_full"]
    assert together.num_rows == alone.num_rows > 0
    expected = numbers(alone)
    for name, values in numbers(together).items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("full", "hooked"), [("elsewhere", [0, STEPS - 1]), ("0", list(range(STEPS)))]
)
def test_only_batches_with_a_full_sample_are_watched_at_every_step(tiny, models, full, hooked):
    model, prompts = models("sd"), tiny.prompts(*TEXTS)
    layer = model.pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    original, has_hooks = layer.forward, []

    def forward(*args, **kwargs):
        has_hooks.append(bool(layer._forward_hooks))
        return original(*args, **kwargs)

    layer.forward = forward
    try:
        run = tiny.observe(model, prompts, AttentionProbe(steps=2, full=[full]))
    finally:
        del layer.forward
    assert [step for step, has in enumerate(has_hooks) if has] == hooked
    assert {row["step"] for row in run.rows("attention")} == {0, STEPS - 1}
    assert {row["sample"] for row in run.rows("attention_full")} == ({0} if full == "0" else set())
    assert run.tables["attention_full"].schema == ATTENTION_SCHEMA


def test_a_full_prompt_equal_to_its_negative_gives_one_row_of_nulls(tiny, shared_pipeline):
    model = tiny.model(shared_pipeline)
    run = tiny.observe(model, tiny.prompts("a dog", "", "a fox"), AttentionProbe(steps=2, full=2))
    (row,) = run.rows("attention_full", sample=1)
    assert row["note"] == "conditional embedding equals the unconditional one"
    assert row["mass"] is None
    assert {r["sample"] for r in run.rows("attention_full")} == {0, 1}


def test_samples_are_chosen_by_place_in_the_plan_or_by_key(tiny):
    prompts = tiny.prompts("a", "b", "c", "d")
    positions = [6, 7, 8, 8]  # the last one pads the batch
    for value, expected in ((0, []), (8, [0, 1]), (9, [0, 1, 2]), (["2", "0"], [0, 2]), ([], [])):
        choice = SampleChoice.parse(value, name="full")
        assert choice.select(prompts, positions) == expected
        assert bool(choice) == bool(value)
    padded = [*prompts[:3], prompts[2]]
    assert SampleChoice.parse(["2"], name="full").select(padded, positions) == [2]


@pytest.mark.parametrize("value", [-1, True, 1.5, "00003", [3]])
@pytest.mark.parametrize("name", ["maps", "full"])
def test_what_chooses_no_samples_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=rf"{name}: expected a number of samples.*{name}: 8"):
        AttentionProbe(**{name: value})

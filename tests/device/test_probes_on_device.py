"""Probes see on the device what they see on the CPU, and seldom make the host wait for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import diffusers
import pytest
import torch

from evaluator.probes import AttentionProbe, LatentsProbe, describe_schedule, training_schedule
from tests.device.families import Observed, TinyModel, observe, some_now
from tests.device.pretend import NAME, Watch
from tests.device.tables import assert_same_tables
from tests.tiny import FAMILIES, TEXTLESS


def assert_same(found: Observed, expected: Observed) -> None:
    torch.testing.assert_close(found.images, expected.images, rtol=0, atol=1e-5)
    assert set(found.tables) == set(expected.tables)
    for name, table in expected.tables.items():
        assert_same_tables(found.tables[name], table, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_observed_as_on_the_cpu(family: str, watch: Watch) -> None:
    probes: list[Any] = [LatentsProbe(steps="all")]
    if family not in TEXTLESS:
        probes.append(AttentionProbe(steps="all", maps=2, full=2, pairs=True))
    expected = observe(TinyModel(family, device="cpu"), *probes)
    found = observe(TinyModel(family, device=NAME), *probes)
    assert_same(found, expected)


@pytest.mark.parametrize("family", some_now(["sd", "flux", "lumina2", "ddpm"], "sd"))
def test_parts_that_are_brought_to_the_device_in_turn_are_observed_too(
    family: str, watch: Watch
) -> None:
    probes: list[Any] = [LatentsProbe(steps="all")]
    if family not in TEXTLESS:
        probes.append(AttentionProbe(steps="all", maps=2, pairs=True))
    model = TinyModel(family, device="cpu")
    expected = observe(model, *probes)
    model.pipeline.enable_model_cpu_offload(device=NAME)
    found = observe(model, *probes)
    assert model.pipeline.device.type == "cpu", "everything went back"
    assert_same(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"layers": "all", "maps": ["1"], "map_layers": ["*attn2*"], "map_heads": [0, 2]},
        {"steps": 2, "maps": 1, "dtype": "float16"},
        {"steps": [1], "pairs": True},
    ],
)
def test_other_choices_of_the_attention_probe_do_too(options: Any, watch: Watch) -> None:
    expected = observe(TinyModel("sd", device="cpu"), AttentionProbe(**options))
    found = observe(TinyModel("sd", device=NAME), AttentionProbe(**options))
    for name, table in expected.tables.items():
        assert_same_tables(found.tables[name], table, rtol=2e-3, atol=1e-4)


SCHEDULERS = {
    "DDPMScheduler": {}, "PNDMScheduler": {}, "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {}, "HeunDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {"use_karras_sigmas": True}, 
    "DPMSolverSinglestepScheduler": {}, "UniPCMultistepScheduler": {}, "LMSDiscreteScheduler": {},
    "DEISMultistepScheduler": {}, "LCMScheduler": {}, "EDMEulerScheduler": {},
}  # fmt: skip


@pytest.mark.parametrize("name", some_now(SCHEDULERS, "PNDM|Euler|Multistep"))
def test_every_schedulers_noise_levels_are_read(name: str, watch: Watch) -> None:
    seen = []
    for device in ("cpu", NAME):
        model = TinyModel("sd", device=device, steps=4)
        kind = getattr(diffusers, name)
        model.pipeline.scheduler = kind.from_config(
            {**model.pipeline.scheduler.config}, **SCHEDULERS[name]
        )
        seen.append(observe(model, LatentsProbe(steps="all")))
        seen[-1].tables["run"] = describe_schedule(model.pipeline.scheduler, num_steps=None)
    assert_same(seen[1], seen[0])


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler"])
def test_a_schedule_is_described_after_its_levels_went_to_the_device(
    name: str, watch: Watch
) -> None:
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(5)
    tables = [describe_schedule(scheduler, num_steps=5), training_schedule(scheduler)]
    start = torch.ones(1, 4, 8, 8, device=NAME)
    scheduler.add_noise(start, start, torch.tensor([3], device=NAME))
    assert scheduler.alphas_cumprod.device == start.device
    watch.synchronizations.clear()
    assert training_schedule(scheduler).equals(tables[1])
    assert len(watch.synchronizations) <= 2, "1,000 levels come in one copy"
    assert describe_schedule(scheduler, num_steps=5).equals(tables[0])
    assert describe_schedule(scheduler, num_steps=None).num_rows >= 5


WAITS_A_STEP = 2
"""How often at most the host waits for one more observed step: for its timestep, for its level."""
WAITS_A_BATCH = {"sd": 32, "sd3": 30}
"""How often at most it waits for a batch of three observed steps, however many images it has."""


def waits(family: str, steps: int, watch: Watch, *probes: Any) -> Counter[Any]:
    """What made the host wait in one batch, beyond what it waited for without probes."""
    model = TinyModel(family, device=NAME, steps=steps)
    counts = []
    for chosen in ((), probes):
        watch.synchronizations.clear()
        observe(model, *chosen)
        counts.append(Counter(watch.synchronizations))
    bare, observed = counts
    return observed - bare


@pytest.mark.parametrize("family", WAITS_A_BATCH)
@pytest.mark.parametrize("probe", [AttentionProbe(steps="all", maps=2), LatentsProbe(steps="all")])
def test_an_observed_step_seldom_waits_for_the_device(
    family: str, probe: Any, watch: Watch
) -> None:
    few, many = waits(family, 3, watch, probe), waits(family, 7, watch, probe)
    assert (many - few).total() <= 4 * WAITS_A_STEP, many - few
    assert 0 < few.total() <= WAITS_A_BATCH[family], few


@pytest.mark.parametrize("family", WAITS_A_BATCH)
def test_a_digest_waits_for_nothing(
    family: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = AttentionProbe(steps="all", maps=2, pairs=True, full=1)
    at_once = waits(family, 3, watch, probe)
    monkeypatch.setattr("evaluator.probes.attention_recorder.MAX_PENDING_BYTES_ON_DEVICE", 0)
    assert not waits(family, 3, watch, probe) - at_once

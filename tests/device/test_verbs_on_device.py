"""Every verb of `probe` finds on the device what it finds on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evaluator.probing.anatomy import anatomy_of, probe_anatomy
from evaluator.probing.denoise import probe_denoise
from evaluator.probing.directions import probe_directions
from evaluator.probing.inputs import ModelRequest, load_model
from evaluator.probing.interpolate import probe_interpolate
from evaluator.probing.jacobian import JacobianRequest, probe_jacobian
from evaluator.probing.ood import probe_ood
from evaluator.probing.roundtrip import probe_roundtrip
from tests.device.families import some_now
from tests.device.pretend import NAME, Watch
from tests.device.tables import assert_same_tables
from tests.probing.conftest import CLIP, DIGITS, IMAGES
from tests.tiny import ARGUMENTS, generation, saved

PAIRS = (("a red seven on a black background", "a blue seven on a black background"),)

VERBS: dict[str, Callable[[ModelRequest, Path], Any]] = {
    "denoise": lambda model, out: probe_denoise(
        model, images=IMAGES, limit=6, timesteps=3, output=out
    ),
    "roundtrip": lambda model, out: probe_roundtrip(model, images=IMAGES, limit=12, output=out),
    "interpolate-seeds": lambda model, out: probe_interpolate(
        model, prompt="a red seven", pairs=2, frames=3, extractor="digits", output=out
    ),
    "interpolate-images": lambda model, out: probe_interpolate(
        model, images=IMAGES, pairs=2, frames=3, output=out
    ),
    "directions": lambda model, out: probe_directions(
        model, pairs=PAIRS, strengths=(0.0, 1.0), seeds=2, weights=CLIP, output=out
    ),
    "ood-latents": lambda model, out: probe_ood(
        model, reference=IMAGES, images=IMAGES, limit=150, output=out
    ),
    "ood-features": lambda model, out: probe_ood(
        model, reference=IMAGES, images=IMAGES, limit=150, extractor="digits", output=out
    ),
    "anatomy": lambda model, out: probe_anatomy(model, prompt="a red seven", output=out),
}  # fmt: skip


@pytest.mark.parametrize(
    "verb", some_now(VERBS, "denoise|roundtrip|images|directions|latents|anat")
)
def test_a_verb_finds_what_it_finds_on_the_cpu(verb: str, tmp_path: Path, watch: Watch) -> None:
    for device in ("cpu", NAME):
        request = ModelRequest(DIGITS, device=device, steps=3, guidance_scale=2.0)
        VERBS[verb](request, tmp_path / device)
    names = {device: {p.name for p in (tmp_path / device).iterdir()} for device in ("cpu", NAME)}
    assert names["cpu"] == names[NAME] > set()
    assert watch.synchronizations, "it computed on the device"
    for path in (tmp_path / "cpu").glob("*.parquet"):
        expected, found = (pq.read_table(tmp_path / device / path.name) for device in ("cpu", NAME))
        assert_same_tables(found, expected, rtol=5e-3, atol=1e-3)


def request_for(family: str, tmp_path: Path, device: str) -> ModelRequest:
    """The tiny build of a family, named as a user names a model."""
    arguments = [f"model.arguments.{k}={v}" for k, v in ARGUMENTS.get(family, {}).items()]
    sizes = [f"generation.{k}={v}" for k, v in generation(family).items()]
    folder = str(saved(family, tmp_path))
    return ModelRequest(folder, device=device, steps=3, overrides=(*arguments, *sizes))


def test_derivatives_of_the_denoiser_are_those_of_the_cpu(tmp_path: Path, watch: Watch) -> None:
    tables = []
    for device in ("cpu", NAME):
        asked = JacobianRequest(
            request_for("sd", tmp_path, device), ("a red dog",), samples=1, steps=[1], values=2,
            vectors=1,
        )  # fmt: skip
        probe_jacobian(asked, tmp_path / device)
        table = pq.read_table(tmp_path / device / "jacobian.parquet")
        tables.append(table.select([n for n in table.column_names if "vector" not in n]))
    assert_same_tables(tables[1], tables[0], rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux", "pixart-sigma", "dit", "ddpm"])
def test_other_families_are_taken_apart_the_same_way(
    family: str, tmp_path: Path, watch: Watch
) -> None:
    found = [
        anatomy_of(load_model(request_for(family, tmp_path, device)), "a red dog")
        for device in ("cpu", NAME)
    ]
    on_cpu, there = found
    assert there.guidance.sentence() == on_cpu.guidance.sentence()
    assert there.latents == on_cpu.latents
    assert there.scheduler == on_cpu.scheduler
    assert there.conditions == on_cpu.conditions
    assert there.embeddings == on_cpu.embeddings

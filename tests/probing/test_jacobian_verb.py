"""`probe jacobian`: from the command line to a table and a picture, and refusals that say why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from evaluator.data import expand_source, open_source
from evaluator.errors import ConfigError, ProbeError
from evaluator.models.optimal_denoiser import optimal_jacobian
from evaluator.probes.steps import StepChoice
from evaluator.probing.inputs import ModelRequest, load_model
from evaluator.probing.jacobian import JacobianRequest, _prompts, _trajectory, probe_jacobian
from tests.tiny import generation, saved

from .conftest import DIGITS, IMAGES


@pytest.fixture
def optimal(tmp_path: Path) -> str:
    """The optimal denoiser of 12 digits."""
    path = tmp_path / "optimal.yaml"
    model = {"kind": "optimal_denoiser", "source": IMAGES, "limit": 12}
    path.write_text(yaml.safe_dump({"name": "opt", "model": model, "prompts": {"source": "none"}}))
    return str(path)


def test_a_pixel_models_ranks_come_as_lines_table_and_picture(
    unconditional: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    arguments = ("--samples", 2, "--at", "0,3", "--steps", 4, "--device", "cpu")
    ended = call("probe", "jacobian", unconditional, *arguments, "--output", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "192 dimensions, whole" in ended.out
    rows = pq.read_table(tmp_path / "out" / "jacobian.parquet").to_pylist()
    assert [(row["sample"], row["step"]) for row in rows] == [(0, 0), (0, 3), (1, 0), (1, 3)]
    for row in rows:
        assert len(row["singular_values"]) == 192
        assert 0 < row["rank_low"] == row["rank"] == row["rank_high"] <= 192
        assert row["energy"] == pytest.approx(sum(s * s for s in row["singular_values"]))
    with Image.open(tmp_path / "out" / "vectors.png") as picture:
        assert picture.width > 6 * 96
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    pictures = {name for name in record["files"] if name.endswith(".png")}
    assert pictures == {"ranks.png", "spectra.png", "vectors.png"}
    assert record["result"]["steps"][0]["ranks"] == [rows[0]["rank"], rows[2]["rank"]]
    assert record["provenance"]["generation"]["guidance_scale"] == 1.0


def test_the_optimal_denoisers_spectrum_is_its_posterior_covariances(
    optimal: str, tmp_path: Path
) -> None:
    request = JacobianRequest(
        ModelRequest(optimal, device="cpu", steps=10), samples=1, steps=[2, 9], values=14, vectors=2
    )
    result = probe_jacobian(request, tmp_path / "out")
    early, late = pq.read_table(tmp_path / "out" / "jacobian.parquet").to_pylist()
    assert early["rank"] <= 11, "12 images span 11 directions"
    assert late["rank"] == 0, "a training image is repeated whatever the noise"
    assert result.steps[1].ranks == (0,)
    assert result.lines()[-1].endswith("out")
    # The closed form at the same x_t, in units of x_t/a.
    probed = load_model(request.model)
    prompts = _prompts(request, probed)
    (point,) = _trajectory(probed, prompts[0], StepChoice.parse([2]))
    pack = open_source(expand_source(IMAGES), cache=tmp_path, limit=12)
    data = torch.stack([pack.image(key) for key in pack.keys])
    closed = optimal_jacobian(
        point.latents.double() / point.level.alpha,
        data,
        sigma=point.level.sigma / point.level.alpha,
    )
    theirs = torch.linalg.eigvalsh(closed).flip(0)[:11].tolist()
    assert early["singular_values"][:11] == pytest.approx(theirs, rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_the_digits_model_lets_fewer_directions_through_in_the_middle(tmp_path: Path) -> None:
    request = JacobianRequest(
        ModelRequest(DIGITS, device="cpu", steps=20),
        prompts=("a red seven on a blue background",), samples=1, steps=[0, 11, 19],
    )  # fmt: skip
    first, middle, last = probe_jacobian(request, tmp_path / "out").steps
    assert middle.median is not None
    assert middle.median < 128 < min(first.median or 0, last.median or 0)


def test_products_are_the_same_when_asked_again(unconditional: Path, tmp_path: Path) -> None:
    model = ModelRequest(str(unconditional), device="cpu", steps=2)
    request = JacobianRequest(model, samples=1, steps=1, values=6, vectors=1)
    found = probe_jacobian(request, tmp_path / "first")
    probe_jacobian(request, tmp_path / "again")
    first, again = (
        pq.read_table(tmp_path / name / "jacobian.parquet") for name in ("first", "again")
    )
    assert first.equals(again)
    (row,) = first.to_pylist()
    assert row["rank"] is None, "6 values are not 99 % of a random network's"
    assert row["value_bound"] > 0
    assert any("Σs² known to ±" in note for note in found.notes)


def test_what_cannot_be_probed_is_said(tmp_path: Path, call: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match='--prompt "…", which may be repeated'):
        probe_jacobian(JacobianRequest(ModelRequest(DIGITS, device="cpu")), tmp_path)
    with pytest.raises(ConfigError, match="expected a number between 0 and 1, got 1"):
        probe_jacobian(JacobianRequest(ModelRequest(DIGITS), eta=1.0), tmp_path)
    ended = call("probe", "jacobian", DIGITS, "--at", "some")
    assert ended.status == 2
    assert "expected all, a number of steps, or a list" in ended.err


def test_steps_of_pure_noise_alone_are_refused(optimal: str, tmp_path: Path) -> None:
    zero = ("model.scheduler={name: DDIMScheduler, arguments: {rescale_betas_zero_snr: true}}",)
    model = ModelRequest(optimal, device="cpu", steps=3, overrides=zero)
    with pytest.raises(ProbeError, match="got pure noise at"):
        probe_jacobian(JacobianRequest(model, samples=1, steps=[0], values=2), tmp_path)


def test_packed_latents_are_drawn_as_the_images_that_they_are(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    folder, settings = saved("flux", tmp_path), []
    for name, value in {**generation("flux"), "steps": 2}.items():
        settings += ["--set", f"generation.{name}={value}"]
    settings += ["--set", "model.arguments.max_sequence_length=12"]
    ended = call(
        "probe", "jacobian", folder, "--prompt", "a red dog", "--samples", 1, "--at", "0,1",
        "--values", 3, "--vectors", 2, "--device", "cpu", *settings, "--output", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert "at guidance 1 (256 dimensions, 3 values by products)" in ended.out
    assert "the guidance scale is an input of this model, and 1 was given" in ended.out
    with Image.open(tmp_path / "out" / "vectors.png") as picture:
        pixels = np.asarray(picture)
    # x0 and both directions, 16 pixels enlarged to 96, in one row: the first step is pure noise
    tiles = [pixels[-100:-4, left : left + 96] for left in (220, 320, 420)]
    assert all(tile.std() > 5 for tile in tiles)
    assert all((tile[::6, ::6].repeat(6, 0).repeat(6, 1) == tile).all() for tile in tiles)


def test_weights_that_come_and_go_are_refused(tmp_path: Path) -> None:
    model = ModelRequest(DIGITS, overrides=("model.cpu_offload=sequential",))
    with pytest.raises(ConfigError, match="got 'sequential'; take 'model'"):
        probe_jacobian(JacobianRequest(model, prompts=("a",)), tmp_path / "out")


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("0,99", "--at: expected steps from 0 to 4, as a trajectory has 5 steps, got 0,99"),
        ("99", "--at: expected at most 5, as a trajectory has 5 steps, got 99"),
        ("0", "--at: expected all, how many steps"),
        ("1,1", "--at: expected all, how many steps"),
        ("some", "--at: expected all, a number of steps"),
    ],
)
def test_steps_that_do_not_exist_are_refused_before_anything_is_loaded(
    call: Callable[..., Any], tmp_path: Path, at: str, says: str
) -> None:
    out = tmp_path / "out"
    ended = call("probe", "jacobian", DIGITS, "--at", at, "--steps", 5, "--output", out)
    assert ended.status == 2
    assert says in " ".join(ended.err.split())
    assert not out.exists()

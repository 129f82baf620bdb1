"""`probe ood`: held-out digits are usual, digits on their side are not, and doubts are said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from evaluator.demo.quality import held_out
from evaluator.errors import ConfigError, InputError
from evaluator.probes.outliers import SCORES, auroc
from evaluator.probing.inputs import ModelRequest
from evaluator.probing.ood import probe_ood

from .conftest import DIGITS


def write(folder: Path, images: torch.Tensor) -> str:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{i:03d}.png")
    return str(folder)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Digits to compare with, other digits, and those others with every quarter turned around."""
    images = held_out().images
    usual, others = images[:260], images[260:320]
    quarters = [torch.chunk(half, 2, dim=3) for half in torch.chunk(others, 2, dim=2)]
    shuffled = torch.cat(
        [torch.cat([part.rot90(2, (2, 3)) for part in half], dim=3) for half in quarters], dim=2
    )
    return {
        "reference": write(tmp_path / "usual", usual),
        "images": write(tmp_path / "others", others),
        "outliers": write(tmp_path / "shuffled", shuffled),
    }


def options(folders: dict[str, str]) -> list[str]:
    return [part for name, folder in folders.items() for part in (f"--{name}", folder)]


def test_other_digits_are_usual_and_broken_ones_are_told(
    folders: dict[str, str], tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    ended = call("probe", "ood", DIGITS, *options(folders), "--device", "cpu", "--output", out)
    assert ended.status == 0, ended.err
    assert "in latents (256 dimensions), against 208 reference images; 52 more" in ended.out
    assert "208 reference samples for 256 dimensions" in ended.out
    record = json.loads((out / "result.json").read_text())["result"]
    found = {score["name"]: score for score in record["scores"]}
    assert set(found) == set(SCORES)
    assert all(score["flagged"] < 0.2 for score in found.values()), "5 % expected"
    assert max(score["auroc"]["value"] for score in found.values()) > 0.9
    rows = pq.read_table(out / "ood.parquet").to_pylist()
    assert [row["set"] for row in rows] == ["held-out"] * 52 + ["images"] * 60 + ["outliers"] * 60
    usual, unusual = (
        [row["neighbours"] for row in rows if row["set"] == name]
        for name in ("held-out", "outliers")
    )
    assert found["neighbours"]["auroc"]["value"] == pytest.approx(auroc(usual, unusual).value)
    assert rows[0]["residual_p"] is None
    assert all(1 / 53 <= row["residual_p"] <= 1 for row in rows[52:])
    with Image.open(out / "ood.png") as picture:
        assert picture.height > 2 * 96


def test_features_of_an_extractor_take_the_place_of_latents(
    folders: dict[str, str], tmp_path: Path
) -> None:
    request = ModelRequest(DIGITS, device="cpu")
    outliers, reference = folders["outliers"], folders["reference"]
    found = probe_ood(
        request, reference=reference, outliers=outliers, extractor="digits", output=tmp_path / "a"
    )
    again = probe_ood(
        request, reference=reference, outliers=outliers, extractor="digits", output=tmp_path / "b"
    )
    assert found.space == "digits"
    assert found.scores == again.scores, "the split is seeded"
    assert all(score.flagged is None for score in found.scores)
    areas = [score.auroc.value for score in found.scores if score.auroc]
    assert len(areas) == 4
    assert max(areas) > 0.8


def test_images_that_are_among_the_reference_are_noticed(
    folders: dict[str, str], tmp_path: Path
) -> None:
    request = ModelRequest(DIGITS, device="cpu")
    reference = folders["reference"]
    found = probe_ood(
        request, reference=reference, images=reference, limit=40, output=tmp_path / "out"
    )
    assert "40 of the images are among the reference" in found.warnings[-1]
    assert any("below 100" in warning for warning in found.warnings)


def test_nothing_to_score_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected images to score, got none"):
        probe_ood(ModelRequest(DIGITS), reference=folders["reference"], output=tmp_path)


def test_too_few_images_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--reference: expected at least 8 images, got 7"):
        probe_ood(
            ModelRequest(DIGITS, device="cpu"), reference=folders["reference"],
            images=folders["images"], limit=7, output=tmp_path / "out",
        )  # fmt: skip
    found = probe_ood(
        ModelRequest(DIGITS, device="cpu"), reference=folders["reference"],
        outliers=folders["outliers"], limit=8, output=tmp_path / "out",
    )  # fmt: skip
    assert (found.num_fitted, found.num_held_out) == (6, 2)
    assert len(found.warnings) == 2, "few, and fewer than dimensions"

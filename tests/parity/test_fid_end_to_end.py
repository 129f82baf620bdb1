"""The whole way, images to numbers: one configuration here, one call there, the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
import yaml
from PIL import Image

from evaluator.cli import main
from evaluator.demo.quality import held_out
from tests.features.random_inception import save_random_inception

NUM = 24
IMAGES = held_out().images[: 2 * NUM]


def write_images(folder: Path, images: torch.Tensor) -> str:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")
    return str(folder)


def scores(folder: Path, weights: str, fake: str, real: str) -> dict[str, float]:
    """What the command line puts into `metrics.json`."""
    config = {
        "name": "parity",
        "model": {"kind": "images"},
        "prompts": {"source": fake},
        "references": {"real": {"source": real}},
        "features": [{"name": "inception", "id": weights, "options": {"resize": "legacy"}}],
        "metrics": ["fid", "kid", {"name": "inception_score", "splits": 1}],
        "runtime": {"threads": 1, "batch_size": 8},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as left:
        main(["run", str(folder / "config.yaml"), "--output", str(folder / "run")])
    assert not left.value.code
    rows = json.loads((folder / "run" / "metrics.json").read_text())["metrics"]
    return {row["name"]: row["value"] for row in rows}


def exact_distance(weights: str) -> float:
    """The Fréchet distance of torch-fidelity's own features when samples are fewer than features.

    Tr (Σ₁Σ₂)^½ is then the sum of singular values of X Yᵀ / (n - 1), X and Y centred.
    """
    network = torch_fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=weights
    )
    with torch.inference_mode():
        parts = [network(batch)[0] for batch in IMAGES.split(8)]
    features = torch.cat(parts).double().numpy()
    fake, real = features[:NUM], features[NUM:]
    x, y = fake - fake.mean(0), real - real.mean(0)
    traces = ((x**2).sum() + (y**2).sum()) / (NUM - 1)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum() / (NUM - 1)
    return float(((fake.mean(0) - real.mean(0)) ** 2).sum() + traces - 2 * cross)


@pytest.mark.slow
def test_fid_kid_and_inception_score_are_torch_fidelitys(tmp_path: Path) -> None:
    weights = str(save_random_inception(tmp_path))
    fake = write_images(tmp_path / "fake", IMAGES[:NUM])
    real = write_images(tmp_path / "real", IMAGES[NUM:])
    ours = scores(tmp_path, weights, fake, real)
    theirs = torch_fidelity.calculate_metrics(
        input1=fake, input2=real, fid=True, isc=True, kid=True, isc_splits=1, kid_subsets=2,
        kid_subset_size=NUM, feature_extractor_weights_path=weights, batch_size=8, cuda=False,
        cache=False, verbose=False,
    )  # fmt: skip
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    # Its kernels are summed in float32.
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    # With fewer samples than features its eigenvalues of Σ₁Σ₂ are mostly noise, whose square
    # roots add up; the exact value from its own features is what ours must meet.
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert ours["fid"] == pytest.approx(exact_distance(weights), rel=1e-9)

"""Every extractor that comes along: found by its kind, built from a configuration, listed."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator import plugins
from evaluator.config.asked import FeatureConfig
from evaluator.demo.quality import CLIP
from evaluator.errors import ConfigError, InputError
from evaluator.features import BUILT_IN
from evaluator.features.inception_weights import PUBLISHED
from evaluator.protocols import FeatureExtractor
from evaluator.runner.listing import list_lines
from evaluator.runner.parts import build_extractor
from evaluator.runner.trust import Trust
from tests.features import tiny_models as tiny
from tests.features.random_inception import save_random_inception
from tests.features.tiny_programs import Descriptor, save


def sscd(folder: Path) -> dict[str, Any]:
    path = folder / "small.pt"
    return {"id": str(path), "options": {"sha256": save(Descriptor(), path)}}


BUILDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "clip": lambda folder: {"id": str(CLIP)},
    "dinov2": lambda folder: {"id": str(tiny.dinov2(folder)), "options": {"resize": "torch"}},
    "dinov3": lambda folder: {"id": str(tiny.dinov3(folder))},
    "inception": lambda folder: {
        "id": str(save_random_inception(folder)),
        "options": {"resize": "legacy"},
    },
    "siglip": lambda folder: {"id": str(tiny.siglip(folder))},
    "sscd": sscd,
    "vision": lambda folder: {"id": str(tiny.vit(folder)), "options": {"pooling": "mean"}},
}


def trust(folder: Path) -> Trust:
    return Trust(allow_code=False, relative_to=folder)


def test_all_are_listed() -> None:
    assert set(BUILDS) == set(BUILT_IN)
    lines = list_lines("extractors")
    for kind, target in BUILT_IN.items():
        assert any(line.split() == [kind, target] for line in lines)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", sorted(BUILT_IN))
def test_each_is_built_from_a_configuration(tmp_path: Path, kind: str) -> None:
    config = FeatureConfig(name="mine", kind=kind, **BUILDS[kind](tmp_path))
    extractor = build_extractor(config, device="cpu", trust=trust(tmp_path))
    assert isinstance(extractor, FeatureExtractor)
    assert extractor.name == "mine"
    assert next(iter(extractor.outputs)) == "features"
    assert getattr(extractor, "logits", "features") in extractor.outputs
    assert len(extractor.fingerprint) == 64
    image = torch.arange(3 * 20 * 30).remainder(200).to(torch.uint8).reshape(3, 20, 30)
    inputs = torch.stack([extractor.preprocess(image)] * 2)
    assert inputs.dtype == torch.float32
    for name, values in extractor.embed(inputs).items():
        assert values.shape == (2, extractor.outputs[name])
        assert values.dtype == torch.float32
        assert bool(torch.isfinite(values).all())


@pytest.mark.parametrize("kind", sorted(BUILT_IN))
def test_an_option_that_no_one_knows_is_refused(tmp_path: Path, kind: str) -> None:
    config = FeatureConfig(name="mine", kind=kind, id="nowhere", options={"resise": "clean"})
    with pytest.raises(ConfigError, match="'mine' takes no option 'resise'"):
        build_extractor(config, device="cpu", trust=trust(tmp_path))


@pytest.mark.parametrize("kind", sorted(BUILT_IN))
def test_each_takes_what_a_configuration_may_say(kind: str) -> None:
    factory = plugins.find("extractor", kind, BUILT_IN, allow_code=False)
    names = {n for cls in factory.__mro__[:-1] for n in inspect.signature(cls).parameters}
    assert {"name", "id", "dtype", "device", "relative_to"} <= names
    assert inspect.getdoc(factory)


def test_published_weights_are_kept_where_the_run_keeps_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALUATOR_CACHE", str(tmp_path / "elsewhere"))
    weights = tmp_path / "cache" / "weights" / PUBLISHED.name
    kept = replace(PUBLISHED, sha256=hashlib.sha256(b"no weights").hexdigest())
    monkeypatch.setattr("evaluator.features.inception_weights.PUBLISHED", kept)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"no weights")
    config = FeatureConfig(name="inception")
    with pytest.raises(InputError, match=re.escape(str(weights))):
        build_extractor(config, device="cpu", trust=trust(tmp_path), cache=tmp_path / "cache")
    assert not (tmp_path / "elsewhere").exists()

"""CLIPScore and its variants."""

from __future__ import annotations

import numpy as np
import pytest

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import clip_score


def test_each_variant_is_its_definition() -> None:
    cosines = np.array([0.3, -0.1, 0.25], dtype=np.float32)
    assert clip_score(cosines) == pytest.approx(15.0, rel=1e-6)
    assert clip_score(cosines, variant="clamped") == pytest.approx(15.0, rel=1e-6)
    assert clip_score(cosines, variant="w2.5") == pytest.approx(2.5 * 0.55 / 3, rel=1e-6)
    assert clip_score(-cosines) == pytest.approx(-15.0, rel=1e-6)
    assert clip_score(-cosines, variant="clamped") == 0.0


def test_what_is_no_cosine_is_refused() -> None:
    with pytest.raises(MetricError, match=r"values from -1 to 1, got one of size 31"):
        clip_score(np.array([0.2, 31.0]))
    with pytest.raises(MetricError, match="at least 1 sample"):
        clip_score(np.array([]))
    with pytest.raises(ConfigError, match=r"variant: expected one of mean, clamped, w2\.5"):
        clip_score(np.array([0.2]), variant="max")

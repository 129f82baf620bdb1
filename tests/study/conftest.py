"""Runs and studies that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.study import MadeStudy, StudyRequest, make_study
from tests.study.runs import make_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three runs of the same prompts, and real images; tests must not change them."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: make_run(folder / name, error=5) for name in ("alpha", "beta", "gamma", "real")}


@pytest.fixture
def pairs(runs: dict[str, Path], tmp_path: Path) -> tuple[MadeStudy, Path]:
    """A study of all pairs of three runs, and its folder."""
    three = [runs[name] for name in ("alpha", "beta", "gamma")]
    request = StudyRequest(runs=three, items=12, repeats=3, raters=3)
    return make_study(request, tmp_path / "pairs"), tmp_path / "pairs"


@pytest.fixture
def singles(runs: dict[str, Path], tmp_path: Path) -> tuple[MadeStudy, Path]:
    """A study of single images, half of them real, and its folder."""
    request = StudyRequest(
        runs=[runs["alpha"], runs["beta"]], kind="real-or-generated", reference=str(runs["real"]),
        items=12, repeats=2, raters=6,
    )  # fmt: skip
    return make_study(request, tmp_path / "singles"), tmp_path / "singles"

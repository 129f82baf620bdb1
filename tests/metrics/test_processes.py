"""Real gloo processes, uneven, one-sided and empty, give the number of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from metric_ranks import LAYOUTS
from metric_samples import EXACT, GIVEN, SPECS, whole

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list:
    """What every rank computed, rank by rank."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    outputs = [folder / f"{rank}.json" for rank in range(world)]
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                HERE / "metric_ranks.py",
                str(rank),
                str(world),
                folder / "store",
                out,
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outputs)
    ]
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in ranks:
            process.kill()
    return [json.loads(output.read_text()) for output in outputs]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_samples_over_processes_gives_the_same_number(
    answers: list, layout: str, spec: str
) -> None:
    by_rank = [rank[f"{layout}|{spec}"]["results"] for rank in answers]
    assert all(results == by_rank[0] for results in by_rank)
    if layout == "nothing":
        assert all(result["value"] is None for result in by_rank[0])
        assert all("got 0" in result["warnings"][0] for result in by_rank[0])
        return
    expected = json.loads(json.dumps([asdict(result) for result in whole(spec).compute()]))
    if EXACT[spec]:
        assert by_rank[0] == expected
        return
    for got, want in zip(by_rank[0], expected, strict=True):
        assert got["value"] == pytest.approx(want["value"], rel=1e-12)
        assert got["interval"]["low"] == pytest.approx(want["interval"]["low"], rel=1e-9)
        assert (got["n"], got["warnings"]) == (want["n"], want["warnings"])


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("layout", ["contiguous", "empty rank", "all on the last"])
def test_moments_given_to_every_process_count_once(answers: list, layout: str, name: str) -> None:
    by_rank = [rank[f"{layout}|{name}"]["results"] for rank in answers]
    assert all(results == by_rank[0] for results in by_rank)
    (got,), (want,) = by_rank[0], whole(name.removesuffix(" given")).compute()
    assert got["value"] == pytest.approx(want.value, rel=1e-11)
    assert got["details"]["n_reference"] == 70


@pytest.mark.parametrize("spec", SPECS)
def test_computing_leaves_each_process_its_own_samples(answers: list, spec: str) -> None:
    for layout in ("contiguous", "empty rank"):
        counts = [rank[f"{layout}|{spec}"]["local"]["fake_positions"] for rank in answers]
        assert sum(counts) == 90
        assert (counts[0] == 0) == (layout == "empty rank")

"""Every verb, asked of the shipped model, has its plot in the report of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluator.report import write_report
from evaluator.store.rundir import RunDirectory
from tests.probing.conftest import CLIP, DIGITS, IMAGES
from tests.report.test_page import outline

PROMPT = "a red seven on a blue background"
VERBS: dict[str, tuple[Any, ...]] = {
    "anatomy": (),
    "denoise": ("--images", IMAGES, "--limit", 4, "--timesteps", 3),
    "roundtrip": ("--images", IMAGES, "--limit", 6),
    "ood": ("--reference", IMAGES, "--limit", 40, "--images", IMAGES),
    "interpolate": ("--prompt", PROMPT, "--pairs", 2, "--frames", 3, "--steps", 2),
    "directions": ("--pair", PROMPT, "a red one on a blue background", "--seeds", 2, "--steps", 2,
                   "--strengths", "0,1", "--weights", CLIP),
    "jacobian": ("--prompt", PROMPT, "--samples", 1, "--at", "0,1", "--steps", 2, "--values", 4),
}  # fmt: skip


@pytest.mark.slow
def test_each_verb_has_its_plot_in_the_report(
    call: Callable[..., Any], make_run: Callable[..., RunDirectory]
) -> None:
    run = make_run(num_samples=3, probes=False)
    for verb, arguments in VERBS.items():
        output: Path = run.path / "probes" / verb
        ended = call("probe", verb, DIGITS, *arguments, "--device", "cpu", "--output", output)
        assert ended.status == 0, (verb, ended.err)
    folder = write_report(run).parent
    drawn = {path.name for path in folder.glob("probe-*.svg")}
    for number, verb in enumerate(sorted(VERBS)):
        assert any(n.startswith(f"probe-{number:02d}-") for n in drawn), verb
    page = outline(folder).visible
    assert "UNet2DConditionModel" in page
    assert "its chart is left out" not in page
    assert "this run’s images: probe" not in page, "nothing is known of the run's own weights"
    for said in ("Singular vectors as images", "The most and the least unusual images",
                 "One row a path", "One row a seed", "loses most of"):  # fmt: skip
        assert said in page, said


def test_a_runs_schedule_is_shown_in_its_report(
    call: Callable[..., Any], make_run: Callable[..., RunDirectory]
) -> None:
    run = make_run(num_samples=3, probes=False)
    output = run.path / "probes" / "schedule"
    ended = call("schedule", DIGITS, "--steps", 5, "--output", output)
    assert ended.status == 0, ended.err
    folder = write_report(run).parent
    assert [path.name for path in folder.glob("probe-00-*.svg")] == ["probe-00-log-snr-0.svg"]
    page = outline(folder).visible
    assert "Log-SNR at each step of the sampler" in page
    assert "trained log-SNR" in page, "the lines that the verb printed"
    assert "the verb is at work" not in page

"""The schedule that a run keeps is the one that its latents went through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evaluator.config import RunConfig, parse_config
from evaluator.report import write_report
from evaluator.store import schemas
from tests.runner.conftest import run_here
from tests.tiny import ARGUMENTS, generation, saved


@pytest.mark.parametrize("family", ["flux", "qwen-image", "sd3", "sana", "sdxl"])
def test_the_schedule_beside_the_shards_is_that_of_the_latents(family: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"key": "k0", "text": "a red dog"}\n')
    record = {
        "name": family,
        "model": {
            "kind": "diffusers",
            "id": str(saved(family, tmp_path)),
            "arguments": ARGUMENTS.get(family, {}),
        },
        "generation": {"steps": 3, "guidance_scale": 3.0, **generation(family)},
        "prompts": {"source": str(tmp_path / "prompts.jsonl")},
        "probes": {"latents": {}},
        "runtime": {"threads": 1, "batch_size": 1, "cache": str(tmp_path / "cache")},
    }
    run = run_here(parse_config(json.dumps(record), where="test"), tmp_path / "run").run
    schedule = pq.read_table(run.path / "schedule.parquet")
    assert isinstance(schemas.table_note(run.path / "schedule.parquet")["warnings"], list)
    latents = run.read(0, "latents.parquet", kind="latents")
    for column in ("timestep", "log_snr"):
        found = latents.column(column).to_pylist()
        assert schedule.column(column).to_pylist() == pytest.approx(found, rel=1e-5)


def test_what_is_suspicious_about_the_schedule_is_kept_and_shown(
    configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    model = {
        "kind": "diffusers",
        "id": "package://evaluator/demo/weights/stable-diffusion",
        "scheduler": {"name": "DDIMScheduler", "arguments": {"rescale_betas_zero_snr": True}},
    }
    nothing = {"probes": None, "metrics": [], "features": [], "references": None}
    config = configured(model=model, prompts={"limit": 1}, **nothing)
    run = run_here(config, tmp_path / "run").run
    said = schemas.table_note(run.path / "schedule.parquet")["warnings"]
    assert isinstance(said, list)
    assert "Set timestep_spacing to 'trailing'" in said[0]
    page = write_report(run).read_text(encoding="utf-8")
    assert "Set timestep_spacing to &#39;trailing&#39;" in page

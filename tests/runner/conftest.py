"""A pipeline small enough to run a hundred times, and ways to run the evaluator with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluator.config import RunConfig, parse_config
from evaluator.distributed import World
from evaluator.runner.evaluation import Outcome, run_evaluation
from evaluator.runner.trust import Trust
from evaluator.stopping import StopRequest

MAY_DIFFER = {"timings.parquet"}
"""The one table that may differ between two runs of the same plan."""

BASE: dict[str, Any] = {
    "name": "test",
    "generation": {"steps": 3, "guidance_scale": 3.0, "images_per_prompt": 2},
    "prompts": {"source": "package://evaluator/demo/data/test.parquet", "limit": 14},
    "references": {"real": {"source": "package://evaluator/demo/data/test.parquet", "limit": 90}},
    "features": ["digits", {"name": "clip", "id": "package://evaluator/demo/weights/clip"}],
    "metrics": ["fd_digits", "kd_digits", "is_digits", "prdc_digits", "clip_score"],
    "probes": {"attention": {"steps": 2, "maps": 2}, "latents": {}},
    "runtime": {"threads": 1, "batch_size": 4, "shard_size": 6},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section; None removes."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict) and "kind" not in value:
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits world's architecture with its initial weights: 3.5 M parameters, untrained."""
    from evaluator.demo import architecture

    folder = tmp_path_factory.mktemp("models") / "untrained"
    parts = architecture.vae(), architecture.text_encoder(), architecture.unet()
    architecture.pipeline(*parts).save_pretrained(folder)
    return folder


@pytest.fixture
def settings(pipeline_folder: Path) -> Callable[..., dict[str, Any]]:
    """A configuration as plain data, with changes."""

    def make(**changes: Any) -> dict[str, Any]:
        base = {**BASE, "model": {"kind": "diffusers", "id": str(pipeline_folder)}}
        return merged(base, changes)

    return make


@pytest.fixture
def configured(settings: Callable[..., dict[str, Any]]) -> Callable[..., RunConfig]:
    """A validated configuration, with changes."""

    def make(**changes: Any) -> RunConfig:
        return parse_config(yaml.safe_dump(settings(**changes)), where="test")

    return make


def run_here(
    config: RunConfig,
    path: Path,
    *,
    retry_failed: bool = False,
    launch: str | None = None,
    **trust: Any,
) -> Outcome:
    """Run in this process, as its only one."""
    return run_evaluation(
        config, path, world=World(), stop=StopRequest(), trust=Trust(**trust),
        retry_failed=retry_failed, launch=launch,
    )  # fmt: skip


def command(kind: str, processes: int) -> list[str]:
    """How each launcher starts the module."""
    python = [sys.executable, "-m"]
    if kind == "python":
        return [*python, "evaluator"]
    if kind == "torchrun":
        options = ["--standalone", f"--nproc_per_node={processes}"]
        return [*python, "torch.distributed.run", *options, "-m", "evaluator"]
    options = [
        "--multi_gpu", f"--num_processes={processes}", "--num_machines=1",
        "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0",
    ]  # fmt: skip
    return [*python, "accelerate.commands.launch", *options, "-m", "evaluator"]


def launch(
    kind: str, processes: int, arguments: list[str], *, cache: Path
) -> subprocess.CompletedProcess[str]:
    """Run the command line under a launcher, with a cache of its own."""
    environment = {**os.environ, "EVALUATOR_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command(kind, processes), *arguments],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip


STARTED: list[subprocess.Popen[str]] = []
"""Workers that a test started and did not wait for: whoever starts one says so here."""


@pytest.fixture(autouse=True)
def _no_worker_outlives_its_test() -> Iterator[None]:
    """Also one that hangs, or that a failing test left."""
    yield
    for worker in STARTED:
        worker.kill()
        worker.wait()
    STARTED.clear()


def bytes_of(run: Path) -> dict[str, bytes]:
    """Every committed file of a run but its timings: tables, images, checksums."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted((run / "shards").rglob("*"))
        if path.is_file() and path.name not in MAY_DIFFER
    }


@pytest.fixture(scope="session")
def dit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional DiT of a few thousand parameters: it hands its scheduler no generator."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2,
            in_channels=4, out_channels=4, num_embeds_ada_norm=1000,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "dit"
    DiTPipeline(transformer, vae, DDIMScheduler()).save_pretrained(folder)
    return folder

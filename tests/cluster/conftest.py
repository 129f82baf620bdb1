"""One SLURM for all tests here, the evaluation that they run, and the same undisturbed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluator.store.rundir import RunDirectory
from tests.cluster.slurm import Slurm, SlurmError, unavailable, until

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
name: digits
model: {kind: diffusers, id: package://evaluator/demo/weights/stable-diffusion}
generation: {steps: 20, guidance_scale: 3.0, height: 32, width: 32, images_per_prompt: 2}
prompts: {source: package://evaluator/demo/data/test.parquet, limit: 24}
references: {real: {source: package://evaluator/demo/data/test.parquet, limit: 90}}
features: [digits]
metrics: [fd_digits, kd_digits]
probes: {latents: {steps: 4}}
runtime: {batch_size: 4, shard_size: 4, threads: 1}
"""
NUM_SHARDS = 12

SITE = """
# What a site's users would write: where Python is, and which network the nodes share.
export PATH="{python}:$PATH" PYTHONPATH="{root}"
export EVALUATOR_CACHE="{cache}" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
export GLOO_SOCKET_IFNAME=lo
"""


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A running cluster; everything of it has ended afterwards."""
    if (why := unavailable()) is not None:
        pytest.skip(f"NO SLURM HERE, AND SO NO TEST OF THE LAUNCH FILES: {why}")
    # pytest's own folders have paths too long for a socket's.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Submitted:
    """What `launch/submit.sh` left in the queue, and where its run goes."""

    slurm: Slurm
    run: Path
    workers: str
    numbers: str

    @property
    def committed(self) -> int:
        """Shards that are there."""
        return len(list((self.run / "shards").glob("*/commit.json")))

    @property
    def logs(self) -> str:
        """What the jobs said so far."""
        folder = Path(f"{self.run}.logs")
        return "\n".join(f"== {p.name}\n{p.read_text()}" for p in sorted(folder.iterdir()))

    def until_in_the_middle(self) -> None:
        """Wait until a start has made a shard, and others are to be made."""
        before = self.committed
        try:
            until("another shard is committed", lambda: self.committed > before)
        except SlurmError as error:
            raise SlurmError(f"{error}; {self.logs}") from None
        planned = RunDirectory.open(self.run).num_shards
        assert self.committed < planned - 1, "too late to disturb"


@dataclass(frozen=True)
class Site:
    """A user's folder on the cluster's file system."""

    slurm: Slurm
    folder: Path

    def submit(
        self,
        *options: str,
        run: str | None = None,
        config: str = "my digits.yaml",
        arguments: Sequence[str] = (),
    ) -> Submitted:
        """Call `launch/submit.sh` as a user would."""
        output = [] if run is None else ["--output", run]
        said = self.slurm.run(
            "bash", str(ROOT / "launch" / "submit.sh"), "--environment", "the site.sh",
            "--partition=low", *output, *options, config, "--", *arguments, cwd=self.folder,
        )  # fmt: skip
        workers, numbers = re.findall(r"job (\d+)", said)
        return Submitted(self.slurm, self.folder / (run or "runs"), workers, numbers)

    def here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line in a process of its own, without the cluster."""
        return call_in(self.folder, *arguments)


def call_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, in the site's environment."""
    command = 'source "the site.sh" && exec python -m evaluator "$@"'
    return subprocess.run(
        ["bash", "-c", command, "evaluator", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces in its name, with the configuration and the site's environment."""
    folder = tmp_path_factory.mktemp("a folder of mine")
    (folder / "my digits.yaml").write_text(CONFIG)
    site = SITE.format(python=Path(sys.executable).parent, root=ROOT, cache=folder / "cache")
    (folder / "the site.sh").write_text(site)
    return folder


@pytest.fixture(scope="session")
def site(slurm: Slurm, folder: Path) -> Site:
    """That folder on the cluster's file system."""
    return Site(slurm, folder)


@pytest.fixture(scope="session")
def undisturbed(folder: Path) -> Path:
    """The run of a single process that nobody interrupts."""
    done = call_in(folder, "run", "my digits.yaml", "--output", "undisturbed")
    assert done.returncode == 0, done.stderr
    assert len(os.listdir(folder / "undisturbed" / "shards")) == NUM_SHARDS
    return folder / "undisturbed"

"""What a run is compared with: embedded once, kept by content, shared between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator.aggregate.asked import AskedMetric, ReferencePlace
from evaluator.config.asked import FeatureConfig, ReferenceConfig, SourceConfig
from evaluator.config.schema import ImagesModelConfig, ProbesConfig, RunConfig, RuntimeConfig
from evaluator.data import fetched_file
from evaluator.durable import sha256_file
from evaluator.errors import InputError
from evaluator.locations import expand
from evaluator.records import Prompt, Shard
from evaluator.remote import RemotePath
from evaluator.runner import identity
from evaluator.runner.job import RunJob
from evaluator.runner.late import LateFeatures
from evaluator.runner.progress import Progress
from evaluator.runner.surroundings import Surroundings, cache_folder, open_pack
from evaluator.runner.trust import Trust
from evaluator.runner.work import ClaimLoop, forgive_all
from evaluator.store.claims import Claims, Worker
from evaluator.store.rundir import RunDirectory


def prepare_references(
    config: RunConfig,
    features: Sequence[FeatureConfig],
    metrics: Sequence[AskedMetric],
    around: Surroundings,
) -> tuple[dict[str, ReferencePlace], list[str]]:
    """Make what the references lack; returns where they lie, and errors of shards set aside.

    Each gets the features of the metrics that compare with it, and no others.
    """
    places: dict[str, ReferencePlace] = {}
    errors: list[str] = []
    for name, reference in config.references.items():
        needed = {
            metric.plan.extractor
            for metric in metrics
            if metric.compares_with(name)
            and not (reference.moments and metric.reference == name and metric.takes_moments)
        }
        wanted = [feature for feature in features if feature.name in needed]
        moments = None
        if reference.moments is not None:
            moments = str(checked_moments(reference.moments, around.trust, cache_folder(config)))
        label = f"reference {name}"
        if reference.run is not None:
            path = expand(reference.run, relative_to=around.trust.relative_to)
            other = OtherRun.of(path, config, wanted, around)
            errors += [f"{label}: {error}" for error in other.complete(label=label)]
            place = ReferencePlace(str(other.run.path), moments, None, other.fingerprints())
        elif (images := reference.images) is not None and wanted:
            job = reference_job(config, images, wanted, around)
            errors += [f"{label}: {error}" for error in job.complete(label=label)]
            pack = str(job.pack.path)
            place = ReferencePlace(str(job.run.path), moments, pack, job.fingerprints())
        else:
            place = ReferencePlace(None, moments, None, {})
        places[name] = place
    return places, errors


def reference_job(
    config: RunConfig, source: SourceConfig, features: Sequence[FeatureConfig], around: Surroundings
) -> RunJob:
    """The run of kind `images` that stands for a reference, kept in the cache by content."""
    cache = cache_folder(config)
    pack = open_pack(source, cache, around.trust)
    runtime = RuntimeConfig(
        batch_size=config.runtime.batch_size,
        threads=config.runtime.threads,
        lease_seconds=config.runtime.lease_seconds,
        startup_seconds=config.runtime.startup_seconds,
        cache=config.runtime.cache,
        images="none",
    )
    reference = RunConfig(
        name="reference",
        model=ImagesModelConfig(kind="images"),
        prompts=source,
        probes=ProbesConfig(),
        runtime=runtime,
    )
    digest = hashlib.sha256(f"{pack.fingerprint}/{runtime.shard_size}".encode()).hexdigest()
    job = RunJob(reference, cache / "references" / digest[:16], features, around)
    job.pack = pack
    return job


@dataclass
class OtherRun:
    """Another evaluation's run as a reference: complete, with the features asked here."""

    run: RunDirectory
    config: RunConfig
    """What that run was made with."""
    claims: Claims
    features: Sequence[FeatureConfig]
    around: Surroundings
    startup_seconds: float

    @classmethod
    def of(
        cls, path: Path, config: RunConfig, features: Sequence[FeatureConfig], around: Surroundings
    ) -> OtherRun:
        """Open a run directory; raises RunDirectoryError where there is none."""
        run = RunDirectory.open(path)
        if len(run.committed()) != run.num_shards:
            raise InputError(
                f"{path}: expected a complete run to compare with, got {len(run.committed())} of "
                f"{run.num_shards} shards. Finish it with its own `evaluator run` command first."
            )
        worker = Worker.current(around.world.rank)
        claims = Claims(
            run.claims_folder, worker, lease_seconds=config.runtime.lease_seconds,
            launch=around.launch,
        )  # fmt: skip
        startup = max(config.runtime.startup_seconds, claims.lease_seconds)
        return cls(run, identity.stored_config(run), claims, features, around, startup)

    def complete(self, *, label: str) -> list[str]:
        """Embed its kept images where a table is missing, in the batches of its own run.

        Returns errors of tables set aside.
        """
        speaks = self.around.world.is_main
        progress = Progress(self.run, self.claims, label=label, speaks=speaks)
        if self.around.retry_failed:
            forgive_all(self.run, self.claims)
        errors = []
        for late in self._late(progress):
            loop = ClaimLoop(self.claims, late, self.around.stop, self.startup_seconds)
            errors += loop.finish()
        progress.end()
        return errors

    def fingerprints(self) -> dict[str, str]:
        """Extractor name → fingerprint of its features, codec included."""
        images = self.config.runtime.images
        return {
            feature.name: self.around.embedder(feature, self.config).fingerprint(images)
            for feature in self.features
        }

    def _late(self, progress: Progress) -> list[LateFeatures]:
        return [
            LateFeatures(
                run=self.run,
                claims=self.claims,
                embedder=self.around.embedder(feature, self.config),
                images=self.config.runtime.images,
                stop=self.around.stop,
                progress=progress,
                prompts_of=self._prompts,
            )
            for feature in self.features
        ]

    def _prompts(self, shard: Shard) -> list[Prompt]:
        """The prompts of a shard as its table tells them: their source may be elsewhere."""
        columns = ["key", "prompt"]
        table = self.run.read(shard.index, "samples.parquet", kind="samples", columns=columns)
        rows = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        return [Prompt(key, text) for key, text in rows]


def reference_content(
    reference: ReferenceConfig, config: RunConfig, trust: Trust
) -> dict[str, str]:
    """Fingerprints of all that a reference is made from: a change of one is another question."""
    content = {}
    if (images := reference.images) is not None:
        content["source"] = open_pack(images, cache_folder(config), trust).fingerprint
    if reference.run is not None:
        run = RunDirectory.open(expand(reference.run, relative_to=trust.relative_to))
        content["run"] = _run_content(run)
    if reference.moments is not None:
        content["moments"] = sha256_file(
            moments_file(reference.moments, trust, cache_folder(config))
        )
    return content


def _run_content(run: RunDirectory) -> str:
    """Fingerprint of a run: its plan, what made it, and its first shard.

    Two models on the same prompts have one plan.
    """
    digest = hashlib.sha256()
    init = [run.path / "init" / name for name in ("plan.parquet", "config.yaml", "provenance.json")]
    for path in [*init, run.shard_path(0) / "commit.json"]:
        digest.update((sha256_file(path) if path.is_file() else "none").encode())
    return digest.hexdigest()


def moments_file(location: str, trust: Trust, cache: Path) -> Path:
    """The file of published moments that a configuration names; raises InputError without one.

    A remote one is fetched into `cache`.
    """
    if (remote := RemotePath.parse(location)) is not None:
        return fetched_file(remote, cache / "packs")
    path = expand(location, relative_to=trust.relative_to)
    if not path.is_file():
        raise InputError(f"{location}: expected a file of moments (.npz), got nothing at {path}.")
    return path


def checked_moments(location: str, trust: Trust, cache: Path) -> Path:
    """The same, read once: moments that no metric could take are refused before any image."""
    from evaluator.metrics.published import read_moments

    path = moments_file(location, trust, cache)
    read_moments(path)
    return path

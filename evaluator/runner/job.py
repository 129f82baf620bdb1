"""One evaluation from start to end: references, shards, late tables, numbers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.config.asked import FeatureConfig
from evaluator.config.schema import RunConfig
from evaluator.data import Pack
from evaluator.errors import (
    CorruptShardError,
    EvaluatorError,
    GenerationError,
    InputError,
    RunDirectoryError,
)
from evaluator.models.images import ImagesModel
from evaluator.runner import identity
from evaluator.runner.commit import Circumstances, Committer
from evaluator.runner.late import LateFeatures
from evaluator.runner.parts import build_probes, check_probes
from evaluator.runner.plan import PromptsOf, make_plan
from evaluator.runner.progress import Progress
from evaluator.runner.repair import Repairs
from evaluator.runner.shard import ShardMaker
from evaluator.runner.shard_work import ShardWork
from evaluator.runner.surroundings import Surroundings, cache_folder, keys_without_limit, open_pack
from evaluator.runner.work import ClaimLoop, Tasks, forgive_all
from evaluator.store import schemas
from evaluator.store.anew import put_plan_away
from evaluator.store.claims import Claims, Worker
from evaluator.store.quarantine import set_apart_incomplete
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from evaluator.protocols import GenerativeModel


LOOK_SECONDS = 5.0
"""How long a start may look for shards that lost a file: 20,000 take one to two."""


@dataclass
class RunJob:
    """The samples and features of one run directory; a reference is one too."""

    config: RunConfig
    path: Path
    features: Sequence[FeatureConfig]
    around: Surroundings

    @cached_property
    def pack(self) -> Pack:
        """The prompts, or the images."""
        return open_pack(self.config.prompts, cache_folder(self.config), self.around.trust)

    @cached_property
    def model(self) -> GenerativeModel:
        """The model, loaded on first use."""
        return self.around.model(self._pinned, self.pack)

    @property
    def _pinned(self) -> RunConfig:
        """The configuration, with the revision that the run began with."""
        if self.config.model.kind != "diffusers" or self.config.model.revision is not None:
            return self.config
        if not (self.path / "init").is_dir():
            return self.config
        stored = identity.stored_config(RunDirectory(self.path)).model
        revision = getattr(stored, "revision", None)
        model = self.config.model.model_copy(update={"revision": revision})
        return self.config.model_copy(update={"model": model})

    @cached_property
    def run(self) -> RunDirectory:
        """The run directory: made when it is not there, checked when it is."""
        return self._planned()

    def _planned(self) -> RunDirectory:
        if not self.pack.num_samples:
            raise InputError(
                f"{self.config.prompts.source}: expected at least one prompt, got none."
            )
        if not (self.path / "init").is_dir():
            plan = make_plan(
                self.config, self.pack.keys, self.pack.content_hashes(),
                whole=lambda: keys_without_limit(
                    self.config.prompts, cache_folder(self.config), self.around.trust
                ),
            )  # fmt: skip
            check_probes(self.config, self.model, trust=self.around.trust)
            init = identity.init_files(self.config, self.pack.fingerprint, self.model.describe())
            RunDirectory.create(self.path, init, plan)
        run = RunDirectory.open(self.path)
        try:
            identity.require_same(run, self.config, self.pack.fingerprint)
            identity.require_same_plan(run, self.config, self.pack.key_slices)
        except RunDirectoryError:
            # The processes of one launch would do so one after the other, each to the last one's.
            if self.around.world.size > 1:
                raise
            if put_plan_away(run, Worker.current()):
                print(
                    f"{self.path}: nothing was made yet of the evaluation that was planned here; "
                    "it is planned anew",
                    file=sys.stderr,
                )
            elif run.is_current():
                raise  # else another worker was first
            return self._planned()
        return run

    @cached_property
    def claims(self) -> Claims:
        """The leases, seen by this process."""
        return Claims(
            self.run.claims_folder,
            Worker.current(self.around.world.rank),
            lease_seconds=self.config.runtime.lease_seconds,
            launch=self.around.launch,
        )

    def complete(self, *, label: str) -> list[str]:
        """Work until all samples and features are there; returns errors of shards set aside."""
        progress = Progress(self.run, self.claims, label=label, speaks=self.around.world.is_main)
        if self.around.retry_failed:
            forgive_all(self.run, self.claims)
        repairs = Repairs(progress.say)
        if self.around.world.is_main:
            for line in set_apart_incomplete(self.run, seconds=LOOK_SECONDS):
                progress.say(f"set apart to be made again: {line}")
        while True:
            try:
                errors = self._make_shards(progress)
                late = self._add_late_features(progress)
                # Others may have set a shard apart meanwhile.
                if len(self.run.committed()) + len(errors) >= self.run.num_shards:
                    break
            except CorruptShardError as error:
                repairs.set_apart(error)
        progress.end()
        return errors + late

    @property
    def allowance(self) -> float:
        """Seconds that a worker may take until its first sign of progress."""
        return max(self.config.runtime.startup_seconds, self.config.runtime.lease_seconds)

    def _finish(self, tasks: Tasks) -> list[str]:
        loop = ClaimLoop(
            self.claims, tasks, self.around.stop, self.allowance, waits=self.around.waits
        )
        return loop.finish()

    def fingerprints(self) -> dict[str, str]:
        """Extractor name → fingerprint of its features, codec included."""
        return {
            feature.name: self.around.embedder(feature, self.config).fingerprint(
                self.config.runtime.images
            )
            for feature in self.features
        }

    def _make_shards(self, progress: Progress) -> list[str]:
        runtime, world = self.config.runtime, self.around.world
        circumstances = Circumstances(
            self.claims.worker.name, world.rank, world.device, self.around.threads,
            runtime.batch_size, runtime.images,
        )  # fmt: skip
        with ExitStack() as stack:
            encoders = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="encode"))
            committer = stack.enter_context(Committer(self.run, self.claims, circumstances))
            work = ShardWork(
                run=self.run,
                claims=self.claims,
                maker=lambda: self._maker(encoders),
                prompts=PromptsOf(self.pack, self.config.generation.images_per_prompt),
                committer=committer,
                stop=self.around.stop,
                progress=progress,
                world=world,
            )
            errors = self._finish(work)
        if self._loaded_maker is not None:
            # Some pipelines give their scheduler noise levels that only a run tells.
            self._record_schedule(steps=None)
        return errors

    def _maker(self, encoders: ThreadPoolExecutor) -> ShardMaker:
        if self._loaded_maker is None:
            identity.require_same_model(self.run, self._load_model().describe())
            self._record_schedule(steps=self.config.generation.steps)
            self._loaded_maker = ShardMaker(
                self.model,
                [self.around.embedder(feature, self.config) for feature in self.features],
                build_probes(self.config, trust=self.around.trust),
                batch_size=self.config.runtime.batch_size,
                images=self.config.runtime.images,
                encoders=encoders,
                warm=self.around.loaded.taken_over,
            )
        return self._loaded_maker

    _loaded_maker: ShardMaker | None = None

    def _load_model(self) -> GenerativeModel:
        try:
            return self.model
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, EvaluatorError):
                raise
            raise GenerationError(
                f"the model could not be loaded onto {self.around.world.device}: {error}"
            ) from error

    def _record_schedule(self, *, steps: int | None) -> None:
        """Keep the noise schedule beside the shards, unless it is there.

        That of so many steps, or as the pipeline set it when it last ran. What the checks say of
        it goes into the table's metadata.
        """
        scheduler = getattr(self.model.pipeline, "scheduler", None)
        path = self.run.path / "schedule.parquet"
        if scheduler is None or path.exists():
            return
        from evaluator.errors import ProbeError
        from evaluator.probes.schedule import describe_schedule
        from evaluator.probes.schedule_checks import schedule_warnings
        from evaluator.probes.scheduler_sources import pipeline_sigmas

        pipeline = type(self.model.pipeline).__name__
        sigmas = None if steps is None else pipeline_sigmas(pipeline, steps)
        try:
            table = describe_schedule(scheduler, num_steps=steps, sigmas=sigmas)
            said = {"warnings": schedule_warnings(scheduler, num_steps=steps, sigmas=sigmas)}
        except ProbeError:
            return  # a schedule that cannot be described stops no run; the report says so
        staged = self.run.stage("schedule")
        schemas.write_table(table, staged / "schedule.parquet", kind="schedule", metadata=said)
        os.replace(staged / "schedule.parquet", path)
        self.run.discard(staged)

    def _add_late_features(self, progress: Progress) -> list[str]:
        prompts_of = PromptsOf(self.pack, self.config.generation.images_per_prompt)
        keeps_none = self.config.runtime.images == "none"
        reads_source = self.config.model.kind == "images" and keeps_none
        source = ImagesModel(self.pack) if reads_source else None
        errors = []
        for feature in self.features:
            late = LateFeatures(
                self.run, self.claims, self.around.embedder(feature, self.config),
                self.config.runtime.images, self.around.stop, progress, prompts_of, source,
            )  # fmt: skip
            errors += self._finish(late)
        return errors

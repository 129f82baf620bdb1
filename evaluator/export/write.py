"""One export: which runs go, what is said about those that cannot, and where the files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluator.errors import ConfigError, CorruptShardError, EvaluatorError
from evaluator.export.options import PROJECT, TARGETS, ExportOptions
from evaluator.export.own_files import write_files
from evaluator.export.tracked import identity_of, tracked
from evaluator.runs import Run
from evaluator.text import count_of, file_name, plain

_HINTS = {
    "eval-results": "upload: hf upload ORG/MODEL {folder}/.eval_results .eval_results",
    "wandb": "send: wandb sync {folder}/wandb/offline-run-*",
    "tensorboard": "open: tensorboard --logdir {folder}",
    "trackio": "open: TRACKIO_DIR={folder} trackio show",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of it."""

    files: tuple[Path, ...]
    """Files and folders that were written."""
    warnings: tuple[str, ...]
    """What a reader of them should know."""
    left_out: tuple[str, ...]
    """Runs whose numbers could not be handed on, and why."""

    hint: str = ""
    """What a user does with the files; empty where that is plain."""

    @property
    def exit_status(self) -> int:
        """0 all handed on, 1 something was left out."""
        return 1 if self.left_out else 0


def export_runs(
    runs: Mapping[str, Run], target: str, folder: Path, options: ExportOptions | None = None
) -> Exported:
    """Write runs (name → run) for `target` into a folder.

    A run without numbers is left out of what holds numbers, and said; the others go. Raises where
    nothing is left, and where numbers of an incomplete run would be published.
    """
    options = options or ExportOptions()
    if target not in TARGETS:
        raise ConfigError(f"--to: expected one of {', '.join(TARGETS)}, got '{plain(target)}'.")
    options.require_taken_by(target)
    runs, unplanned = _planned(runs)
    numbered, left_out = _numbered(runs)
    left_out += unplanned
    if not numbered and target not in ("csv", "json", "parquet"):
        raise EvaluatorError(f"--to {target}: expected numbers, got none.\n" + "\n".join(left_out))
    warnings = [
        f"{plain(name)}: incomplete, {len(run):,} of {count_of(run.num_planned, 'sample')}; a "
        "number says how many it stands on"
        for name, run in runs.items()
        if not run.complete
    ]
    if target in ("csv", "json", "parquet"):
        sampled, unread = _sampled(runs)
        left_out += unread
        made = _tables(sampled, numbered, target)
        files = write_files(folder, made, overwrite=options.overwrite)
    elif target in ("eval-results", "model-card"):
        files, more = _publish(numbered, target, folder, options)
        warnings += more
    else:
        files, unread = _track(numbered, target, folder, options)
        left_out += unread
    hint = _HINTS.get(target, "").format(folder=folder)
    return Exported(tuple(files), tuple(warnings), tuple(left_out), hint)


def _planned(runs: Mapping[str, Run]) -> tuple[Mapping[str, Run], list[str]]:
    """The runs of which is known how much there is, and why not of the others."""
    found, left_out = {}, []
    for name, run in runs.items():
        try:
            _ = run.complete
            found[name] = run
        except EvaluatorError as error:
            if len(runs) == 1:
                raise
            left_out.append(f"{plain(name)}: {plain(error)}")
    return found, left_out


def _numbered(runs: Mapping[str, Run]) -> tuple[dict[str, Run], list[str]]:
    """The runs that have numbers, and why the others have none."""
    numbered, left_out = {}, []
    for name, run in runs.items():
        try:
            _ = run.summary
            numbered[name] = run
        except EvaluatorError as error:
            left_out.append(f"{plain(name)}: no numbers: {plain(error)}")
    return numbered, left_out


def _sampled(runs: Mapping[str, Run]) -> tuple[dict[str, Run], list[str]]:
    """The runs whose samples can be read, and why the others' cannot; raises where none can."""
    sampled, left_out = {}, []
    for name, run in runs.items():
        try:
            _ = run.scored_samples
            sampled[name] = run
        except CorruptShardError as error:
            if len(runs) == 1:
                raise
            left_out.append(f"{plain(name)}: no samples: {plain(error)}")
    if not sampled:
        raise EvaluatorError("expected samples, got none.\n" + "\n".join(left_out))
    return sampled, left_out


def _tables(runs: Mapping[str, Run], numbered: Mapping[str, Run], target: str) -> dict[str, bytes]:
    from evaluator.export import csv_tables, json_tables, parquet_tables

    made = {"csv": csv_tables.files, "json": json_tables.files, "parquet": parquet_tables.files}
    return made[target](runs, numbered)


def _publish(
    runs: Mapping[str, Run], target: str, folder: Path, options: ExportOptions
) -> tuple[list[Path], list[str]]:
    from evaluator.export import eval_results, model_card

    if target == "eval-results":
        made, warnings = eval_results.files(runs, options)
        identities = [identity_of(name, run) for name, run in runs.items()]
        of = dict(zip(made, identities, strict=True))
        return write_files(folder, made, runs=of, overwrite=options.overwrite), warnings
    return model_card.write(runs, folder, options)


def _track(
    runs: Mapping[str, Run], target: str, folder: Path, options: ExportOptions
) -> tuple[list[Path], list[str]]:
    """The files, and which runs cannot be read, and why; raises where none can."""
    from evaluator.export import tensorboard_runs, trackio_runs, wandb_runs

    project = options.project or PROJECT
    if project != file_name(project):
        raise ConfigError(
            f"--project: expected letters, digits, '.', '_' and '-' (it becomes part of a path), "
            f"got '{plain(project)}'. '{file_name(project)}' would do."
        )
    told, left_out = [], []
    for name, run in runs.items():
        try:
            told.append(tracked(name, run, options))
        except CorruptShardError as error:
            if len(runs) == 1:
                raise
            left_out.append(f"{plain(name)}: cannot be read: {plain(error)}")
    if not told:
        raise EvaluatorError(f"--to {target}: expected a run, got none.\n" + "\n".join(left_out))
    if target == "tensorboard":
        return tensorboard_runs.write(told, folder, overwrite=options.overwrite), left_out
    if target == "wandb":
        return wandb_runs.write(told, folder, project=project), left_out
    written = trackio_runs.write(told, folder, project=project, overwrite=options.overwrite)
    return written, left_out

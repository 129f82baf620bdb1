"""The verbs `push` and `pull`: finished shards to a remote store, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.printing import leave, plain
from evaluator.text import count_of

if TYPE_CHECKING:
    from evaluator.store.mirror import Mirrored

Url = Annotated[str, typer.Argument(help="Where in a store: s3://bucket/folder, gs://….")]


def push(run: Annotated[Path, typer.Argument(help="Run directory.")], url: Url) -> None:
    """Copy a run's committed shards, numbers and report to a store; also while others work.

    The same command copies what was added since. Exit status: 0 the whole run is there, 3 shards
    are still to come, 1 a file is damaged.
    """
    from evaluator.runner.status import asked_tables
    from evaluator.store.mirror import remote_run
    from evaluator.store.push import push_run
    from evaluator.store.quarantine import waiting
    from evaluator.store.rundir import RunDirectory

    _require_lasting(url)
    directory = RunDirectory.open(run)
    done = push_run(directory, remote_run(url), tell=_tell)
    for missing in waiting(directory, asked_tables(directory)):
        _tell(f"not there: {missing.line}; the same `evaluator run` makes it again, then push")
    _print(done, where=url)


def pull(
    url: Url, run: Annotated[Path, typer.Argument(help="Run directory, new or an older copy.")]
) -> None:
    """Copy a run from a store into a run directory, which every other verb takes.

    The same command copies what was added since. Exit status: 0 the whole run is here, 3 shards
    are still to come, 1 a file is damaged.
    """
    from evaluator.store.mirror import remote_run
    from evaluator.store.pull import pull_run

    _require_lasting(url)
    done = pull_run(remote_run(url), run, tell=_tell)
    _print(done, where=str(run))


def _require_lasting(url: str) -> None:
    """Refuse a store in the memory of this process, which ends with the command."""
    from evaluator.errors import InputError

    if url.startswith("memory:"):
        raise InputError(
            f"{url}: expected a store that outlives this command, s3://bucket/folder or"
            " gs://bucket/folder, got the memory of this process, which is gone when it ends"
        )


def _tell(line: str) -> None:
    typer.echo(plain(line), err=True)


def _print(done: Mirrored, *, where: str) -> None:
    typer.echo(
        plain(
            f"{where}: {done.num_shards:,}/{count_of(done.planned_shards, 'shard')};"
            f" {count_of(done.num_files, 'file')}, {done.num_bytes / 1e6:.1f} MB copied"
        )
    )
    for fault in done.faults:
        typer.echo(plain(f"failed: {fault}"), err=True)
    leave(done.exit_status)

"""What a run directory says about itself: how much is there, who works on it, what failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evaluator.aggregate.asked import request_digest
from evaluator.aggregate.stored import stored_summary
from evaluator.aggregate.summary import Summary
from evaluator.store.claims import Claim, Claims, Worker, is_last_try, is_set_aside, last_error
from evaluator.store.quarantine import Missing, waiting
from evaluator.store.rundir import RunDirectory
from evaluator.store.schemas import features_name
from evaluator.text import count_of


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a run at one moment."""

    num_shards: int
    num_samples: int
    committed_shards: int
    committed_samples: int
    working: Mapping[str, Claim]
    """Shard (or table of a shard) → the claim of the worker that makes it now."""
    put_off: tuple[str, ...]
    """What failed so often that it is tried once more, at the end and alone."""
    set_aside: Mapping[str, str]
    """Shard (or table of a shard) → why it was given up."""
    last_errors: tuple[str, ...]
    flaws: Mapping[str, int]
    """Flaw → how many committed images have it: `black`, `non_finite`."""
    damaged: tuple[Missing, ...] = ()
    """What was found damaged, set apart, and is not there again."""
    numbers: Summary | None = None
    """What the last `run` or `aggregate` said of all samples; None before that."""

    @property
    def complete(self) -> bool:
        """Whether every planned sample is committed."""
        return self.committed_shards == self.num_shards

    @property
    def shards_set_aside(self) -> int:
        """Shards that were given up."""
        return sum(task.isdecimal() for task in self.set_aside)

    @property
    def exit_status(self) -> int:
        """0 all there, 1 what is not there failed for good, 3 incomplete: there is work left."""
        lost = {task for missing in self.damaged for task in missing.tasks}
        if self.committed_shards + self.shards_set_aside < self.num_shards or (
            lost - self.set_aside.keys()
        ):
            return 3
        return 1 if self.set_aside or (self.numbers and self.numbers.exit_status) else 0

    def lines(self) -> list[str]:
        """For people."""
        state = "complete" if self.complete else "incomplete"
        text = [
            f"{state}: {self.committed_samples:,}/{count_of(self.num_samples, 'sample')} in "
            f"{self.committed_shards:,}/{count_of(self.num_shards, 'shard')}"
        ]
        if self.numbers and self.numbers.counts.errors:
            text[0] += f", {self.numbers.counts.errors} with an error"
        flaws = [
            f"{count_of(count, 'image')} {said}"
            for name, said in (
                ("black", "entirely black"), ("non_finite", "not finite (NaN, infinity)"),
            )
            if (count := self.flaws.get(name, 0))
        ]  # fmt: skip
        if flaws:
            text.append(f"  {', '.join(flaws)}")
        for task, claim in sorted(self.working.items()):
            worker = claim.worker.name if claim.worker else "somebody"
            text.append(
                f"  {_called(task)}: {claim.done} samples done by {worker}, "
                f"{claim.age:.0f} s ago (attempt {claim.attempt + 1})"
            )
        return text + self.troubles()

    def troubles(self) -> list[str]:
        """What went wrong, for people."""
        text = [f"  {_called(task)}: its last try is kept for the end" for task in self.put_off]
        text += [f"  {_called(task)} set aside: {why}" for task, why in self.set_aside.items()]
        if self.set_aside:
            text.append("  to try again what was set aside: evaluator run … --retry-failed")
        text += [f"  {missing.line}; the same run makes it again" for missing in self.damaged]
        text += [f"  last error: {error}" for error in self.last_errors]
        if self.numbers:
            text += [f"  sample error: {line}" for line in self.numbers.error_lines]
            text += [f"  no number: {m.name}" for m in self.numbers.metrics if m.value is None]
        return text


def _called(task: str) -> str:
    shard, _, table = task.partition("-")
    return f"shard {shard}, {table}" if table else f"shard {shard}"


def is_there(run: RunDirectory) -> Callable[[str], bool]:
    """Whether what a task makes, a shard or a table of one, is there."""
    committed = {f"{index:05d}" for index in run.committed()}

    def there(task: str) -> bool:
        shard, _, table = task.partition("-")
        return shard in committed and (not table or (run.path / "shards" / shard / table).exists())

    return there


def asked_tables(run: RunDirectory) -> set[str] | None:
    """Names of the features' tables that the last start asked for; None where that is unknown."""
    try:
        asked = json.loads((run.path / "asked.json").read_bytes())["fingerprints"]
        return {features_name(name, fingerprint) for name, fingerprint in asked.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _numbers(run: RunDirectory) -> Summary | None:
    """The numbers of all samples, unless others were asked for since."""
    summary = stored_summary(run.path)
    if summary is None or not summary.complete:
        return None
    try:
        asked = dict(json.loads((run.path / "asked.json").read_bytes())["request"])
    except (OSError, ValueError, KeyError, TypeError):
        return summary  # a copy that was pulled; nobody asks anything of it
    return summary if summary.request in (None, request_digest(asked)) else None


def read_status(run: RunDirectory, attempts: Mapping[str, list[Claim]] | None = None) -> Status:
    """Read the state of a run; others may be writing to it.

    `attempts` are those at what is not there, where they were read already.
    """
    if attempts is None:
        claims = Claims(run.claims_folder, Worker.current(), lease_seconds=600)
        attempts = claims.attempts(skip=is_there(run))
    committed = run.committed()
    starts = run.shard_starts
    errors = [
        (c.age, f"{t}: {c.error}") for t, claims in attempts.items() for c in claims if c.error
    ]
    set_aside = {t: last_error(claims) for t, claims in attempts.items() if is_set_aside(claims)}
    working = {t: claims[-1] for t, claims in attempts.items() if claims[-1].live}
    put_off = [t for t, claims in attempts.items() if is_last_try(claims) and t not in working]
    return Status(
        num_shards=run.num_shards,
        num_samples=run.num_samples,
        committed_shards=len(committed),
        committed_samples=sum(starts[i + 1] - starts[i] for i in committed),
        working=working,
        put_off=tuple(sorted(put_off)),
        set_aside=dict(sorted(set_aside.items())),
        last_errors=tuple(message for _, message in sorted(errors)[:3]),
        flaws=run.flaws(),
        damaged=tuple(waiting(run, asked_tables(run))),
        numbers=_numbers(run) if len(committed) == run.num_shards else None,
    )

"""Every error that a user can meet, in one tree.

```
EvaluatorError                what went wrong, then how to mend it; never shown as a traceback
├── ConfigError      (2)      the configuration or the command line is wrong; lists every fault
├── InputError       (2)      prompts, images, packs or references are missing or malformed
├── LaunchError      (2)      the processes that started are not the ones that were asked for
├── RunDirectoryError (2)     the run directory belongs to another evaluation, or is no run at all
│   └── NumbersError          its numbers cannot be had: metrics.json is missing, damaged or newer
├── StorageError     (1)      the file system refused: full, read-only, gone
├── CorruptShardError (1)     a committed file does not match its checksum
│   └── NewerTableError       it is sound, and of a newer evaluator: nothing to make again
├── GenerationError  (1)      the model failed, or drew noise that no seed controls
│   └── SettingsError (2)     the pipeline cannot follow the settings it is called with
├── ProbeError       (2)      a probe cannot observe this model, or not under these settings
│   └── ObservationError (1)  it watched, and what it saw is not whole or not finite
├── MetricError      (1)      a metric cannot be computed from what there is
├── IncompleteError  (3)      samples are missing; others may still be working on them
└── Preempted       (75)      told to stop; nothing committed is lost, run the same command again
SampleError                   one sample's own fault: becomes an error row, never stops a run
└── NonFiniteError            the model gave NaN or infinity: there is no image
```

The number is the exit status of the command line.
"""

from __future__ import annotations

from pathlib import Path


class EvaluatorError(Exception):
    """Base of all errors shown to users; the message says expected, got, and the remedy."""

    exit_status = 1


class ConfigError(EvaluatorError, ValueError):
    """The configuration is wrong. `faults` holds one line for each fault."""

    exit_status = 2

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        self.faults = faults
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]))


class InputError(EvaluatorError, ValueError):
    """Prompts, images, packs or references are missing or malformed."""

    exit_status = 2


class LaunchError(EvaluatorError, RuntimeError):
    """The processes that were started are not the ones that were asked for."""

    exit_status = 2


class RunDirectoryError(EvaluatorError, ValueError):
    """The directory holds another evaluation, or none."""

    exit_status = 2


class NumbersError(RunDirectoryError):
    """metrics.json cannot be had. `reason` says why, without the run's directory."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{folder}/{reason}")


class StorageError(EvaluatorError, OSError):
    """The file system refused a write or a read."""


class CorruptShardError(EvaluatorError, ValueError):
    """A committed file is not what its checksum says. `shard` is the directory it lies in."""

    def __init__(self, message: str, shard: Path | None = None) -> None:
        self.shard = shard
        super().__init__(message)


class NewerTableError(CorruptShardError):
    """A committed file is of a format that this evaluator does not know: a newer one wrote it."""


class GenerationError(EvaluatorError, RuntimeError):
    """The model failed, or used randomness that the sample's seed does not control."""


class SettingsError(GenerationError):
    """The pipeline cannot follow the settings it is called with."""

    exit_status = 2


class ProbeError(EvaluatorError, RuntimeError):
    """A probe cannot observe this model, or not under these settings: as wrong as a wrong option.

    Not a ConfigError, which every process would meet: a probe may refuse in one of them alone.
    """

    exit_status = 2


class ObservationError(ProbeError):
    """A probe watched, and a layer or step left no record, or the numbers are not finite."""

    exit_status = 1


class MetricError(EvaluatorError, ValueError):
    """A metric cannot be computed from the samples at hand."""


class IncompleteError(EvaluatorError):
    """Planned samples are not there yet."""

    exit_status = 3


class Preempted(EvaluatorError):
    """The process was told to stop. Everything committed stays; run the same command again."""

    exit_status = 75


class SampleError(Exception):
    """One input's own fault (an undecodable image, a prompt the model refuses)."""


class NonFiniteError(SampleError):
    """The model gave pixels that are NaN or infinite; `flaw` of the sample says so."""

"""metrics.json as it was written, or why it cannot be read."""

from __future__ import annotations

import json

from evaluator.aggregate.summary import FORMAT, Summary
from evaluator.errors import RunDirectoryError, StorageError
from evaluator.store.rundir import RunDirectory
from evaluator.text import plain

_AGAIN = "`evaluator aggregate RUN` computes the numbers from the tables."


def read_summary(run: RunDirectory) -> Summary:
    """All numbers of a run; RunDirectoryError where they cannot be had, with the reason."""
    path = run.path / "metrics.json"
    try:
        record = json.loads(path.read_bytes())
        found = record.get("format") if isinstance(record, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise RunDirectoryError(
                f"{path}: expected format {FORMAT} or older, got {found}. Use the evaluator that "
                "wrote it."
            )
        return Summary.from_record(record)
    except FileNotFoundError:
        raise RunDirectoryError(f"{path}: expected numbers, got no such file. {_AGAIN}") from None
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RunDirectoryError):
            raise
        raise RunDirectoryError(
            f"{path}: expected numbers, got a file that does not hold them "
            f"({plain(repr(error), limit=120)}). {_AGAIN}"
        ) from error

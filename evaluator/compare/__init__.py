"""Two or more runs on the same prompts: what differs, by how much, and whether it is noise.

```
compared = compare([Path("runs/a"), Path("runs/b")])
compared.comparison.pairings[0].differences
```
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.compare.records import Comparison as Comparison

if TYPE_CHECKING:
    from evaluator.compare.engine import Compared
    from evaluator.compare.pairing import Request


def compare(
    paths: Sequence[Path], request: Request | None = None, say: Callable[[str], None] | None = None
) -> Compared:
    """Compare the runs at `paths` with the first of them; `say` is told what is being done.

    Raises ConfigError or RunDirectoryError where the paths or names are wrong. What cannot be
    compared becomes a refusal of the result.
    """
    from evaluator.compare.engine import compare_runs

    return compare_runs(paths, request, say)
